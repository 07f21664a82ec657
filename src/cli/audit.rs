//! `mailkite audit`: checks that everything promised is still there. Runs beside a server or without one; changes
//! nothing.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::store::Connection;
use anyhow::{Context as _, bail};
use clap::Args;
use serde_json::json;

use super::queue::configured_data_dir;
use crate::id::{MessageId, UploadId};
use crate::store::audit::{self, MessageState, MessageStates, Table};
use crate::store::blobs::objects::Objects;
use crate::store::messages::removals::Reason;
use crate::store::{self, Error, balance};

/// Names listed per check; `--json` lists them all.
const MAX_LISTED: usize = 20;
/// Rows read per statement.
const STEP: u32 = 1_000;
/// A younger file without a row may belong to mail that is being accepted.
const YOUNG: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(86_400);

/// `mailkite audit`
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// The configuration file
    #[arg(long, value_name = "FILE", default_value = "/etc/mailkite/mailkite.toml")]
    config: PathBuf,
    /// The data directory itself, such as that of `mailkite dev`
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// A list of what was acknowledged, one a line: an id (msg_…, upl_…), or JSON with an "id"; each must have a
    /// final state
    #[arg(long, value_name = "FILE")]
    ledger: Option<PathBuf>,
    /// Print one JSON object instead of a table
    #[arg(long)]
    json: bool,
}

/// The result of one check.
pub(super) struct Finding {
    check: &'static str,
    summary: String,
    /// One line each.
    pub(super) lost: Vec<String>,
    /// For a ledger: the number of ids in each state.
    counts: BTreeMap<&'static str, usize>,
}

impl Finding {
    pub(super) const fn new(check: &'static str, summary: String, lost: Vec<String>) -> Self {
        Self { check, summary, lost, counts: BTreeMap::new() }
    }

    /// Takes objects out of the list, and says why in the summary.
    pub(super) fn set_aside(&mut self, objects: &[String], why: &str) {
        let before = self.lost.len();
        self.lost.retain(|line| !objects.iter().any(|name| line.contains(&format!("objects/{name} is "))));
        let count = before - self.lost.len();
        if count > 0 {
            self.summary.push_str(&format!("; {count} were {why}"));
        }
    }

    fn to_json(&self) -> serde_json::Value {
        if self.counts.is_empty() {
            json!({"ok": self.lost.is_empty(), "said": self.summary, "lost": self.lost})
        } else {
            json!({"ok": self.lost.is_empty(), "said": self.summary, "lost": self.lost, "counts": self.counts})
        }
    }
}

/// Files without a row, by age.
#[derive(Default)]
struct Orphans {
    young: usize,
    /// Older than an hour: the sweep will remove them.
    hours: usize,
    /// Older than a day: the sweep should have removed them.
    days: usize,
}

/// Runs the command; fails when something is lost.
pub(crate) fn run(options: &Options) -> anyhow::Result<()> {
    let data_dir = match &options.data_dir {
        Some(data_dir) => data_dir.clone(),
        None => configured_data_dir(&options.config)?,
    };
    let reading = || format!("reading the database in {}", data_dir.display());
    let objects = Objects::open_read_only(&data_dir);
    let ledger = options.ledger.as_deref().map(read_ledger).transpose()?;
    let found = store::read_offline(&data_dir, |connection| inspect(connection, &objects, ledger.as_deref()));
    let found = found.with_context(reading)?;
    let (findings, orphans) = found.with_context(|| format!("there is no database in {} yet", data_dir.display()))?;
    let lost: usize = findings.iter().map(|one| one.lost.len()).sum();
    if options.json {
        print_json(&findings, &orphans)?;
    } else {
        print_table(&findings, &orphans, &data_dir)?;
    }
    match lost {
        0 => Ok(()),
        1 => bail!("1 thing is lost in {}", data_dir.display()),
        lost => bail!("{lost} things are lost in {}", data_dir.display()),
    }
}

fn inspect(
    connection: &Connection,
    objects: &Objects,
    ledger: Option<&[String]>,
) -> store::Result<(Vec<Finding>, Orphans)> {
    let broken = audit::quick_check(connection)?;
    let said = if broken.is_empty() { "the file is intact" } else { "the file is damaged" };
    let mut findings = vec![Finding::new("database", said.to_owned(), broken)];
    for table in [Table::Mail, Table::Uploads] {
        findings.push(object_finding(connection, objects, table)?);
    }
    findings.push(rows_finding(connection)?);
    findings.push(balance_finding(connection)?);
    if let Some(ledger) = ledger {
        findings.push(compare(connection, ledger)?);
    }
    Ok((findings, count_orphans(connection, objects)?))
}

