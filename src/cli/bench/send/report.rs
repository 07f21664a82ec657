//! The results of `mailkite bench send`, as a table or as JSON.

use std::fmt::Write as _;
use std::time::Duration;

use serde::Serialize;

use super::Options;
use crate::cli::bench::remotes::Arrivals;
use crate::cli::bench::report::{Disk, Machine, Percentiles, percentiles};
use crate::cli::bench::server::Figures;

/// All results.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Report {
    messages: u64,
    clients: u16,
    size_bytes: usize,
    domains: u64,
    rate: u64,
    tarpit: u64,
    accepted_per_second: f64,
    delivered_per_second: f64,
    ceiling_per_second: f64,
    share_of_ceiling: f64,
    accept_ms: Percentiles,
    request_to_remote_host_ms: Percentiles,
    tail_ms: f64,
    commits_per_message: f64,
    fsyncs_per_message: f64,
    peak_rss_mib: f64,
    /// Messages answered 202 for a host that answers, but never received there.
    pub(crate) lost: u64,
    #[serde(flatten)]
    machine: Machine,
}

impl Report {
    #[expect(clippy::too_many_arguments, reason = "one call site; each is a measurement of its own")]
    pub(crate) fn new(
        options: &Options,
        accept_micros: &[u64],
        accepted_in: Duration,
        delivered_in: Duration,
        arrivals: &Arrivals,
        [before, after]: [&Figures; 2],
        ceiling: f64,
        disk: Disk,
    ) -> Self {
        let arrived = arrivals.count();
        let delivered_per_second = arrived as f64 / delivered_in.as_secs_f64();
        let messages = options.messages as f64;
        Self {
            messages: options.messages,
            clients: options.clients,
            size_bytes: options.size,
            domains: options.domains,
            rate: options.rate,
            tarpit: options.tarpit,
            accepted_per_second: messages / accepted_in.as_secs_f64(),
            delivered_per_second,
            ceiling_per_second: ceiling,
            share_of_ceiling: delivered_per_second / ceiling,
            accept_ms: percentiles(accept_micros),
            request_to_remote_host_ms: percentiles(&arrivals.latencies()),
            tail_ms: delivered_in.saturating_sub(accepted_in).as_secs_f64() * 1_000.0,
            commits_per_message: (after.commits - before.commits) as f64 / messages,
            fsyncs_per_message: (after.fsyncs - before.fsyncs) as f64 / messages,
            peak_rss_mib: after.peak_rss_kib as f64 / 1_024.0,
            lost: options.messages.saturating_sub(arrived),
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
            let line = format!("  {name:<24} {value}");
            // Writing to a string cannot fail.
            let _ = writeln!(text, "{}", line.trim_end());
        };
        let speed = if self.rate == 0 { "as fast as accepted".to_owned() } else { format!("{}/s", self.rate) };
        row("", String::new());
        row("load", format!("{} messages of {} B, {speed}", self.messages, self.size_bytes));
        row("", format!("{} API connections, {} recipient domains", self.clients, self.domains));
        if self.tarpit > 0 {
            row("", format!("{} queued beforehand for a host that never answers", self.tarpit));
        }
        let [cores, kernel] = self.machine.lines();
        row("machine", cores);
        row("", kernel);
        row("", String::new());
        row("accepted", format!("{:.0}/s", self.accepted_per_second));
        row(
            "delivered",
            format!("{:.0}/s, tail after the last 202: {:.0} ms", self.delivered_per_second, self.tail_ms),
        );
        row(
            "remote host alone",
            format!(
                "{:.0}/s from a plain load generator; ratio {:.2}",
                self.ceiling_per_second, self.share_of_ceiling
            ),
        );
        let times = |percentiles: Percentiles| format!("{}  ms", percentiles.columns());
        row("", format!("{:>8} {:>8} {:>8} {:>8}", "p50", "p90", "p99", "max"));
        row("request to 202", times(self.accept_ms));
        row("request to remote host", times(self.request_to_remote_host_ms));
        row(
            "commits per message",
            format!("{:.3}, and {:.3} fsyncs", self.commits_per_message, self.fsyncs_per_message),
        );
        row("peak RSS of the server", format!("{:.0} MiB", self.peak_rss_mib));
        row("lost", self.lost.to_string());
        text
    }
}
