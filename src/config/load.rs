//! Maps the text of the file to [`Config`]: which keys exist, of which type, within which bounds.

use std::fs;
use std::net::SocketAddr;
use std::path::{self, Path, PathBuf};
use std::string::FromUtf8Error;

use toml::de::{DeTable, DeValue};

use super::read::{Document, Section};
use super::value::{
    ReadResult, boolean, choice, dns_name, dns_server, duration, filter, hostname, network, number, public_url,
    redirect_uri, secret_url, service_url, socket, socket_or_off, text,
};
use super::{
    Auth, Config, Dns, Google, Http, Log, LogFormat, Metrics, Problem, Signup, Smtp, Spam, Storage, Submission, Tls,
    UnknownRecipients, Webhook,
};
use super::{limits, outbound};
use crate::memory_budget::smtp_limit;

const FORMATS: &[(&str, LogFormat)] =
    &[("auto", LogFormat::Auto), ("human", LogFormat::Human), ("json", LogFormat::Json)];
const UNKNOWN_RECIPIENTS: &[(&str, UnknownRecipients)] =
    &[("accept", UnknownRecipients::Accept), ("reject", UnknownRecipients::Reject)];
const SIGNUPS: &[(&str, Signup)] = &[("first", Signup::First), ("open", Signup::Open), ("closed", Signup::Closed)];
const MIB: u64 = 1024 * 1024;

impl Config {
    /// Parses the text of a configuration file. Paths stay as written and are not opened.
    ///
    /// # Errors
    /// All problems, in the order of the lines.
    #[cfg(test)]
    pub(crate) fn parse(text: &str) -> Result<Self, Vec<Problem>> {
        let reading = read(text, None);
        if reading.problems.is_empty() { Ok(reading.config) } else { Err(reading.problems) }
    }

    /// Loads a configuration file. Relative paths start at its folder; the files it names must be readable.
    ///
    /// # Errors
    /// All problems, in the order of the lines; a file that cannot be read is one problem without a key.
    pub fn load(file: &Path) -> Result<Self, Vec<Problem>> {
        let bytes = fs::read(file).map_err(|error| {
            let message = format!("cannot read {}: {error}", file.display());
            vec![Problem { key: String::new(), line: None, message }]
        })?;
        let text = String::from_utf8(bytes).map_err(|error| vec![not_utf8(&error)])?;
        let folder = path::absolute(file.parent().unwrap_or(Path::new("")));
        let reading = read(&text, Some(&folder.unwrap_or_default()));
        if reading.problems.is_empty() { Ok(reading.config) } else { Err(reading.problems) }
    }
}

/// The configuration, with defaults in place of invalid values, and the problems.
pub(super) struct ReadConfig {
    pub(super) config: Config,
    pub(super) problems: Vec<Problem>,
    /// Every known key, for the test that checks the example file against them.
    #[cfg_attr(not(test), expect(dead_code, reason = "a test checks the example file against it"))]
    pub(super) known: Vec<String>,
}

fn not_utf8(error: &FromUtf8Error) -> Problem {
    let good = error.as_bytes().iter().take(error.utf8_error().valid_up_to());
    let line = 1 + good.filter(|byte| **byte == b'\n').count();
    let message = "contains bytes that are not UTF-8; save the file as UTF-8".to_owned();
    Problem { key: String::new(), line: Some(line), message }
}

/// Reads `text`; if `folder` is given, relative paths start there and the named files are opened.
pub(super) fn read(text: &str, folder: Option<&Path>) -> ReadConfig {
    let document = Document::new(text);
    let (table, errors) = DeTable::parse_recoverable(text);
    let syntax: Vec<Problem> = errors
        .iter()
        .map(|error| Problem {
            key: String::new(),
            line: error.span().map(|span| document.line(&span)),
            message: format!("this is not TOML: {}", error.message()),
        })
        .collect();
    let config = config(&document, table.get_ref(), folder);
    let (mut problems, known) = document.finish();
    if !syntax.is_empty() {
        // Keys that the parser skipped look missing, and values it patched look wrong.
        problems.retain(|problem| problem.line.is_some() && syntax.iter().all(|other| other.line != problem.line));
        problems.extend(syntax);
        problems.sort_by_key(|problem| problem.line);
    }
    ReadConfig { config, problems, known }
}

