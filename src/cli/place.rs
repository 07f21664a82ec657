//! The data directory that a command on the host works on, and the configuration that goes with it.

use std::path::{Path, PathBuf};

use anyhow::bail;
use clap::Args;

use super::queue::configured_data_dir;
use crate::config::{Config, table};

#[derive(Clone, Debug, Args)]
pub(super) struct Place {
    /// The configuration file
    #[arg(long, value_name = "FILE", default_value = "/etc/mailkite/mailkite.toml", global = true)]
    config: PathBuf,
    /// The data directory itself, such as that of `mailkite dev`
    #[arg(long, value_name = "DIR", global = true)]
    data_dir: Option<PathBuf>,
}

impl Place {
    pub(super) fn data_dir(&self) -> anyhow::Result<PathBuf> {
        match &self.data_dir {
            Some(data_dir) => Ok(data_dir.clone()),
            None => configured_data_dir(&self.config),
        }
    }

    /// Returns the configuration; its defaults where `--data-dir` is given and the file does not exist.
    pub(super) fn config(&self) -> anyhow::Result<Config> {
        if self.data_dir.is_some() && !Path::new(&self.config).exists() {
            return Ok(Config::default());
        }
        match Config::load(&self.config) {
            Ok(config) => Ok(config),
            Err(problems) => {
                eprint!("{}", table(&problems));
                bail!("{} is not a valid configuration", self.config.display());
            }
        }
    }
}
