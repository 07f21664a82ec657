//! The configuration: one TOML file to a checked [`Config`]; all problems at once, each with its key and line.

mod read;

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use ipnet::IpNet;

pub use read::Problem;
use read::{Reader, Wait};

/// Every key there is, as `mailkite.toml.example` explains them.
pub const KEYS: &[&str] = &[
    "hostname",
    "public_url",
    "data_dir",
    "log.level",
    "log.format",
    "tls.cert_file",
    "tls.key_file",
    "tls.ca_file",
    "smtp.listen",
    "smtp.max_message_bytes",
    "smtp.max_recipients",
    "smtp.max_sessions",
    "smtp.max_sessions_per_address",
    "smtp.command_timeout_secs",
    "smtp.data_timeout_secs",
    "smtp.memory_bytes",
    "smtp.proxy_protocol_from",
    "smtp.unknown_recipients",
    "http.listen",
    "http.trusted_proxies",
    "dns.servers",
    "spam.rspamd_url",
    "storage.retention_days",
    "webhook.allow_localhost",
    "webhook.allow_networks",
    "webhook.retry",
    "webhook.lane_width",
    "webhook.max_in_flight",
    "metrics.listen",
    "metrics.token",
];

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// Human on a terminal, JSON otherwise.
    Auto,
    /// For people.
    Human,
    /// One JSON object a line.
    Json,
}

/// What becomes of mail for a recipient that no route matches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UnknownRecipients {
    /// It is stored.
    Accept,
    /// It is refused at RCPT.
    Reject,
}

/// `[log]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Log {
    /// A level or filter directives.
    pub level: String,
    /// How lines look.
    pub format: LogFormat,
}

/// `[tls]`
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tls {
    /// Certificate chain in PEM.
    pub cert_file: Option<PathBuf>,
    /// Its private key in PEM.
    pub key_file: Option<PathBuf>,
    /// Further roots that outgoing TLS trusts, in PEM.
    pub ca_file: Option<PathBuf>,
}

/// `[smtp]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Smtp {
    /// Addresses to receive on.
    pub listen: Vec<SocketAddr>,
    /// The largest message.
    pub max_message_bytes: u64,
    /// Recipients of one message.
    pub max_recipients: usize,
    /// Sessions at once.
    pub max_sessions: usize,
    /// Sessions at once of one address (IPv6: /64).
    pub max_sessions_per_address: usize,
    /// Wait for a command.
    pub command_timeout_secs: u64,
    /// Wait for the whole of a message's data.
    pub data_timeout_secs: u64,
    /// Mail data held in memory by all sessions together.
    pub memory_bytes: u64,
    /// Peers that send a PROXY header.
    pub proxy_protocol_from: Vec<IpNet>,
    /// Mail that no route matches.
    pub unknown_recipients: UnknownRecipients,
}

/// `[http]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Http {
    /// Addresses to serve on.
    pub listen: Vec<SocketAddr>,
    /// Reverse proxies whose `X-Forwarded-*` is believed.
    pub trusted_proxies: Vec<IpNet>,
}

/// `[dns]`
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Dns {
    /// Servers to ask; none means the system's.
    pub servers: Vec<SocketAddr>,
}

/// `[spam]`
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Spam {
    /// Where rspamd answers.
    pub rspamd_url: Option<String>,
}

/// `[storage]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Storage {
    /// Days that messages are kept.
    pub retention_days: u32,
}

/// `[webhook]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Webhook {
    /// Whether `http://localhost` is fit for a webhook.
    pub allow_localhost: bool,
    /// Networks that webhooks may reach although they are not global.
    pub allow_networks: Vec<IpNet>,
    /// Waits after successive failures.
    pub retry: Vec<Duration>,
    /// Attempts at once to one endpoint.
    pub lane_width: usize,
    /// Attempts at once to all endpoints.
    pub max_in_flight: usize,
}

/// `[metrics]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Metrics {
    /// Where `/metrics` is served without a credential.
    pub listen: Option<SocketAddr>,
    /// The credential for `/metrics` on the main listener.
    pub token: Option<String>,
}

