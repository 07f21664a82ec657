//! The mail hosts of a domain (RFC 5321 §5.1): MX records by preference, else the domain itself; each with its
//! permitted addresses and its TLS rule.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use futures_util::future::join_all;

use super::dane::Tlsa;
use super::mta_sts::{MtaSts, PolicyLookup};
use crate::clock::Timestamp;
use crate::config::{Outbound, Smarthost, SmarthostSecurity};
use crate::id::fill_random;
use crate::mail::address::Domain;
use crate::mail::status_code::EnhancedStatusCode;
use crate::net::dns::{DnsError, Resolver};
use crate::net::egress::Guard;
use crate::outbound::{Host, TlsRule, Unroutable};

/// Limit of hosts tried for one delivery request.
const MAX_HOSTS: usize = 20;
/// Limit of addresses tried of one host.
const MAX_ADDRESSES: usize = 8;
/// Limit of addresses tried for one delivery request.
const MAX_ADDRESSES_IN_ALL: usize = 40;

const ONLY_IPV6: &str = "IPv6 addresses alone, and [outbound] ipv6 is off";
const LEADS_BACK: &str = "the mail hosts of this domain lead back here, but it is not received here";

/// Finds hosts.
#[derive(Clone)]
pub struct MxResolver {
    shared: Arc<Shared>,
}

struct Shared {
    resolver: Arc<Resolver>,
    guard: Guard,
    hostname: String,
    port: u16,
    sts: Option<MtaSts>,
    dane: bool,
    ipv6: bool,
    source_addresses: Vec<IpAddr>,
    width: usize,
    relay_width: usize,
}

/// The names to try with their preferences, and whether DNSSEC authenticated them.
struct Names {
    names: Vec<(u16, String)>,
    authentic: bool,
}

impl MxResolver {
    /// Finds hosts with `resolver` and keeps the addresses that `guard` permits; `hostname` is our own name.
    pub fn new(
        config: &Outbound,
        hostname: &str,
        resolver: Arc<Resolver>,
        guard: Guard,
        sts: Option<MtaSts>,
    ) -> Self {
        let shared = Shared {
            resolver,
            guard,
            hostname: hostname.to_ascii_lowercase(),
            port: config.port,
            sts,
            dane: config.dane,
            ipv6: config.ipv6,
            source_addresses: config.source_addresses.clone(),
            width: config.host_width,
            // A relay has a lane of its own, with the width that the operator configured.
            relay_width: config.host_width.max(config.lane_width),
        };
        Self { shared: Arc::new(shared) }
    }

    /// Returns the guard that decides which addresses mail may go to.
    pub(crate) fn guard(&self) -> &Guard {
        &self.shared.guard
    }

    /// Returns the connection limit for the hosts of a domain.
    pub(crate) fn width(&self) -> usize {
        self.shared.width
    }

    /// Returns the connection limit for a relay.
    pub(crate) fn relay_width(&self) -> usize {
        self.shared.relay_width
    }

    /// Returns the local address for connections to a host; `None` lets the system choose. If several are configured,
    /// a host always sees the same one.
    pub(crate) fn source(&self, host: &str, address: SocketAddr) -> Option<IpAddr> {
        let same_family = self.shared.source_addresses.iter().filter(|ip| ip.is_ipv6() == address.is_ipv6());
        let sources: Vec<&IpAddr> = same_family.collect();
        let mut octets = host.bytes();
        let sum = octets.by_ref().fold(0_usize, |sum, octet| sum.wrapping_mul(31).wrapping_add(usize::from(octet)));
        sources.get(sum.checked_rem(sources.len())?).map(|ip| **ip)
    }

    /// Returns the hosts of a domain, in the order to try them; never empty.
    ///
    /// # Errors
    /// There is no host, for now or permanently.
    pub async fn resolve(&self, domain: &Domain, now: Timestamp) -> Result<Vec<Host>, Unroutable> {
        let name = domain.as_str();
        if name.starts_with('[') {
            return Err(unroutable(EnhancedStatusCode::BAD_SYSTEM, "mail is not sent to address literals"));
        }
        let names = self.names(name).await?;
        let policy = match &self.shared.sts {
            Some(sts) => sts.lookup(name, now).await,
            None => PolicyLookup::None,
        };
        let mut failure = None;
        let allowed: Vec<&(u16, String)> = match &policy {
            PolicyLookup::Enforced(policy) => names.names.iter().filter(|(_, host)| policy.covers(host)).collect(),
            PolicyLookup::None => names.names.iter().collect(),
        };
        if allowed.len() < names.names.len() {
            failure = Some(unroutable(
                EnhancedStatusCode::TRANSIENT_CRYPTOGRAPHIC_FAILURE,
                format!("the MTA-STS policy of {name} does not allow its mail hosts"),
            ));
        }
        let enforced = matches!(policy, PolicyLookup::Enforced(_));
        // Concurrent, so that the timeouts of twenty names do not add up.
        let found = allowed.into_iter().take(MAX_HOSTS);
        let found = found.map(|(preference, host)| self.host(host, *preference, names.authentic, enforced));
        let mut hosts = Vec::new();
        let mut room = MAX_ADDRESSES_IN_ALL;
        for host in join_all(found).await {
            match host {
                Ok(mut host) => {
                    host.addresses.truncate(room);
                    room = room.saturating_sub(host.addresses.len());
                    hosts.push(host);
                }
                Err(unroutable) => failure = Some(prefer_transient(failure, unroutable)),
            }
        }
        hosts.retain(|host| !host.addresses.is_empty());
        if hosts.is_empty() {
            Err(failure.unwrap_or_else(|| unroutable(EnhancedStatusCode::TRANSIENT_ROUTING, "no mail host")))
        } else {
            Ok(hosts)
        }
    }

