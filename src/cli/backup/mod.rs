//! `mailkite backup`: a consistent copy of a data directory, while a server uses it or not; `verify` and `restore`
//! read it. Changes nothing in the data directory but the note of its time.
//!
//! Objects first, then the database with the objects that came meanwhile: what a row names is collected in the same
//! read transaction as the row, so that only what is removed within those milliseconds can be missed.

mod folder;
mod objects;
pub(crate) mod restore;
pub(crate) mod verify;

use std::io::{IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use clap::Args;
use serde_json::json;

use super::check::held_secrets;
use super::text;
use crate::clock::Clock;
use crate::config::{Config, table};
use crate::process::data_dir::DataDir;
use crate::process::last_backup;
use crate::secrets::{self, Secrets, next};
use crate::store;
use crate::store::audit::{self, Contents, Table};
use crate::store::blobs::objects::Object;
use crate::store::sealed;
use crate::store::snapshot::{Snapshot, Source};
use crate::store::writer::mark;
use folder::{Destination, FORMAT, Manifest};
use objects::{Added, Collection, Counts, for_each_object};

const TABLES: [Table; 2] = [Table::Mail, Table::Uploads];
/// Attempts at a snapshot none of whose objects is removed before it was collected.
const TRIES: u32 = 5;
/// Attempts at a copy of which the same holds.
const COPIES: u32 = 3;
/// Row ids below the last one seen that may be in use again: those of `mail_data` are, once the highest are removed.
const OVERLAP: i64 = 1_000;
/// Room that a backup leaves free.
const SPARE: u64 = 64 << 20;
/// Interval of the progress on a terminal.
const SHOW_EVERY: Duration = Duration::from_millis(100);

/// `mailkite backup`
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// The folder for backups, best on another disk; each gets a folder of its own in it
    #[arg(value_name = "FOLDER")]
    dest: PathBuf,
    /// The configuration file
    #[arg(long, value_name = "FILE", default_value = "/etc/mailkite/mailkite.toml")]
    config: PathBuf,
    /// The data directory itself, such as that of `mailkite dev`; then no configuration is backed up
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Back the master key up too, and a configuration that holds passwords
    #[arg(long)]
    with_key: bool,
    /// Remove the oldest backups in the folder beyond this number, once the new one is whole
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    keep: Option<u32>,
    /// Print one JSON object instead of sentences
    #[arg(long)]
    json: bool,
}

/// A configuration to back up.
struct ConfigFile {
    path: PathBuf,
    /// Names of the secrets in it.
    secrets: Vec<&'static str>,
}

/// A finished backup.
struct Report {
    path: PathBuf,
    manifest: Manifest,
    counts: Counts,
}

/// Runs the command; fails when there is no backup, or one that lacks an object.
pub(crate) fn run(options: &Options) -> anyhow::Result<()> {
    let started = Instant::now();
    let (data_dir, config) = match &options.data_dir {
        Some(data_dir) => (data_dir.clone(), None),
        None => load(&options.config)?,
    };
    if !data_dir.is_dir() {
        bail!("there is no data directory {}", data_dir.display());
    }
    check_complete(&data_dir)?;
    let destination = Destination::open(&options.dest, &data_dir)?;
    let mut progress = Progress::new(options.json);
    let report = make(&data_dir, &destination, config.as_ref(), options.with_key, &mut progress)?;
    progress.clear();
    let damaged = report.manifest.damaged.len();
    // An older one may have what this one lacks.
    let removed = match options.keep {
        Some(keep) if damaged == 0 => destination.keep(usize::try_from(keep).unwrap_or(usize::MAX), &report.path)?,
        Some(_) | None => 0,
    };
    if let Err(error) = last_backup::record(&data_dir, Clock::System.now()) {
        eprintln!("the time of this backup could not be noted in {}: {error}", data_dir.display());
    }
    if options.json {
        print_json(&report, removed, started.elapsed())?;
    } else {
        print_summary(&report, removed, started.elapsed(), &data_dir, config.as_ref())?;
    }
    if damaged == 0 {
        return Ok(());
    }
    let what = if damaged == 1 { "1 object is".to_owned() } else { format!("{damaged} objects are") };
    bail!(
        "{what} missing or damaged in {} itself, and in no backup before; the backup was made without, and no \
         earlier one was removed. What it belongs to, lists: mailkite audit",
        data_dir.display()
    );
}

