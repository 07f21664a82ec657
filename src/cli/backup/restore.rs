//! `mailkite restore`: makes a data directory from a backup. Overwrites nothing, and leaves the backup as it is.
//!
//! The lock file says first that there is a database, and the database gets its name last, so that a server never
//! starts on an interrupted restore. Objects are copied, not linked: a later change of owner or mode, or a fault of the
//! disk, would reach the backup through a link.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use clap::Args;

use super::objects::{for_each_object, restore as restore_object};
use super::{Progress, TABLES, folder, verify};
use crate::cli::audit::print_findings;
use crate::cli::queue::configured_data_dir;
use crate::cli::text;
use crate::process::data_dir::DataDir;
use crate::secrets::{self, Secrets};
use crate::store::audit::{self, Contents};
use crate::store::snapshot::add_pointer_maps;
use crate::store::{self, FILE_NAME};

/// Ending of the database's name until the restore is complete.
const UNFINISHED: &str = "db.restoring";

/// `mailkite restore`
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// A backup, or the folder of backups: then its latest
    backup: PathBuf,
    /// The configuration file that names the data directory
    #[arg(long, value_name = "FILE", default_value = "/etc/mailkite/mailkite.toml")]
    config: PathBuf,
    /// The data directory itself; it must be empty, or not exist yet
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// The master key, if it is not in the backup
    #[arg(long, value_name = "FILE")]
    key: Option<PathBuf>,
    /// Restore what can be read of a damaged backup
    #[arg(long)]
    accept_loss: bool,
}

/// Runs the command.
pub(crate) fn run(options: &Options) -> anyhow::Result<()> {
    let backup = folder::find(&options.backup)?;
    let data_dir = match &options.data_dir {
        Some(data_dir) => data_dir.clone(),
        None => configured_data_dir(&options.config).context("or name the data directory itself with --data-dir")?,
    };
    check_empty(&data_dir)?;
    let key = find_key(&backup, options.key.as_deref())?;
    println!("{}", backup.display());
    let findings = verify::inspect(&backup, Some(&key));
    print_findings(&findings)?;
    let is_whole = findings.iter().all(|one| one.lost.is_empty());
    if !is_whole && !options.accept_loss {
        bail!(
            "the backup is damaged, so nothing was restored; take an earlier one, or restore what can be read of \
             this one with --accept-loss"
        );
    }
    let contents = restore(&backup, &data_dir, &key)?;
    report(&data_dir, contents)
}

/// Refuses a directory that holds anything.
fn check_empty(data_dir: &Path) -> anyhow::Result<()> {
    let entries = match fs::read_dir(data_dir) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        entries => entries.with_context(|| format!("reading {}", data_dir.display()))?,
    };
    let is_empty = entries.flatten().all(|entry| entry.file_name() == "lost+found");
    let dir = data_dir.display();
    if data_dir.join(FILE_NAME).with_extension(UNFINISHED).exists() {
        bail!("{dir} holds a restore that did not end; remove it (rm -r {dir}) and run this again");
    }
    if !is_empty {
        bail!(
            "{dir} is not empty, and a restore overwrites nothing: stop the server and move the directory away \
             (mv {dir} {dir}.old), or name another one with --data-dir"
        );
    }
    Ok(())
}

/// Returns the path of the master key that fits the backup.
fn find_key(backup: &Path, given: Option<&Path>) -> anyhow::Result<PathBuf> {
    let own = backup.join(secrets::FILE_NAME);
    let path = match given {
        Some(given) => given.to_owned(),
        None if own.exists() => own,
        None => bail!(
            "the master key is not in this backup, and without it no secret can be read: give the {} that was kept \
             elsewhere with --key FILE",
            secrets::FILE_NAME
        ),
    };
    let secrets = Secrets::from_file(&path)?;
    // A database that cannot be read is found by the verification.
    if let Ok(Some(connection)) = store::open_unused(backup)
        && let Ok((count, unopened)) = verify::count_unopened(&connection, &secrets)
        && unopened > 0
    {
        bail!("{} is not the master key of this backup: {unopened} of {count} secrets do not open", path.display());
    }
    Ok(path)
}

fn restore(backup: &Path, data_dir: &Path, key: &Path) -> anyhow::Result<Contents> {
    let connection = store::open_unused(backup)?.with_context(|| format!("{FILE_NAME} is missing or empty"))?;
    let contents = audit::contents(&connection)?;
    check_room(backup, data_dir, contents)?;
    let held = DataDir::open(data_dir)?;
    // From here on a server that finds no database refuses to make one.
    held.record_database()?;
    let database = data_dir.join(FILE_NAME);
    let unfinished = database.with_extension(UNFINISHED);
    folder::copy(&backup.join(FILE_NAME), &unfinished)?;
    add_pointer_maps(&unfinished)?;
    folder::copy(key, &data_dir.join(secrets::FILE_NAME))?;
    let mut progress = Progress::new(false);
    let mut done = 0_u64;
    for table in TABLES {
        for_each_object(&connection, table, 0, |object| -> anyhow::Result<()> {
            match restore_object(backup, data_dir, object) {
                // The verification has reported it.
                Err(error) if matches!(error.downcast_ref(), Some(store::Error::Damaged { .. })) => return Ok(()),
                restored => restored?,
            }
            done += 1;
            progress.show(|| format!("objects: {done} of {}", contents.objects));
            Ok(())
        })?;
    }
    progress.clear();
    let folder = fs::File::open(data_dir).with_context(|| format!("opening {}", data_dir.display()))?;
    let writing = || format!("writing {}", data_dir.display());
    rustix::fs::syncfs(&folder).with_context(writing)?;
    fs::rename(&unfinished, &database).and_then(|()| folder.sync_all()).with_context(writing)?;
    Ok(contents)
}

fn check_room(backup: &Path, data_dir: &Path, contents: Contents) -> anyhow::Result<()> {
    // Pointer maps are added in a second copy.
    let database = fs::metadata(backup.join(FILE_NAME)).map_or(0, |file| file.len().saturating_mul(2));
    let need = contents.object_bytes.saturating_add(database).saturating_add(super::SPARE);
    let parent = data_dir.ancestors().find(|one| one.exists()).unwrap_or(Path::new("."));
    let free = DataDir::free_bytes(parent)?;
    if free < need {
        let (dir, need, free) = (data_dir.display(), text::size(need), text::size(free));
        bail!("there is no room in {dir}: it takes {need}, and {free} are free");
    }
    Ok(())
}

fn report(data_dir: &Path, contents: Contents) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    let Contents { messages, objects, outbound, webhooks, .. } = contents;
    writeln!(out, "\n{messages} messages and {objects} objects were restored to {}.", data_dir.display())?;
    if webhooks > 0 {
        writeln!(
            out,
            "{webhooks} webhook deliveries were waiting when the backup was made: those made since will be made \
             again, with the same webhook-id, by which a receiver knows them."
        )?;
    }
    if outbound > 0 {
        writeln!(
            out,
            "{outbound} outgoing messages were waiting: those sent since will be sent again, with the same \
             Message-ID. Before the start, mailkite queue list shows them, and mailkite queue drop removes what must \
             not go twice."
        )?;
    }
    writeln!(out, "Next: mailkite check, then start the server; mailkite audit proves that all of it is there.")?;
    Ok(())
}
