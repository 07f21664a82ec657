//! Reads the mail data after DATA: strict end of data, dot-unstuffing, buffering in memory or in a spool file.
//!
//! The end of data is exactly CRLF . CRLF (RFC 5321 §4.1.1.4), also as the very first line. A bare CR or LF ends the
//! session: two servers that disagree about line ends can be made to disagree about where a message ends (SMTP
//! smuggling).

use tokio::sync::OwnedSemaphorePermit;

use super::admission::MailDataBudget;
use crate::store::blobs::objects::Objects;
use crate::store::blobs::pending::{MailData, PendingObject};
use crate::store::{Error, Result};

/// RFC 5321 §4.5.3.1.6 allows 1,000 octets; real mail has longer lines.
const MAX_LINE: usize = 65_536;
/// Larger mail data goes to a spool file …
const MAX_IN_MEMORY: usize = 256 * 1024;
/// … in chunks of this size.
const SPOOL_CHUNK: usize = 256 * 1024;

/// The result of feeding a piece of input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// All input was data and more is expected.
    More,
    /// The data ended after this many octets of the input; the rest are commands.
    End(usize),
    /// The input contains a bare CR or LF.
    BareNewline,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum LineState {
    LineStart,
    /// After the dot that begins a line.
    Dot,
    /// After that dot and a CR.
    DotCr,
    Inside,
    /// After a CR inside a line.
    Cr,
}

/// Finds the end of data and removes dot-stuffing, however the data is split into pieces.
#[derive(Debug)]
pub struct DataReader {
    state: LineState,
    line: usize,
    line_too_long: bool,
}

impl Default for DataReader {
    fn default() -> Self {
        // RFC 5321 §4.1.1.4: the CRLF of the DATA command precedes a first dot.
        Self { state: LineState::LineStart, line: 0, line_too_long: false }
    }
}

impl DataReader {
    /// Returns true if a line exceeded the limit; its excess was dropped.
    pub const fn line_too_long(&self) -> bool {
        self.line_too_long
    }

    /// Consumes the next piece and appends the message data in it to `out`.
    pub fn feed(&mut self, input: &[u8], out: &mut Vec<u8>) -> Progress {
        let mut rest = input;
        while let Some((&byte, behind)) = rest.split_first() {
            match (self.state, byte) {
                (LineState::LineStart, b'.') => {
                    self.state = LineState::Dot;
                    rest = behind;
                }
                (LineState::LineStart, _) => self.state = LineState::Inside,
                (LineState::Dot, b'\r') => {
                    self.state = LineState::DotCr;
                    rest = behind;
                }
                // RFC 5321 §4.5.2: the client added the dot that begins a longer line.
                (LineState::Dot, _) => self.state = LineState::Inside,
                (LineState::DotCr, b'\n') => return Progress::End(input.len() - behind.len()),
                (LineState::Cr, b'\n') => {
                    out.extend_from_slice(b"\r\n");
                    self.state = LineState::LineStart;
                    self.line = 0;
                    rest = behind;
                }
                (LineState::Cr | LineState::DotCr, _) => return Progress::BareNewline,
                (LineState::Inside, _) => match memchr::memchr2(b'\r', b'\n', rest) {
                    None => {
                        self.take(rest, out);
                        rest = &[];
                    }
                    Some(end) => {
                        let (text, behind) = rest.split_at(end);
                        self.take(text, out);
                        if behind.first() != Some(&b'\r') {
                            return Progress::BareNewline;
                        }
                        self.state = LineState::Cr;
                        rest = behind.get(1..).unwrap_or_default();
                    }
                },
            }
        }
        Progress::More
    }

    fn take(&mut self, text: &[u8], out: &mut Vec<u8>) {
        self.line += text.len();
        if self.line > MAX_LINE {
            self.line_too_long = true;
        } else {
            out.extend_from_slice(text);
        }
    }
}

/// Collects mail data: in memory, then in a spool file; past the size limit it is discarded.
///
/// Holds the permit for its spool file until it is dropped, so drop the file first.
#[derive(Debug)]
pub(crate) struct MailDataBuffer {
    buffer: Vec<u8>,
    spool_file: Option<PendingObject>,
    budget: MailDataBudget,
    permit: Option<OwnedSemaphorePermit>,
    limit: u64,
    too_large: bool,
    write_error: Option<Error>,
}

impl MailDataBuffer {
    /// Creates an empty buffer for at most `limit` octets.
    pub(crate) const fn new(limit: u64, budget: MailDataBudget) -> Self {
        Self {
            buffer: Vec::new(),
            spool_file: None,
            budget,
            permit: None,
            limit,
            too_large: false,
            write_error: None,
        }
    }

    /// Returns the buffer that the reader appends to.
    pub(crate) const fn buffer(&mut self) -> &mut Vec<u8> {
        &mut self.buffer
    }

    pub(crate) const fn too_large(&self) -> bool {
        self.too_large
    }

    /// Returns the octets held in memory.
    pub(crate) const fn in_memory(&self) -> usize {
        self.buffer.capacity()
    }

    /// Moves data to disk that should not stay in memory, and drops what will be refused anyway; call it between
    /// pieces.
    ///
    /// [`MailDataBuffer::finish`] reports a disk error, after the client has sent everything: SMTP replies only at the
    /// end of data.
    pub(crate) async fn spill(&mut self, objects: &Objects, short_of_memory: bool) {
        let written = self.spool_file.as_ref().map_or(0, PendingObject::len);
        if written + self.buffer.len() as u64 > self.limit {
            self.too_large = true;
        }
        if self.too_large || self.write_error.is_some() {
            self.buffer.clear();
            self.spool_file = None;
            return;
        }
        let threshold = if self.spool_file.is_some() { SPOOL_CHUNK } else { MAX_IN_MEMORY };
        if self.buffer.len() < threshold && (self.buffer.is_empty() || !short_of_memory) {
            return;
        }
        if let Err(error) = self.write_out(objects).await {
            self.write_error = Some(error);
        }
    }