    /// Returns the addresses of the configured relay; every address is permitted.
    ///
    /// # Errors
    /// Its name has no address at the moment.
    pub async fn resolve_smarthost(&self, smarthost: &Smarthost) -> Result<Vec<Host>, Unroutable> {
        let found = self.shared.resolver.addresses(&smarthost.host).await;
        let addresses = found.map_err(|error| {
            unroutable(EnhancedStatusCode::DIRECTORY_FAILURE, format!("the smarthost {}: {error}", smarthost.host))
        })?;
        let tls = match smarthost.security {
            SmarthostSecurity::None => TlsRule::Never,
            SmarthostSecurity::StartTls | SmarthostSecurity::Tls => TlsRule::Verified { by: "verified" },
        };
        let addresses: Vec<SocketAddr> = interleave(self.of_family(addresses))
            .into_iter()
            .map(|ip| SocketAddr::new(ip, smarthost.port))
            .take(MAX_ADDRESSES)
            .collect();
        if addresses.is_empty() {
            return Err(unroutable(
                EnhancedStatusCode::TRANSIENT_ROUTING,
                format!("the smarthost {} has {ONLY_IPV6}", smarthost.host),
            ));
        }
        Ok(vec![Host { name: smarthost.host.clone(), preference: 0, addresses, tls }])
    }

    /// Returns the names of a domain's mail hosts: equal preferences in random order, none that would lead back here.
    async fn names(&self, domain: &str) -> Result<Names, Unroutable> {
        let (hosts, authentic) = self.mail_hosts(domain).await?;
        if hosts.is_empty() {
            if domain == self.shared.hostname {
                return Err(unroutable(EnhancedStatusCode::ROUTING_LOOP, LEADS_BACK));
            }
            // RFC 5321 §5.1: without MX records the domain is its own host.
            return Ok(Names { names: vec![(0, domain.to_owned())], authentic });
        }
        let name = |host: &str| host.trim_end_matches('.').to_ascii_lowercase();
        if hosts.iter().all(|(_, host)| name(host).is_empty()) {
            // RFC 7505 §3
            return Err(unroutable(
                EnhancedStatusCode::NULL_MX,
                format!("the domain {domain} takes no mail (null MX)"),
            ));
        }
        let named = hosts.iter().map(|(preference, host)| (*preference, chance(), name(host)));
        let mut keyed: Vec<(u16, u32, String)> = named.filter(|(_, _, host)| !host.is_empty()).collect();
        keyed.sort();
        // RFC 5321 §5.1: this server is one of the hosts, so only more preferred ones may be used.
        if let Some(own) = keyed.iter().find(|(_, _, host)| *host == self.shared.hostname).map(|(own, _, _)| *own) {
            keyed.retain(|(preference, _, _)| *preference < own);
            if keyed.is_empty() {
                return Err(unroutable(EnhancedStatusCode::ROUTING_LOOP, LEADS_BACK));
            }
        }
        let names = keyed.into_iter().map(|(preference, _, host)| (preference, host)).collect();
        Ok(Names { names, authentic })
    }

    /// Looks up the MX records of a domain, none if it has none, and whether DNSSEC authenticates the answer.
    async fn mail_hosts(&self, domain: &str) -> Result<(Vec<(u16, String)>, bool), Unroutable> {
        let found = if self.shared.dane {
            self.shared.resolver.authentic_mail_hosts(domain).await
        } else {
            self.shared.resolver.mail_hosts(domain).await.map(|hosts| (hosts, false))
        };
        match found {
            Ok(found) => Ok(found),
            Err(DnsError::NoAddress(_)) => Ok((Vec::new(), false)),
            Err(DnsError::NoSuchName(_)) => {
                Err(unroutable(EnhancedStatusCode::BAD_SYSTEM, format!("the domain {domain} does not exist")))
            }
            Err(DnsError::BadName(_)) => {
                Err(unroutable(EnhancedStatusCode::BAD_SYSTEM, format!("{domain} is no domain name")))
            }
            Err(error @ (DnsError::NoAnswer { .. } | DnsError::Setup(_))) => {
                Err(unroutable(EnhancedStatusCode::DIRECTORY_FAILURE, error.to_string()))
            }
        }
    }

