//! `mailkite queue`: shows and changes the queue of outgoing mail. The server may be running; it notices within
//! seconds.

use std::io::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use clap::{Args, Subcommand};
use serde_json::json;

use super::text::{columns, cut, fit, wait, width};
use crate::clock::{Clock, Timestamp};
use crate::config::{Config, table};
use crate::id::{MessageId, RowId};
use crate::store;
use crate::store::sending::queue;
use crate::store::sending::queue::{QueueEntry, Which};
use crate::store::sending::recipients::RecipientStatus;

/// `mailkite queue`
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// The configuration file
    #[arg(long, value_name = "FILE", default_value = "/etc/mailkite/mailkite.toml", global = true)]
    config: PathBuf,
    /// The data directory itself, such as that of `mailkite dev`
    #[arg(long, value_name = "DIR", global = true)]
    data_dir: Option<PathBuf>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// List what is waiting, oldest first
    List {
        /// The most entries to list
        #[arg(long, default_value_t = 100)]
        limit: u32,
        /// List scheduled messages instead
        #[arg(long)]
        scheduled: bool,
        /// Print one JSON object per line
        #[arg(long)]
        json: bool,
    },
    /// Show everything about one message, with the SMTP dialog of its last attempt
    Show {
        /// A message (msg_…) or a number from the list
        id: String,
    },
    /// Retry now
    Retry(Chosen),
    /// Drop from the queue; the recipients fail
    Drop(Chosen),
}

#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
struct Chosen {
    /// A message (msg_…) or a number from the list
    id: Option<String>,
    /// Everything for this recipient domain
    #[arg(long)]
    domain: Option<String>,
    /// Everything
    #[arg(long)]
    all: bool,
}

impl Chosen {
    fn which(&self) -> anyhow::Result<Which> {
        match (&self.id, &self.domain) {
            (Some(id), _) => which(id),
            (None, Some(domain)) => Ok(Which::Domain(domain.trim_end_matches('.').to_ascii_lowercase())),
            (None, None) => Ok(Which::All),
        }
    }
}

fn which(id: &str) -> anyhow::Result<Which> {
    if let Ok(number) = id.parse() {
        return Ok(Which::Dispatch(RowId::new(number)));
    }
    match MessageId::parse(id) {
        Some(message) => Ok(Which::Message(message)),
        None => bail!("{id:?} is neither a message (msg_…) nor a number from the list"),
    }
}

pub(crate) fn run(options: &Options) -> anyhow::Result<()> {
    let data_dir = match &options.data_dir {
        Some(data_dir) => data_dir.clone(),
        None => configured_data_dir(&options.config)?,
    };
    let reading = || format!("reading the queue in {}", data_dir.display());
    let now = Clock::System.now();
    let none = || format!("there is no database in {} yet", data_dir.display());
    match &options.command {
        Command::List { limit, scheduled, json } => {
            let found = store::read_offline(&data_dir, |connection| {
                Ok((queue::list(connection, *scheduled, *limit, now)?, queue::totals(connection)?))
            });
            let (rows, totals) = found.with_context(reading)?.with_context(none)?;
            if *json { print_json(&rows) } else { print_list(&rows, totals, *scheduled, now) }
        }
        Command::Show { id } => {
            let which = which(id)?;
            let rows = store::read_offline(&data_dir, |connection| queue::find(connection, &which, now));
            let rows = rows.with_context(reading)?.with_context(none)?;
            if rows.is_empty() {
                bail!("{id} was never queued");
            }
            rows.iter().try_for_each(|row| print_details(row, now))
        }
        Command::Retry(chosen) => {
            let which = chosen.which()?;
            let count = store::write_from_cli(&data_dir, |tx| queue::retry(tx, &which, now));
            let count = count.with_context(reading)?.with_context(none)?;
            print_line(&match count {
                0 => "Nothing was waiting. Attempts that are running now are not affected.".to_owned(),
                1 => "1 will be attempted within seconds if the server is running.".to_owned(),
                count => format!("{count} will be attempted within seconds if the server is running."),
            })
        }
        Command::Drop(chosen) => {
            let which = chosen.which()?;
            let count = store::write_from_cli(&data_dir, |tx| queue::give_up(tx, &which, now));
            let count = count.with_context(reading)?.with_context(none)?;
            print_line(&match count {
                0 => "Nothing was waiting.".to_owned(),
                1 => "1 recipient was dropped.".to_owned(),
                count => format!("{count} recipients were dropped."),
            })
        }
    }
}

/// Returns the data directory of a configuration file.
pub(super) fn configured_data_dir(path: &Path) -> anyhow::Result<PathBuf> {
    match Config::load(path) {
        Ok(config) => Ok(config.data_dir),
        Err(problems) => {
            eprint!("{}", table(&problems));
            bail!("{} is not a valid configuration", path.display());
        }
    }
}

fn print_line(line: &str) -> anyhow::Result<()> {
    writeln!(std::io::stdout(), "{line}")?;
    Ok(())
}

/// Formats the sender and the waiting recipients in at most `columns`; the number of recipients is never cut off.
fn parties(row: &QueueEntry, columns: usize) -> String {
    let mut open = row.recipients.iter().filter(|one| one.is_unsettled() || one.status == RecipientStatus::Scheduled);
    let first = open.next().map_or("", |one| one.address.as_str());
    let more = match open.count() {
        0 => String::new(),
        more => format!(" +{more}"),
    };
    let room = columns.saturating_sub(" → ".chars().count() + more.len());
    let from = cut(from(row), (room / 2).max(room.saturating_sub(width(first))));
    let first = cut(first, room.saturating_sub(width(&from)));
    format!("{from} → {first}{more}")
}

