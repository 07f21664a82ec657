//! Mail data as it comes after DATA: the strict end, dot-unstuffing, and where it is put.
//!
//! End of data is exactly CRLF . CRLF (RFC 5321 §4.1.1.4), also as the very first line. A bare CR or LF ends the session:
//! two servers that disagree about line ends can be made to disagree about where a message ends (SMTP smuggling).

use tokio::sync::OwnedSemaphorePermit;

use super::admission::MailDataBudget;
use crate::store::blobs::objects::{MailData, Objects, PendingObject};
use crate::store::{Error, Result};

/// RFC 5321 §4.5.3.1.6 says 1,000; real mail is met with more.
const MAX_LINE: usize = 65_536;
/// Beyond this mail data goes to a draft on disk …
const MEMORY_MAX: usize = 256 * 1024;
/// … in pieces of this size.
const PIECE: usize = 256 * 1024;

/// What a piece of input brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// All of it was data; there is more to come.
    More,
    /// The data ended; so many octets of the input belong to it, the rest are commands.
    End(usize),
    /// A bare CR or LF.
    BareNewline,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum At {
    LineStart,
    /// Behind a dot that begins a line.
    Dot,
    /// Behind a dot and CR.
    DotCr,
    Inside,
    /// Behind a CR inside a line.
    Cr,
}

/// Finds the end of data and undoes dot-stuffing, whatever pieces the data comes in.
#[derive(Debug)]
pub struct DataReader {
    at: At,
    line: usize,
    line_too_long: bool,
}

impl Default for DataReader {
    fn default() -> Self {
        // RFC 5321 §4.1.1.4: the CRLF of the DATA command is the one before a first dot.
        Self { at: At::LineStart, line: 0, line_too_long: false }
    }
}

impl DataReader {
    /// Whether a line was longer than is taken.
    pub const fn line_too_long(&self) -> bool {
        self.line_too_long
    }

    /// Takes the next piece and appends what it holds of the message to `out`.
    pub fn feed(&mut self, input: &[u8], out: &mut Vec<u8>) -> Progress {
        let mut rest = input;
        while let Some((&byte, behind)) = rest.split_first() {
            match (self.at, byte) {
                (At::LineStart, b'.') => {
                    self.at = At::Dot;
                    rest = behind;
                }
                (At::LineStart, _) => self.at = At::Inside,
                (At::Dot, b'\r') => {
                    self.at = At::DotCr;
                    rest = behind;
                }
                // RFC 5321 §4.5.2: the dot that begins a longer line was added by the client.
                (At::Dot, _) => self.at = At::Inside,
                (At::DotCr, b'\n') => return Progress::End(input.len() - behind.len()),
                (At::Cr, b'\n') => {
                    out.extend_from_slice(b"\r\n");
                    self.at = At::LineStart;
                    self.line = 0;
                    rest = behind;
                }
                (At::Cr | At::DotCr, _) => return Progress::BareNewline,
                (At::Inside, _) => match memchr::memchr2(b'\r', b'\n', rest) {
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
                        self.at = At::Cr;
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

/// Where mail data is gathered: in memory, then in a draft; past the size limit nowhere.
///
/// It holds the right to its draft until it is dropped, which should be after the draft.
#[derive(Debug)]
pub(crate) struct Gathered {
    buffer: Vec<u8>,
    draft: Option<PendingObject>,
    room: MailDataBudget,
    right: Option<OwnedSemaphorePermit>,
    limit: u64,
    too_large: bool,
    trouble: Option<Error>,
}

impl Gathered {
    /// Nothing yet; at most `limit` octets.
    pub(crate) const fn new(limit: u64, room: MailDataBudget) -> Self {
        Self { buffer: Vec::new(), draft: None, room, right: None, limit, too_large: false, trouble: None }
    }

    /// Where the reader appends to.
    pub(crate) const fn buffer(&mut self) -> &mut Vec<u8> {
        &mut self.buffer
    }

    /// Whether the message is past its limit.
    pub(crate) const fn too_large(&self) -> bool {
        self.too_large
    }

    /// Octets held in memory.
    pub(crate) const fn in_memory(&self) -> usize {
        self.buffer.capacity()
    }

    /// Called between pieces: moves to disk what should not stay in memory, and drops what will be refused anyway.
    ///
    /// A disk that fails is not told now but by [`Gathered::finish`], after the client has sent everything: replies come
    /// only at the end of data.
    pub(crate) async fn settle(&mut self, objects: &Objects, short_of_memory: bool) {
        let written = self.draft.as_ref().map_or(0, PendingObject::len);
        if written + self.buffer.len() as u64 > self.limit {
            self.too_large = true;
        }
        if self.too_large || self.trouble.is_some() {
            self.buffer.clear();
            self.draft = None;
            return;
        }
        let threshold = if self.draft.is_some() { PIECE } else { MEMORY_MAX };
        if self.buffer.len() < threshold && (self.buffer.is_empty() || !short_of_memory) {
            return;
        }
        if let Err(error) = self.write_out(objects).await {
            self.trouble = Some(error);
        }
    }

    /// Called when the client pauses: what is held in memory goes to disk, if there may be another draft.
    pub(crate) async fn set_aside(&mut self, objects: &Objects) {
        if self.has_right() {
            self.settle(objects, true).await;
            self.buffer.shrink_to_fit();
        }
    }

    fn has_right(&mut self) -> bool {
        if self.right.is_none() {
            self.right = self.room.draft();
        }
        self.right.is_some()
    }

    async fn write_out(&mut self, objects: &Objects) -> Result<()> {
        if !self.has_right() {
            return Err(Error::Busy);
        }
        let (objects, piece, draft) = (objects.clone(), std::mem::take(&mut self.buffer), self.draft.take());
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
        self.draft = Some(draft);
        Ok(())
    }

    /// All of it, at the end of data.
    ///
    /// # Errors
    /// The disk failed on the way.
    pub(crate) async fn finish(&mut self, objects: &Objects) -> Result<MailData> {
        if let Some(error) = self.trouble.take() {
            return Err(error);
        }
        if self.draft.is_some() && !self.buffer.is_empty() {
            self.write_out(objects).await?;
        }
        Ok(match self.draft.take() {
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

    /// The message and the rest behind its end, or `None` for a bare newline, or an unfinished message.
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