fn config(document: &Document<'_>, table: &DeTable<'_>, folder: Option<&Path>) -> Config {
    let default = Config::default();
    let top = Section::top(document, table);
    let config = Config {
        hostname: top.required("hostname", "\"mail.example.com\"", hostname).unwrap_or(default.hostname),
        public_url: top
            .required("public_url", "\"https://mail.example.com\"", public_url)
            .unwrap_or(default.public_url),
        data_dir: top.value("data_dir", default.data_dir, |value| resolve_path(folder, value)),
        log: log(&top.section("log")),
        tls: tls(&top.section("tls"), folder),
        smtp: smtp(&top.section("smtp")),
        http: http(&top.section("http")),
        auth: auth(&top.section("auth")),
        dns: dns(&top.section("dns")),
        spam: Spam { rspamd_url: top.section("spam").optional("rspamd_url", service_url) },
        storage: storage(&top.section("storage")),
        webhook: webhook(&top.section("webhook")),
        outbound: outbound::read(&top.section("outbound")),
        submission: submission(&top.section("submission")),
        limits: limits::read(&top.section("limits")),
        metrics: metrics(&top.section("metrics")),
        dev: false,
    };
    check_rules(document, &config);
    config
}

/// Checks rules between keys.
fn check_rules(document: &Document<'_>, config: &Config) {
    for (one, other, why) in [
        ("tls.cert_file", "tls.key_file", "a certificate and its private key go together"),
        ("auth.google.client_id", "auth.google.client_secret", "Google gives both"),
    ] {
        for (have, lack) in [(one, other), (other, one)] {
            if document.has(have) && !document.has(lack) {
                document.problem_at(have, format!("{lack} is missing; {why}"));
            }
        }
    }
    let (smtp, all) = (config.smtp.memory_bytes, config.limits.memory_bytes);
    let most = smtp_limit(all);
    if document.has("smtp.memory_bytes") && smtp > most {
        let message = format!(
            "{smtp} would have no effect beyond {most}, which is what limits.memory_bytes = {all} leaves beside the \
             other doors; write {most} or less, or raise limits.memory_bytes"
        );
        document.problem_at("smtp.memory_bytes", message);
    }
    let metrics: Vec<SocketAddr> = config.metrics.listen.into_iter().collect();
    let services = [
        ("smtp.listen", &config.smtp.listen),
        ("http.listen", &config.http.listen),
        ("submission.listen", &config.submission.listen),
        ("submission.listen_tls", &config.submission.listen_tls),
        ("metrics.listen", &metrics),
    ];
    for (at, (key, addresses)) in services.iter().enumerate() {
        for (earlier, taken) in services.iter().take(at) {
            for address in addresses.iter().filter(|address| address.port() != 0 && taken.contains(address)) {
                document.problem_at(key, format!("{address} is taken by {earlier}; choose another port"));
            }
        }
    }
}

fn log(section: &Section<'_, '_>) -> Log {
    let default = Log::default();
    Log {
        level: section.value("level", default.level, filter),
        format: section.value("format", default.format, choice(FORMATS)),
    }
}

fn tls(section: &Section<'_, '_>, folder: Option<&Path>) -> Tls {
    let file = |value: &DeValue<'_>| check_readable(resolve_path(folder, value)?, folder.is_some());
    Tls {
        cert_file: section.optional("cert_file", file),
        key_file: section.optional("key_file", file),
        ca_file: section.optional("ca_file", file),
    }
}

