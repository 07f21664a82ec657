//! The resolver: configured servers or the system's, with a cache, over UDP and then TCP.
//!
//! Mail authentication queries through [`Resolver::authenticator`], everything that connects to a host through
//! [`Resolver::addresses`]; the records of a domain are read with [`Resolver::mail_hosts`] and [`Resolver::texts`].
//! `egress::guard` decides which addresses may be connected to. DNSSEC is in `dnssec`, fallback without EDNS in
//! `edns`, the limit on queries of a policy in `budget`.

pub(crate) mod budget;
mod dnssec;
mod edns;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use hickory_resolver::config::{
    ConnectionConfig, LookupIpStrategy, NameServerConfig, ProtocolConfig, ResolveHosts, ResolverConfig, ResolverOpts,
};
use hickory_resolver::lookup::Lookup;
use hickory_resolver::lookup_ip::LookupIp;
use hickory_resolver::net::{DnsError as AnswerError, NetError};
use hickory_resolver::proto::op::ResponseCode;
use hickory_resolver::proto::rr::{Name, RData, RecordType};
use hickory_resolver::system_conf::read_system_conf;
use mail_auth::MessageAuthenticator;

/// The timeout of one query to one server; the second attempt follows it.
const TIMEOUT: Duration = Duration::from_secs(3);
const ATTEMPTS: usize = 2;
const CACHE_ENTRIES: u64 = 8192;
/// Records, and their absence, are cached no longer than this, whatever their TTL.
const MAX_TTL: Duration = Duration::from_secs(3600);
const MAX_NEGATIVE_TTL: Duration = Duration::from_secs(300);

/// The most CNAMEs followed, as many as the resolver follows.
const MAX_ALIASES: usize = 8;

/// The reasons why a lookup failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DnsError {
    /// The name servers cannot be determined.
    #[error("no name servers: {0} (set [dns] servers)")]
    Setup(String),
    /// The queried text is not a host name.
    #[error("{0:?} is not a host name")]
    BadName(String),
    /// The name does not exist (NXDOMAIN).
    #[error("{0} does not exist")]
    NoSuchName(String),
    /// The name exists but has no record of this kind.
    #[error("{0} has no such record")]
    NoAddress(String),
    /// No server answered, or the answer was an error; a later query may succeed.
    #[error("no answer for {name}: {reason}")]
    NoAnswer {
        /// The queried name.
        name: String,
        /// The resolver's message.
        reason: String,
    },
}

impl DnsError {
    /// Returns true if a later query may succeed.
    pub const fn is_transient(&self) -> bool {
        matches!(self, Self::NoAnswer { .. } | Self::Setup(_))
    }
}

/// The resolver; clones share its cache and its sockets.
#[derive(Clone)]
pub struct Resolver {
    inner: MessageAuthenticator,
    /// The same without EDNS, for servers that do not support it.
    without_edns: MessageAuthenticator,
    edns: Arc<edns::Support>,
    /// The servers, for queries that need DNSSEC.
    servers: Arc<[SocketAddr]>,
    validated: Arc<dnssec::Answers>,
}

/// The fields of a TLSA record: usage, selector, matching, data.
pub(crate) type TlsaFields = (u8, u8, u8, Vec<u8>);

impl Resolver {
    /// Creates a resolver that queries `servers`, or those of `/etc/resolv.conf` if there are none.
    pub fn new(servers: &[SocketAddr]) -> Result<Self, DnsError> {
        Self::with(servers, CACHE_ENTRIES, ResolveHosts::Always)
    }

    /// Creates one without cache and without `/etc/hosts`, to see the current public DNS.
    pub fn uncached(servers: &[SocketAddr]) -> Result<Self, DnsError> {
        Self::with(servers, 0, ResolveHosts::Never)
    }

