//! The configuration: one TOML file, read once at start, as typed and checked values.
//!
//! [`Config::load`] returns a [`Config`] or *all* [`Problem`]s of the file, each with key and line. It may use `mail`
//! and `memory_budget`. A new setting needs a field and default here, its key in `load` (or `limits`, `outbound`),
//! its type's reader in `value`, and its lines in `mailkite.toml.example`, which documents all keys; a test keeps the
//! three in step.

mod limits;
mod load;
mod outbound;
mod problem;
mod read;
#[cfg(test)]
mod tests;
mod value;

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;

pub use limits::Limits;
pub use outbound::Outbound;
pub use outbound::Smarthost;
pub use outbound::SmarthostSecurity;

pub(crate) use problem::{Problem, table};

/// All settings. `Config::default()` holds the documented defaults; `hostname` and `public_url` have none and are
/// empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// The host name in the SMTP greeting, Received fields and message ids: A-label, lower case.
    pub hostname: String,
    /// The public address of the HTTP service: scheme and authority, no trailing slash.
    pub public_url: String,
    /// The directory of the database, objects and keys.
    pub data_dir: PathBuf,
    /// `[log]`
    pub log: Log,
    /// `[tls]`
    pub tls: Tls,
    /// `[smtp]`
    pub smtp: Smtp,
    /// `[http]`
    pub http: Http,
    /// `[auth]`
    pub auth: Auth,
    /// `[dns]`
    pub dns: Dns,
    /// `[spam]`
    pub spam: Spam,
    /// `[storage]`
    pub storage: Storage,
    /// `[webhook]`
    pub webhook: Webhook,
    /// `[outbound]`
    pub outbound: Outbound,
    /// `[submission]`
    pub submission: Submission,
    /// `[limits]`
    pub limits: Limits,
    /// `[metrics]`
    pub metrics: Metrics,
    /// True for `mailkite dev`; never read from a file.
    pub dev: bool,
}

/// `[log]`: the level and form of log lines.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Log {
    /// A level, or filter directives such as `info,mailkite::jobs=debug`.
    pub(crate) level: String,
    /// The form of a log line.
    pub(crate) format: LogFormat,
}

/// The form of a log line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum LogFormat {
    /// Human on a terminal and for journald, JSON otherwise.
    #[default]
    Auto,
    /// One readable line for people.
    Human,
    /// One JSON object per line.
    Json,
}

/// `[tls]`: certificates, for STARTTLS and HTTPS alike.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tls {
    /// PEM certificate chain of `hostname`, leaf first; unset: a self-signed one is made at the first start.
    pub(crate) cert_file: Option<PathBuf>,
    /// PEM private key of `cert_file`.
    pub(crate) key_file: Option<PathBuf>,
    /// PEM certificates that outgoing TLS trusts in addition to the public ones.
    pub(crate) ca_file: Option<PathBuf>,
}

/// `[smtp]`: receiving mail.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Smtp {
    /// Addresses to listen on. `[::]` takes IPv4 as well.
    pub listen: Vec<SocketAddr>,
    /// The largest message accepted, in bytes.
    pub max_message_bytes: u64,
    /// The most recipients of one transaction.
    pub max_recipients: usize,
    /// The most simultaneous sessions.
    pub max_sessions: usize,
    /// The most simultaneous sessions from one address (IPv6: one /64).
    pub max_sessions_per_address: usize,
    /// The time a session may stay silent between commands.
    pub command_timeout_secs: u64,
    /// The time the mail data of one message may take.
    pub data_timeout_secs: u64,
    /// Peers whose PROXY protocol header is required and trusted.
    pub proxy_protocol_from: Vec<IpNet>,
    /// Bytes of mail being received that may stay in memory, all sessions together.
    pub memory_bytes: u64,
    /// The treatment of recipients on our domains that no route matches.
    pub unknown_recipients: UnknownRecipients,
}

/// The treatment of recipients on our domains that no route matches (contract 5.1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum UnknownRecipients {
    /// Accept and store.
    #[default]
    Accept,
    /// Refuse with 550 5.1.1.
    Reject,
}