fn load(path: &Path) -> anyhow::Result<(PathBuf, Option<ConfigFile>)> {
    match Config::load(path) {
        Ok(config) => {
            let secrets = held_secrets(&config);
            Ok((config.data_dir, Some(ConfigFile { path: path.to_owned(), secrets })))
        }
        Err(problems) => {
            eprint!("{}", table(&problems));
            bail!("{} is not a valid configuration", path.display());
        }
    }
}

/// Refuses a data directory that no server uses and that lost a part of its database: a backup of the rest would in
/// time replace the good ones.
fn check_complete(data_dir: &Path) -> anyhow::Result<()> {
    let Ok(_held) = DataDir::open(data_dir) else { return Ok(()) };
    let state = mark::inspect(data_dir).with_context(|| format!("reading {}", data_dir.display()))?;
    match state.missing {
        Some(missing) => bail!("{missing}; no backup was made of what is left. See: mailkite recover"),
        None => Ok(()),
    }
}

fn make(
    data_dir: &Path,
    destination: &Destination,
    config: Option<&ConfigFile>,
    with_key: bool,
    progress: &mut Progress,
) -> anyhow::Result<Report> {
    let earlier = folder::list(&destination.path)?.pop();
    let now = Clock::System.now();
    let (partial, whole) = destination.begin(now)?;
    let mut fill = || -> anyhow::Result<Report> {
        let mut collection = Collection::new(data_dir, &partial, earlier.as_deref())?;
        let copied = Copy { data_dir, partial: &partial, progress }.make(&mut collection)?;
        let mut files = vec![folder::measure(&partial, store::FILE_NAME)?];
        if let Some(config) = config.filter(|config| with_key || config.secrets.is_empty()) {
            folder::copy(&config.path, &partial.join(folder::CONFIG))?;
            files.push(folder::measure(&partial, folder::CONFIG)?);
        }
        if with_key {
            copy_key(data_dir, &partial)?;
            files.push(folder::measure(&partial, secrets::FILE_NAME)?);
        }
        let manifest = Manifest {
            format: FORMAT,
            mailkite: env!("CARGO_PKG_VERSION").to_owned(),
            schema: copied.schema,
            created_at: now.iso(),
            messages: copied.contents.messages,
            objects: copied.contents.objects,
            object_bytes: copied.contents.object_bytes,
            files: files.into_iter().flatten().collect(),
            damaged: copied.damaged,
            removed_meanwhile: copied.removed,
        };
        manifest.write(&partial)?;
        destination.finish(&partial, &whole)?;
        Ok(Report { path: whole.clone(), manifest, counts: collection.counts })
    };
    let made = fill();
    if made.is_err() {
        // What is left goes with the next backup.
        drop(std::fs::remove_dir_all(&partial));
    }
    made
}

/// Copies the master key that opens the copy of the database: the next one, if a rotation replaces it now or was cut
/// off.
fn copy_key(data_dir: &Path, partial: &Path) -> anyhow::Result<()> {
    let sample = store::examine(partial, sealed::sample)?.flatten();
    let copied = partial.join(secrets::FILE_NAME);
    // A rotation that ends meanwhile renames the next one.
    for name in [secrets::FILE_NAME, next::NEXT_NAME, secrets::FILE_NAME] {
        if !data_dir.join(name).exists() {
            continue;
        }
        folder::copy(&data_dir.join(name), &copied)?;
        if Secrets::from_file(&copied)?.check_fits(data_dir, sample.clone()).is_ok() {
            return Ok(());
        }
        std::fs::remove_file(&copied).with_context(|| format!("removing {}", copied.display()))?;
    }
    bail!("{} is not the key of this database; no backup was made", data_dir.join(secrets::FILE_NAME).display())
}

