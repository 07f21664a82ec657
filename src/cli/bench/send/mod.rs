//! `mailkite bench send`: messages submitted to the API by keep-alive clients, signed, and delivered to remote hosts,
//! which are sinks on this machine under names of a small DNS server.

mod dns;
mod report;

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use bytes::Bytes;
use clap::Args;
use serde_json::json;

use super::client::Api;
use super::load::{self, Load};
use super::remotes::{self, Arrivals, Sink};
use super::report as machine;
use super::server::Child;
use report::Report;

/// The most time to wait for deliveries after the last 202.
const TAIL_MAX: Duration = Duration::from_secs(120);
/// Clients that fill the tarpit's queue.
const FILLERS: usize = 16;

#[derive(Clone, Debug, Args)]
pub(crate) struct Options {
    /// Messages to send
    #[arg(long, default_value_t = 20_000, value_parser = clap::value_parser!(u64).range(1..))]
    messages: u64,
    /// Concurrent connections that submit messages to the API
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u16).range(1..))]
    clients: u16,
    /// Octets of a text
    #[arg(long, default_value_t = 4_096)]
    size: usize,
    /// Recipient domains that the messages are spread over
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u64).range(1..))]
    domains: u64,
    /// Messages per second, whatever the server does (open loop); 0 is as fast as it accepts them
    #[arg(long, default_value_t = 0)]
    rate: u64,
    /// Messages queued beforehand for a domain whose host never answers
    #[arg(long, default_value_t = 0)]
    tarpit: u64,
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

/// Messages to submit to the API.
struct Batch {
    /// Numbered from 0; those of the tarpit are not counted.
    messages: u64,
    clients: usize,
    rate: u64,
    text: Arc<str>,
    recipient: Arc<dyn Fn(u64) -> String + Send + Sync>,
}

/// Runs the benchmark and prints its table; fails if a message was lost.
pub(crate) fn run(options: &Options) -> anyhow::Result<()> {
    let scratch = super::scratch(&options.dir, options.allow_tmpfs)?;
    let report = super::until_stopped(measure(options, &scratch.0))?;
    if options.json {
        println!("{}", report.to_json());
    } else {
        print!("{}", report.to_table());
    }
    if report.lost > 0 {
        bail!("{} messages were lost", report.lost);
    }
    Ok(())
}

async fn measure(options: &Options, dir: &Path) -> anyhow::Result<Report> {
    std::fs::create_dir_all(dir)?;
    let disk = machine::Disk::measure(dir)?;
    let ceiling = ceiling(options).await?;
    let arrivals = Arc::new(Arrivals::new(options.messages));
    let remote = Sink::start(Arc::clone(&arrivals)).await?;
    let port = remote.address.port();
    remotes::tarpit(SocketAddr::new(IpAddr::V4(dns::TARPIT), port)).await?;
    let dns = dns::start().await?;
    let (dns, port) = (dns.to_string(), port.to_string());
    // Its webhooks go nowhere: the one domain exists to send from.
    let mut child = Child::start(dir, &[9], &["--dns", &dns, "--remote-port", &port]).await?;
    let api = Arc::new(Api::new(child.http, &child.api_key));
    // The first message of a domain waits while its keys are created.
    let text: Arc<str> = "It branches.".into();
    let recipient = |_: u64| format!("first@{}", dns::domain(0));
    let first = Batch { messages: 1, clients: 1, rate: 0, text, recipient: Arc::new(recipient) };
    submit_all(&api, &first, None).await?;
    if options.tarpit > 0 {
        eprintln!("queueing {} messages for a host that never answers", options.tarpit);
        let recipient = |number: u64| format!("m{number}@{}", dns::TARPIT_DOMAIN);
        let text = text_of(options.size);
        let stuck =
            Batch { messages: options.tarpit, clients: FILLERS, rate: 0, text, recipient: Arc::new(recipient) };
        submit_all(&api, &stuck, None).await?;
    }
    let before = child.figures().await?;
    let domains = options.domains;
    let batch = Batch {
        messages: options.messages,
        clients: usize::from(options.clients),
        rate: options.rate,
        text: text_of(options.size),
        recipient: Arc::new(move |number| format!("m{number}@{}", dns::domain(number % domains))),
    };
    let started = Instant::now();
    let accept_micros = submit_all(&api, &batch, Some(&arrivals)).await?;
    let accepted_in = started.elapsed();
    let last = Instant::now();
    while arrivals.count() < options.messages && last.elapsed() < TAIL_MAX {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let delivered_in = started.elapsed();
    let after = child.figures().await?;
    // Kill rather than stop: a stop waits for attempts to end, and the tarpit's do not.
    drop(child);
    Ok(Report::new(options, &accept_micros, accepted_in, delivered_in, &arrivals, [&before, &after], ceiling, disk))
}

/// Measures the mails per second that such a remote host accepts from the plain load generator.
async fn ceiling(options: &Options) -> anyhow::Result<f64> {
    let sink = Sink::start(Arc::new(Arrivals::new(0))).await?;
    let load = Load {
        first: 0,
        messages: options.messages,
        sessions: usize::from(options.clients),
        per_connection: 100,
        rate: 0,
        pipelining: true,
        endpoints: 1,
        body: load::body(options.size, 0),
    };
    Ok(load::run(&load, sink.address, Arc::new(Arrivals::new(options.messages))).await?.per_second())
}

/// Returns plain text as the load generator of `mailkite bench` sends it, without its header.
fn text_of(size: usize) -> Arc<str> {
    let body = load::body(size, 0);
    let text = body.split_once("\r\n\r\n").map_or("", |(_, text)| text).trim_end_matches("\r\n.\r\n");
    text.replace("\r\n", "\n").into()
}

/// Submits all messages of a batch to the API; returns the sorted microseconds from each request (open loop: from its
/// due time) to its 202.
async fn submit_all(api: &Arc<Api>, batch: &Batch, sent: Option<&Arc<Arrivals>>) -> anyhow::Result<Vec<u64>> {
    let next = Arc::new(AtomicU64::new(0));
    let started = Instant::now();
    let client = |_| {
        let (api, next, sent) = (Arc::clone(api), Arc::clone(&next), sent.cloned());
        let (messages, rate) = (batch.messages, batch.rate);
        let (text, recipient) = (Arc::clone(&batch.text), Arc::clone(&batch.recipient));
        tokio::spawn(async move {
            let mut client = api.connect().await?;
            let mut micros = Vec::new();
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= messages {
                    return anyhow::Ok(micros);
                }
                // Mail that fills queues or creates keys is not counted at the remote hosts.
                let subject = if sent.is_some() { format!("number={number};") } else { "not counted".to_owned() };
                let message = json!({
                    "from": "Bench <bench@e0.bench.test>", "to": recipient(number), "subject": subject, "text": &*text,
                });
                let body = Bytes::from(serde_json::to_vec(&message)?);
                let due = if rate == 0 {
                    Instant::now()
                } else {
                    let due = started + Duration::from_secs_f64(number as f64 / rate as f64);
                    tokio::time::sleep_until(due.into()).await;
                    due
                };
                if let Some(sent) = &sent {
                    sent.record_sent(number);
                }
                client.post("/v1/send", body).await.with_context(|| format!("message {number}"))?;
                micros.push(u64::try_from(due.elapsed().as_micros()).unwrap_or(u64::MAX));
            }
        })
    };
    let clients: Vec<_> = (0..batch.clients).map(client).collect();
    let mut micros = Vec::new();
    for client in clients {
        micros.extend(client.await??);
    }
    micros.sort_unstable();
    Ok(micros)
}
