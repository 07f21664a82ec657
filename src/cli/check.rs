//! `mailkite check`: validates a configuration and checks everything it refers to. Changes nothing.

use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use anyhow::bail;

use super::text::size;
use crate::app::master_key;
use crate::config::{Config, table};
use crate::net::tls;
use crate::outbound::forward::shared_domain;
use crate::process::data_dir::DataDir;
use crate::process::{host, last_backup};
use crate::secrets::{self, Secrets, SecretsError, next};
use crate::store;
use crate::store::disk::{self, Sizes};
use crate::store::sealed;

/// Less free space than this is reported.
const LOW_SPACE_BYTES: u64 = 1 << 30;

/// Prints every problem; fails if there is one.
pub(crate) fn run(path: &Path) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    let config = match Config::load(path) {
        Ok(config) => config,
        Err(problems) => {
            writeln!(out, "{}\n", table(&problems))?;
            bail!("{} in {}", count(problems.len()), path.display());
        }
    };
    let mut findings = Findings::default();
    findings.good("configuration", format!("{} is valid, for {}", path.display(), config.hostname));
    if config.public_url.starts_with("http://") {
        let hint =
            format!("{} is not encrypted: passwords and keys cross the network in the clear", config.public_url);
        findings.hint("public_url", hint);
    }
    proxy(&config, &mut findings);
    secrets_in(&config, path, &mut findings);
    data_dir(&config, &mut findings);
    source_addresses(&config, &mut findings);
    certificates(&config, &mut findings);
    write!(out, "{}", findings.lines)?;
    if findings.bad > 0 {
        writeln!(out)?;
        bail!("{} with what {} refers to", count(findings.bad), path.display());
    }
    Ok(())
}

/// The findings, as lines in columns.
#[derive(Default)]
struct Findings {
    lines: String,
    bad: usize,
}

impl Findings {
    fn line(&mut self, mark: char, what: &str, said: &str) {
        self.lines.push_str(&format!("{mark} {what:<14}  {said}\n"));
    }

    fn good(&mut self, what: &str, said: impl AsRef<str>) {
        self.line('✓', what, said.as_ref());
    }

    fn hint(&mut self, what: &str, said: impl AsRef<str>) {
        self.line('!', what, said.as_ref());
    }

    /// Adds the line of a result; returns true if it is good.
    fn outcome<T, E: ToString>(&mut self, what: &str, outcome: Result<T, E>, said: impl FnOnce(T) -> String) -> bool {
        match outcome {
            Ok(value) => self.good(what, said(value)),
            Err(error) => {
                self.bad += 1;
                self.line('✗', what, &error.to_string());
                return false;
            }
        }
        true
    }
}

/// Warns if a proxy must be in front but is not configured: all its clients would count as one.
fn proxy(config: &Config, findings: &mut Findings) {
    let http = &config.http;
    let is_near = http.listen.iter().all(|address| address.ip().to_canonical().is_loopback());
    if is_near && config.public_url.starts_with("https://") && http.trusted_proxies.is_empty() {
        let hint = format!(
            "http.listen is local to this machine, so a proxy must serve {}; configure it: http.trusted_proxies = \
             [\"127.0.0.1\", \"::1\"]",
            config.public_url
        );
        findings.hint("proxy", hint);
    }
}

/// Warns if everybody can read a configuration that holds secrets.
fn secrets_in(config: &Config, path: &Path, findings: &mut Findings) {
    let held = held_secrets(config);
    let mode = std::fs::metadata(path).map_or(0, |found| found.mode() & 0o777);
    if !held.is_empty() && mode & 0o007 != 0 {
        let (held, file) = (held.join(" and "), path.display());
        let hint = format!("{file} holds {held} and can be read by everybody (mode {mode:o}); run: chmod 640 {file}");
        findings.hint("secrets", hint);
    }
}

/// Names the secrets that a configuration holds.
pub(super) fn held_secrets(config: &Config) -> Vec<&'static str> {
    let outbound = &config.outbound;
    let relays = outbound.smarthost.iter().chain(outbound.domain_smarthosts.values());
    let held = [
        ("auth.google.client_secret", config.auth.google.client_secret.is_some()),
        ("the password of a smarthost", relays.map(|relay| &relay.password).any(Option::is_some)),
        ("metrics.token", config.metrics.token.is_some()),
    ];
    held.into_iter().filter(|(_, given)| *given).map(|(what, _)| what).collect()
}