/// A checked configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// The name that MX records point to; lower-case A-label.
    pub hostname: String,
    /// The base of every absolute link; no final slash.
    pub public_url: String,
    /// Where database, objects and keys are.
    pub data_dir: PathBuf,
    /// `[log]`
    pub log: Log,
    /// `[tls]`
    pub tls: Tls,
    /// `[smtp]`
    pub smtp: Smtp,
    /// `[http]`
    pub http: Http,
    /// `[dns]`
    pub dns: Dns,
    /// `[spam]`
    pub spam: Spam,
    /// `[storage]`
    pub storage: Storage,
    /// `[webhook]`
    pub webhook: Webhook,
    /// `[metrics]`
    pub metrics: Metrics,
    /// `mailkite dev`: loopback only, no DNS. Never from the file.
    pub dev: bool,
}

impl Default for Config {
    /// The defaults; `hostname` and `public_url` have none and are empty.
    fn default() -> Self {
        let any = |port| SocketAddr::from(([0_u16; 8], port));
        let waits = [5, 300, 1_800, 7_200, 18_000, 36_000, 36_000, 86_400, 86_400];
        Self {
            hostname: String::new(),
            public_url: String::new(),
            data_dir: "/var/lib/mailkite".into(),
            log: Log { level: "info".to_owned(), format: LogFormat::Auto },
            tls: Tls::default(),
            smtp: Smtp {
                listen: vec![any(25)],
                max_message_bytes: 26_214_400,
                max_recipients: 100,
                max_sessions: 12_000,
                max_sessions_per_address: 100,
                command_timeout_secs: 300,
                data_timeout_secs: 600,
                memory_bytes: 67_108_864,
                proxy_protocol_from: Vec::new(),
                unknown_recipients: UnknownRecipients::Accept,
            },
            http: Http { listen: vec![SocketAddr::from(([127, 0, 0, 1], 8080))], trusted_proxies: Vec::new() },
            dns: Dns::default(),
            spam: Spam::default(),
            storage: Storage { retention_days: 30 },
            webhook: Webhook {
                allow_localhost: false,
                allow_networks: Vec::new(),
                retry: waits.into_iter().map(Duration::from_secs).collect(),
                lane_width: 16,
                max_in_flight: 4096,
            },
            metrics: Metrics { listen: Some(SocketAddr::from(([127, 0, 0, 1], 9464))), token: None },
            dev: false,
        }
    }
}

impl Config {
    /// The configuration of `mailkite dev`: loopback, webhooks to this machine, no DNS, no metrics listener.
    pub fn dev(data_dir: PathBuf, http: SocketAddr, smtp: SocketAddr) -> Self {
        let mut config = Self { dev: true, data_dir, hostname: "localhost".to_owned(), ..Self::default() };
        config.public_url = format!("http://{http}");
        config.http.listen = vec![http];
        config.smtp.listen = vec![smtp];
        config.smtp.max_sessions_per_address = config.smtp.max_sessions;
        config.webhook.allow_localhost = true;
        config.metrics.listen = None;
        config
    }

