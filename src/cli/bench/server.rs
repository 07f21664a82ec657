//! The server under test, in a process of its own, so that its memory and its commits are measured alone.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::Context;
use clap::Args;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{ChildStdin, ChildStdout};
use tokio_util::sync::CancellationToken;

use super::library;
use crate::app::{self, Bound};
use crate::bootstrap;
use crate::clock::{Clock, Timestamp};
use crate::config::{Config, Log, LogFormat};
use crate::id::MessageId;
use crate::process::sockets::Sockets;
use crate::store;
use crate::store::blobs::objects::Objects;
use crate::store::messages::mail_data;
use crate::store::{Db, messages};

/// Rows per transaction of the preload.
const PRELOAD_STEP: u64 = 2_000;
/// The network of the benchmark's remote hosts.
const LOOPBACK: &str = "127.0.0.0/8";

/// Options of the hidden command that runs the server.
#[derive(Clone, Debug, Args)]
pub(crate) struct ServerOptions {
    /// The data directory
    #[arg(long)]
    data_dir: PathBuf,
    /// Ports of the endpoints' webhooks
    #[arg(long, value_delimiter = ',')]
    ports: Vec<u16>,
    /// Messages to store first, all alike
    #[arg(long, default_value_t = 0)]
    preload: u64,
    /// Messages to store first, varied as in a mailbox
    #[arg(long, default_value_t = 0)]
    library: u64,
    /// The DNS server; `remote_port` is the port of the hosts it names
    #[arg(long, requires = "remote_port")]
    dns: Option<SocketAddr>,
    #[arg(long)]
    remote_port: Option<u16>,
}

/// The line that the server prints once it is ready.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Ready {
    smtp: SocketAddr,
    http: SocketAddr,
    api_key: String,
}

/// The server's own figures, printed on request.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Figures {
    /// Commits so far.
    pub(crate) commits: u64,
    /// Fsyncs so far: of commits, of object files and of their folders.
    pub(crate) fsyncs: u64,
    /// Octets written to the database's WAL so far.
    #[serde(default)]
    pub(crate) wal_octets: u64,
    /// Memory held now, and at most so far, in KiB.
    pub(crate) rss_kib: u64,
    pub(crate) peak_rss_kib: u64,
    /// Processor time of all threads so far.
    pub(crate) cpu_millis: u64,
}

impl Figures {
    fn new(db: &Db, objects: &Objects) -> Self {
        let (commits, synced) = db.commits();
        let fsyncs = synced + objects.fsyncs();
        let (rss_kib, peak_rss_kib) = (memory_kib("VmRSS:"), memory_kib("VmHWM:"));
        Self { commits, fsyncs, wal_octets: db.wal_written(), rss_kib, peak_rss_kib, cpu_millis: cpu_millis() }
    }
}

/// Serves until standard input ends; each line there requests the figures.
pub(crate) fn run(options: &ServerOptions) -> anyhow::Result<()> {
    let _logs = crate::cli::logs::init(&Log { level: "warn".to_owned(), format: LogFormat::Human });
    crate::cli::serve_on_threads(async {
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let mut config = Config::dev(options.data_dir.clone(), any, any);
        // Run as production does; loopback peers are verified without DNS anyway.
        config.dev = false;
        config.smtp.max_sessions_per_address = config.smtp.max_sessions;
        // Measure the server, not its limits for one client.
        config.http.rate_limit = 0;
        config.limits.requests_per_second = 0;
        if let (Some(dns), Some(port)) = (options.dns, options.remote_port) {
            config.dns.servers = vec![dns];
            config.outbound.port = port;
            config.outbound.allow_networks = vec![LOOPBACK.parse()?];
        }
        let bound = app::bind(config, Clock::System, &Sockets::default()).await?;
        let api_key = seed(&bound, &options.ports).await?;
        if options.preload > 0 || options.library > 0 {
            preload(bound.db(), options.preload, bound.clock().now()).await?;
            library::store(bound.db(), options.library, bound.clock().now()).await?;
            finish_preload(bound.db()).await?;
        }
        let smtp = bound.smtp_addresses().first().copied().context("no SMTP address")?;
        let http = bound.http_addresses().first().copied().context("no HTTP address")?;
        let (db, objects) = (bound.db().clone(), bound.retention().objects.clone());
        let stop = CancellationToken::new();
        let serving = tokio::spawn(bound.run(stop.clone()));
        println!("{}", serde_json::to_string(&Ready { smtp, http, api_key })?);
        let mut asked = BufReader::new(tokio::io::stdin()).lines();
        while let Ok(Some(_)) = asked.next_line().await {
            println!("{}", serde_json::to_string(&Figures::new(&db, &objects))?);
        }
        stop.cancel();
        serving.await??;
        Ok(())
    })
}

fn memory_kib(name: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix(name));
    line.and_then(|rest| rest.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}

/// Reads fields 14 and 15 of `/proc/self/stat`, which Linux counts in hundredths of a second.
fn cpu_millis() -> u64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // Skip the program's name, which may contain anything.
    let fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace().skip(11).take(2);
    fields.filter_map(|field| field.parse::<u64>().ok()).sum::<u64>() * 10
}

