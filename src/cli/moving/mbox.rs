//! The mbox format: a separator line before each mail (RFC 4155), an empty line behind it. Lines of a mail that begin
//! with `From `, after any number of `>`, get one more `>`, which reading takes away (mboxrd), so that every octet
//! comes back.

use std::io::{BufRead, Read, Write};

use anyhow::bail;

use super::{Found, MAX_ADDRESS, OutgoingMail, Sink, Source};
use crate::clock::Timestamp;
use crate::inbound::import::{ImportedMail, MAX_MAIL};
use crate::mail::date;
use crate::store::messages::MessageRow;

const FROM: &[u8] = b"From ";
/// The sender where there is none, as other programs write it.
const NOBODY: &str = "MAILER-DAEMON";
/// Octets read at a time; lines may be longer.
const PIECE: u64 = 64 * 1024;

pub(super) struct Writer<W: Write> {
    out: W,
}

impl<W: Write> Writer<W> {
    pub(super) const fn new(out: W) -> Self {
        Self { out }
    }
}

impl<W: Write> Sink for Writer<W> {
    fn write(&mut self, mail: OutgoingMail<'_>) -> anyhow::Result<()> {
        writeln!(self.out, "From {} {}", sender(mail.row), date::format_mbox(mail.row.received_at))?;
        let mut quoted = Quoting { out: &mut self.out, matched: Some(0) };
        std::io::copy(mail.data, &mut quoted)?;
        quoted.end()?;
        // Behind a last line without an end, it ends that line; reading takes exactly this octet away.
        self.out.write_all(b"\n")?;
        Ok(())
    }

    fn finish(&mut self) -> anyhow::Result<()> {
        Ok(self.out.flush()?)
    }
}

fn sender(row: &MessageRow) -> &str {
    let plain = !row.mail_from.is_empty() && row.mail_from.chars().all(|c| !c.is_whitespace() && !c.is_control());
    if plain { &row.mail_from } else { NOBODY }
}

/// Passes octets on, with one more `>` in each line that could be taken for a separator.
struct Quoting<'a, W: Write> {
    out: &'a mut W,
    /// Octets of `From ` found at the beginning of this line, behind any `>`; `None` within a line.
    matched: Option<usize>,
}

impl<W: Write> Quoting<'_, W> {
    /// Writes what was held back.
    fn end(&mut self) -> std::io::Result<()> {
        let held = self.matched.take().unwrap_or(0);
        self.out.write_all(FROM.get(..held).unwrap_or_default())
    }
}

impl<W: Write> Write for Quoting<'_, W> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let mut rest = bytes;
        while let Some((&octet, after)) = rest.split_first() {
            match self.matched {
                // A `>` may as well be added behind the others.
                Some(0) if octet == b'>' => self.out.write_all(b">")?,
                Some(held) if FROM.get(held) == Some(&octet) => {
                    self.matched = Some(held + 1);
                    if held + 1 == FROM.len() {
                        self.out.write_all(b">")?;
                        self.end()?;
                    }
                }
                Some(_) => {
                    self.end()?;
                    continue;
                }
                None => {
                    let end = memchr::memchr(b'\n', rest).map_or(rest.len(), |at| at + 1);
                    let (line, after) = rest.split_at(end);
                    self.out.write_all(line)?;
                    self.matched = line.ends_with(b"\n").then_some(0);
                    rest = after;
                    continue;
                }
            }
            rest = after;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.out.flush()
    }
}

pub(super) struct Reader<R: BufRead> {
    from: R,
    /// The separator line of the next mail.
    separator: Option<Separator>,
    begun: bool,
}

struct Separator {
    sender: Option<String>,
    at: Timestamp,
    /// True if its line ends with CRLF, as in a file that was converted as a whole.
    crlf: bool,
}

impl<R: BufRead> Reader<R> {
    pub(super) const fn new(from: R) -> Self {
        Self { from, separator: None, begun: false }
    }

    /// Reads a line, or the beginning of a long one.
    fn piece(&mut self) -> std::io::Result<Vec<u8>> {
        let mut piece = Vec::new();
        (&mut self.from).take(PIECE).read_until(b'\n', &mut piece)?;
        Ok(piece)
    }

    fn begin(&mut self) -> anyhow::Result<()> {
        self.begun = true;
        loop {
            let line = self.piece()?;
            self.separator = separator(&line);
            if self.separator.is_some() || line.is_empty() {
                return Ok(());
            }
            if !line.trim_ascii().is_empty() {
                bail!(
                    "this is no mbox file: it does not begin with a line such as {:?}",
                    "From ada@acme.dev Thu Jul  2 00:00:05 2026"
                );
            }
        }
    }
}