    /// Reads and checks a file.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    pub fn load(path: &Path) -> Result<Self, Vec<Problem>> {
        let text = std::fs::read_to_string(path).map_err(|error| {
            vec![Problem {
                key: String::new(),
                line: None,
                message: format!("cannot read {}: {error}", path.display()),
            }]
        })?;
        Self::parse(&text)
    }

    /// Reads and checks a text.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    pub fn parse(text: &str) -> Result<Self, Vec<Problem>> {
        let mut reader = Reader::new(text, KEYS);
        let mut config = Self::default();
        config.read_names(&mut reader);
        config.read_smtp(&mut reader);
        config.read_rest(&mut reader);
        if reader.problems.is_empty() {
            return Ok(config);
        }
        reader.problems.sort_by_key(|problem| problem.line);
        Err(reader.problems)
    }

    fn read_names(&mut self, reader: &mut Reader) {
        match reader.text("hostname") {
            Some(name) => match crate::mail::address::Domain::parse(&name) {
                Ok(domain) if domain.as_str().contains('.') => self.hostname = domain.as_str().to_owned(),
                _ => reader
                    .problem("hostname", "expected the full name that your MX records point to, like mail.acme.dev"),
            },
            None => reader
                .problem("hostname", "is required: the name that your MX records point to, like \"mail.acme.dev\""),
        }
        match reader.text("public_url") {
            Some(text) => match public_url(&text) {
                Some(url) => self.public_url = url,
                None => reader.problem(
                    "public_url",
                    "expected an http(s) URL without path, query or user, like https://mail.acme.dev",
                ),
            },
            None => reader.problem(
                "public_url",
                "is required: where this server's API is reached, like \"https://mail.acme.dev\"",
            ),
        }
        if let Some(dir) = reader.text("data_dir") {
            self.data_dir = dir.into();
            if !self.data_dir.is_absolute() {
                reader.problem(
                    "data_dir",
                    "expected an absolute path, so that it means the same wherever mailkite is started",
                );
            }
        }
        if let Some(level) = reader.text("log.level") {
            if tracing_subscriber::EnvFilter::try_new(&level).is_err() {
                reader.problem(
                    "log.level",
                    "expected error, warn, info, debug, trace, or directives like info,mailkite::smtp_server=debug",
                );
            }
            self.log.level = level;
        }
        let formats = [("auto", LogFormat::Auto), ("human", LogFormat::Human), ("json", LogFormat::Json)];
        reader.word("log.format", &formats, &mut self.log.format);
        self.tls.cert_file = reader.text("tls.cert_file").map(PathBuf::from);
        self.tls.key_file = reader.text("tls.key_file").map(PathBuf::from);
        self.tls.ca_file = reader.text("tls.ca_file").map(PathBuf::from);
        if self.tls.cert_file.is_some() != self.tls.key_file.is_some() {
            let missing = if self.tls.cert_file.is_some() { "tls.key_file" } else { "tls.cert_file" };
            reader.problem(missing, "is missing: a certificate and its key are given together");
        }
    }

    fn read_smtp(&mut self, reader: &mut Reader) {
        let smtp = &mut self.smtp;
        reader.list("smtp.listen", "addresses with ports, like [\"0.0.0.0:25\"]", &mut smtp.listen);
        reader.number("smtp.max_message_bytes", 65_536..=268_435_456, &mut smtp.max_message_bytes);
        reader.number("smtp.max_recipients", 100..=10_000, &mut smtp.max_recipients);
        reader.number("smtp.max_sessions", 1..=100_000, &mut smtp.max_sessions);
        reader.number("smtp.max_sessions_per_address", 1..=100_000, &mut smtp.max_sessions_per_address);
        reader.number("smtp.command_timeout_secs", 1..=3_600, &mut smtp.command_timeout_secs);
        reader.number("smtp.data_timeout_secs", 1..=7_200, &mut smtp.data_timeout_secs);
        reader.number("smtp.memory_bytes", 1_048_576..=68_719_476_736, &mut smtp.memory_bytes);
        reader.list("smtp.proxy_protocol_from", "networks, like [\"10.0.0.0/8\"]", &mut smtp.proxy_protocol_from);
        let words = [("accept", UnknownRecipients::Accept), ("reject", UnknownRecipients::Reject)];
        reader.word("smtp.unknown_recipients", &words, &mut smtp.unknown_recipients);
    }

    fn read_rest(&mut self, reader: &mut Reader) {
        reader.list("http.listen", "addresses with ports, like [\"127.0.0.1:8080\"]", &mut self.http.listen);
        reader.list("http.trusted_proxies", "networks, like [\"127.0.0.1/32\"]", &mut self.http.trusted_proxies);
        let mut servers: Vec<DnsServer> = Vec::new();
        reader.list("dns.servers", "addresses, like [\"9.9.9.9\"] or [\"127.0.0.1:5353\"]", &mut servers);
        self.dns.servers = servers.into_iter().map(|server| server.0).collect();
        if let Some(url) = reader.text("spam.rspamd_url") {
            if public_url(&url).is_none() {
                reader.problem("spam.rspamd_url", "expected a URL without path, like http://127.0.0.1:11333");
            }
            self.spam.rspamd_url = Some(url);
        }
        reader.number("storage.retention_days", 1..=3_650, &mut self.storage.retention_days);
        let webhook = &mut self.webhook;
        reader.flag("webhook.allow_localhost", &mut webhook.allow_localhost);
        reader.list("webhook.allow_networks", "networks, like [\"10.1.0.0/16\"]", &mut webhook.allow_networks);
        let mut waits: Vec<Wait> = webhook.retry.iter().copied().map(Wait).collect();
        reader.list("webhook.retry", "waits, like [\"5s\", \"5m\", \"2h\", \"1d\"]", &mut waits);
        webhook.retry = waits.into_iter().map(|wait| wait.0).collect();
        reader.number("webhook.lane_width", 1..=1_000, &mut webhook.lane_width);
        reader.number("webhook.max_in_flight", 4..=100_000, &mut webhook.max_in_flight);
        if let Some(text) = reader.text("metrics.listen") {
            self.metrics.listen = if text.is_empty() {
                None
            } else {
                reader.parsed("metrics.listen", "an address with port, like \"127.0.0.1:9464\", or \"\" for none")
            };
        }
        self.metrics.token = reader.text("metrics.token");
        if self.metrics.token.as_ref().is_some_and(|token| token.len() < 16) {
            reader.problem("metrics.token", "expected at least 16 characters");
        }
    }
}