/// `[http]`: API and attachment links.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Http {
    /// Addresses to listen on; each speaks HTTP and HTTPS.
    pub listen: Vec<SocketAddr>,
    /// The most simultaneous connections.
    pub(crate) max_connections: usize,
    /// The most connections, and the most requests being handled, of one address (IPv6: one /64).
    pub max_connections_per_address: usize,
    /// Proxies whose `X-Forwarded-For` and `X-Forwarded-Proto` are trusted.
    pub trusted_proxies: Vec<IpNet>,
    /// Sustained requests per second of one credential; 0: no limit (contract 1.12).
    pub rate_limit: u32,
}

/// `[auth]`: signing up and in.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Auth {
    /// The accounts that may sign up.
    pub signup: Signup,
    /// `[auth.google]`
    pub google: Google,
}

/// The accounts that may sign up (contract 2.2).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Signup {
    /// The first account only.
    #[default]
    First,
    /// Everybody.
    Open,
    /// Nobody.
    Closed,
}

/// `[auth.google]`: signing in with Google (contract 2.4).
#[derive(Clone, PartialEq, Eq)]
pub struct Google {
    /// The OAuth client; unset: signing in with Google is off.
    pub client_id: Option<String>,
    /// Its secret; set if and only if `client_id` is.
    pub client_secret: Option<String>,
    /// The redirect URI of sign-ins that name none.
    pub redirect_uri: Option<String>,
    /// The endpoint that exchanges codes for tokens.
    pub token_url: String,
    /// The keys that sign tokens.
    pub jwks_url: String,
}

impl fmt::Debug for Google {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let secret = self.client_secret.as_ref().map(|_| "(secret)");
        f.debug_struct("Google")
            .field("client_id", &self.client_id)
            .field("client_secret", &secret)
            .field("redirect_uri", &self.redirect_uri)
            .field("token_url", &self.token_url)
            .field("jwks_url", &self.jwks_url)
            .finish()
    }
}

/// `[dns]`: the resolver and the SPF records.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Dns {
    /// DNS servers; empty: the system's.
    pub servers: Vec<SocketAddr>,
    /// The domain that the SPF records of hosted domains include; unset: they name this host.
    pub spf_include: Option<String>,
}

/// `[spam]`: the spam filter.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Spam {
    /// Base URL of an rspamd normal worker; unset: mail has no spam verdict.
    pub rspamd_url: Option<String>,
}

/// `[storage]`: retention.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Storage {
    /// Days that a message stays listed.
    pub(crate) retention_days: u32,
}

/// `[webhook]`: deliveries to endpoints.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Webhook {
    /// Allows `http://localhost`, `127.0.0.1` and `[::1]` as endpoints (contract 9.1).
    pub allow_localhost: bool,
    /// Non-public networks that webhooks may reach (contract 9.1).
    pub allow_networks: Vec<IpNet>,
    /// The delays after successive failed attempts (contract 9.5).
    pub retry: Vec<Duration>,
    /// The most attempts in flight to one endpoint origin.
    pub lane_width: usize,
    /// The most attempts in flight in all.
    pub(crate) max_in_flight: usize,
}

/// `[submission]`: taking mail from mail programs (RFC 6409).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Submission {
    /// Addresses that require STARTTLS before AUTH. Empty: none.
    pub listen: Vec<SocketAddr>,
    /// Addresses that speak TLS from the first octet (RFC 8314 §3.3). Empty: none.
    pub listen_tls: Vec<SocketAddr>,
}

