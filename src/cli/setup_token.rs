//! `mailkite setup-token`: prints the token which proves that the first account is created by the operator (contract
//! 2.2).

use std::io::Write as _;
use std::path::Path;

use anyhow::{Context, bail};

use crate::app::master_key;
use crate::config::{Config, table};
use crate::store;
use crate::store::accounts;
use crate::store::accounts::verifications;

/// Prints the token; the server may be running.
pub(crate) fn run(path: &Path) -> anyhow::Result<()> {
    let config = match Config::load(path) {
        Ok(config) => config,
        Err(problems) => {
            eprint!("{}", table(&problems));
            bail!("{} is not a valid configuration", path.display());
        }
    };
    let found = store::read_offline(&config.data_dir, |connection| {
        let owned = accounts::find_owner(connection)?.is_some();
        Ok((owned, verifications::find_setup_token(connection)?))
    });
    let found = found.with_context(|| format!("reading the database in {}", config.data_dir.display()))?;
    let Some((owned, sealed)) = found else {
        bail!("there is no database in {} yet; start the server once: mailkite serve", config.data_dir.display());
    };
    if owned {
        bail!("this server already has an owner; no setup token is needed");
    }
    let Some(sealed) = sealed else {
        bail!("there is no setup token yet; start the server once: mailkite serve");
    };
    let secrets = master_key::read(&config.data_dir)?;
    let token = secrets.open_text(verifications::SETUP_PURPOSE, &sealed)?;
    writeln!(std::io::stdout(), "{token}")?;
    Ok(())
}