/// A DNS server, its port 53 unless it is given.
#[derive(Clone, Copy)]
struct DnsServer(SocketAddr);

impl std::str::FromStr for DnsServer {
    type Err = std::net::AddrParseError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.parse::<IpAddr>() {
            Ok(address) => Ok(Self(SocketAddr::new(address, 53))),
            Err(_) => text.parse().map(Self),
        }
    }
}

fn public_url(text: &str) -> Option<String> {
    let url = url::Url::parse(text).ok()?;
    let plain =
        url.username().is_empty() && url.password().is_none() && url.query().is_none() && url.fragment().is_none();
    let fits = matches!(url.scheme(), "http" | "https") && url.has_host() && plain && url.path() == "/";
    fits.then(|| url.as_str().trim_end_matches('/').to_owned())
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests may panic")]

    use super::*;

    const REQUIRED: &str = "hostname = \"mail.example.com\"\npublic_url = \"https://mail.example.com/\"\n";

    fn problems(rest: &str) -> Vec<String> {
        let text = format!("{REQUIRED}{rest}");
        Config::parse(&text).unwrap_err().iter().map(ToString::to_string).collect()
    }

    #[test]
    fn the_example_is_the_defaults() {
        let example = include_str!("../mailkite.toml.example");
        let required = Config::parse(REQUIRED).unwrap();
        // As shipped, with its defaults commented out …
        assert_eq!(Config::parse(example).unwrap(), required);
        // … and with every one of them in force.
        let line = |line: &str| match line.strip_prefix("# ") {
            Some(key) if key.split_once(" = ").is_some_and(|(name, _)| !name.contains(' ')) => key.to_owned(),
            _ => line.to_owned(),
        };
        let all: Vec<String> = example.lines().map(line).collect();
        let read = Config::parse(&all.join("\n"));
        let without_unset = |mut config: Config| {
            config.tls = Tls::default();
            config.spam = Spam::default();
            config.metrics.token = None;
            config.dns = Dns::default();
            config.smtp.proxy_protocol_from.clear();
            config.http.trusted_proxies.clear();
            config.webhook.allow_networks.clear();
            config
        };
        assert_eq!(without_unset(read.unwrap()), required);
        for key in KEYS {
            let last = key.rsplit('.').next().unwrap();
            assert!(example.contains(&format!("{last} = ")), "{key} is not in the example");
        }
    }

    #[test]
    fn all_problems_come_at_once_with_key_and_line() {
        let found =
            problems("[smtp]\nlisen = [\"0.0.0.0:25\"]\nmax_recipients = 5\n[webhook]\nretry = [\"5 parsecs\"]\n");
        assert_eq!(found.len(), 3);
        assert_eq!(found.first().unwrap(), "line 4: smtp.lisen: unknown key; did you mean smtp.listen?");
        assert!(found.get(1).unwrap().starts_with("line 5: smtp.max_recipients: expected a whole number from 100"));
        assert!(found.get(2).unwrap().starts_with("line 7: webhook.retry: expected a list of waits"));
    }

    #[test]
    fn the_two_names_are_required() {
        let found = Config::parse("").unwrap_err();
        assert_eq!(found.iter().map(|problem| problem.key.as_str()).collect::<Vec<_>>(), ["hostname", "public_url"]);
    }

    #[test]
    fn a_section_that_is_none_and_a_key_in_the_wrong_one_are_found() {
        let misspelt = problems("[webhok]\nlane_width = 4\n").concat();
        assert!(misspelt.starts_with("line 3: webhok: unknown key; did you mean webhook?"), "{misspelt}");
        assert!(problems("retention_days = 3\n").concat().contains("did you mean storage.retention_days?"));
    }
}