    /// Moves the buffered data to disk while the client pauses, if a spool file is available.
    pub(crate) async fn spill_all(&mut self, objects: &Objects) {
        if self.acquire_permit() {
            self.spill(objects, true).await;
            self.buffer.shrink_to_fit();
        }
    }

    fn acquire_permit(&mut self) -> bool {
        if self.permit.is_none() {
            self.permit = self.budget.spool_permit();
        }
        self.permit.is_some()
    }

    async fn write_out(&mut self, objects: &Objects) -> Result<()> {
        if !self.acquire_permit() {
            return Err(Error::Busy);
        }
        let (objects, piece, draft) = (objects.clone(), std::mem::take(&mut self.buffer), self.spool_file.take());
        let written = tokio::task::spawn_blocking(move || {
            let mut draft = match draft {
                Some(draft) => draft,
                None => objects.create()?,
            };
            draft.append(&piece)?;
            Ok::<_, Error>((draft, piece))
        });
        let (draft, mut piece) = written.await.map_err(|_| Error::Stopped)??;
        piece.clear();
        self.buffer = piece;
        self.spool_file = Some(draft);
        Ok(())
    }

    /// Returns the complete data, at the end of data.
    pub(crate) async fn finish(&mut self, objects: &Objects) -> Result<MailData> {
        if let Some(error) = self.write_error.take() {
            return Err(error);
        }
        if self.spool_file.is_some() && !self.buffer.is_empty() {
            self.write_out(objects).await?;
        }
        Ok(match self.spool_file.take() {
            Some(draft) => MailData::Spooled(draft),
            None => MailData::Memory(std::mem::take(&mut self.buffer)),
        })
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests may panic")]

    use proptest::prelude::*;

    use super::*;

    /// Returns the message and the rest after its end, or `Err` for a bare newline or an unfinished message.
    fn read(pieces: &[&[u8]]) -> Result<(Vec<u8>, usize), Progress> {
        let mut reader = DataReader::default();
        let (mut out, mut before) = (Vec::new(), 0);
        for piece in pieces {
            match reader.feed(piece, &mut out) {
                Progress::More => before += piece.len(),
                Progress::End(used) => return Ok((out, before + used)),
                Progress::BareNewline => return Err(Progress::BareNewline),
            }
        }
        Err(Progress::More)
    }

    type Result<T, E> = std::result::Result<T, E>;

    #[test]
    fn only_crlf_dot_crlf_ends_the_data() {
        assert_eq!(read(&[b"a\r\n.\r\nQUIT"]).unwrap(), (b"a\r\n".to_vec(), 6));
        assert_eq!(read(&[b".\r\n"]).unwrap(), (Vec::new(), 3));
        for near in ["a\n.\r\n", "a\r\n.\n", "a\r.\r\n", "a\r\n.\r.", "a\n.\n", "a\r.\r", "a\r\r\n.\r\n"] {
            assert_eq!(read(&[near.as_bytes()]), Err(Progress::BareNewline), "{near:?}");
        }
        for open in ["a\r\n.", "a\r\n.\r", "a.\r\n", "a\r\n. \r\n", "a\r\n.\0\r\n", "a\r\n\0.\r\n", "a\r\n..\r\n"] {
            assert_eq!(read(&[open.as_bytes()]), Err(Progress::More), "{open:?}");
        }
    }

    #[test]
    fn stuffed_dots_are_undone_and_others_stay() {
        assert_eq!(read(&[b"..a\r\n...\r\na..b\r\n.c\r\n.\r\n"]).unwrap().0, b".a\r\n..\r\na..b\r\nc\r\n");
    }

    #[test]
    fn a_line_beyond_the_limit_is_noticed_and_not_kept() {
        let mut reader = DataReader::default();
        let mut out = Vec::new();
        for _ in 0..100 {
            assert_eq!(reader.feed(&[b'x'; 1024], &mut out), Progress::More);
        }
        assert!(reader.line_too_long());
        assert!(out.len() <= MAX_LINE);
    }

    proptest! {
        #[test]
        fn any_split_reads_as_the_whole(
            parts in proptest::collection::vec("(\r\n|\\.|\r|\n|a|bc|\r\n\\.\r\n|\r\n\\.\\.)", 0..40),
            cuts in proptest::collection::vec(0_usize..200, 0..10),
        ) {
            let whole = parts.concat().into_bytes();
            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(whole.len())).collect();
            cuts.extend([0, whole.len()]);
            cuts.sort_unstable();
            let pieces: Vec<&[u8]> = cuts.windows(2).map(|pair| &whole[pair[0]..pair[1]]).collect();
            prop_assert_eq!(read(&pieces), read(&[&whole]));
        }

        #[test]
        fn what_a_client_stuffs_comes_out_as_it_was(lines in proptest::collection::vec("[.a-c\0]{0,6}", 0..20)) {
            let message: String = lines.iter().map(|line| format!("{line}\r\n")).collect();
            let stuffed: String = lines
                .iter()
                .map(|line| if line.starts_with('.') { format!(".{line}\r\n") } else { format!("{line}\r\n") })
                .collect();
            let wire = format!("{stuffed}.\r\n");
            prop_assert_eq!(read(&[wire.as_bytes()]), Ok((message.into_bytes(), wire.len())));
        }
    }
}
