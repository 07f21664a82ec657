//! The one resolver: configured servers or the system's, with a cache, over UDP and then TCP.
//!
//! Mail authentication asks through [`Resolver::authenticator`], everything that connects to a host through
//! [`Resolver::addresses`]; the records of a domain are read with [`Resolver::mail_hosts`] and [`Resolver::texts`]. What
//! may be connected to is not decided here.

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

/// One question to one server; the second attempt goes out after it.
const TIMEOUT: Duration = Duration::from_secs(3);
const ATTEMPTS: usize = 2;
const CACHE_ENTRIES: u64 = 8192;
/// A record is not believed for longer, whatever it says; nor is its absence.
const MAX_TTL: Duration = Duration::from_secs(3600);
const MAX_NEGATIVE_TTL: Duration = Duration::from_secs(300);

/// Aliases of aliases that are followed, as many as the resolver follows.
const MAX_ALIASES: usize = 8;

/// Why a name gave no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DnsError {
    /// The servers to ask cannot be found out.
    #[error("no name servers: {0} (set [dns] servers)")]
    Setup(String),
    /// What was asked for is no host name.
    #[error("{0:?} is not a host name")]
    BadName(String),
    /// The name does not exist (NXDOMAIN).
    #[error("{0} does not exist")]
    NoSuchName(String),
    /// The name exists but has no record of this kind.
    #[error("{0} has no such record")]
    NoAddress(String),
    /// No server answered, or the answer was an error; asking later may help.
    #[error("no answer for {name}: {reason}")]
    NoAnswer {
        /// What was asked for.
        name: String,
        /// What the resolver says.
        reason: String,
    },
}

impl DnsError {
    /// Whether asking again later may give an answer.
    pub const fn is_transient(&self) -> bool {
        matches!(self, Self::NoAnswer { .. } | Self::Setup(_))
    }
}

/// The resolver; clones share its cache and its sockets.
#[derive(Clone)]
pub struct Resolver {
    inner: MessageAuthenticator,
    /// The same without EDNS, for servers that do not know it.
    without_edns: MessageAuthenticator,
    edns: Arc<edns::Support>,
    /// Whom it asks, for questions that want a proof.
    servers: Arc<[SocketAddr]>,
    proven: Arc<dnssec::Cache>,
}

/// The fields of a TLSA record: usage, selector, matching, data.
pub(crate) type TlsaFields = (u8, u8, u8, Vec<u8>);

impl Resolver {
    /// A resolver that asks `servers`, or those of `/etc/resolv.conf` if there are none.
    pub fn new(servers: &[SocketAddr]) -> Result<Self, DnsError> {
        Self::with(servers, CACHE_ENTRIES, ResolveHosts::Always)
    }

    /// As [`Resolver::new`], without a cache and without `/etc/hosts`: what DNS says to the world at this moment.
    pub fn fresh(servers: &[SocketAddr]) -> Result<Self, DnsError> {
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
            proven: Arc::default(),
        })
    }

    /// The same resolver as mail authentication wants it.
    pub(crate) fn authenticator(&self) -> &MessageAuthenticator {
        if self.edns.is_missing() { &self.without_edns } else { &self.inner }
    }

    /// Finds out how the servers are to be asked, if nobody did yet: for whom asks by [`Self::authenticator`], who does not
    /// ask again. It is the root that is asked for, as nobody else's silence should cost time.
    pub(crate) async fn learn(&self) {
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
        self.edns.note_without(&answer);
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
        self.edns.note_without(&answer);
        answer.map_err(|error| failure(host, &error))
    }

    /// All addresses of `host`, from `/etc/hosts` or DNS; never empty. An address literal stands for itself.
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

    /// Whether the aliases of a name lead in a circle, or on and on. Asked for an address the resolver gives up after a
    /// few, and says only that there is none.
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

    /// The MX records of a domain, as preference and host; never empty.
    pub(crate) async fn mail_hosts(&self, domain: &str) -> Result<Vec<(u16, String)>, DnsError> {
        let read = |data: &RData| match data {
            RData::MX(mx) => Some((mx.preference, mx.exchange.to_ascii())),
            _ => None,
        };
        self.records(domain, RecordType::MX, read).await
    }

    /// The TXT records of a name, each joined of its strings (RFC 7208 §3.3); U+FFFD for what is no UTF-8; never empty.
    pub(crate) async fn texts(&self, name: &str) -> Result<Vec<String>, DnsError> {
        let read = |data: &RData| match data {
            RData::TXT(txt) => Some(String::from_utf8_lossy(&txt.txt_data.concat()).into_owned()),
            _ => None,
        };
        self.records(name, RecordType::TXT, read).await
    }

    /// The MX records of a domain, as [`Resolver::mail_hosts`] has them, and whether DNS proves them. None, when the domain
    /// has no such record: then it tells whether DNS proves that.
    pub(crate) async fn authentic_mail_hosts(&self, domain: &str) -> Result<(Vec<(u16, String)>, bool), DnsError> {
        let proven = dnssec::ask(&self.servers, &self.edns, &self.proven, domain, RecordType::MX).await?;
        let read = |data: &RData| match data {
            RData::MX(mx) => Some((mx.preference, mx.exchange.to_ascii())),
            _ => None,
        };
        Ok((proven.records.iter().filter_map(read).collect(), proven.authentic))
    }

    /// Whether DNS proves an address of `host`. Its IPv4 and its IPv6 addresses stand in one zone, so either kind will do.
    pub(crate) async fn has_authentic_address(&self, host: &str) -> Result<bool, DnsError> {
        for kind in [RecordType::A, RecordType::AAAA] {
            match dnssec::ask(&self.servers, &self.edns, &self.proven, host, kind).await {
                Ok(proven) if proven.authentic && !proven.records.is_empty() => return Ok(true),
                Ok(_) | Err(DnsError::NoSuchName(_)) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(false)
    }

    /// The TLSA records of a name; [`DnsError::NoAddress`] when there are none that DNS proves.
    pub(crate) async fn tlsa(&self, name: &str) -> Result<Vec<TlsaFields>, DnsError> {
        let proven = dnssec::ask(&self.servers, &self.edns, &self.proven, name, RecordType::TLSA).await?;
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

/// The name as such: without a final dot the system's search domains would be tried too.
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
        // Also an answer that cannot be decoded: the next may be whole.
        other => DnsError::NoAnswer { name: host, reason: other.to_string() },
    }
}
