//! `mailkite bench`: the product's own benchmark, reproducible.
//!
//! The server is a process of its own on a real disk, with the durability of production; this process is the load
//! generator and the webhook receiver, on the same machine. A no-op SMTP sink under the same load gives the ceiling,
//! so that the result is a ratio. A new measurement is a subcommand with a file of its own and a report; `server` is
//! the process under test.

mod api;
mod client;
mod library;
mod load;
mod remotes;
mod report;
mod send;
mod server;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use clap::{Args, Subcommand};

pub(crate) use server::{ServerOptions, run as run_server};

use load::{Load, Loaded};
use remotes::{Arrivals, Sink};
use report::Report;
use server::Child;

/// The most time to wait for webhooks after the last 250.
const TAIL_MAX: Duration = Duration::from_secs(20);
/// `TMPFS_MAGIC` of statfs(2): memory, where fsync costs nothing.
const TMPFS: u32 = 0x0102_1994;

/// Benchmarks other than mail to webhook.
#[derive(Clone, Debug, Subcommand)]
enum Other {
    /// Measure lists, searches and details of a large mailbox, and the cost of listing for mail that arrives
    /// meanwhile
    Api(api::Options),
    /// Measure messages submitted to the API and delivered to remote hosts
    Send(send::Options),
}

#[derive(Clone, Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct Options {
    #[command(subcommand)]
    other: Option<Other>,
    /// Mails to send
    #[arg(long, default_value_t = 20_000)]
    messages: u64,
    /// Concurrent SMTP sessions
    #[arg(long, default_value_t = 32)]
    sessions: usize,
    /// Octets of a mail
    #[arg(long, default_value_t = 4_096)]
    size: usize,
    /// Mails sent over one connection
    #[arg(long, default_value_t = 100)]
    per_connection: u64,
    /// Mails per second, whatever the server does (open loop); 0 is as fast as it accepts them
    #[arg(long, default_value_t = 0)]
    rate: u64,
    /// KiB of an attachment in each mail; 0 for none
    #[arg(long, default_value_t = 0)]
    attachments: usize,
    /// Endpoints, each with a domain of its own
    #[arg(long, default_value_t = 1)]
    endpoints: usize,
    /// Share of the endpoints that never answer, from 0 to 1
    #[arg(long, default_value_t = 0.0)]
    hanging: f64,
    /// Messages stored before the measurement
    #[arg(long, default_value_t = 0)]
    preload: u64,
    /// Wait for the reply to each command instead of pipelining MAIL, RCPT and DATA
    #[arg(long)]
    no_pipelining: bool,
    /// Skip the no-op sink
    #[arg(long)]
    no_baseline: bool,
    /// Folder to create the data directory in, and remove it again; a real disk
    #[arg(long, value_name = "DIR", default_value = ".")]
    dir: PathBuf,
    /// Measure even on a file system in memory, where an fsync costs nothing
    #[arg(long)]
    allow_tmpfs: bool,
    /// Print one JSON object instead of a table
    #[arg(long)]
    json: bool,
}

/// A directory that is removed on drop.
struct Scratch(PathBuf);

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.0) {
            eprintln!("{} was not removed: {error}", self.0.display());
        }
    }
}

/// Runs the benchmark and prints its table; fails if a message was lost.
pub(crate) fn run(options: &Options) -> anyhow::Result<()> {
    match &options.other {
        Some(Other::Api(options)) => return api::run(options),
        Some(Other::Send(options)) => return send::run(options),
        None => {}
    }
    if !(0.0..1.0).contains(&options.hanging) || options.endpoints == 0 || options.sessions == 0 {
        bail!("--hanging must be below 1, and --endpoints and --sessions at least 1");
    }
    let scratch = scratch(&options.dir, options.allow_tmpfs)?;
    let lost = until_stopped(measure(options, &scratch.0))?;
    if lost > 0 {
        bail!("{lost} messages were lost");
    }
    Ok(())
}

/// Names a new folder in `dir`, which must be on a real disk.
fn scratch(dir: &Path, allow_tmpfs: bool) -> anyhow::Result<Scratch> {
    let stat = rustix::fs::statfs(dir).with_context(|| format!("reading the file system of {}", dir.display()))?;
    let in_memory =
        stat.f_type.to_ne_bytes().first_chunk::<4>().map(|bytes| u32::from_ne_bytes(*bytes)) == Some(TMPFS);
    if in_memory && !allow_tmpfs {
        bail!(
            "{} is in memory (tmpfs), where an fsync costs nothing; name a directory on a real disk \
             with --dir, or use --allow-tmpfs",
            dir.display()
        );
    }
    Ok(Scratch(dir.join(format!("mailkite-bench-{}", std::process::id()))))
}

/// Runs a measurement; a signal ends it with an error, and the folder is removed.
fn until_stopped<T>(measurement: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    super::serve_on_threads(async {
        let stop = super::serve::stop_on_signal()?;
        tokio::select! {
            measured = measurement => measured,
            () = stop.cancelled() => bail!("stopped before the end; nothing was measured"),
        }
    })
}

async fn measure(options: &Options, dir: &Path) -> anyhow::Result<u64> {
    std::fs::create_dir_all(dir)?;
    let disk = report::Disk::measure(dir)?;
    let load = Load {
        first: 0,
        messages: options.messages,
        sessions: options.sessions,
        per_connection: options.per_connection,
        rate: options.rate,
        pipelining: !options.no_pipelining,
        endpoints: options.endpoints,
        body: load::body(options.size, options.attachments * 1024),
    };
    let baseline = if options.no_baseline {
        None
    } else {
        let sink = Sink::start(Arc::new(Arrivals::new(0))).await?;
        let loaded = load::run(&load, sink.address, Arc::new(Arrivals::new(options.messages))).await?;
        Some(loaded.per_second())
    };
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a share below 1 of a small number")]
    let hanging = (options.hanging * options.endpoints as f64).round() as usize;
    let arrivals = Arc::new(Arrivals::new(options.messages));
    let ports = remotes::receivers(options.endpoints, hanging, &arrivals).await?;
    if options.preload > 0 {
        eprintln!("storing {} messages first", options.preload);
    }
    let mut child = Child::start(dir, &ports, &["--preload", &options.preload.to_string()]).await?;
    let before = child.figures().await?;
    let loaded: Loaded = load::run(&load, child.smtp, Arc::clone(&arrivals)).await?;
    let last = Instant::now();
    let expected = loaded.accepted_for(|endpoint| endpoint >= hanging);
    while arrivals.count() < expected && last.elapsed() < TAIL_MAX {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let tail = last.elapsed();
    let after = child.figures().await?;
    child.kill().await?;
    let killed = Instant::now();
    let restarted = Child::start(dir, &ports, &[]).await?;
    let restart = killed.elapsed();
    restarted.stop().await?;
    let report = Report::new(options, &loaded, &arrivals, expected, tail, restart, &before, &after, baseline, disk);
    if options.json {
        println!("{}", report.to_json());
    } else {
        print!("{}", report.to_table());
    }
    Ok(report.lost)
}
