//! The command line: one file per command.

mod check;
mod logs;

use std::path::PathBuf;

use clap::{Parser, Subcommand};

/// Mail in over SMTP, signed webhooks out: a self-hosted email appliance in one binary.
#[derive(Debug, Parser)]
#[command(version, about, disable_help_subcommand = true)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Check a configuration and its data directory; exit 0 when both are fine, 1 when not
    Check {
        /// The configuration file
        #[arg(long, value_name = "FILE", default_value = "/etc/mailkite.toml")]
        config: PathBuf,
    },
}

impl Cli {
    /// Runs the command.
    ///
    /// # Errors
    /// What went wrong, as a chain of sentences.
    pub fn run(self) -> anyhow::Result<()> {
        match self.command {
            Command::Check { config } => check::run(&config),
        }
    }
}