    fn with(servers: &[SocketAddr], entries: u64, hosts: ResolveHosts) -> Result<Self, DnsError> {
        let setup = |error: NetError| DnsError::Setup(error.to_string());
        let (config, mut options) = if servers.is_empty() {
            read_system_conf().map_err(setup)?
        } else {
            let servers = servers.iter().copied().map(name_server).collect();
            (ResolverConfig::from_parts(None, Vec::new(), servers), ResolverOpts::default())
        };
        options.timeout = TIMEOUT;
        options.attempts = ATTEMPTS;
        options.cache_size = entries;
        options.positive_max_ttl = Some(MAX_TTL);
        options.negative_max_ttl = Some(MAX_NEGATIVE_TTL);
        options.ip_strategy = LookupIpStrategy::Ipv4AndIpv6;
        options.use_hosts_file = hosts;
        options.edns0 = true;
        let asked = config.name_servers().iter().map(|server| {
            let port = server.connections.first().map_or(53, |connection| connection.port);
            SocketAddr::new(server.ip, port)
        });
        let servers = asked.collect();
        let mut plain = options.clone();
        plain.edns0 = false;
        Ok(Self {
            servers,
            without_edns: MessageAuthenticator::new(config.clone(), plain).map_err(setup)?,
            inner: MessageAuthenticator::new(config, options).map_err(setup)?,
            edns: Arc::default(),
            validated: Arc::default(),
        })
    }

    /// Returns the same resolver for mail authentication.
    pub(crate) fn authenticator(&self) -> &MessageAuthenticator {
        if self.edns.is_missing() { &self.without_edns } else { &self.inner }
    }

    /// Finds out if the servers support EDNS, unless that is known: [`Self::authenticator`] does not repeat a refused
    /// query. Queries the root, because any other zone may be slow.
    pub(crate) async fn detect_edns(&self) {
        if self.edns.is_unknown() {
            drop(self.lookup("", RecordType::NS).await);
        }
    }

    async fn lookup(&self, name: &str, kind: RecordType) -> Result<Lookup, DnsError> {
        let asked = absolute(name)?;
        if !self.edns.is_missing() {
            let answer = self.inner.resolver().lookup(asked.clone(), kind).await;
            if !self.edns.is_refused(&answer) {
                return answer.map_err(|error| failure(name, &error));
            }
        }
        let answer = self.without_edns.resolver().lookup(asked, kind).await;
        self.edns.record_without(&answer);
        answer.map_err(|error| failure(name, &error))
    }

    async fn lookup_ip(&self, host: &str) -> Result<LookupIp, DnsError> {
        let asked = absolute(host)?;
        if !self.edns.is_missing() {
            let answer = self.inner.resolver().lookup_ip(asked.clone()).await;
            if !self.edns.is_refused(&answer) {
                return answer.map_err(|error| failure(host, &error));
            }
        }
        let answer = self.without_edns.resolver().lookup_ip(asked).await;
        self.edns.record_without(&answer);
        answer.map_err(|error| failure(host, &error))
    }

    /// Returns all addresses of `host`, from `/etc/hosts` or DNS; never empty. An address literal is returned as it
    /// is.
    pub async fn addresses(&self, host: &str) -> Result<Vec<IpAddr>, DnsError> {
        if let Ok(address) = host.parse() {
            return Ok(vec![address]);
        }
        if host.trim_end_matches('.').is_empty() || host.contains(|c: char| c.is_whitespace() || c.is_control()) {
            return Err(DnsError::BadName(host.to_owned()));
        }
        let found = self.lookup_ip(host).await;
        match found.map(|found| found.iter().collect::<Vec<IpAddr>>()) {
            Ok(addresses) if !addresses.is_empty() => Ok(addresses),
            Ok(_) | Err(DnsError::NoAddress(_)) if self.has_endless_aliases(host).await => {
                Err(DnsError::NoAnswer { name: host.to_owned(), reason: "its aliases have no end".to_owned() })
            }
            Ok(_) => Err(DnsError::NoAddress(host.to_owned())),
            Err(error) => Err(error),
        }
    }

    /// Returns true if the aliases of a name form a loop or an endless chain. For an address query the resolver gives
    /// up after a few, and only says that there is none.
    async fn has_endless_aliases(&self, name: &str) -> bool {
        let read = |data: &RData| match data {
            RData::CNAME(target) => Some(target.to_ascii()),
            _ => None,
        };
        let mut name = name.to_owned();
        for _ in 0..MAX_ALIASES {
            match self.records(&name, RecordType::CNAME, read).await.map(|targets| targets.into_iter().next()) {
                Ok(Some(target)) => name = target,
                Ok(None) | Err(_) => return false,
            }
        }
        true
    }

    /// Returns the MX records of a domain, as preference and host; never empty.
    pub(crate) async fn mail_hosts(&self, domain: &str) -> Result<Vec<(u16, String)>, DnsError> {
        let read = |data: &RData| match data {
            RData::MX(mx) => Some((mx.preference, mx.exchange.to_ascii())),
            _ => None,
        };
        self.records(domain, RecordType::MX, read).await
    }

