//! Log lines on stderr: human-readable on a terminal, JSON otherwise; level by configuration and `RUST_LOG`.
//!
//! A thread writes them, so that logging never blocks: while a pipe is full or a disk hangs, lines beyond a bound are
//! dropped and counted.

use std::io::{IsTerminal, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::time::Duration;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;

use crate::config::{Log, LogFormat};

/// The most lines that wait to be written.
const WAITING_MAX: usize = 4_096;
/// The most time that the exit of the process waits for the remaining lines.
const FLUSH_MAX: Duration = Duration::from_secs(1);

enum Message {
    Line(Vec<u8>),
    /// Answered once everything before it is written.
    Flush(SyncSender<()>),
}

/// The process's log; on drop it waits a moment for the remaining lines.
pub(crate) struct Logs {
    lines: Lines,
}

impl Logs {
    /// Returns the counter of dropped lines.
    pub(crate) fn dropped(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.lines.dropped)
    }
}

impl Drop for Logs {
    fn drop(&mut self) {
        let (written, all_written) = sync_channel(1);
        if self.lines.sender.try_send(Message::Flush(written)).is_ok() {
            let _ = all_written.recv_timeout(FLUSH_MAX);
        }
    }
}

/// Sends lines to the thread.
#[derive(Clone)]
struct Lines {
    sender: SyncSender<Message>,
    dropped: Arc<AtomicU64>,
}

impl MakeWriter<'_> for Lines {
    type Writer = Self;

    fn make_writer(&self) -> Self {
        self.clone()
    }
}

impl Write for Lines {
    fn write(&mut self, line: &[u8]) -> std::io::Result<usize> {
        if let Err(TrySendError::Full(_)) = self.sender.try_send(Message::Line(line.to_vec())) {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

fn write_lines(messages: &Receiver<Message>) {
    while let Ok(message) = messages.recv() {
        match message {
            // A failure to write the log cannot be reported anywhere.
            Message::Line(line) => drop(std::io::stderr().write_all(&line)),
            Message::Flush(written) => drop(written.try_send(())),
        }
    }
}

/// Starts logging for the process.
///
/// `RUST_LOG` overrides the configured level. A second start changes nothing.
pub(crate) fn init(log: &Log) -> Logs {
    let filter = EnvFilter::try_from_default_env()
        .or_else(|_| EnvFilter::try_new(&log.level))
        .unwrap_or_else(|_| EnvFilter::new("info"));
    let terminal = std::io::stderr().is_terminal();
    let json = match log.format {
        LogFormat::Json => true,
        LogFormat::Human => false,
        LogFormat::Auto => !terminal,
    };
    let (sender, messages) = sync_channel(WAITING_MAX);
    let lines = Lines { sender, dropped: Arc::default() };
    // Without its thread nothing is logged, and everything else goes on.
    drop(std::thread::Builder::new().name("log".to_owned()).spawn(move || write_lines(&messages)));
    let formatted = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(lines.clone())
        .with_ansi(terminal)
        // The subscriber would report a failed write on stderr too, and panic when that fails: a full disk or a
        // reader that went away would end any thread that logs.
        .log_internal_errors(false);
    let started =
        if json { formatted.json().flatten_event(true).try_init() } else { formatted.with_target(false).try_init() };
    // Another subscriber is installed already, as in tests; that one will do.
    drop(started);
    Logs { lines }
}
