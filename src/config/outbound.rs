//! `[outbound]`: sending mail, with relays for all mail or for single sending domains.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use toml::de::DeValue;

use super::read::Section;
use super::value::{ReadResult, boolean, choice, duration, network, number, text};
use crate::mail::address::Domain;

const SECURITIES: &[(&str, SmarthostSecurity)] =
    &[("starttls", SmarthostSecurity::StartTls), ("tls", SmarthostSecurity::Tls), ("none", SmarthostSecurity::None)];

/// `[outbound]`: sending mail.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outbound {
    /// The domain of the envelope senders of forwarded mail; unset: the host name.
    pub forward_domain: Option<String>,
    /// The port of remote mail hosts; anything but 25 is for testing.
    pub port: u16,
    /// Non-public networks that mail may go to.
    pub allow_networks: Vec<IpNet>,
    /// The delays after successive deferrals; the last one repeats.
    pub retry: Vec<Duration>,
    /// The time a deferred recipient is retried before it bounces.
    pub give_up_after: Duration,
    /// The most messages being delivered to one recipient domain at a time.
    pub lane_width: usize,
    /// The most connections to one mail host at a time, whatever domains it serves.
    pub host_width: usize,
    /// The local addresses that mail leaves from; the system chooses for a family that has none.
    pub source_addresses: Vec<IpAddr>,
    /// Enables sending over IPv6.
    pub ipv6: bool,
    /// The most messages a minute to one recipient domain; 0: no limit.
    pub domain_rate_per_minute: u32,
    /// Enables MTA-STS (RFC 8461).
    pub mta_sts: bool,
    /// Enables DANE where the DNS servers report validated TLSA records (RFC 7672).
    pub dane: bool,
    /// The relay that takes all mail; unset: mail goes to the recipients' hosts.
    pub smarthost: Option<Arc<Smarthost>>,
    /// Relays for the mail of single sending domains, by A-label.
    pub domain_smarthosts: BTreeMap<String, Arc<Smarthost>>,
}

impl Outbound {
    /// Returns the most messages being delivered to one recipient domain at a time: no more than the rate admits
    /// within five minutes, because messages that wait for the rate limit occupy their slots.
    pub(crate) fn paced_lane_width(&self) -> usize {
        match usize::try_from(self.domain_rate_per_minute) {
            Ok(0) | Err(_) => self.lane_width,
            Ok(a_minute) => self.lane_width.min(a_minute.saturating_mul(5)),
        }
    }

    /// Returns the relay for mail of a sending domain.
    pub(crate) fn smarthost_of(&self, domain: &str) -> Option<&Arc<Smarthost>> {
        self.domain_smarthosts.get(domain).or(self.smarthost.as_ref())
    }
}

/// `[outbound.smarthost]`: a relay for all destinations.
#[derive(Clone, PartialEq, Eq)]
pub struct Smarthost {
    /// The host name or address.
    pub host: String,
    /// The TCP port.
    pub port: u16,
    /// The security of the connection.
    pub security: SmarthostSecurity,
    /// The user name for AUTH; unset: no AUTH.
    pub username: Option<String>,
    /// The password for AUTH; set if and only if `username` is.
    pub password: Option<String>,
    /// Falls back to the recipients' hosts while the relay cannot be reached.
    pub fallback: bool,
}

impl fmt::Debug for Smarthost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let secret = self.password.as_ref().map(|_| "(secret)");
        f.debug_struct("Smarthost")
            .field("host", &self.host)
            .field("port", &self.port)
            .field("security", &self.security)
            .field("username", &self.username)
            .field("password", &secret)
            .field("fallback", &self.fallback)
            .finish()
    }
}

/// The security of the connection to a smarthost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SmarthostSecurity {
    /// STARTTLS with a verified certificate.
    #[default]
    StartTls,
    /// TLS from the first octet with a verified certificate.
    Tls,
    /// Plain text, for a relay on this machine or in a private network.
    None,
}

impl Default for Outbound {
    fn default() -> Self {
        const MINUTE: u64 = 60;
        const HOUR: u64 = 60 * MINUTE;
        let waits = [MINUTE, 5 * MINUTE, 15 * MINUTE, 30 * MINUTE, HOUR, 2 * HOUR, 4 * HOUR];
        Self {
            forward_domain: None,
            port: 25,
            allow_networks: Vec::new(),
            retry: waits.map(Duration::from_secs).to_vec(),
            give_up_after: Duration::from_secs(72 * HOUR),
            lane_width: 4,
            host_width: 20,
            source_addresses: Vec::new(),
            ipv6: true,
            domain_rate_per_minute: 0,
            mta_sts: true,
            dane: true,
            smarthost: None,
            domain_smarthosts: BTreeMap::new(),
        }
    }
}