fn data_dir(config: &Config, findings: &mut Findings) {
    let dir = config.data_dir.as_path();
    const WHAT: &str = "data directory";
    if !dir.exists() {
        let parent = dir.ancestors().find(|ancestor| ancestor.is_dir()).unwrap_or(Path::new("/"));
        let made = rustix::fs::access(parent, rustix::fs::Access::WRITE_OK).map_err(|_| {
            format!(
                "{0} does not exist and {1} is not writable; create it: install -d -m 700 -o USER {0}",
                dir.display(),
                parent.display()
            )
        });
        findings.outcome(WHAT, made, |()| format!("{} will be created at the first start", dir.display()));
        return;
    }
    if !findings
        .outcome(WHAT, DataDir::inspect(dir), |()| format!("{} is private and on a local disk", dir.display()))
    {
        return;
    }
    // Root may check the directory of the user that the server runs as.
    let user = rustix::process::geteuid().as_raw();
    if let Ok(owner) = dir.metadata().map(|metadata| metadata.uid())
        && owner != user
    {
        findings.hint(WHAT, format!("it belongs to user {owner}, but you are {user}; run mailkite as {owner}"));
    }
    if let Ok(free) = DataDir::free_bytes(dir)
        && free < LOW_SPACE_BYTES
    {
        findings.hint("free space", format!("only {} are free on the disk of {}", size(free), dir.display()));
    }
    database(dir, config, findings);
    sizes(dir, findings);
    let key = dir.join(secrets::FILE_NAME);
    // Before the first start there is none.
    if key.exists() || !matches!(Secrets::are_lost(dir), Ok(false)) {
        let fits = findings.outcome("master key", check_master_key(dir), |()| {
            format!("{} is private, and the database's", key.display())
        });
        if fits && dir.join(next::NEXT_NAME).exists() {
            let hint = "a rotation was cut off: copy master.key.next too; the next start ends it";
            findings.hint("master key", hint);
        }
    }
}

/// Checks that the master key can be read, and opens the secrets of the database if there is one.
fn check_master_key(dir: &Path) -> Result<(), SecretsError> {
    let secrets = master_key::read(dir)?;
    // A database that cannot be read is a finding of its own.
    match store::examine(dir, sealed::sample) {
        Ok(Some(sample)) => secrets.check_fits(dir, sample),
        _ => Ok(()),
    }
}

/// Checks the database; before the first start there is none.
fn database(dir: &Path, config: &Config, findings: &mut Findings) {
    const WHAT: &str = "database";
    let file = dir.join(store::FILE_NAME);
    if let Err(lost) = DataDir::inspect_database(dir, &file) {
        findings.outcome(WHAT, Err::<(), _>(lost), |()| String::new());
    } else if file.exists() {
        findings.outcome(WHAT, store::inspect(dir), |()| format!("{} is intact", file.display()));
        if let Ok(Some(Some(upgrade))) = store::examine(dir, store::migrate::pending_upgrade) {
            findings.hint(WHAT, format!("the next start upgrades it: {upgrade}"));
        }
        // An older schema may lack the table of routes.
        if let Ok(Some(Some(hint))) = store::examine(dir, |connection| shared_domain(connection, config)) {
            findings.hint("forwarding", hint);
        }
    }
}

/// Tells what takes the room on the disk, and when it was backed up last.
fn sizes(dir: &Path, findings: &mut Findings) {
    // A damaged database was reported.
    let Ok(Some(sizes)) = store::examine(dir, |connection| disk::sizes(connection, dir)) else { return };
    let free = DataDir::free_bytes(dir).map_or(String::new(), |free| format!("; {} are free", size(free)));
    let Sizes { database, free_pages, wal, mail, uploads, schema_copies } = sizes;
    let mut said = format!(
        "database {} ({} of it free pages), WAL {}, large mail {}, uploads {}",
        size(database),
        size(free_pages),
        size(wal),
        size(mail),
        size(uploads)
    );
    if schema_copies > 0 {
        said.push_str(&format!(", copies from before an upgrade {}", size(schema_copies)));
    }
    findings.good("disk", said + &free);
    match last_backup::read(dir) {
        Some(at) => findings.good("backup", format!("the last one was made {}", at.iso())),
        None => findings.hint("backup", "none was made yet; on this or another disk: mailkite backup FOLDER"),
    }
}

/// Checks that mail can leave from the configured source addresses.
fn source_addresses(config: &Config, findings: &mut Findings) {
    const WHAT: &str = "source address";
    for ip in &config.outbound.source_addresses {
        let bound = host::has_address(*ip)
            .map_err(|error| format!("outbound.source_addresses: {ip} is not an address of this machine ({error})"));
        findings.outcome(WHAT, bound, |()| {
            format!("{ip} belongs to this machine; its PTR record should name {}", config.hostname)
        });
        if ip.is_ipv6() && !config.outbound.ipv6 {
            findings.hint(WHAT, format!("{ip} is not used: [outbound] ipv6 is off"));
        }
    }
}

fn certificates(config: &Config, findings: &mut Findings) {
    const WHAT: &str = "certificate";
    match (&config.tls.cert_file, &config.tls.key_file) {
        (Some(cert), Some(key)) => {
            findings.outcome(WHAT, tls::load(cert, key), |_| format!("{} matches its key", cert.display()));
            if let Ok(Some(mode)) = tls::open_to_others(key) {
                let key = key.display();
                findings.hint(WHAT, format!("{key} can be read by everybody (mode {mode:o}); run: chmod 600 {key}"));
            }
        }
        _ => findings.hint(WHAT, "none configured: TLS will use a self-signed one, which senders cannot verify"),
    }
    if let Some(file) = &config.tls.ca_file {
        findings.outcome("ca_file", tls::client_config(Some(file)), |_| format!("{} is trusted", file.display()));
    }
}

fn count(problems: usize) -> String {
    if problems == 1 { "1 problem".to_owned() } else { format!("{problems} problems") }
}