    /// Returns the TXT records of a name, each with its strings joined (RFC 7208 §3.3), invalid UTF-8 as U+FFFD;
    /// never empty.
    pub(crate) async fn texts(&self, name: &str) -> Result<Vec<String>, DnsError> {
        let read = |data: &RData| match data {
            RData::TXT(txt) => Some(String::from_utf8_lossy(&txt.txt_data.concat()).into_owned()),
            _ => None,
        };
        self.records(name, RecordType::TXT, read).await
    }

    /// Returns the MX records of a domain as [`Resolver::mail_hosts`] does, and true if DNSSEC authenticates them.
    /// Without records, the flag says if their absence is authenticated.
    pub(crate) async fn authentic_mail_hosts(&self, domain: &str) -> Result<(Vec<(u16, String)>, bool), DnsError> {
        let proven = dnssec::query(&self.servers, &self.edns, &self.validated, domain, RecordType::MX).await?;
        let read = |data: &RData| match data {
            RData::MX(mx) => Some((mx.preference, mx.exchange.to_ascii())),
            _ => None,
        };
        Ok((proven.records.iter().filter_map(read).collect(), proven.authentic))
    }

    /// Returns true if DNSSEC authenticates an address of `host`. Its A and AAAA records are in one zone, so either
    /// will do.
    pub(crate) async fn has_authentic_address(&self, host: &str) -> Result<bool, DnsError> {
        for kind in [RecordType::A, RecordType::AAAA] {
            match dnssec::query(&self.servers, &self.edns, &self.validated, host, kind).await {
                Ok(proven) if proven.authentic && !proven.records.is_empty() => return Ok(true),
                Ok(_) | Err(DnsError::NoSuchName(_)) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(false)
    }

    /// Returns the TLSA records of a name; [`DnsError::NoAddress`] when there are no authenticated ones.
    pub(crate) async fn tlsa(&self, name: &str) -> Result<Vec<TlsaFields>, DnsError> {
        let proven = dnssec::query(&self.servers, &self.edns, &self.validated, name, RecordType::TLSA).await?;
        if !proven.authentic || proven.records.is_empty() {
            return Err(DnsError::NoAddress(name.to_owned()));
        }
        let read = |data: &RData| match data {
            RData::TLSA(tlsa) => {
                Some((tlsa.cert_usage.into(), tlsa.selector.into(), tlsa.matching.into(), tlsa.cert_data.clone()))
            }
            _ => None,
        };
        Ok(proven.records.iter().filter_map(read).collect())
    }

    async fn records<T>(
        &self,
        name: &str,
        kind: RecordType,
        read: impl Fn(&RData) -> Option<T>,
    ) -> Result<Vec<T>, DnsError> {
        let found = self.lookup(name, kind).await?;
        let records: Vec<T> = found.answers().iter().filter_map(|record| read(&record.data)).collect();
        if records.is_empty() { Err(DnsError::NoAddress(name.to_owned())) } else { Ok(records) }
    }
}

fn name_server(server: SocketAddr) -> NameServerConfig {
    let connections = [ProtocolConfig::Udp, ProtocolConfig::Tcp].map(|protocol| {
        let mut connection = ConnectionConfig::new(protocol);
        connection.port = server.port();
        connection
    });
    NameServerConfig::new(server.ip(), true, connections.to_vec())
}

/// Makes the name absolute: without a final dot the system's search domains would be tried too.
fn absolute(name: &str) -> Result<Name, DnsError> {
    let absolute = Name::from_utf8(format!("{}.", name.trim_end_matches('.')));
    absolute.map_err(|_| DnsError::BadName(name.to_owned()))
}

fn failure(host: &str, error: &NetError) -> DnsError {
    let host = host.to_owned();
    match error {
        NetError::Dns(AnswerError::NoRecordsFound(none)) if none.response_code == ResponseCode::NXDomain => {
            DnsError::NoSuchName(host)
        }
        NetError::Dns(AnswerError::NoRecordsFound(none)) if none.response_code == ResponseCode::NoError => {
            DnsError::NoAddress(host)
        }
        // Includes an answer that cannot be decoded: the next one may be intact.
        other => DnsError::NoAnswer { name: host, reason: other.to_string() },
    }
}
