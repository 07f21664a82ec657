//! `mailkite bench api`: lists, searches and details of a large mailbox over real HTTP connections, and the cost of
//! listing for mail that arrives meanwhile.

mod report;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use clap::Args;

use super::client::Api;
use super::load::{self, Load};
use super::remotes::{self, Arrivals};
use super::server::Child;
use super::{library, report as machine};
use report::{Accepting, Measured, Report};

/// Concurrent connections for throughput, and while mail is accepted.
const LISTING_CONNECTIONS: usize = 4;
/// SMTP sessions of the accept measurement.
const ACCEPT_SESSIONS: usize = 32;
/// Rounds of the accept measurement, each first alone and then while lists are requested.
const ACCEPT_ROUNDS: u64 = 2;
/// Octets of a mail of the accept measurement.
const ACCEPT_BYTES: usize = 4_096;

#[derive(Clone, Debug, Args)]
pub(crate) struct Options {
    /// Messages stored before the measurement
    #[arg(long, default_value_t = 1_000_000, value_parser = clap::value_parser!(u64).range(1_000..))]
    messages: u64,
    /// Duration of each measurement in seconds
    #[arg(long, default_value_t = 5)]
    seconds: u64,
    /// Concurrent connections when latency is measured
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..))]
    clients: u16,
    /// Mails sent in each round of the accept measurement; 0 skips it
    #[arg(long, default_value_t = 10_000)]
    mails: u64,
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

/// Requests of one kind, sent in rotation.
struct Case {
    name: &'static str,
    paths: Vec<String>,
}

pub(crate) fn run(options: &Options) -> anyhow::Result<()> {
    let scratch = super::scratch(&options.dir, options.allow_tmpfs)?;
    let report = super::until_stopped(measure(options, &scratch.0))?;
    if options.json {
        println!("{}", report.to_json());
    } else {
        print!("{}", report.to_table());
    }
    Ok(())
}

async fn measure(options: &Options, dir: &Path) -> anyhow::Result<Report> {
    std::fs::create_dir_all(dir)?;
    let disk = machine::Disk::measure(dir)?;
    let arrivals = Arc::new(Arrivals::new(options.mails * ACCEPT_ROUNDS * 2));
    let receivers = remotes::receivers(usize::try_from(library::DOMAINS)?, 0, &arrivals).await?;
    eprintln!("storing {} messages first", options.messages);
    let started = Instant::now();
    let mut child = Child::start(dir, &receivers, &["--library", &options.messages.to_string()]).await?;
    let stored_in = started.elapsed();
    let api = Arc::new(Api::new(child.http, &child.api_key));
    let duration = Duration::from_secs(options.seconds);
    let mut measured = Vec::new();
    for case in cases(&api, options.messages).await? {
        eprintln!("measuring: {}", case.name);
        measured.push(closed_loop(&api, &case, usize::from(options.clients), duration).await?);
    }
    for (name, limit) in [("throughput, 100 rows", 100), ("throughput, 20 rows", 20)] {
        let case = Case { name, paths: vec![format!("/api/messages?limit={limit}")] };
        measured.push(closed_loop(&api, &case, LISTING_CONNECTIONS, duration).await?);
    }
    let accepting = match options.mails {
        0 => None,
        mails => Some(accept(&api, &child, mails, &arrivals).await?),
    };
    let figures = child.figures().await?;
    child.stop().await?;
    Ok(Report::new(options.messages, options.clients, stored_in, measured, accepting, &figures, disk))
}

/// Builds the requests, with cursors and ids from the server's own answers.
async fn cases(api: &Arc<Api>, stored: u64) -> anyhow::Result<Vec<Case>> {
    let mut client = api.connect().await?;
    let newest = client.rows("/api/messages?limit=1").await?;
    let newest = newest.first().context("nothing is stored")?.received_at;
    let span = i64::try_from(library::SPREAD.as_millis())?;
    // Spread evenly over the whole age, in an order that jumps about.
    let cursors: Vec<i64> = (0..61).map(|step| newest - span / 62 * (step * 17 % 61 + 1)).collect();
    let (mut ids, mut numbers) = (Vec::new(), Vec::new());
    for cursor in &cursors {
        let rows = client.rows(&format!("/api/messages?limit=20&before={cursor}")).await?;
        ids.extend(rows.into_iter().map(|row| format!("/api/messages/{}", row.id)));
    }
    for step in 0..61 {
        numbers.push(format!("{:06}", library::order_number(stored / 62 * (step * 17 % 61 + 1))));
    }
    let search = |needles: &[&str]| needles.iter().map(|needle| format!("/api/messages?search={needle}")).collect();
    let numbers: Vec<&str> = numbers.iter().map(String::as_str).collect();
    let one = |path: &str| vec![path.to_owned()];
    let rare_domain = format!("e{}.bench.test", library::DOMAINS - 1);
    let case = |name, paths| Case { name, paths };
    Ok(vec![
        case("list, newest 100", one("/api/messages")),
        case("list, cursor deep inside", cursors.iter().map(|at| format!("/api/messages?before={at}")).collect()),
        case("list, a large domain", one("/api/messages?domain=e1.bench.test")),
        case("list, a rare domain", one(&format!("/api/messages?domain={rare_domain}"))),
        case("list, status=dropped", one("/api/messages?status=dropped")),
        case("detail", ids),
        case("search, frequent word", search(&library::FREQUENT_WORDS)),
        case("search, rare word", search(&[library::RARE_WORD])),
        case("search, a number", search(&numbers)),
        case("search, absent word", search(&library::ABSENT_WORDS)),
        case("search, frequent 1-2 letters", search(&library::FREQUENT_LETTERS)),
        case("search, absent 1-2 letters", search(&library::ABSENT_LETTERS)),
        case(
            "search in a rare domain",
            vec![format!("/api/messages?domain={rare_domain}&search={}", library::FREQUENT_WORDS[0])],
        ),
    ])
}

