//! The results of a benchmark, as a table or as JSON.

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::Path;
use std::time::{Duration, Instant};

use serde::Serialize;

use super::Options;
use super::load::Loaded;
use super::remotes::Arrivals;
use super::server::Figures;

/// Percentiles in milliseconds.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Percentiles {
    p50: f64,
    p90: f64,
    p99: f64,
    max: f64,
}

impl Percentiles {
    /// Formats four columns of eight.
    pub(crate) fn columns(self) -> String {
        format!("{:>8.2} {:>8.2} {:>8.2} {:>8.2}", self.p50, self.p90, self.p99, self.max)
    }
}

/// All results.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Report {
    messages: u64,
    sessions: usize,
    size_bytes: usize,
    per_connection: u64,
    pipelining: bool,
    attachment_kib: usize,
    rate: u64,
    endpoints: usize,
    hanging: f64,
    preload: u64,
    accepted_per_second: f64,
    delivered_per_second: f64,
    ceiling_per_second: Option<f64>,
    share_of_ceiling: Option<f64>,
    accept_ms: Percentiles,
    mail_to_webhook_ms: Percentiles,
    tail_ms: f64,
    restart_ms: f64,
    commits_per_message: f64,
    fsyncs_per_message: f64,
    wal_kib_per_message: f64,
    cpu_ms_per_message: f64,
    idle_rss_mib: f64,
    peak_rss_mib: f64,
    /// Mails accepted for an endpoint that answers, but never delivered to it.
    pub(crate) lost: u64,
    #[serde(flatten)]
    machine: Machine,
}

/// The machine of the measurement.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Machine {
    cores: usize,
    cpu: String,
    kernel: String,
    filesystem: String,
    fsync_p50_us: u64,
    version: &'static str,
}

impl Machine {
    /// Describes this machine, with its disk.
    pub(crate) fn new(disk: Disk) -> Self {
        Self {
            cores: std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
            cpu: read_line("/proc/cpuinfo", "model name"),
            kernel: read_line("/proc/sys/kernel/osrelease", ""),
            filesystem: disk.filesystem,
            fsync_p50_us: disk.fsync_p50_us,
            version: env!("CARGO_PKG_VERSION"),
        }
    }

    /// Formats two lines for the table.
    pub(crate) fn lines(&self) -> [String; 2] {
        [
            format!("{} cores, {}", self.cores, self.cpu),
            format!("Linux {}; {}, fdatasync p50 {} µs", self.kernel, self.filesystem, self.fsync_p50_us),
        ]
    }
}

/// The disk of the data directory.
#[derive(Clone, Debug)]
pub(crate) struct Disk {
    filesystem: String,
    fsync_p50_us: u64,
}

impl Disk {
    /// Identifies the file system of `dir` and measures its fsync.
    pub(crate) fn measure(dir: &Path) -> anyhow::Result<Self> {
        Ok(Self { filesystem: filesystem(dir)?, fsync_p50_us: fsync_micros(dir)? })
    }
}

/// Returns the type of the mount that contains `dir`, as the kernel lists it.
fn filesystem(dir: &Path) -> anyhow::Result<String> {
    let dir = dir.canonicalize()?;
    let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let holding = mounts.lines().filter_map(|line| {
        let mut words = line.split(' ').skip(1);
        let (point, kind) = (words.next()?, words.next()?);
        dir.starts_with(point).then_some((point.len(), kind))
    });
    // Of several mounts on one point the last one is visible.
    Ok(holding.max_by_key(|(length, _)| *length).map_or_else(|| "unknown".to_owned(), |(_, kind)| kind.to_owned()))
}

/// Computes percentiles of sorted microseconds.
pub(crate) fn percentiles(sorted_micros: &[u64]) -> Percentiles {
    let at = |share: usize| {
        let index = (sorted_micros.len() * share / 100).min(sorted_micros.len().saturating_sub(1));
        sorted_micros.get(index).copied().unwrap_or(0) as f64 / 1_000.0
    };
    Percentiles { p50: at(50), p90: at(90), p99: at(99), max: at(100) }
}

/// Measures the median of an 8 KiB write with fdatasync in `dir`.
fn fsync_micros(dir: &Path) -> anyhow::Result<u64> {
    let path = dir.join("fsync-probe");
    let mut file = std::fs::File::create(&path)?;
    let mut times = Vec::new();
    for _ in 0..100 {
        file.write_all(&[0; 8192])?;
        let started = Instant::now();
        file.sync_data()?;
        times.push(u64::try_from(started.elapsed().as_micros()).unwrap_or(u64::MAX));
    }
    std::fs::remove_file(path)?;
    times.sort_unstable();
    Ok(times.get(50).copied().unwrap_or(0))
}

fn read_line(path: &str, prefix: &str) -> String {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix(prefix)).unwrap_or_default();
    line.trim_start_matches([':', ' ', '\t']).to_owned()
}