fn smtp(section: &Section<'_, '_>) -> Smtp {
    let default = Smtp::default();
    let seconds = || number(1..=7200, "seconds");
    let sessions = || number(1..=100_000, "sessions");
    Smtp {
        listen: section.list("listen", default.listen, socket),
        max_message_bytes: section.value(
            "max_message_bytes",
            default.max_message_bytes,
            number(65_536..=256 * MIB, "bytes"),
        ),
        // RFC 5321 §4.5.3.1.8: a server must accept at least 100 recipients.
        max_recipients: section.value("max_recipients", default.max_recipients, number(100..=10_000, "recipients")),
        max_sessions: section.value("max_sessions", default.max_sessions, sessions()),
        max_sessions_per_address: section.value(
            "max_sessions_per_address",
            default.max_sessions_per_address,
            sessions(),
        ),
        command_timeout_secs: section.value("command_timeout_secs", default.command_timeout_secs, seconds()),
        data_timeout_secs: section.value("data_timeout_secs", default.data_timeout_secs, seconds()),
        proxy_protocol_from: section.list("proxy_protocol_from", Vec::new(), network),
        memory_bytes: section.value("memory_bytes", default.memory_bytes, number(MIB..=65_536 * MIB, "bytes")),
        unknown_recipients: section.value(
            "unknown_recipients",
            default.unknown_recipients,
            choice(UNKNOWN_RECIPIENTS),
        ),
    }
}

fn http(section: &Section<'_, '_>) -> Http {
    let default = Http::default();
    let connections = || number(16..=100_000, "connections");
    Http {
        listen: section.list("listen", default.listen, socket),
        max_connections: section.value("max_connections", default.max_connections, connections()),
        max_connections_per_address: section.value(
            "max_connections_per_address",
            default.max_connections_per_address,
            connections(),
        ),
        trusted_proxies: section.list("trusted_proxies", Vec::new(), network),
        rate_limit: section.value("rate_limit", default.rate_limit, number(0..=1_000_000, "requests a second")),
    }
}

fn auth(section: &Section<'_, '_>) -> Auth {
    let google = section.section("google");
    let default = Google::default();
    Auth {
        signup: section.value("signup", Signup::default(), choice(SIGNUPS)),
        google: Google {
            client_id: google.optional("client_id", text),
            client_secret: google.optional("client_secret", text),
            redirect_uri: google.optional("redirect_uri", redirect_uri),
            token_url: google.value("token_url", default.token_url, secret_url),
            jwks_url: google.value("jwks_url", default.jwks_url, secret_url),
        },
    }
}

fn dns(section: &Section<'_, '_>) -> Dns {
    Dns {
        servers: section.list("servers", Vec::new(), dns_server),
        spf_include: section.optional("spf_include", dns_name),
    }
}

fn storage(section: &Section<'_, '_>) -> Storage {
    // Contract 3.8 has the same bounds for a single domain.
    let days = section.value("retention_days", Storage::default().retention_days, number(1..=3650, "days"));
    Storage { retention_days: days }
}

fn webhook(section: &Section<'_, '_>) -> Webhook {
    let default = Webhook::default();
    Webhook {
        allow_localhost: section.value("allow_localhost", default.allow_localhost, boolean),
        allow_networks: section.list("allow_networks", default.allow_networks, network),
        retry: section.list("retry", default.retry, duration),
        lane_width: section.value("lane_width", default.lane_width, number(1..=1000, "attempts")),
        max_in_flight: section.value("max_in_flight", default.max_in_flight, number(4..=100_000, "attempts")),
    }
}

fn submission(section: &Section<'_, '_>) -> Submission {
    let default = Submission::default();
    Submission {
        listen: section.list("listen", default.listen, socket),
        listen_tls: section.list("listen_tls", default.listen_tls, socket),
    }
}

fn metrics(section: &Section<'_, '_>) -> Metrics {
    Metrics {
        listen: section.value("listen", Metrics::default().listen, socket_or_off),
        token: section.optional("token", |value| match text(value)? {
            short if short.len() < 16 => {
                Err("is shorter than 16 characters; make one with: openssl rand -hex 20".to_owned())
            }
            token => Ok(token),
        }),
    }
}

fn resolve_path(folder: Option<&Path>, value: &DeValue<'_>) -> ReadResult<PathBuf> {
    let written = PathBuf::from(text(value)?);
    Ok(folder.map_or_else(|| written.clone(), |folder| folder.join(&written)))
}

fn check_readable(file: PathBuf, must_open: bool) -> ReadResult<PathBuf> {
    if !must_open {
        return Ok(file);
    }
    match fs::metadata(&file).and_then(|found| fs::File::open(&file).map(|_| found)) {
        Ok(found) if found.is_file() => Ok(file),
        Ok(_) => Err(format!("{} is not a file", file.display())),
        Err(error) => Err(format!("cannot read {}: {}", file.display(), error)),
    }
}
