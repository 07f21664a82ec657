//! Log lines on stderr: human-readable on a terminal and for journald, JSON otherwise; level by configuration and
//! `RUST_LOG`.
//!
//! A thread writes them, so that logging never blocks: while a pipe is full or a disk hangs, lines beyond a bound are
//! dropped and counted.

use std::io::{IsTerminal, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tracing::{Level, Metadata};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::{MakeWriter, format};

use super::log_format::{LineFormat, Style};
use crate::config::{Log, LogFormat};

/// The most octets that wait to be written: the lines of some seconds under full load.
const WAITING_MAX: usize = 4 * 1024 * 1024;
/// Buffers that grew beyond this are given back once they are written.
const BUFFER_KEPT: usize = 256 * 1024;
/// Time for which the thread collects lines, so that one write takes many of them.
const COLLECT: Duration = Duration::from_millis(5);
/// The most time that the exit of the process waits for the remaining lines.
const FLUSH_MAX: Duration = Duration::from_secs(1);

/// The process's log; on drop it waits a moment for the remaining lines.
pub(crate) struct Logs {
    queue: Arc<Queue>,
}

impl Logs {
    /// Returns the counter of dropped lines.
    pub(crate) fn dropped(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.queue.dropped)
    }
}

impl Drop for Logs {
    fn drop(&mut self) {
        let mut state = self.queue.lock();
        state.is_closing = true;
        self.queue.more.notify_one();
        let is_busy = |state: &mut State| state.is_writing || !state.lines.is_empty();
        drop(self.queue.written.wait_timeout_while(state, FLUSH_MAX, is_busy));
    }
}

/// Lines on their way to the thread.
#[derive(Default)]
struct Queue {
    state: Mutex<State>,
    /// Notified when the thread sleeps and there is something to do.
    more: Condvar,
    /// Notified when everything is written.
    written: Condvar,
    dropped: Arc<AtomicU64>,
}

#[derive(Default)]
struct State {
    /// Whole lines.
    lines: Vec<u8>,
    is_sleeping: bool,
    is_writing: bool,
    /// The process ends: nothing is collected any longer.
    is_closing: bool,
}

impl Queue {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a line, unless too much waits already.
    fn push(&self, line: &[u8]) {
        let mut state = self.lock();
        if state.lines.len() + line.len() > WAITING_MAX {
            self.dropped.fetch_add(1, Ordering::Relaxed);
            return;
        }
        state.lines.extend_from_slice(line);
        if std::mem::take(&mut state.is_sleeping) {
            drop(state);
            self.more.notify_one();
        }
    }

    /// Writes lines for ever, all that wait at once.
    fn write_lines(&self) {
        let mut batch = Vec::new();
        loop {
            let mut state = self.lock();
            if state.lines.is_empty() {
                self.written.notify_all();
                state.is_sleeping = true;
                let nothing = |state: &mut State| state.lines.is_empty();
                state = self.more.wait_while(state, nothing).unwrap_or_else(PoisonError::into_inner);
                state.is_sleeping = false;
                if !state.is_closing {
                    drop(state);
                    std::thread::sleep(COLLECT);
                    state = self.lock();
                }
            }
            std::mem::swap(&mut state.lines, &mut batch);
            state.is_writing = true;
            drop(state);
            // A failure to write the log cannot be reported anywhere.
            drop(std::io::stderr().write_all(&batch));
            if batch.capacity() > BUFFER_KEPT {
                batch = Vec::new();
            }
            batch.clear();
            self.lock().is_writing = false;
        }
    }
}

/// Gives the thread one line for each event.
#[derive(Clone)]
struct Lines {
    queue: Arc<Queue>,
    is_journal: bool,
    /// True if escape characters colour the lines.
    is_colored: bool,
    /// True if the format escapes control characters by itself.
    is_json: bool,
}

/// Takes the line of one event.
struct LineWriter<'a> {
    lines: &'a Lines,
    level: Level,
}

impl<'a> MakeWriter<'a> for Lines {
    type Writer = LineWriter<'a>;

