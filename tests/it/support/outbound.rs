//! A server whose mail leaves for scripted hosts on loopback.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use mailkite::testing::clock::Clock;
use mailkite::testing::config::Config;
use serde_json::json;

use super::api::Api;
use super::dns::DnsServer;
use super::remote_host::{HostAction, HostConfig, RemoteHost};
use super::server::Server;

/// Jobs without a lease.
pub(crate) const WAITING: &str = "SELECT count(*) FROM job WHERE lease_until IS NULL";
/// Recipients whose host accepted the mail.
pub(crate) const SENT: &str = "SELECT count(*) FROM recipient WHERE status = 'sent'";

/// Starts a host that replies `reply` at `stage` as long as it is busy.
pub(crate) async fn busy(
    address: SocketAddr,
    stage: &'static str,
    reply: &'static str,
) -> (RemoteHost, Arc<AtomicBool>) {
    let is_busy = Arc::new(AtomicBool::new(true));
    let asked = Arc::clone(&is_busy);
    let script = move |command: &str, _: usize| {
        (command.starts_with(stage) && asked.load(Ordering::SeqCst))
            .then(|| HostAction::SendAndClose(format!("{reply}\r\n")))
    };
    (RemoteHost::at(address, HostConfig { script: Arc::new(script), ..HostConfig::default() }).await, is_busy)
}

pub(crate) fn any_port(ip: [u8; 4]) -> SocketAddr {
    SocketAddr::from((ip, 0))
}

/// Configures delivery to scripted hosts on loopback: `dns` names them, and all listen on `port`.
pub(crate) fn deliver_to_loopback(config: &mut Config, dns: &DnsServer, port: u16) {
    config.dns.servers = vec![dns.address];
    config.outbound.smarthost = None;
    config.outbound.port = port;
    config.outbound.allow_networks = vec!["127.0.0.0/8".parse().unwrap()];
}

/// Starts a server whose mail leaves for loopback, without MTA-STS and DANE.
pub(crate) async fn sending(clock: Clock, dns: &DnsServer, port: u16, adjust: impl FnOnce(&mut Config)) -> Server {
    Server::start_with(clock, |config| {
        deliver_to_loopback(config, dns, port);
        config.outbound.mta_sts = false;
        config.outbound.dane = false;
        adjust(config);
    })
    .await
}

/// Sends a message, and returns its id.
pub(crate) async fn send(api: &Api, to: &str) -> String {
    let body = json!({"from": "hi@inbox.test", "to": to, "subject": "Hi", "text": "It waits."});
    api.post("/v1/send", body).await.expect(202)["id"].as_str().unwrap().to_owned()
}