/// Creates the owner with its domains; returns the owner's API key.
async fn seed(bound: &Bound, ports: &[u16]) -> anyhow::Result<String> {
    let (secrets, now, ports) = (bound.secrets().clone(), bound.clock().now(), ports.to_vec());
    let seeded = bound.db().write(move |tx| {
        let (account, key) = bootstrap::owner(tx, &secrets, "bench@bench.test", now)?;
        for (index, port) in ports.into_iter().enumerate() {
            let domain = bootstrap::verified_domain(tx, account.id, &format!("e{index}.bench.test"), now)?;
            bootstrap::domain_webhook(tx, &secrets, &domain, &format!("http://127.0.0.1:{port}/hook"), now)?;
        }
        Ok(key)
    });
    Ok(seeded.await?)
}

/// Stores messages as acceptance would have, spread over the last day.
async fn preload(db: &Db, count: u64, now: Timestamp) -> anyhow::Result<()> {
    let mut stored = 0;
    while stored < count {
        let until = (stored + PRELOAD_STEP).min(count);
        db.write(move |tx| (stored..until).try_for_each(|number| preload_one(tx, number, count, now))).await?;
        stored = until;
    }
    Ok(())
}

/// Fills the search index and flushes the preload, as in a server that has run for a while.
async fn finish_preload(db: &Db) -> anyhow::Result<()> {
    while db.write(|tx| store::search::fill(tx, 5_000)).await? > 0 {}
    rustix::fs::sync();
    Ok(())
}

fn preload_one(tx: &store::Connection, number: u64, count: u64, now: Timestamp) -> store::Result<()> {
    let age = 86_400_000_u64.saturating_mul(count - number) / count;
    let at = now.minus(std::time::Duration::from_millis(age));
    let text = format!("From: bench@bench.test\r\nSubject: stored {number}\r\n\r\n{}", "An older mail. ".repeat(100));
    let mail_data_id = mail_data::insert(tx, &mail_data::NewMailData::inline(text.as_bytes()), at)?;
    let new = messages::NewMessage {
        public_id: MessageId::new(at),
        account_id: crate::id::RowId::new(1),
        domain_id: Some(crate::id::RowId::new(1)),
        route_id: None,
        mail_from: "bench@bench.test".into(),
        from_addr: "bench@bench.test".into(),
        from_name: None,
        to_addr: format!("m{number}@e0.bench.test"),
        to_name: None,
        subject: Some(format!("stored {number}")),
        message_id_header: None,
        thread_id: None,
        spf: None,
        dkim: None,
        dmarc: None,
        spam: None,
        trace: String::new(),
        truncated: false,
        attachment_count: 0,
        size: text.len() as u64,
        mail_data_id,
    };
    let (message, _) = messages::insert(tx, &new, at)?;
    let fingerprint = number.wrapping_mul(0x9e37_79b9_7f4a_7c15).cast_signed();
    store::messages::dedup::insert(tx, fingerprint, message, at)
}

/// The server's process.
pub(crate) struct Child {
    process: tokio::process::Child,
    input: ChildStdin,
    output: Lines<BufReader<ChildStdout>>,
    /// The address that receives mail.
    pub(crate) smtp: SocketAddr,
    /// The address of the API.
    pub(crate) http: SocketAddr,
    /// The API key of the account that owns all mail.
    pub(crate) api_key: String,
}

impl Child {
    /// Starts it and waits until it is ready; `more` are further options of its command.
    pub(crate) async fn start(dir: &Path, ports: &[u16], more: &[&str]) -> anyhow::Result<Self> {
        let ports: Vec<String> = ports.iter().map(u16::to_string).collect();
        let mut process = tokio::process::Command::new(std::env::current_exe()?)
            .arg("bench-server")
            .arg("--data-dir")
            .arg(dir.join("data"))
            .args(["--ports", &ports.join(",")])
            .args(more)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .context("starting the server")?;
        let ask = process.stdin.take().context("no pipe to the server")?;
        let output = process.stdout.take().context("no pipe from the server")?;
        let mut output = BufReader::new(output).lines();
        let ready = output.next_line().await?.context("the server did not start")?;
        let Ready { smtp, http, api_key } = serde_json::from_str(&ready)?;
        Ok(Self { process, input: ask, output, smtp, http, api_key })
    }

    /// Requests the figures.
    pub(crate) async fn figures(&mut self) -> anyhow::Result<Figures> {
        self.input.write_all(b"\n").await?;
        let line = self.output.next_line().await?.context("the server exited")?;
        Ok(serde_json::from_str(&line)?)
    }

    /// Kills it, as `kill -9` does.
    pub(crate) async fn kill(mut self) -> anyhow::Result<()> {
        self.process.kill().await.context("killing the server")
    }

    /// Stops it and waits for its exit.
    pub(crate) async fn stop(mut self) -> anyhow::Result<()> {
        drop(self.input);
        self.process.wait().await?;
        Ok(())
    }
}