/// Sends requests over `connections` for `duration`, each connection the next one as soon as it has an answer.
async fn closed_loop(
    api: &Arc<Api>,
    case: &Case,
    connections: usize,
    duration: Duration,
) -> anyhow::Result<Measured> {
    let paths: Arc<[String]> = case.paths.clone().into();
    let stop = Arc::new(AtomicBool::new(false));
    let started = Instant::now();
    let clients = run_clients(api, &paths, connections, &stop);
    tokio::time::sleep(duration).await;
    stop.store(true, Ordering::Relaxed);
    let (mut micros, mut octets) = (Vec::new(), 0);
    for client in clients {
        let (times, received) = client.await??;
        micros.extend(times);
        octets += received;
    }
    let took = started.elapsed();
    micros.sort_unstable();
    Ok(Measured::new(case.name, connections, &micros, octets, took))
}

type ClientTask = tokio::task::JoinHandle<anyhow::Result<(Vec<u64>, u64)>>;

fn run_clients(api: &Arc<Api>, paths: &Arc<[String]>, connections: usize, stop: &Arc<AtomicBool>) -> Vec<ClientTask> {
    let client = |index: usize| {
        let (api, paths, stop) = (Arc::clone(api), Arc::clone(paths), Arc::clone(stop));
        tokio::spawn(async move {
            let mut client = api.connect().await?;
            let (mut times, mut octets) = (Vec::new(), 0);
            // Each connection starts at a different path, so that they do not request the same one together.
            let turns = paths.iter().cycle().skip(index * paths.len() / connections);
            for path in turns {
                if stop.load(Ordering::Relaxed) {
                    break;
                }
                let asked = Instant::now();
                octets += client.get(path).await?.len() as u64;
                times.push(u64::try_from(asked.elapsed().as_micros()).unwrap_or(u64::MAX));
            }
            Ok((times, octets))
        })
    };
    (0..connections).map(client).collect()
}

/// Measures mails accepted per second, alone and while lists are requested, alternating.
async fn accept(api: &Arc<Api>, child: &Child, mails: u64, arrivals: &Arc<Arrivals>) -> anyhow::Result<Accepting> {
    let paths: Arc<[String]> = vec!["/api/messages".to_owned()].into();
    let (mut alone, mut listing, mut lists) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..ACCEPT_ROUNDS * 2 {
        let is_listing = round % 2 == 1;
        eprintln!("measuring: mails accepted{}", if is_listing { " while lists are requested" } else { "" });
        let load = Load {
            first: round * mails,
            messages: mails,
            sessions: ACCEPT_SESSIONS,
            per_connection: 100,
            rate: 0,
            pipelining: true,
            endpoints: usize::try_from(library::DOMAINS)?,
            body: load::body(ACCEPT_BYTES, 0),
        };
        let stop = Arc::new(AtomicBool::new(false));
        let started = Instant::now();
        let clients = if is_listing { run_clients(api, &paths, LISTING_CONNECTIONS, &stop) } else { Vec::new() };
        let loaded = load::run(&load, child.smtp, Arc::clone(arrivals)).await?;
        stop.store(true, Ordering::Relaxed);
        let mut asked = 0;
        for client in clients {
            asked += client.await??.0.len();
        }
        if is_listing {
            listing.push(loaded.per_second());
            lists.push(asked as f64 / started.elapsed().as_secs_f64());
        } else {
            alone.push(loaded.per_second());
        }
        wait_for_webhooks(arrivals, (round + 1) * mails).await?;
    }
    Ok(Accepting::new(&alone, &listing, &lists))
}

/// Waits for the webhooks of a round, so that the next one begins as quietly.
async fn wait_for_webhooks(arrivals: &Arrivals, expected: u64) -> anyhow::Result<()> {
    let deadline = Instant::now() + Duration::from_secs(60);
    while arrivals.count() < expected {
        if Instant::now() > deadline {
            bail!("{} of {expected} webhooks never came", expected - arrivals.count());
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    Ok(())
}
