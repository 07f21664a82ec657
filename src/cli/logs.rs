//! Log lines on stderr: human on a terminal, JSON otherwise; level by configuration and `RUST_LOG`.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;

use crate::config::{Log, LogFormat};

/// Starts logging for the process.
///
/// `RUST_LOG` overrides the configured level. Starting twice changes nothing.
pub fn init(log: &Log) {
    let filter = EnvFilter::try_from_default_env()
        .or_else(|_| EnvFilter::try_new(&log.level))
        .unwrap_or_else(|_| EnvFilter::new("info"));
    let terminal = std::io::stderr().is_terminal();
    let json = match log.format {
        LogFormat::Json => true,
        LogFormat::Human => false,
        LogFormat::Auto => !terminal,
    };
    let lines = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(terminal)
        // It would tell of a line that cannot be written on stderr too, and panic when that fails: a full disk or a reader
        // that went away would end whatever thread has something to say.
        .log_internal_errors(false);
    let started =
        if json { lines.json().flatten_event(true).try_init() } else { lines.with_target(false).try_init() };
    // Another subscriber is in place already, as in tests; its lines are as good.
    drop(started);
}