impl<R: BufRead> Source for Reader<R> {
    fn next(&mut self) -> anyhow::Result<Option<Found>> {
        if !self.begun {
            self.begin()?;
        }
        let Some(Separator { sender, at, crlf }) = self.separator.take() else { return Ok(None) };
        let mut data = Vec::new();
        let mut is_too_large = false;
        let mut at_line_start = true;
        loop {
            let piece = self.piece()?;
            if piece.is_empty() {
                break;
            }
            if at_line_start {
                self.separator = separator(&piece);
                if self.separator.is_some() {
                    break;
                }
            }
            let unquoted = if at_line_start { unquoted(&piece) } else { &piece };
            at_line_start = piece.ends_with(b"\n");
            is_too_large |= data.len() + unquoted.len() > MAX_MAIL + 1;
            if is_too_large {
                data = Vec::new();
            } else {
                data.extend_from_slice(unquoted);
            }
        }
        if is_too_large {
            return Ok(Some(Found::TooLarge));
        }
        let end: &[u8] = if crlf && data.ends_with(b"\r\n\r\n") { b"\r\n" } else { b"\n" };
        if (!crlf || end.len() == 2) && data.ends_with(end) {
            data.truncate(data.len() - end.len());
        }
        Ok(Some(Found::Mail(ImportedMail { received_at: Some(at), mail_from: sender, recipient: None, data })))
    }
}

/// Takes the `>` away that quoting added.
fn unquoted(line: &[u8]) -> &[u8] {
    let marks = line.iter().take_while(|octet| **octet == b'>').count();
    let is_quoted = marks > 0 && line.get(marks..).is_some_and(|rest| rest.starts_with(FROM));
    if is_quoted { line.get(1..).unwrap_or_default() } else { line }
}

/// Reads a separator line. A line of an unquoted mail that begins with `From ` has no time at its end.
fn separator(line: &[u8]) -> Option<Separator> {
    let rest = std::str::from_utf8(line.strip_prefix(FROM)?).ok()?;
    let (sender, time) = rest.split_once(' ')?;
    let at = date::parse_mbox(time)?;
    let sender = if sender.contains('@') && sender.len() <= MAX_ADDRESS { sender.to_owned() } else { String::new() };
    Some(Separator { sender: Some(sender), at, crlf: line.ends_with(b"\r\n") })
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests may panic")]

    use super::*;

    fn written(mail: &[u8], at_a_time: usize) -> Vec<u8> {
        let mut out = Vec::new();
        let mut quoting = Quoting { out: &mut out, matched: Some(0) };
        for piece in mail.chunks(at_a_time) {
            quoting.write_all(piece).unwrap();
        }
        quoting.end().unwrap();
        out
    }

    fn read(file: &[u8]) -> Vec<Vec<u8>> {
        let mut reader = Reader::new(file);
        let mut all = Vec::new();
        while let Some(found) = reader.next().unwrap() {
            let Found::Mail(mail) = found else { continue };
            all.push(mail.data);
        }
        all
    }

    #[test]
    fn every_octet_comes_back_wherever_it_is_cut() {
        let mails: &[&[u8]] = &[
            b"",
            b"\n",
            b"\r\n\r\n",
            b"x",
            b"Subject: x\r\n\r\nFrom here\r\n>From there\r\n>>>From\r\nFro\r\nFrom \r\n\r\n\r\n",
            b"From me Thu Jul  2 00:00:05 2026\n\n>From you Thu Jul  2 00:00:05 2026\n\n",
            b"\0\xff\rFrom x\n>\n>F\n> From y\nFrom",
            b">From ",
        ];
        for at_a_time in [1, 2, 3, 1000] {
            let mut file = Vec::new();
            for mail in mails {
                file.extend_from_slice(b"From a@b.test Thu Jul  2 00:00:05 2026\n");
                file.extend(written(mail, at_a_time));
                file.push(b'\n');
            }
            assert_eq!(read(&file), mails, "{at_a_time}");
        }
        let long = [vec![b'x'; 200_000], b"From x\n".to_vec()].concat();
        let file = [b"From - Thu Jul  2 00:00:05 2026\n".to_vec(), written(&long, 777), b"\n".to_vec()].concat();
        assert_eq!(read(&file), [long]);
    }

    #[test]
    fn files_of_other_programs_are_read() {
        let file =
            b"\nFrom ada@acme.dev Thu Jul  2 00:00:05 2026 +0000\r\nSubject: x\r\n\r\nFrom where I stand\r\n\r\n\
            From bob@acme.dev Thu Jul  2 00:00:05 2026\r\nSubject: y\r\n";
        assert_eq!(read(file), [&b"Subject: x\r\n\r\nFrom where I stand\r\n"[..], b"Subject: y\r\n"]);
        assert!(Reader::new(&b"Subject: x\n\n"[..]).next().is_err());
        assert!(read(b"").is_empty());
    }
}
