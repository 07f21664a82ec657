//! `mailkite rotate-key`: replaces the master key, with everything that is sealed with it.

use std::io::Write as _;
use std::path::Path;

use anyhow::{Context as _, bail};
use clap::Args;

use super::place::Place;
use crate::app::master_key;
use crate::clock::Clock;
use crate::process::data_dir::{DataDir, DataDirError};
use crate::store::{self, Db};

/// `mailkite rotate-key`
#[derive(Debug, Args)]
pub(crate) struct Options {
    #[command(flatten)]
    place: Place,
    /// Somebody else has the present key: accept nothing any more that was made with it
    #[arg(long)]
    compromised: bool,
}

pub(crate) fn run(options: &Options) -> anyhow::Result<()> {
    let dir = options.place.data_dir()?;
    let file = dir.join(store::FILE_NAME);
    if !file.exists() {
        bail!(
            "there is no database in {}; a new master key is made by the first start: mailkite serve",
            dir.display()
        );
    }
    let held = DataDir::open(&dir).map_err(|error| match error {
        DataDirError::Locked(_) => anyhow::anyhow!(
            "a mailkite process uses {}; stop it first, for it would go on with the present key: \
             systemctl stop mailkite",
            dir.display()
        ),
        error => error.into(),
    })?;
    held.check_database(&file)?;
    let count = rotate(&dir, options.compromised)?;
    let mut out = std::io::stdout().lock();
    writeln!(out, "The master key in {} is a new one, and {count} secrets are sealed with it.", dir.display())?;
    writeln!(out, "All sessions ended: sign in again. API keys, webhook secrets and DKIM keys are the same.")?;
    if options.compromised {
        writeln!(out, "\nLinks to attachments, and bounces of mail sent until now, are not accepted any more.")?;
        writeln!(
            out,
            "With the former key and a copy of the database one can read every secret, so replace them:\n"
        )?;
        writeln!(out, "  API keys         dashboard, Keys, or POST /api/keys/rotate")?;
        writeln!(out, "  webhook secrets  dashboard, each route, or POST /api/routes/ID/secret/rotate")?;
        writeln!(out, "  tracking         each domain's page, or POST /api/webhooks/secret/rotate")?;
        writeln!(out, "  DKIM keys        mailkite domain rotate-dkim DOMAIN")?;
    } else {
        writeln!(out, "Links to attachments, and bounces of mail sent until now, go on to work.")?;
    }
    writeln!(
        out,
        "\nBackups made before open only with the former key, which is not kept here. Make a backup with the new key now."
    )?;
    Ok(())
}

fn rotate(dir: &Path, forget: bool) -> anyhow::Result<usize> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    master_key::settle(dir)?;
    let db = Db::open(dir).with_context(|| format!("opening the database in {}", dir.display()))?;
    let rotated = runtime.block_on(master_key::rotate(dir, &db, forget, Clock::System.now()));
    // What is not moved into the file now, the next start reads from the WAL.
    drop(runtime.block_on(db.checkpoint()));
    runtime.block_on(db.close());
    if rotated.is_err() {
        master_key::settle(dir)?;
    }
    rotated
}