/// Checks that everything ever accepted is stored or was removed.
fn balance_finding(connection: &Connection) -> store::Result<Finding> {
    let balance = balance::draw_up(connection)?;
    let mut parts: Vec<String> = balance.states.iter().map(|(state, count)| format!("{count} {state}")).collect();
    if balance.ended > 0 {
        parts.push(format!("{} passed on unstored", balance.ended));
    }
    if balance.removed > 0 {
        parts.push(format!("{} removed", balance.removed));
    }
    let mut said = format!("{} accepted", balance.accepted);
    if !parts.is_empty() {
        said.push_str(&format!(" = {}", parts.join(" + ")));
    }
    let labels = [("api", "removed by API"), ("retention", "past retention"), ("rule", "dropped by rule")];
    let notes = labels.into_iter().filter_map(|(reason, label)| Some((balance.notes.get(reason)?, label)));
    let notes: Vec<String> = notes.map(|(count, label)| format!("{count} {label}")).collect();
    if !notes.is_empty() {
        said.push_str(&format!("; on record of 90 days: {}", notes.join(", ")));
    }
    let lost = balance.mismatches.iter().map(|one| {
        format!("{}: {} octets of messages are there, {} should be", one.account, one.present, one.charged)
    });
    Ok(Finding::new("balance", said, lost.collect()))
}

/// Reads the ids of a ledger.
fn read_ledger(path: &Path) -> anyhow::Result<Vec<String>> {
    let text = std::fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?;
    let mut ids = Vec::new();
    for (number, line) in (1..).zip(text.lines().map(str::trim)) {
        if line.is_empty() {
            continue;
        }
        let id = match serde_json::from_str::<serde_json::Value>(line) {
            Ok(entry) => entry.get("id").and_then(serde_json::Value::as_str).map(str::to_owned),
            // A bare id, or the SMTP reply that ends with it.
            Err(_) => line.split_ascii_whitespace().last().map(str::to_owned),
        };
        let id = id.filter(|id| MessageId::parse(id).is_some() || UploadId::parse(id).is_some());
        ids.push(
            id.with_context(|| format!("{}, line {number}: not the id of a message or an upload", path.display()))?,
        );
    }
    Ok(ids)
}

/// Looks up the state of everything in a ledger.
fn compare(connection: &Connection, ledger: &[String]) -> store::Result<Finding> {
    let states = MessageStates::load(connection)?;
    let (mut counts, mut lost) = (BTreeMap::new(), Vec::new());
    for id in ledger {
        let mut state = states.find(connection, id)?;
        if state == MessageState::Lost {
            // It may have changed its table while the others were read; look again.
            state = MessageStates::load(connection)?.find(connection, id)?;
        }
        if state == MessageState::Lost {
            lost.push(format!("{id}: acknowledged, but neither stored nor removed on record"));
        }
        *counts.entry(label(state)).or_default() += 1;
    }
    let parts: Vec<String> = counts.iter().map(|(word, count)| format!("{count} {word}")).collect();
    let said = format!("{} acknowledged: {}", ledger.len(), parts.join(", "));
    Ok(Finding { counts, ..Finding::new("ledger", said, lost) })
}

const fn label(state: MessageState) -> &'static str {
    match state {
        MessageState::Delivered | MessageState::Gone(Reason::Delivered) => "delivered",
        MessageState::Stored => "stored",
        MessageState::Pending => "pending",
        MessageState::Failed | MessageState::Gone(Reason::Undelivered) => "failed",
        MessageState::Canceled => "canceled",
        MessageState::DroppedByReceiver => "dropped by the receiver",
        MessageState::Gone(Reason::Rule) => "dropped by rule",
        MessageState::Gone(Reason::Api) => "removed by API",
        MessageState::Gone(Reason::Retention) => "past retention",
        MessageState::Lost => "lost",
    }
}

/// Checks the objects of a table.
pub(super) fn object_finding(connection: &Connection, objects: &Objects, table: Table) -> store::Result<Finding> {
    let (what, noun) = match table {
        Table::Mail => ("mail", "messages' objects"),
        Table::Uploads => ("uploads", "uploads"),
    };
    let (count, unmarked, lost) = check_objects(connection, objects, table)?;
    let mut said = format!("{} of {count} {noun} are intact", count - lost.len());
    if unmarked > 0 {
        said.push_str(&format!(", {unmarked} of them by length only"));
    }
    Ok(Finding::new(what, said, lost))
}