impl Report {
    #[expect(clippy::too_many_arguments, reason = "one call site; each is a measurement of its own")]
    pub(crate) fn new(
        options: &Options,
        loaded: &Loaded,
        arrivals: &Arrivals,
        expected: u64,
        tail: Duration,
        restart: Duration,
        before: &Figures,
        after: &Figures,
        ceiling: Option<f64>,
        disk: Disk,
    ) -> Self {
        let accepted = loaded.accept_micros.len().max(1) as f64;
        let arrived = arrivals.count();
        let per_second = loaded.per_second();
        Self {
            messages: options.messages,
            sessions: options.sessions,
            size_bytes: options.size,
            per_connection: options.per_connection,
            pipelining: !options.no_pipelining,
            attachment_kib: options.attachments,
            rate: options.rate,
            endpoints: options.endpoints,
            hanging: options.hanging,
            preload: options.preload,
            accepted_per_second: per_second,
            delivered_per_second: arrived as f64 / (loaded.took + tail).as_secs_f64(),
            ceiling_per_second: ceiling,
            share_of_ceiling: ceiling.map(|ceiling| per_second / ceiling),
            accept_ms: percentiles(&loaded.accept_micros),
            mail_to_webhook_ms: percentiles(&arrivals.latencies()),
            tail_ms: tail.as_secs_f64() * 1_000.0,
            restart_ms: restart.as_secs_f64() * 1_000.0,
            commits_per_message: (after.commits - before.commits) as f64 / accepted,
            fsyncs_per_message: (after.fsyncs - before.fsyncs) as f64 / accepted,
            wal_kib_per_message: (after.wal_octets - before.wal_octets) as f64 / 1024.0 / accepted,
            cpu_ms_per_message: (after.cpu_millis - before.cpu_millis) as f64 / accepted,
            idle_rss_mib: before.rss_kib as f64 / 1_024.0,
            peak_rss_mib: after.peak_rss_kib as f64 / 1_024.0,
            lost: expected.saturating_sub(arrived),
            machine: Machine::new(disk),
        }
    }

    /// Renders one JSON object.
    pub(crate) fn to_json(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }

    /// Renders a table.
    pub(crate) fn to_table(&self) -> String {
        let mut text = String::new();
        let mut row = |name: &str, value: String| {
            let line = format!("  {name:<22} {value}");
            // Writing to a string cannot fail.
            let _ = writeln!(text, "{}", line.trim_end());
        };
        let speed = |rate: u64| if rate == 0 { "as fast as accepted".to_owned() } else { format!("{rate}/s") };
        row("", String::new());
        let attached = match self.attachment_kib {
            0 => String::new(),
            kib => format!(" and an attachment of {kib} KiB"),
        };
        row("load", format!("{} mails of {} B{attached}, {}", self.messages, self.size_bytes, speed(self.rate)));
        let pipelining = if self.pipelining { "pipelining" } else { "no pipelining" };
        row("", format!("{} sessions, {} mails a connection, {pipelining}", self.sessions, self.per_connection));
        if self.endpoints > 1 || self.preload > 0 {
            let hanging = self.hanging * 100.0;
            row("", format!("{} endpoints, {hanging:.0} % hanging, {} stored before", self.endpoints, self.preload));
        }
        let [cores, kernel] = self.machine.lines();
        row("machine", cores);
        row("", kernel);
        row("", String::new());
        row("accepted", format!("{:.0}/s", self.accepted_per_second));
        row(
            "mail to webhook",
            format!("{:.0}/s, tail after the last 250: {:.0} ms", self.delivered_per_second, self.tail_ms),
        );
        if let (Some(ceiling), Some(share)) = (self.ceiling_per_second, self.share_of_ceiling) {
            row("no-op sink", format!("{ceiling:.0}/s with the same loader; ratio {share:.2}"));
        }
        let times = |percentiles: Percentiles| format!("{}  ms", percentiles.columns());
        row("", format!("{:>8} {:>8} {:>8} {:>8}", "p50", "p90", "p99", "max"));
        row("MAIL to 250", times(self.accept_ms));
        row("final dot to webhook", times(self.mail_to_webhook_ms));
        row(
            "commits per mail",
            format!(
                "{:.3}, and {:.3} fsyncs, {:.1} KiB of WAL",
                self.commits_per_message, self.fsyncs_per_message, self.wal_kib_per_message
            ),
        );
        row("CPU of the server", format!("{:.3} ms a mail", self.cpu_ms_per_message));
        row("RSS of the server", format!("{:.0} MiB idle, {:.0} MiB at most", self.idle_rss_mib, self.peak_rss_mib));
        row("restart after kill -9", format!("{:.0} ms", self.restart_ms));
        row("lost", self.lost.to_string());
        text
    }
}