    /// Keeps the addresses of the families that mail may be sent over.
    fn of_family(&self, mut addresses: Vec<IpAddr>) -> Vec<IpAddr> {
        addresses.retain(|ip| self.shared.ipv6 || ip.is_ipv4());
        addresses
    }

    async fn host(&self, name: &str, preference: u16, authentic: bool, enforced: bool) -> Result<Host, Unroutable> {
        // RFC 5321 §5.1: an MX record gives a domain name, and an IP address is not valid there.
        if name.parse::<IpAddr>().is_ok() {
            return Err(unroutable(
                EnhancedStatusCode::PERMANENT_ROUTING,
                format!("the mail host {name} is an address, not a name"),
            ));
        }
        let found = match self.shared.resolver.addresses(name).await {
            Ok(found) => found,
            Err(DnsError::NoSuchName(_) | DnsError::NoAddress(_) | DnsError::BadName(_)) => {
                return Err(unroutable(
                    EnhancedStatusCode::PERMANENT_ROUTING,
                    format!("the mail host {name} has no address"),
                ));
            }
            Err(error @ (DnsError::NoAnswer { .. } | DnsError::Setup(_))) => {
                return Err(unroutable(EnhancedStatusCode::DIRECTORY_FAILURE, error.to_string()));
            }
        };
        let found = self.of_family(found);
        if found.is_empty() {
            return Err(unroutable(
                EnhancedStatusCode::TRANSIENT_ROUTING,
                format!("the mail host {name} has {ONLY_IPV6}"),
            ));
        }
        let on_port = |ip| SocketAddr::new(ip, self.shared.port);
        let permitted = found.into_iter().filter(|ip| self.shared.guard.permits(name, on_port(*ip)).is_ok());
        let addresses: Vec<SocketAddr> =
            interleave(permitted.collect()).into_iter().map(on_port).take(MAX_ADDRESSES).collect();
        if addresses.is_empty() {
            return Err(unroutable(
                EnhancedStatusCode::PERMANENT_ROUTING,
                format!("the mail host {name} has no public address"),
            ));
        }
        let tls = match self.dane(name, authentic).await? {
            // Unusable TLSA records require less than the MTA-STS policy does.
            Some(records) if !(records.is_empty() && enforced) => TlsRule::Dane(records),
            _ if enforced => TlsRule::Verified { by: "MTA-STS" },
            _ => TlsRule::Opportunistic,
        };
        Ok(Host { name: name.to_owned(), preference, addresses, tls })
    }

    /// Looks up the TLSA records of a host whose name DNSSEC authenticated; `None` when there are no authenticated
    /// ones.
    async fn dane(&self, name: &str, authentic: bool) -> Result<Option<Arc<[Tlsa]>>, Unroutable> {
        if !self.shared.dane || !authentic {
            return Ok(None);
        }
        let hidden = |error: DnsError| {
            unroutable(
                EnhancedStatusCode::TRANSIENT_CRYPTOGRAPHIC_FAILURE,
                format!("the TLSA records of {name}: {error}"),
            )
        };
        // RFC 7672 §2.2.2: without an authenticated address, TLSA records are not queried, since unsigned zones often
        // fail such queries.
        if !self.shared.resolver.has_authentic_address(name).await.map_err(hidden)? {
            return Ok(None);
        }
        match self.shared.resolver.tlsa(&format!("_{}._tcp.{name}", self.shared.port)).await {
            Ok(records) => {
                let read = |(usage, selector, matching, data)| Tlsa { usage, selector, matching, data };
                Ok(Some(records.into_iter().map(read).filter(Tlsa::is_usable).collect()))
            }
            Err(DnsError::NoSuchName(_) | DnsError::NoAddress(_)) => Ok(None),
            // RFC 7672 §2.1.2: an attacker may be suppressing the records.
            Err(error) => Err(hidden(error)),
        }
    }
}

/// Alternates IPv6 and IPv4, IPv6 first (RFC 8305 §4).
fn interleave(addresses: Vec<IpAddr>) -> Vec<IpAddr> {
    let (six, four): (Vec<IpAddr>, Vec<IpAddr>) = addresses.into_iter().partition(IpAddr::is_ipv6);
    let mut mixed = Vec::with_capacity(six.len() + four.len());
    let (mut six, mut four) = (six.into_iter(), four.into_iter());
    loop {
        let pair = [six.next(), four.next()];
        if pair == [None, None] {
            return mixed;
        }
        mixed.extend(pair.into_iter().flatten());
    }
}

/// Prefers a transient failure to a permanent one: one host that may recover is reason enough to retry.
fn prefer_transient(known: Option<Unroutable>, new: Unroutable) -> Unroutable {
    match known {
        Some(known) if !known.status.is_permanent() => known,
        _ => new,
    }
}

fn chance() -> u32 {
    let mut octets = [0; 4];
    fill_random(&mut octets);
    u32::from_le_bytes(octets)
}

fn unroutable(status: EnhancedStatusCode, text: impl Into<String>) -> Unroutable {
    Unroutable { status, text: text.into() }
}