/// `[metrics]`: metrics for Prometheus.
#[derive(Clone, PartialEq, Eq)]
pub struct Metrics {
    /// Address that serves `/metrics` without a credential; `None` (in the file: `"off"`): nowhere.
    pub listen: Option<SocketAddr>,
    /// The bearer token for `/metrics` on the HTTP service; unset: not served there.
    pub token: Option<String>,
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let token = self.token.as_ref().map(|_| "(secret)");
        f.debug_struct("Metrics").field("listen", &self.listen).field("token", &token).finish()
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            hostname: String::new(),
            public_url: String::new(),
            data_dir: PathBuf::from("/var/lib/mailkite"),
            log: Log::default(),
            tls: Tls::default(),
            smtp: Smtp::default(),
            http: Http::default(),
            auth: Auth::default(),
            dns: Dns::default(),
            spam: Spam::default(),
            storage: Storage::default(),
            webhook: Webhook::default(),
            outbound: Outbound::default(),
            submission: Submission::default(),
            limits: Limits::default(),
            metrics: Metrics::default(),
            dev: false,
        }
    }
}

impl Config {
    /// Returns the domain of the envelope senders of forwarded mail.
    pub(crate) fn forward_domain(&self) -> &str {
        self.outbound.forward_domain.as_deref().unwrap_or(&self.hostname)
    }

    /// The configuration of `mailkite dev`: loopback only, endpoints on this machine allowed, open sign-up, no DNS,
    /// no metrics port.
    pub(crate) fn dev(data_dir: PathBuf, http: SocketAddr, smtp: SocketAddr) -> Self {
        let default = Smtp::default();
        Self {
            hostname: "localhost".to_owned(),
            public_url: format!("http://{http}"),
            data_dir,
            smtp: Smtp { listen: vec![smtp], max_sessions_per_address: default.max_sessions, ..default },
            http: Http { listen: vec![http], ..Http::default() },
            auth: Auth { signup: Signup::Open, ..Auth::default() },
            webhook: Webhook { allow_localhost: true, ..Webhook::default() },
            submission: Submission { listen: Vec::new(), listen_tls: Vec::new() },
            metrics: Metrics { listen: None, token: None },
            dev: true,
            ..Self::default()
        }
    }
}

impl Default for Log {
    fn default() -> Self {
        Self { level: "info".to_owned(), format: LogFormat::Auto }
    }
}

impl Default for Smtp {
    fn default() -> Self {
        Self {
            listen: vec![SocketAddr::new(IpAddr::V6(Ipv6Addr::UNSPECIFIED), 25)],
            max_message_bytes: 25 * 1024 * 1024,
            max_recipients: 100,
            max_sessions: 12_000,
            max_sessions_per_address: 100,
            command_timeout_secs: 300,
            data_timeout_secs: 600,
            proxy_protocol_from: Vec::new(),
            memory_bytes: 64 * 1024 * 1024,
            unknown_recipients: UnknownRecipients::Accept,
        }
    }
}

impl Default for Http {
    fn default() -> Self {
        Self {
            listen: vec![SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 8080)],
            max_connections: 2048,
            max_connections_per_address: 256,
            trusted_proxies: Vec::new(),
            rate_limit: 100,
        }
    }
}

impl Default for Google {
    fn default() -> Self {
        Self {
            client_id: None,
            client_secret: None,
            redirect_uri: None,
            token_url: "https://oauth2.googleapis.com/token".to_owned(),
            jwks_url: "https://www.googleapis.com/oauth2/v3/certs".to_owned(),
        }
    }
}

impl Default for Storage {
    fn default() -> Self {
        Self { retention_days: 30 }
    }
}

impl Default for Webhook {
    fn default() -> Self {
        const MINUTE: u64 = 60;
        const HOUR: u64 = 60 * MINUTE;
        let waits = [5, 5 * MINUTE, 30 * MINUTE, 2 * HOUR, 5 * HOUR, 10 * HOUR, 10 * HOUR, 24 * HOUR, 24 * HOUR];
        Self {
            allow_localhost: false,
            allow_networks: Vec::new(),
            retry: waits.map(Duration::from_secs).to_vec(),
            lane_width: 16,
            max_in_flight: 4096,
        }
    }
}

impl Default for Submission {
    fn default() -> Self {
        let everywhere = IpAddr::V6(Ipv6Addr::UNSPECIFIED);
        Self { listen: vec![SocketAddr::new(everywhere, 587)], listen_tls: vec![SocketAddr::new(everywhere, 465)] }
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self { listen: Some(SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 9464)), token: None }
    }
}