/// Reads the section and its subsections.
pub(super) fn read(section: &Section<'_, '_>) -> Outbound {
    let default = Outbound::default();
    let domains = section.section("domain_smarthosts");
    let mut domain_smarthosts = BTreeMap::new();
    for name in domains.names() {
        let below = domains.section(&name);
        let relay = smarthost(&below);
        match Domain::parse(&name) {
            Ok(domain) => match relay {
                Some(relay) => drop(domain_smarthosts.insert(domain.as_str().to_owned(), relay)),
                None => below.problem("host is missing; write the relay's name: host = \"smtp.example.com\""),
            },
            Err(_) => below.problem(format!(
                "{name:?} is not a domain; write one in quotes: [outbound.domain_smarthosts.\"acme.dev\"]"
            )),
        }
    }
    let waits = section.list("retry", default.retry.clone(), duration);
    Outbound {
        forward_domain: section.optional("forward_domain", domain),
        port: section.value("port", default.port, number(1..=65_535, "")),
        allow_networks: section.list("allow_networks", default.allow_networks, network),
        retry: if waits.is_empty() { default.retry } else { waits },
        give_up_after: section.value("give_up_after", default.give_up_after, duration),
        lane_width: section.value("lane_width", default.lane_width, number(1..=1000, "messages")),
        host_width: section.value("host_width", default.host_width, number(1..=1000, "connections")),
        source_addresses: section.list("source_addresses", default.source_addresses, source_address),
        ipv6: section.value("ipv6", default.ipv6, boolean),
        domain_rate_per_minute: section.value(
            "domain_rate_per_minute",
            default.domain_rate_per_minute,
            number(0..=1_000_000, "messages a minute"),
        ),
        mta_sts: section.value("mta_sts", default.mta_sts, boolean),
        dane: section.value("dane", default.dane, boolean),
        smarthost: smarthost(&section.section("smarthost")),
        domain_smarthosts,
    }
}

/// Reads a relay; `None` when the section names no host.
fn smarthost(section: &Section<'_, '_>) -> Option<Arc<Smarthost>> {
    let host = section.optional("host", host);
    let security = section.value("security", SmarthostSecurity::default(), choice(SECURITIES));
    let usual = if security == SmarthostSecurity::Tls { 465 } else { 587 };
    let port = section.value("port", usual, number(1..=65_535, ""));
    let username = section.optional("username", text);
    let password = section.optional("password", text);
    let fallback = section.value("fallback", false, boolean);
    if username.is_some() != password.is_some() {
        section.problem("username and password go together");
    }
    let host = host?;
    let is_private_host = host.parse::<IpAddr>().is_ok_and(is_private) || host == "localhost";
    if password.is_some() && security == SmarthostSecurity::None && !is_private_host {
        section
            .problem("with security = \"none\" the password would be sent in the clear; use \"starttls\" or \"tls\"");
    }
    Some(Arc::new(Smarthost { host, port, security, username, password, fallback }))
}

/// Reads a domain name as an A-label.
fn domain(value: &DeValue<'_>) -> ReadResult<String> {
    let text = text(value)?;
    Domain::parse(&text)
        .map(|name| name.as_str().to_owned())
        .map_err(|_| format!("{text:?} is not a domain; write one such as \"fwd.example.net\""))
}

/// Reads a source address of outgoing connections.
fn source_address(value: &DeValue<'_>) -> ReadResult<IpAddr> {
    let text = text(value)?;
    let read = text.parse::<IpAddr>().ok().map(|ip| ip.to_canonical());
    read.filter(|ip| !ip.is_unspecified() && !ip.is_multicast()).ok_or_else(|| {
        format!("{text:?} is not an address of this machine; write one such as \"192.0.2.1\" or \"2001:db8::1\"")
    })
}

/// Reads a host name or an IP address.
fn host(value: &DeValue<'_>) -> ReadResult<String> {
    let text = text(value)?;
    if let Ok(address) = text.trim_matches(['[', ']']).parse::<IpAddr>() {
        return Ok(address.to_string());
    }
    Domain::parse(&text)
        .map(|name| name.as_str().to_owned())
        .map_err(|_| format!("{text:?} is not a host name; write one such as \"smtp.example.com\", without port"))
}

/// Returns true for an address on this machine or in a private network.
fn is_private(ip: IpAddr) -> bool {
    match ip.to_canonical() {
        IpAddr::V4(ip) => ip.is_loopback() || ip.is_private() || ip.is_link_local(),
        IpAddr::V6(ip) => ip.is_loopback() || ip.is_unique_local() || ip.is_unicast_link_local(),
    }
}