/// The copy of the database, and what was learned from it.
struct Copied {
    schema: i32,
    contents: Contents,
    damaged: Vec<String>,
    removed: Vec<String>,
}

/// A copy that is being made.
struct Copy<'a> {
    data_dir: &'a Path,
    partial: &'a Path,
    progress: &'a mut Progress,
}

impl Copy<'_> {
    fn make(self, collection: &mut Collection) -> anyhow::Result<Copied> {
        let none = || format!("there is no database in {} yet", self.data_dir.display());
        let reading = || format!("reading the database in {}", self.data_dir.display());
        let open = || Source::open(self.data_dir).with_context(reading)?.with_context(none);
        // One has a transaction open while the other sees what is committed meanwhile.
        let (source, live) = (open()?, open()?);
        self.check_room(&source, collection)?;
        let mut seen = [0; 2];
        let mut done = 0_u64;
        for (seen, table) in seen.iter_mut().zip(TABLES) {
            *seen = for_each_object(live.connection(), table, 0, |object| {
                done += 1;
                self.progress.show(|| format!("objects: {done}"));
                collection.add(object).map(drop)
            })?;
        }
        let mut tries = 0;
        loop {
            tries += 1;
            let snapshot = begin(&source, &live, collection, seen)?;
            let path = self.partial.join(store::FILE_NAME);
            snapshot
                .copy_to(&path, &mut |pages, of| self.progress.show(|| format!("database: {pages} of {of} pages")))?;
            drop(snapshot);
            self.progress.show(|| "checking the copy of the database".to_owned());
            let copy = store::open_unused(self.partial)?.with_context(none)?;
            let broken = audit::quick_check(&copy).context("checking the copy of the database")?;
            if let Some(first) = broken.first() {
                bail!(
                    "the database in {} is damaged ({first}); no backup was made of it, and none was removed",
                    self.data_dir.display()
                );
            }
            let (mut damaged, mut removed) = (Vec::new(), Vec::new());
            for table in TABLES {
                for_each_object(&copy, table, 0, |object| -> anyhow::Result<()> {
                    if collection.add(object)? == Added::Damaged {
                        let is_named = audit::names_object(live.connection(), &object.name)?;
                        if is_named { damaged.push(object.name.clone()) } else { removed.push(object.name.clone()) }
                    }
                    Ok(())
                })?;
            }
            if removed.is_empty() || tries == COPIES {
                let (schema, contents) = (store::migrate::version(&copy)?, audit::contents(&copy)?);
                let lacking = damaged.len().saturating_add(removed.len()) as u64;
                if collection.counts.total() > contents.objects.saturating_sub(lacking) {
                    collection.prune(self.partial, &copy)?;
                }
                return Ok(Copied { schema, contents, damaged, removed });
            }
            drop(copy);
            std::fs::remove_file(&path).with_context(|| format!("removing {}", path.display()))?;
        }
    }

    /// Refuses to fill the disk.
    fn check_room(&self, source: &Source, collection: &Collection) -> anyhow::Result<()> {
        let need = source.size()?.saturating_add(collection.missing_bytes(source.connection())?);
        let free = DataDir::free_bytes(self.partial)?;
        if free < need.saturating_add(SPARE) {
            bail!(
                "there is no room for the backup: it takes {}, and {} are free; {} stay free in any case",
                text::size(need),
                text::size(free),
                text::size(SPARE)
            );
        }
        Ok(())
    }
}

