//! `[outbound]`: how mail is sent, with relays for all of it or for single sending domains.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use toml::de::DeValue;

use super::read::{Reading, Section};
use super::value::{choice, duration, network, number, text, truth};
use crate::mail::address::Domain;

const SECURITIES: &[(&str, SmarthostSecurity)] =
    &[("starttls", SmarthostSecurity::StartTls), ("tls", SmarthostSecurity::Tls), ("none", SmarthostSecurity::None)];

/// `[outbound]`: mail that is sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outbound {
    /// The domain of the envelope senders of forwarded mail; unset: the host name.
    pub forward_domain: Option<String>,
    /// The port of remote mail hosts; another than 25 is for trying things out.
    pub port: u16,
    /// Networks that mail may go to although they are not public.
    pub allow_networks: Vec<IpNet>,
    /// The waits after successive deferrals; the last is repeated.
    pub retry: Vec<Duration>,
    /// How long a deferred recipient is tried before it bounces.
    pub give_up_after: Duration,
    /// The most messages on their way to one recipient domain at a time.
    pub lane_width: usize,
    /// The most connections to one mail host at a time, whatever domains it serves.
    pub host_width: usize,
    /// The addresses of this machine that mail leaves from; none of a family: the system chooses.
    pub source_addresses: Vec<IpAddr>,
    /// Whether mail is sent over IPv6 as well.
    pub ipv6: bool,
    /// The most messages a minute to one recipient domain; 0: any number.
    pub domain_rate_per_minute: u32,
    /// Whether MTA-STS policies are looked up and kept (RFC 8461).
    pub mta_sts: bool,
    /// Whether TLSA records are obeyed when the DNS servers say that they validated them (RFC 7672).
    pub dane: bool,
    /// The relay that takes all mail; unset: mail goes to the hosts of its recipients.
    pub smarthost: Option<Arc<Smarthost>>,
    /// Relays for the mail of single sending domains, by A-label.
    pub domain_smarthosts: BTreeMap<String, Arc<Smarthost>>,
}

impl Outbound {
    /// How many messages are on their way to one recipient domain at a time: no more than have their turn within five
    /// minutes, because those that wait for it hold their places.
    pub(crate) fn paced_lane_width(&self) -> usize {
        match usize::try_from(self.domain_rate_per_minute) {
            Ok(0) | Err(_) => self.lane_width,
            Ok(a_minute) => self.lane_width.min(a_minute.saturating_mul(5)),
        }
    }

    /// The relay for mail of a sending domain.
    pub(crate) fn smarthost_of(&self, domain: &str) -> Option<&Arc<Smarthost>> {
        self.domain_smarthosts.get(domain).or(self.smarthost.as_ref())
    }
}

/// `[outbound.smarthost]`: a relay that takes mail for everywhere.
#[derive(Clone, PartialEq, Eq)]
pub struct Smarthost {
    /// Host name or address.
    pub host: String,
    /// Port.
    pub port: u16,
    /// How the connection is secured.
    pub security: SmarthostSecurity,
    /// User name for AUTH; unset: none is asked.
    pub username: Option<String>,
    /// Password for AUTH; set if and only if `username` is.
    pub password: Option<String>,
    /// Whether mail goes to the hosts of its recipients while the relay cannot be reached.
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

/// How the connection to a smarthost is secured.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SmarthostSecurity {
    /// STARTTLS, and the certificate is verified.
    #[default]
    StartTls,
    /// TLS from the first octet, and the certificate is verified.
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

/// Reads the section and those below it.
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
                "{name:?} is no domain; write one in quotes: [outbound.domain_smarthosts.\"acme.dev\"]"
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
        ipv6: section.value("ipv6", default.ipv6, truth),
        domain_rate_per_minute: section.value(
            "domain_rate_per_minute",
            default.domain_rate_per_minute,
            number(0..=1_000_000, "messages a minute"),
        ),
        mta_sts: section.value("mta_sts", default.mta_sts, truth),
        dane: section.value("dane", default.dane, truth),
        smarthost: smarthost(&section.section("smarthost")),
        domain_smarthosts,
    }
}

/// The relay of a section; none when it names no host.
fn smarthost(section: &Section<'_, '_>) -> Option<Arc<Smarthost>> {
    let host = section.optional("host", host);
    let security = section.value("security", SmarthostSecurity::default(), choice(SECURITIES));
    let usual = if security == SmarthostSecurity::Tls { 465 } else { 587 };
    let port = section.value("port", usual, number(1..=65_535, ""));
    let username = section.optional("username", text);
    let password = section.optional("password", text);
    let fallback = section.value("fallback", false, truth);
    if username.is_some() != password.is_some() {
        section.problem("username and password go together");
    }
    let host = host?;
    let near = host.parse::<IpAddr>().is_ok_and(is_near) || host == "localhost";
    if password.is_some() && security == SmarthostSecurity::None && !near {
        section
            .problem("with security = \"none\" the password would be sent in the clear; use \"starttls\" or \"tls\"");
    }
    Some(Arc::new(Smarthost { host, port, security, username, password, fallback }))
}

/// A domain name, as A-label.
fn domain(value: &DeValue<'_>) -> Reading<String> {
    let text = text(value)?;
    Domain::parse(&text)
        .map(|name| name.as_str().to_owned())
        .map_err(|_| format!("{text:?} is no domain; write one such as \"fwd.example.net\""))
}

/// An address that connections may come from.
fn source_address(value: &DeValue<'_>) -> Reading<IpAddr> {
    let text = text(value)?;
    let read = text.parse::<IpAddr>().ok().map(|ip| ip.to_canonical());
    read.filter(|ip| !ip.is_unspecified() && !ip.is_multicast()).ok_or_else(|| {
        format!("{text:?} is no address of this machine; write one such as \"192.0.2.1\" or \"2001:db8::1\"")
    })
}

/// A host name or an IP address.
fn host(value: &DeValue<'_>) -> Reading<String> {
    let text = text(value)?;
    if let Ok(address) = text.trim_matches(['[', ']']).parse::<IpAddr>() {
        return Ok(address.to_string());
    }
    Domain::parse(&text)
        .map(|name| name.as_str().to_owned())
        .map_err(|_| format!("{text:?} is no host name; write one such as \"smtp.example.com\", without port"))
}

/// Whether an address is on this machine or in a private network.
fn is_near(ip: IpAddr) -> bool {
    match ip.to_canonical() {
        IpAddr::V4(ip) => ip.is_loopback() || ip.is_private() || ip.is_link_local(),
        IpAddr::V6(ip) => ip.is_loopback() || ip.is_unique_local() || ip.is_unicast_link_local(),
    }
}
