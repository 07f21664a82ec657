//! The command line: one file per command. It may use everything below; a new command is a variant of `Command` and a
//! file.

mod audit;
mod backup;
mod bench;
mod check;
mod dev;
mod domain;
mod log_format;
mod logs;
mod moving;
mod password;
mod place;
mod queue;
mod recover;
mod rotate_key;
mod serve;
mod setup_token;
mod text;
mod user;

use std::path::PathBuf;
use std::time::Duration;

use clap::{Parser, Subcommand};

use crate::app::StartError;

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
    /// Serve mail and the API as configured in a file
    Serve {
        /// The configuration file
        #[arg(long, value_name = "FILE", default_value = "/etc/mailkite/mailkite.toml")]
        config: PathBuf,
    },
    /// Benchmark this machine: mails per second, latency, memory, and that nothing is lost
    Bench(bench::Options),
    /// The server that `bench` measures
    #[command(hide = true)]
    BenchServer(bench::ServerOptions),
    /// Print the token for the first sign-up, while this server has no owner
    SetupToken {
        /// The configuration file
        #[arg(long, value_name = "FILE", default_value = "/etc/mailkite/mailkite.toml")]
        config: PathBuf,
    },
    /// Show the queue of outgoing mail, retry it now, drop it
    Queue(queue::Options),
    /// List, add and remove accounts, let them in again
    User(user::Options),
    /// Rotate the DKIM keys of a domain
    Domain(domain::Options),
    /// Write mail of accounts to an mbox file, a maildir or JSON Lines
    Export(moving::export::Options),
    /// Store mail of an mbox file, a maildir or JSON Lines as received by an account; no route runs
    Import(moving::import::Options),
    /// Replace the master key; the server must be stopped
    RotateKey(rotate_key::Options),
    /// Check that everything promised is still there; exit 0 when nothing is lost, 1 when something is
    Audit(audit::Options),
    /// Back up the data directory, also while the server runs
    Backup(backup::Options),
    /// Check that a backup can be restored; exit 0 when it can, 1 when not
    Verify(backup::verify::Options),
    /// Make a data directory from a backup
    Restore(backup::restore::Options),
    /// Show what is left when part of the data directory is missing, and start with it
    Recover(recover::Options),
    /// Check a configuration and its data directory; exit 0 when both are fine, 1 when not
    Check {
        /// The configuration file
        #[arg(long, value_name = "FILE", default_value = "/etc/mailkite/mailkite.toml")]
        config: PathBuf,
    },
}

impl Cli {
    /// Returns the exit code for a failure: 78 (`EX_CONFIG` of sysexits.h) where nothing but the operator can help, so
    /// that systemd does not try again (`RestartPreventExitStatus=`).
    pub fn exit_code(error: &anyhow::Error) -> u8 {
        match error.chain().find_map(|cause| cause.downcast_ref::<StartError>()) {
            Some(StartError::Refused(_)) => 78,
            _ => 1,
        }
    }

    /// Runs the command.
    ///
    /// # Errors
    /// The failure, as a chain of sentences.
    pub fn run(self) -> anyhow::Result<()> {
        match self.command {
            Command::Dev(options) => dev::run(&options),
            Command::Serve { config } => serve::run(&config),
            Command::Bench(options) => bench::run(&options),
            Command::BenchServer(options) => bench::run_server(&options),
            Command::SetupToken { config } => setup_token::run(&config),
            Command::Check { config } => check::run(&config),
            Command::Audit(options) => audit::run(&options),
            Command::Backup(options) => backup::run(&options),
            Command::Verify(options) => backup::verify::run(&options),
            Command::Restore(options) => backup::restore::run(&options),
            Command::Recover(options) => recover::run(&options),
            Command::RotateKey(options) => rotate_key::run(&options),
            Command::Queue(options) => queue::run(&options),
            Command::User(options) => user::run(&options),
            Command::Domain(options) => domain::run(&options),
            Command::Export(options) => moving::export::run(&options),
            Command::Import(options) => moving::import::run(&options),
        }
    }
}

/// The time that a blocking thread may take to start, in attempts of this length.
const THREAD_TRIES: u32 = 8;
const THREAD_TRY: Duration = Duration::from_millis(250);

/// Runs a command that serves: a worker for each core, at least two, and threads for blocking calls.
///
/// tokio panics when it can start no blocking thread at all. Once one exists that never ends, it no longer does;
/// until then a panic hook ends the process with a sentence.
fn serve_on_threads<T>(work: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    let earlier = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| {
        eprintln!("error: {NO_THREADS}");
        std::process::exit(1);
    }));
    let cores = std::thread::available_parallelism().map_or(2, std::num::NonZero::get);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(cores.max(2))
        // Reads and spooling of large mail, all short, plus the one that never ends.
        .max_blocking_threads(65)
        .enable_all()
        .build()?;
    let (ends, end) = std::sync::mpsc::channel::<()>();
    runtime.spawn_blocking(move || end.recv().is_ok());
    std::panic::set_hook(earlier);
    let outcome = runtime.block_on(async {
        let mut tries = 0;
        while tokio::time::timeout(THREAD_TRY, tokio::task::spawn_blocking(|| ())).await.is_err() {
            tries += 1;
            if tries == THREAD_TRIES {
                anyhow::bail!(NO_THREADS);
            }
        }
        work.await
    });
    drop(ends);
    outcome
}

const NO_THREADS: &str = "the system allows this process no more threads; raise TasksMax of its unit, or RLIMIT_NPROC \
                          (ulimit -u) of its user";