    fn make_writer(&'a self) -> LineWriter<'a> {
        LineWriter { lines: self, level: Level::INFO }
    }

    fn make_writer_for(&'a self, meta: &Metadata<'_>) -> LineWriter<'a> {
        LineWriter { lines: self, level: *meta.level() }
    }
}

impl Write for LineWriter<'_> {
    /// Takes the whole line: the subscriber writes an event at once.
    fn write(&mut self, line: &[u8]) -> std::io::Result<usize> {
        let Lines { queue, is_journal, is_colored, is_json } = self.lines;
        let text = line.strip_suffix(b"\n").unwrap_or(line);
        let breaks = |byte: &u8| !is_json && byte.is_ascii_control() && !(*is_colored && *byte == b'\x1b');
        if !is_journal && !text.iter().any(breaks) {
            queue.push(line);
            return Ok(line.len());
        }
        let mut whole = Vec::with_capacity(line.len() + 16);
        if *is_journal {
            whole.extend_from_slice(priority(self.level));
        }
        for byte in text {
            if breaks(byte) {
                // An event is one line, whatever its values hold.
                whole.extend(byte.escape_ascii());
            } else {
                whole.push(*byte);
            }
        }
        whole.push(b'\n');
        queue.push(&whole);
        Ok(line.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Returns the prefix by which journald learns the priority of a line (sd-daemon(3)).
const fn priority(level: Level) -> &'static [u8] {
    match level {
        Level::ERROR => b"<3>",
        Level::WARN => b"<4>",
        Level::INFO => b"<6>",
        Level::DEBUG | Level::TRACE => b"<7>",
    }
}

/// Returns true if stderr is the stream that systemd connected with journald: `JOURNAL_STREAM` names its device and
/// inode (systemd.exec(5)). A program that redirects it inherits the variable, but not the stream.
fn is_journal() -> bool {
    let Ok(named) = std::env::var("JOURNAL_STREAM") else { return false };
    rustix::fs::fstat(std::io::stderr()).is_ok_and(|stat| named == format!("{}:{}", stat.st_dev, stat.st_ino))
}

/// Starts logging for the process.
///
/// `RUST_LOG` overrides the configured level. A second start changes nothing.
pub(crate) fn init(log: &Log) -> Logs {
    let filter = EnvFilter::try_from_default_env()
        .or_else(|_| EnvFilter::try_new(&log.level))
        .unwrap_or_else(|_| EnvFilter::new("info"));
    let (is_colored, is_journal) = (std::io::stderr().is_terminal(), is_journal());
    let style = match log.format {
        LogFormat::Auto if !is_colored && !is_journal => Style::Json,
        LogFormat::Json => Style::Json,
        // journald has a time of its own.
        LogFormat::Auto | LogFormat::Human => Style::Human { with_time: !is_journal },
    };
    let queue = Arc::<Queue>::default();
    let writing = Arc::clone(&queue);
    // Without its thread nothing is logged, and everything else goes on.
    drop(std::thread::Builder::new().name("log".to_owned()).spawn(move || writing.write_lines()));
    let formatted = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(Lines { queue: Arc::clone(&queue), is_journal, is_colored, is_json: style == Style::Json })
        .with_ansi(is_colored)
        // The subscriber would report a failed write on stderr too, and panic when that fails: a full disk or a
        // reader that went away would end any thread that logs.
        .log_internal_errors(false);
    let human = format().with_target(false).with_ansi(is_colored);
    let started = match style {
        Style::Json => {
            let other = format().json().flatten_event(true);
            formatted.json().event_format(LineFormat { style, other }).try_init()
        }
        Style::Human { with_time: false } => {
            formatted.event_format(LineFormat { style, other: human.without_time() }).try_init()
        }
        Style::Human { .. } if is_colored => formatted.event_format(human).try_init(),
        Style::Human { .. } => formatted.event_format(LineFormat { style, other: human }).try_init(),
    };
    // Another subscriber is installed already, as in tests; that one will do.
    drop(started);
    Logs { queue }
}