/// Checks that no row lacks its counterpart.
pub(super) fn rows_finding(connection: &Connection) -> store::Result<Finding> {
    let mut lost = Vec::new();
    for (what, names) in audit::strays(connection, u32::MAX)? {
        lost.extend(names.into_iter().map(|name| format!("{name}: {what}")));
    }
    let said = if lost.is_empty() { "no row refers to a missing one" } else { "rows refer to missing ones" };
    Ok(Finding::new("rows", said.to_owned(), lost))
}

/// Returns how many objects a table refers to, how many of them have no checksum, and what is wrong.
fn check_objects(
    connection: &Connection,
    objects: &Objects,
    table: Table,
) -> store::Result<(usize, usize, Vec<String>)> {
    let (mut count, mut unmarked, mut lost, mut after) = (0, 0, Vec::new(), 0);
    loop {
        let rows = audit::list_objects(connection, table, after, STEP)?;
        let Some((last, _)) = rows.last() else { return Ok((count, unmarked, lost)) };
        after = *last;
        for (row, object) in rows {
            count += 1;
            unmarked += usize::from(object.checksum.is_none());
            match objects.check(&object) {
                Ok(()) => {}
                // Its row was deleted meanwhile.
                Err(Error::Damaged { .. }) if !audit::names_object(connection, &object.name)? => count -= 1,
                Err(Error::Damaged { what, .. }) => {
                    let owners = audit::owners(connection, table, row)?.join(", ");
                    lost.push(format!("{owners}: objects/{} is {what}", object.name));
                }
                Err(error) => return Err(error),
            }
        }
    }
}

fn count_orphans(connection: &Connection, objects: &Objects) -> store::Result<Orphans> {
    let mut orphans = Orphans::default();
    for one in objects.list(Duration::MAX)? {
        if !audit::names_object(connection, &one.name)? {
            let slot = match &one {
                one if one.is_older_than(DAY) => &mut orphans.days,
                one if one.is_older_than(YOUNG) => &mut orphans.hours,
                _ => &mut orphans.young,
            };
            *slot += 1;
        }
    }
    Ok(orphans)
}

/// Prints a line for each check, and the first of what it found.
pub(super) fn print_findings(findings: &[Finding]) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    for one in findings {
        writeln!(out, "{} {:<10}  {}", if one.lost.is_empty() { '✓' } else { '✗' }, one.check, one.summary)?;
        for line in one.lost.iter().take(MAX_LISTED) {
            writeln!(out, "  {:<10}  {line}", "")?;
        }
        if one.lost.len() > MAX_LISTED {
            writeln!(out, "  {:<10}  and {} more; --json lists them all", "", one.lost.len() - MAX_LISTED)?;
        }
    }
    Ok(())
}

fn print_table(findings: &[Finding], orphans: &Orphans, data_dir: &Path) -> anyhow::Result<()> {
    print_findings(findings)?;
    let all = orphans.young + orphans.hours + orphans.days;
    let said = match all {
        0 => "every file has a row".to_owned(),
        _ => format!(
            "{all} files in {} have no row: {} younger than an hour, {} than a day, {} older",
            data_dir.join("objects").display(),
            orphans.young,
            orphans.hours,
            orphans.days
        ),
    };
    writeln!(std::io::stdout(), "{} {:<10}  {said}", if orphans.days == 0 { '✓' } else { '!' }, "orphans")?;
    Ok(())
}

/// Formats the checks as one JSON object.
pub(super) fn checks_json(findings: &[Finding]) -> serde_json::Value {
    findings.iter().map(|one| (one.check.to_owned(), one.to_json())).collect::<serde_json::Map<_, _>>().into()
}

fn print_json(findings: &[Finding], orphans: &Orphans) -> anyhow::Result<()> {
    let lost: usize = findings.iter().map(|one| one.lost.len()).sum();
    let checks = checks_json(findings);
    let whole = json!({
        "ok": lost == 0,
        "lost": lost,
        "checks": checks,
        "orphans": {"underAnHour": orphans.young, "underADay": orphans.hours, "older": orphans.days},
    });
    writeln!(std::io::stdout(), "{whole}")?;
    Ok(())
}
