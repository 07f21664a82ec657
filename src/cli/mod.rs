//! The command line: one file per command.

mod audit;
mod bench;
mod check;
mod dev;
mod logs;
mod queue;
mod recover;
mod serve;
mod setup_token;

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
    /// Try it on this machine: everything on loopback, a first mail, a verified webhook
    Dev(dev::Options),
    /// Serve mail and the API as a configuration file says
    Serve {
        /// The configuration file
        #[arg(long, value_name = "FILE", default_value = "/etc/mailkite/mailkite.toml")]
        config: PathBuf,
    },
    /// Measure this machine: mails a second, latency, memory, and that nothing is lost
    Bench(bench::Options),
    /// The server that `bench` measures
    #[command(hide = true)]
    BenchServer(bench::ServerOptions),
    /// Print the token that the first sign-up needs, while nobody owns this server
    SetupToken {
        /// The configuration file
        #[arg(long, value_name = "FILE", default_value = "/etc/mailkite/mailkite.toml")]
        config: PathBuf,
    },
    /// Show what waits to be sent, try it now, give it up
    Queue(queue::Options),
    /// Check that everything promised is there; exit 0 when nothing is lost, 1 when something is
    Audit(audit::Options),
    /// What is there when something of the data directory is missing, and how to start with it
    Recover(recover::Options),
    /// Check a configuration and its data directory; exit 0 when both are fine, 1 when not
    Check {
        /// The configuration file
        #[arg(long, value_name = "FILE", default_value = "/etc/mailkite/mailkite.toml")]
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
            Command::Dev(options) => dev::run(&options),
            Command::Serve { config } => serve::run(&config),
            Command::Bench(options) => bench::run(&options),
            Command::BenchServer(options) => bench::run_server(&options),
            Command::SetupToken { config } => setup_token::run(&config),
            Command::Check { config } => check::run(&config),
            Command::Audit(options) => audit::run(&options),
            Command::Recover(options) => recover::run(&options),
            Command::Queue(options) => queue::run(&options),
        }
    }
}

/// The runtime of every command that serves: a worker for each core, two at least.
fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    let cores = std::thread::available_parallelism().map_or(2, std::num::NonZero::get);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(cores.max(2))
        // Reads and spooling of large mail; each of them is short.
        .max_blocking_threads(64)
        .enable_all()
        .build()?;
    Ok(runtime)
}
