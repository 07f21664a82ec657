//! The results of `mailkite bench api`, as a table or as JSON.

use std::fmt::Write as _;
use std::time::Duration;

use serde::Serialize;

use crate::cli::bench::report::{Disk, Machine, Percentiles, percentiles};
use crate::cli::bench::server::Figures;

/// The result of one kind of request.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Measured {
    name: &'static str,
    connections: usize,
    requests: usize,
    per_second: f64,
    bytes_per_answer: u64,
    ms: Percentiles,
}

impl Measured {
    /// Computes the result from the sorted times of all requests.
    pub(crate) fn new(name: &'static str, connections: usize, micros: &[u64], octets: u64, took: Duration) -> Self {
        Self {
            name,
            connections,
            requests: micros.len(),
            per_second: micros.len() as f64 / took.as_secs_f64(),
            bytes_per_answer: octets / (micros.len() as u64).max(1),
            ms: percentiles(micros),
        }
    }
}

/// Mails accepted per second, alone and while lists are requested.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Accepting {
    alone_per_second: f64,
    listing_per_second: f64,
    lists_per_second: f64,
    ratio: f64,
}

impl Accepting {
    /// Averages the rates of all rounds.
    pub(crate) fn new(alone: &[f64], listing: &[f64], lists: &[f64]) -> Self {
        let mean = |rates: &[f64]| rates.iter().sum::<f64>() / (rates.len().max(1) as f64);
        let (alone, listing) = (mean(alone), mean(listing));
        Self {
            alone_per_second: alone,
            listing_per_second: listing,
            lists_per_second: mean(lists),
            ratio: listing / alone,
        }
    }
}

/// All results.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Report {
    messages: u64,
    clients: u16,
    stored_in_secs: f64,
    measured: Vec<Measured>,
    accepting: Option<Accepting>,
    peak_rss_mib: f64,
    #[serde(flatten)]
    machine: Machine,
}

impl Report {
    pub(crate) fn new(
        messages: u64,
        clients: u16,
        stored_in: Duration,
        measured: Vec<Measured>,
        accepting: Option<Accepting>,
        figures: &Figures,
        disk: Disk,
    ) -> Self {
        Self {
            messages,
            clients,
            stored_in_secs: stored_in.as_secs_f64(),
            measured,
            accepting,
            peak_rss_mib: figures.peak_rss_kib as f64 / 1_024.0,
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
            let line = format!("  {name:<30} {value}");
            // Writing to a string cannot fail.
            let _ = writeln!(text, "{}", line.trim_end());
        };
        row("", String::new());
        row("stored", format!("{} messages, in {:.0} s", self.messages, self.stored_in_secs));
        let [cores, kernel] = self.machine.lines();
        row("machine", cores);
        row("", kernel);
        row("", String::new());
        row("", format!("{:>8} {:>8} {:>8} {:>8}  {:>10}", "p50", "p90", "p99", "max", "requests/s"));
        for Measured { name, connections, per_second, ms, bytes_per_answer, .. } in &self.measured {
            let times = ms.columns();
            let answer = *bytes_per_answer as f64 / 1_024.0;
            row(name, format!("{times}  {per_second:>10.0}  ms, {connections} connections, {answer:.1} KiB each"));
        }
        if let Some(accepting) = &self.accepting {
            row("", String::new());
            row("mails accepted", format!("{:.0}/s", accepting.alone_per_second));
            let Accepting { listing_per_second, lists_per_second, ratio, .. } = accepting;
            row("while lists are requested", format!("{listing_per_second:.0}/s; ratio {ratio:.2}"));
            row("", format!("with {lists_per_second:.0} lists a second"));
        }
        row("peak RSS of the server", format!("{:.0} MiB", self.peak_rss_mib));
        text
    }
}
