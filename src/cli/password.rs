//! Passwords typed at the terminal without echo, or read from standard input.

use std::fs::{File, OpenOptions};
use std::io::{BufRead as _, BufReader, Read, Write as _};

use anyhow::{Context as _, bail};
use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};

/// More than a password may have.
const MAX_LINE: u64 = 4096;

/// Asks twice for a new password.
///
/// # Errors
/// There is no terminal, or the two differ.
pub(super) fn ask_new(email: &str) -> anyhow::Result<String> {
    let tty = OpenOptions::new().read(true).write(true).open("/dev/tty").context(
        "there is no terminal to ask for the password; use --password-stdin, or --sign-in-link for a link instead",
    )?;
    let first = ask(&tty, &format!("New password of {email}: "))?;
    let second = ask(&tty, "The same again: ")?;
    if first == second { Ok(first) } else { bail!("the two passwords differ; nothing was changed") }
}

/// Reads a password from standard input: its first line.
///
/// # Errors
/// There is none.
pub(super) fn read_stdin() -> anyhow::Result<String> {
    let line = read_line(&mut std::io::stdin().lock())?;
    if line.is_empty() { bail!("standard input is empty; write the password into it") } else { Ok(line) }
}

/// Reads a line, without its end.
pub(super) fn read_line(from: &mut impl Read) -> anyhow::Result<String> {
    let mut line = String::new();
    BufReader::new(from.take(MAX_LINE)).read_line(&mut line)?;
    Ok(line.trim_end_matches(['\r', '\n']).to_owned())
}

fn ask(mut tty: &File, question: &str) -> anyhow::Result<String> {
    write!(tty, "{question}")?;
    let _silent = Silent::begin(tty)?;
    let line = read_line(&mut tty);
    writeln!(tty)?;
    line
}

/// A terminal without echo, which returns with the end of this value.
struct Silent<'a> {
    tty: &'a File,
    before: Termios,
}

impl<'a> Silent<'a> {
    fn begin(tty: &'a File) -> anyhow::Result<Self> {
        let before = tcgetattr(tty)?;
        let mut silent = before.clone();
        silent.local_modes.remove(LocalModes::ECHO);
        tcsetattr(tty, OptionalActions::Flush, &silent)?;
        Ok(Self { tty, before })
    }
}

impl Drop for Silent<'_> {
    fn drop(&mut self) {
        tcsetattr(self.tty, OptionalActions::Flush, &self.before).ok();
    }
}
