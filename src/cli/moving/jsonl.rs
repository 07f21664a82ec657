//! JSON Lines: what the API tells of a message (contract 5.4), with its octets in base64 in `raw`.

use std::io::{BufRead, Read as _, Write};

use anyhow::Context as _;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use base64::write::EncoderWriter;
use serde::Deserialize;

use super::{Found, MAX_ADDRESS, OutgoingMail, Sink, Source};
use crate::clock::Timestamp;
use crate::inbound::import::{ImportedMail, MAX_MAIL};

/// A mail of the largest size in base64, and what else is told of it.
const MAX_LINE: u64 = (MAX_MAIL as u64) / 3 * 4 + 16 * 1024 * 1024;

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
        let detail = mail.detail.context("the detail of a message is missing")?;
        self.out.write_all(detail.strip_suffix('}').unwrap_or(&detail).as_bytes())?;
        self.out.write_all(b",\"raw\":\"")?;
        let mut encoder = EncoderWriter::new(&mut self.out, &STANDARD);
        std::io::copy(mail.data, &mut encoder)?;
        encoder.finish()?;
        drop(encoder);
        self.out.write_all(b"\"}\n")?;
        Ok(())
    }

    fn finish(&mut self) -> anyhow::Result<()> {
        Ok(self.out.flush()?)
    }
}

/// The fields of a line that an import reads.
#[derive(Deserialize)]
struct Line {
    #[serde(default)]
    message: Fields,
    raw: Option<String>,
}

#[derive(Default, Deserialize)]
struct Fields {
    received_at: Option<Timestamp>,
    mail_from: Option<String>,
    to_addr: Option<String>,
}

pub(super) struct Reader<R: BufRead> {
    from: R,
    number: u64,
}

impl<R: BufRead> Reader<R> {
    pub(super) const fn new(from: R) -> Self {
        Self { from, number: 0 }
    }

    /// Passes over the rest of a line.
    fn skip_line(&mut self) -> std::io::Result<()> {
        loop {
            let buffer = self.from.fill_buf()?;
            let (used, is_end) = match memchr::memchr(b'\n', buffer) {
                Some(at) => (at + 1, true),
                None => (buffer.len(), buffer.is_empty()),
            };
            self.from.consume(used);
            if is_end {
                return Ok(());
            }
        }
    }
}

impl<R: BufRead> Source for Reader<R> {
    fn next(&mut self) -> anyhow::Result<Option<Found>> {
        let mut line = Vec::new();
        loop {
            line.clear();
            self.number += 1;
            (&mut self.from).take(MAX_LINE).read_until(b'\n', &mut line)?;
            if line.is_empty() {
                return Ok(None);
            }
            if line.len() as u64 == MAX_LINE && !line.ends_with(b"\n") {
                self.skip_line()?;
                return Ok(Some(Found::TooLarge));
            }
            if !line.trim_ascii().is_empty() {
                break;
            }
        }
        let reading = || format!("line {} is no message as mailkite export writes it", self.number);
        let Line { message, raw } = serde_json::from_slice(&line).with_context(reading)?;
        drop(line);
        let Some(raw) = raw else { return Ok(Some(Found::WithoutData)) };
        let data = STANDARD.decode(raw).with_context(reading)?;
        if data.len() > MAX_MAIL {
            return Ok(Some(Found::TooLarge));
        }
        let short = |address: &String| address.len() <= MAX_ADDRESS;
        Ok(Some(Found::Mail(ImportedMail {
            received_at: message.received_at,
            mail_from: message.mail_from.filter(short),
            recipient: message.to_addr.filter(short),
            data,
        })))
    }
}
