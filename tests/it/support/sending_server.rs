//! A server with submission whose mail for remote.test goes to one remote host.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use mailkite::testing::clock::Clock;
use mailkite::testing::config::Config;

use super::api::Api;
use super::dns::DnsServer;
use super::outbound::deliver_to_loopback;
use super::remote_host::RemoteHost;
use super::server::Server;
use super::smtp::SmtpClient;

/// The server, its owner, and the host that receives its mail.
pub(crate) struct SendingServer {
    pub server: Server,
    pub remote: RemoteHost,
    pub owner: Api,
    pub dns: DnsServer,
}

impl SendingServer {
    pub(crate) async fn start(clock: Clock, remote: RemoteHost) -> Self {
        Self::start_with(clock, remote, |_| {}).await
    }

    /// The same, whose configuration `adjust` has changed.
    pub(crate) async fn start_with(clock: Clock, remote: RemoteHost, adjust: impl FnOnce(&mut Config)) -> Self {
        let dns = DnsServer::start().await;
        dns.mx("remote.test", 10, "mx.remote.test").address("mx.remote.test", "127.0.0.1");
        let port = remote.address.port();
        let server = Server::start_with(clock, |config| {
            config.submission.listen = vec!["127.0.0.1:0".parse().unwrap()];
            deliver_to_loopback(config, &dns, port);
            adjust(config);
        })
        .await;
        let owner = server.owner().await;
        Self { server, remote, owner, dns }
    }

    /// Opens a submission session of the owner.
    pub(crate) async fn submission_session(&self) -> SmtpClient {
        let mut client = SmtpClient::connect(self.server.submission[0]).await;
        client.expect("EHLO client.test", 250).await;
        let mut client = client.starttls().await;
        client.expect("EHLO client.test", 250).await;
        let key = self.owner.credential.clone().unwrap();
        client.expect(&format!("AUTH PLAIN {}", BASE64.encode(format!("\0me\0{key}"))), 235).await;
        client
    }

    /// Submits a message, which is accepted.
    pub(crate) async fn submit(&self, reverse_path: &str, to: &[&str], mail: impl AsRef<[u8]>) {
        let reply = self.submission_session().await.mail(reverse_path, to, mail).await;
        assert_eq!(reply.code, 250, "{}", reply.text());
    }
}
