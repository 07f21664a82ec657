//! A server whose mail for remote.test goes to one remote host, and which programs hand mail in at.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use mailkite::testing::clock::Clock;

use super::api::Api;
use super::dns::DnsServer;
use super::remote::Remote;
use super::server::Server;
use super::smtp::SmtpClient;

/// The server, its owner, and the host that takes its mail.
pub(crate) struct Post {
    pub server: Server,
    pub remote: Remote,
    pub owner: Api,
    pub dns: DnsServer,
}

impl Post {
    pub(crate) async fn start(clock: Clock, remote: Remote) -> Self {
        let dns = DnsServer::start().await;
        dns.mx("remote.test", 10, "mx.remote.test").address("mx.remote.test", "127.0.0.1");
        let (servers, port) = (vec![dns.address], remote.address.port());
        let server = Server::start_with(clock, |config| {
            config.submission.listen = vec!["127.0.0.1:0".parse().unwrap()];
            config.dns.servers = servers;
            config.outbound.smarthost = None;
            config.outbound.port = port;
            config.outbound.allow_networks = vec!["127.0.0.0/8".parse().unwrap()];
        })
        .await;
        let owner = server.owner().await;
        Self { server, remote, owner, dns }
    }

    /// A session of the owner's at the submission door.
    pub(crate) async fn session(&self) -> SmtpClient {
        let mut client = SmtpClient::connect(self.server.submission[0]).await;
        client.expect("EHLO client.test", 250).await;
        let mut client = client.starttls().await;
        client.expect("EHLO client.test", 250).await;
        let key = self.owner.credential.clone().unwrap();
        client.expect(&format!("AUTH PLAIN {}", BASE64.encode(format!("\0me\0{key}"))), 235).await;
        client
    }

    /// Hands in a message, which is taken.
    pub(crate) async fn hand_in(&self, reverse_path: &str, to: &[&str], mail: impl AsRef<[u8]>) {
        let reply = self.session().await.mail(reverse_path, to, mail).await;
        assert_eq!(reply.code, 250, "{}", reply.text());
    }
}
