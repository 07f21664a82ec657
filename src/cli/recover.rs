//! `mailkite recover`: shows what is left of a data directory that does not start because part of it is missing, and
//! lets the server start with it. Removes no mail: objects without a row are moved aside.

use std::io::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use clap::Args;

use super::queue::configured_data_dir;
use crate::clock::Timestamp;
use crate::process::data_dir::DataDir;
use crate::store::blobs::objects::Objects;
use crate::store::writer::mark;
use crate::store::writer::mark::{MarkFile, Missing};
use crate::store::{self, audit};

/// `mailkite recover`
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// The configuration file
    #[arg(long, value_name = "FILE", default_value = "/etc/mailkite/mailkite.toml")]
    config: PathBuf,
    /// The data directory itself, such as that of `mailkite dev`
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Start with what is left: give up what is missing, and move objects without a row to objects/orphaned
    #[arg(long)]
    accept_loss: bool,
}

/// Runs the command; fails when something is missing and `--accept-loss` is not given.
pub(crate) fn run(options: &Options) -> anyhow::Result<()> {
    let dir = match &options.data_dir {
        Some(data_dir) => data_dir.clone(),
        None => configured_data_dir(&options.config)?,
    };
    if !dir.is_dir() {
        bail!("there is no data directory {}", dir.display());
    }
    let held = DataDir::open(&dir)?;
    let reading = || format!("reading the database in {}", dir.display());
    let mut state = mark::inspect(&dir).with_context(reading)?;
    let database = dir.join(store::FILE_NAME);
    if held.check_database(&database).is_err() {
        state.missing = Some(Missing::Database);
    }
    let latest = store::read_offline(&dir, audit::latest_message).with_context(reading)?.flatten();
    let objects = Objects::open_read_only(&dir);
    let orphans = find_orphans(&dir, &objects).with_context(reading)?;
    print_field("last promise", &state.promised_at.map_or("none on record".to_owned(), time))?;
    print_field("last message", &latest.map_or("none in the database".to_owned(), |at| time(at.as_millis())))?;
    print_field("orphans", &format!("{} stored objects have no row in the database", orphans.len()))?;
    if !options.accept_loss {
        return report(&state, &orphans);
    }
    for name in &orphans {
        objects.set_aside(name).context("moving objects aside")?;
    }
    if state.missing == Some(Missing::Database) {
        held.forget_database()?;
    }
    mark::forget(&dir)?;
    let mut out = std::io::stdout();
    if !orphans.is_empty() {
        let (count, aside) = (orphans.len(), objects.aside());
        writeln!(
            out,
            "\n{count} objects were moved to {}; files that end in .eml are mail as received.",
            aside.display()
        )?;
    }
    writeln!(out, "\nThe next start will use the database as it is.")?;
    Ok(())
}

fn report(state: &MarkFile, orphans: &[String]) -> anyhow::Result<()> {
    match &state.missing {
        None if orphans.is_empty() => print_field("missing", "nothing"),
        None => {
            print_field("missing", "nothing on record")?;
            let mut out = std::io::stdout();
            writeln!(
                out,
                "\nA crash may leave a few orphans, which the server removes after an hour. If there are many,"
            )?;
            writeln!(out, "it keeps them; to move them to objects/orphaned, run: mailkite recover --accept-loss")?;
            Ok(())
        }
        Some(missing) => {
            print_field("missing", &missing.to_string())?;
            bail!(
                "nothing was changed; put back what is missing or restore a backup, or go on without it by running: \
                 mailkite recover --accept-loss"
            )
        }
    }
}

/// Lists the objects that no row refers to; without a database, all of them.
fn find_orphans(dir: &Path, objects: &Objects) -> store::Result<Vec<String>> {
    let all: Vec<String> = objects.list(std::time::Duration::MAX)?.into_iter().map(|one| one.name).collect();
    let named = store::read_offline(dir, |connection| {
        if !audit::has_tables(connection)? {
            return Ok(Vec::new());
        }
        let mut named = Vec::new();
        for name in &all {
            named.push(audit::names_object(connection, name)?);
        }
        Ok(named)
    })?;
    let named = named.unwrap_or_default();
    let is_named = |at: usize| named.get(at).copied().unwrap_or(false);
    Ok(all.into_iter().enumerate().filter(|(at, _)| !is_named(*at)).map(|(_, name)| name).collect())
}

fn print_field(what: &str, said: &str) -> anyhow::Result<()> {
    writeln!(std::io::stdout(), "{what:<14}  {said}")?;
    Ok(())
}

fn time(millis: i64) -> String {
    Timestamp::from_millis(millis).iso()
}