fn from(row: &QueueEntry) -> &str {
    match &row.message {
        Some(message) if row.dispatch.route_id.is_none() => &message.from_addr,
        _ if row.dispatch.reverse_path.is_empty() => "<>",
        _ => &row.dispatch.reverse_path,
    }
}

fn last_answer(row: &QueueEntry) -> &str {
    let deferred = row.recipients.iter().filter(|one| one.is_unsettled()).find_map(|one| one.diagnostic.as_deref());
    deferred.unwrap_or("not attempted yet")
}

/// Returns the reason why the destination is paused, or the last reply.
fn status_line(row: &QueueEntry, now: Timestamp) -> String {
    match &row.pause {
        Some(pause) => format!("paused for {}: {}", wait(pause.until.since(now)), pause.reason),
        None => last_answer(row).to_owned(),
    }
}

fn next(row: &QueueEntry, now: Timestamp) -> String {
    match row.run_at {
        None => "now".to_owned(),
        Some(_) if row.pause.as_ref().is_some_and(|pause| pause.until > now) => "paused".to_owned(),
        Some(at) if at <= now => "now".to_owned(),
        Some(at) => format!("in {}", wait(at.since(now))),
    }
}

fn print_list(rows: &[QueueEntry], totals: queue::Totals, scheduled: bool, now: Timestamp) -> anyhow::Result<()> {
    if rows.is_empty() {
        print_line(if scheduled { "No message is scheduled." } else { "The queue is empty." })?;
    } else {
        let wide = columns();
        let names = wide.saturating_sub(36).min(90);
        let head = fit("from → to", names);
        print_line(&format!("{:>7}  {head}  {:>6}  {:>5}  next", "number", "age", "tries"))?;
        for row in rows {
            let who = fit(&parties(row, names), names);
            let age = wait(now.since(row.dispatch.queued_at));
            let (number, tries) = (row.dispatch.id, row.dispatch.attempts);
            print_line(&format!("{number:>7}  {who}  {age:>6}  {tries:>5}  {}", next(row, now)))?;
            print_line(&format!("{:>7}  {}", "", cut(&status_line(row, now), wide - 10)))?;
        }
    }
    let note = |count: u64, what: &str| (count > 0).then(|| format!("{count} {what}"));
    let parts = [note(totals.waiting, "waiting"), note(totals.scheduled, "scheduled")];
    let parts: Vec<String> = parts.into_iter().flatten().collect();
    if parts.is_empty() { Ok(()) } else { print_line(&format!("\n{}", parts.join(", "))) }
}

fn print_json(rows: &[QueueEntry]) -> anyhow::Result<()> {
    for row in rows {
        let recipients: Vec<_> = row
            .recipients
            .iter()
            .map(|one| json!({"address": one.address, "status": one.status.as_str(), "diagnostic": one.diagnostic}))
            .collect();
        let line = json!({
            "number": row.dispatch.id.get(),
            "messageId": row.message.as_ref().map(|message| message.public_id.to_string()),
            "from": from(row),
            "recipients": recipients,
            "queuedAt": row.dispatch.queued_at.as_millis(),
            "attempts": row.dispatch.attempts,
            "nextAttemptAt": row.run_at.map(Timestamp::as_millis),
            "pausedUntil": row.pause.as_ref().map(|pause| pause.until.as_millis()),
            "pauseReason": row.pause.as_ref().map(|pause| &pause.reason),
        });
        print_line(&line.to_string())?;
    }
    Ok(())
}

fn print_details(row: &QueueEntry, now: Timestamp) -> anyhow::Result<()> {
    let dispatch = &row.dispatch;
    let line = |name: &str, value: &str| print_line(&format!("  {name:<10} {value}"));
    let subject = row.message.as_ref().and_then(|message| message.subject.as_deref()).unwrap_or("(no subject)");
    print_line(&format!("{}  {}", dispatch.id, cut(subject, columns().saturating_sub(12))))?;
    if let Some(message) = &row.message {
        line("message", &format!("{} ({})", message.public_id, message.status.as_str()))?;
    }
    line("from", from(row))?;
    line("envelope", if dispatch.reverse_path.is_empty() { "<>" } else { &dispatch.reverse_path })?;
    line("queued", &format!("{} ago", wait(now.since(dispatch.queued_at))))?;
    line("attempts", &dispatch.attempts.to_string())?;
    if dispatch.mail_data_id.is_some() {
        line("next", &next(row, now))?;
    }
    if row.pause.is_some() {
        line("paused", &status_line(row, now))?;
    }
    if let Some(host) = &dispatch.host {
        line("host", &format!("{host}, {}", dispatch.tls.as_deref().unwrap_or("without TLS")))?;
    }
    for one in &row.recipients {
        line(one.status.as_str(), &format!("{}  {}", one.address, one.diagnostic.as_deref().unwrap_or_default()))?;
    }
    if let Some(transcript) = dispatch.transcript.as_deref().filter(|text| !text.is_empty()) {
        print_line("\n  The last attempt\n")?;
        for text in transcript.lines() {
            print_line(&format!("    {}", cut(text, 400)))?;
        }
    }
    print_line("")
}
