//! `mailkite verify`: reads a whole backup and says of each part whether it can be restored. Changes nothing.

use std::io::Write as _;
use std::path::{Path, PathBuf};

use anyhow::bail;
use clap::Args;
use serde_json::json;

use super::folder::{self, Manifest};
use crate::cli::audit::{self, Finding};
use crate::secrets::{self, Secrets};
use crate::store::audit::Table;
use crate::store::blobs::objects::Objects;
use crate::store::{self, Connection, migrate, sealed};

/// `mailkite verify`
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// A backup, or the folder of backups: then its latest
    backup: PathBuf,
    /// The master key, to check that it fits, if it is not in the backup
    #[arg(long, value_name = "FILE")]
    key: Option<PathBuf>,
    /// Print one JSON object instead of a table
    #[arg(long)]
    json: bool,
}

/// Runs the command; fails when something cannot be restored.
pub(crate) fn run(options: &Options) -> anyhow::Result<()> {
    let folder = folder::find(&options.backup)?;
    let findings = inspect(&folder, options.key.as_deref());
    let lost: usize = findings.iter().map(|one| one.lost.len()).sum();
    if options.json {
        let whole = json!({"ok": lost == 0, "lost": lost, "path": folder, "checks": audit::checks_json(&findings)});
        writeln!(std::io::stdout(), "{whole}")?;
    } else {
        writeln!(std::io::stdout(), "{}", folder.display())?;
        audit::print_findings(&findings)?;
    }
    match lost {
        0 => Ok(()),
        1 => bail!("1 thing is wrong with {}", folder.display()),
        lost => bail!("{lost} things are wrong with {}", folder.display()),
    }
}

/// Checks every part of a backup.
pub(super) fn inspect(folder: &Path, key: Option<&Path>) -> Vec<Finding> {
    let read = Manifest::read(folder);
    let mut findings = vec![match &read {
        Ok(manifest) => Finding::new(
            "manifest",
            format!("made {} by mailkite {}", manifest.created_at, manifest.mailkite),
            Vec::new(),
        ),
        Err(error) => Finding::new("manifest", "the list of its parts cannot be used".to_owned(), one(error)),
    }];
    let manifest = read.ok();
    findings.extend(manifest.as_ref().map(|manifest| files(folder, manifest)));
    match open(folder) {
        Ok(connection) => {
            let checked = contents(folder, &connection, manifest.as_ref(), key, &mut findings);
            if let Err(error) = checked {
                findings.push(Finding::new(
                    "reading",
                    "it cannot be read to its end".to_owned(),
                    vec![error.to_string()],
                ));
            }
        }
        Err(error) => {
            findings.push(Finding::new("database", "it cannot be opened".to_owned(), one(&error)));
        }
    }
    findings
}

fn one(error: &anyhow::Error) -> Vec<String> {
    vec![format!("{error:#}")]
}

/// Compares the files with the manifest.
fn files(folder: &Path, manifest: &Manifest) -> Finding {
    let mut lost = Vec::new();
    for file in &manifest.files {
        match folder::measure(folder, &file.name) {
            Ok(Some(found)) if found == *file => {}
            Ok(Some(found)) if found.bytes != file.bytes => {
                lost.push(format!("{} has {} octets instead of {}", file.name, found.bytes, file.bytes));
            }
            Ok(Some(_)) => lost.push(format!("{} was changed (its checksum differs)", file.name)),
            Ok(None) => lost.push(format!("{} is missing", file.name)),
            Err(error) => lost.extend(one(&error)),
        }
    }
    let names: Vec<&str> = manifest.files.iter().map(|file| file.name.as_str()).collect();
    let said = if lost.is_empty() { "as they were written" } else { "not as they were written" };
    Finding::new("files", format!("{} {said}", names.join(", ")), lost)
}

fn open(folder: &Path) -> anyhow::Result<Connection> {
    store::inspect(folder)?;
    match store::open_unused(folder)? {
        Some(connection) => Ok(connection),
        None => bail!("{} is missing or empty", store::FILE_NAME),
    }
}

fn contents(
    folder: &Path,
    connection: &Connection,
    manifest: Option<&Manifest>,
    key: Option<&Path>,
    findings: &mut Vec<Finding>,
) -> store::Result<()> {
    let (version, present) = (migrate::version(connection)?, migrate::present_version());
    let broken = store::audit::integrity_check(connection)?;
    let upgraded = if version < present { ", which the next start upgrades" } else { "" };
    let said = if broken.is_empty() { "the file is intact" } else { "the file is damaged" };
    findings.push(Finding::new("database", format!("{said}, schema {version}{upgraded}"), broken));
    let objects = Objects::open_read_only(folder);
    for table in [Table::Mail, Table::Uploads] {
        let mut finding = audit::object_finding(connection, &objects, table)?;
        let removed = manifest.map(|manifest| manifest.removed_meanwhile.as_slice()).unwrap_or_default();
        finding.set_aside(removed, "removed with their messages while the backup was made");
        findings.push(finding);
    }
    findings.push(audit::rows_finding(connection)?);
    if let Some(manifest) = manifest {
        findings.push(counts(connection, manifest)?);
    }
    findings.push(key_finding(folder, connection, key)?);
    Ok(())
}

fn counts(connection: &Connection, manifest: &Manifest) -> store::Result<Finding> {
    let found = store::audit::contents(connection)?;
    let pairs = [
        ("messages", found.messages, manifest.messages),
        ("objects", found.objects, manifest.objects),
        ("octets of objects", found.object_bytes, manifest.object_bytes),
    ];
    let lost = pairs
        .into_iter()
        .filter(|(_, found, listed)| found != listed)
        .map(|(what, found, listed)| format!("{found} {what} instead of {listed}"))
        .collect();
    Ok(Finding::new("counts", format!("{} messages, {} objects", manifest.messages, manifest.objects), lost))
}

fn key_finding(folder: &Path, connection: &Connection, key: Option<&Path>) -> store::Result<Finding> {
    let own = folder.join(secrets::FILE_NAME);
    let Some(path) = key.map(Path::to_owned).or_else(|| own.exists().then_some(own)) else {
        let said = "not in this backup; --key FILE checks that the one you keep elsewhere fits";
        return Ok(Finding::new("key", said.to_owned(), Vec::new()));
    };
    let secrets = match Secrets::from_file(&path) {
        Ok(secrets) => secrets,
        Err(error) => return Ok(Finding::new("key", "it cannot be used".to_owned(), vec![error.to_string()])),
    };
    let (count, unopened) = count_unopened(connection, &secrets)?;
    Ok(if unopened == 0 {
        Finding::new("key", format!("{} opens all {count} sealed secrets", path.display()), Vec::new())
    } else {
        let line =
            format!("{} is not the key of this database: {unopened} of {count} secrets do not open", path.display());
        Finding::new("key", "it does not fit".to_owned(), vec![line])
    })
}

/// Counts the sealed values, and those that a key does not open.
pub(super) fn count_unopened(connection: &Connection, secrets: &Secrets) -> store::Result<(usize, usize)> {
    let (mut count, mut unopened) = (0, 0);
    sealed::for_each(connection, |purpose, sealed| {
        count += 1;
        unopened += usize::from(secrets.open_sealed(purpose, sealed).is_err());
    })?;
    Ok((count, unopened))
}