/// Begins a snapshot and collects the objects that came since `seen`. One that is removed before it is collected was
/// removed within the last milliseconds: a snapshot of the present does not name it.
fn begin<'s>(
    source: &'s Source,
    live: &Source,
    collection: &mut Collection,
    seen: [i64; 2],
) -> anyhow::Result<Snapshot<'s>> {
    let mut tries = 0;
    loop {
        tries += 1;
        let snapshot = source.begin()?;
        let mut missed = false;
        for (seen, table) in seen.into_iter().zip(TABLES) {
            let add = |object: &Object| -> anyhow::Result<()> {
                let lacks = collection.add(object)? == Added::Damaged;
                missed |= lacks && !audit::names_object(live.connection(), &object.name)?;
                Ok(())
            };
            for_each_object(snapshot.connection(), table, seen - OVERLAP, add)?;
        }
        if !missed || tries == TRIES {
            return Ok(snapshot);
        }
    }
}

/// The progress on a terminal.
struct Progress {
    is_shown: bool,
    at: Option<Instant>,
}

impl Progress {
    fn new(json: bool) -> Self {
        Self { is_shown: !json && std::io::stderr().is_terminal(), at: None }
    }

    fn show(&mut self, text: impl FnOnce() -> String) {
        if self.is_shown && self.at.is_none_or(|at| at.elapsed() >= SHOW_EVERY) {
            self.at = Some(Instant::now());
            eprint!("\r\x1b[K{}", text());
        }
    }

    fn clear(&self) {
        if self.at.is_some() {
            eprint!("\r\x1b[K");
        }
    }
}

fn print_summary(
    report: &Report,
    removed: usize,
    took: Duration,
    data_dir: &Path,
    config: Option<&ConfigFile>,
) -> anyhow::Result<()> {
    let (Manifest { messages, objects, object_bytes, .. }, counts) = (&report.manifest, report.counts);
    let mut out = std::io::stdout().lock();
    let database = report.manifest.file(store::FILE_NAME).map_or(0, |file| file.bytes);
    let gone = match removed {
        0 => String::new(),
        1 => "; 1 older backup was removed".to_owned(),
        removed => format!("; {removed} older backups were removed"),
    };
    writeln!(
        out,
        "{}: {messages} messages, a database of {}, {objects} objects of {} ({} linked, {} as in the backup before, \
         {} copied) in {:.1} s{gone}",
        report.path.display(),
        text::size(database),
        text::size(*object_bytes),
        counts.linked,
        counts.reused,
        counts.copied,
        took.as_secs_f64()
    )?;
    if report.manifest.file(secrets::FILE_NAME).is_none() {
        writeln!(
            out,
            "The master key is not in it, and nothing can be restored without: keep a copy of {} elsewhere.",
            data_dir.join(secrets::FILE_NAME).display()
        )?;
    }
    if let Some(config) = config.filter(|_| report.manifest.file(folder::CONFIG).is_none()) {
        let (path, held) = (config.path.display(), config.secrets.join(" and "));
        writeln!(
            out,
            "{path} is not in it either, because it holds {held}: keep a copy elsewhere, or use --with-key."
        )?;
    }
    Ok(())
}

fn print_json(report: &Report, removed: usize, took: Duration) -> anyhow::Result<()> {
    let (manifest, counts) = (&report.manifest, report.counts);
    let whole = json!({
        "ok": manifest.damaged.is_empty(),
        "path": report.path,
        "messages": manifest.messages,
        "databaseBytes": manifest.file(store::FILE_NAME).map_or(0, |file| file.bytes),
        "objects": manifest.objects,
        "objectBytes": manifest.object_bytes,
        "linked": counts.linked,
        "reused": counts.reused,
        "copied": counts.copied,
        "copiedBytes": counts.copied_bytes,
        "hasKey": manifest.file(secrets::FILE_NAME).is_some(),
        "hasConfig": manifest.file(folder::CONFIG).is_some(),
        "damaged": manifest.damaged,
        "olderRemoved": removed,
        "seconds": took.as_secs_f64(),
    });
    writeln!(std::io::stdout(), "{whole}")?;
    Ok(())
}
