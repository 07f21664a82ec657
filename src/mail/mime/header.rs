//! Header blocks: fields one by one, within limits, as they stand in the raw message.
//!
//! Nothing is decoded here. A line that can be no field ends the block, and the body begins with it, so that a mail
//! without headers keeps its text.

use super::Limits;

/// One header field as it stands: the value still folded, without the line break that ends it.
#[derive(Clone, Copy, Debug)]
pub struct Field<'x> {
    /// The field name, in the sender's case.
    pub name: &'x [u8],
    /// What follows the colon.
    pub value: &'x [u8],
}

impl Field<'_> {
    /// Whether this is the field `name`.
    pub fn is(&self, name: &str) -> bool {
        self.name.eq_ignore_ascii_case(name.as_bytes())
    }
}

/// Reads the fields of one header block.
pub struct Fields<'x, 'l> {
    raw: &'x [u8],
    limits: &'l Limits,
    start: usize,
    first: usize,
    at: usize,
    seen: usize,
    /// Whether the block went past a limit; the fields beyond it are not read.
    pub truncated: bool,
    done: bool,
}

impl<'x, 'l> Fields<'x, 'l> {
    /// The block that begins at the offset `at` of `raw`.
    pub fn new(raw: &'x [u8], at: usize, limits: &'l Limits) -> Self {
        Self { raw, limits, start: at, first: at, at, seen: 0, truncated: false, done: false }
    }

    /// Where the first field begins, once it was read: behind the line that separates mails in an mbox file.
    pub fn header_offset(&self) -> usize {
        self.first.min(self.raw.len())
    }

    /// Where the body begins, once there is no further field.
    pub fn body_offset(&self) -> usize {
        self.at.min(self.raw.len())
    }

    /// The next field. `ends` says of a line whether it ends the block though no empty line came (RFC 2046 §5.1.1:
    /// a delimiter ends everything).
    pub fn next(&mut self, ends: impl Fn(&[u8]) -> bool) -> Option<Field<'x>> {
        while !self.done {
            let (line, next) = self.line(self.at);
            if self.at >= self.raw.len() || line.is_empty() {
                self.at = next;
                self.done = true;
            } else if line.starts_with(b"--") && ends(line) {
                self.done = true;
            } else if self.seen >= self.limits.max_header_fields
                || self.at - self.start > self.limits.max_header_bytes
            {
                self.truncated = true;
                self.at = next;
            } else if let Some(colon) = field_name(line) {
                let end = self.end_of_field(next);
                let value = self.raw.get(self.at + colon + 1..end).unwrap_or_default();
                let name = line.get(..colon).unwrap_or_default().trim_ascii_end();
                self.at = end;
                self.seen = self.seen.saturating_add(1);
                return Some(Field { name, value: without_line_break(value) });
            } else if self.seen == 0 && self.at == self.start && is_mbox_line(line) {
                (self.first, self.at) = (next, next);
            } else {
                self.done = true;
            }
        }
        None
    }

    /// The line at `at` without its line break, and where the next one begins.
    fn line(&self, at: usize) -> (&'x [u8], usize) {
        let rest = self.raw.get(at..).unwrap_or_default();
        let length = memchr::memchr(b'\n', rest).map_or(rest.len(), |end| end + 1);
        (without_line_break(rest.get(..length).unwrap_or_default()), at + length)
    }

    /// Goes over the lines that continue a field, but not far past the limit.
    fn end_of_field(&mut self, mut end: usize) -> usize {
        while matches!(self.raw.get(end), Some(b' ' | b'\t')) {
            if end - self.start > self.limits.max_header_bytes {
                self.truncated = true;
                self.seen = usize::MAX;
                break;
            }
            end = self.line(end).1;
        }
        end
    }
}

/// `raw` without the lines in its header that separate the mails of an mbox file: no field, and for some readers the end of
/// the header. What a program hands in may come out of such a file.
pub fn without_mbox_lines(mut raw: Vec<u8>) -> Vec<u8> {
    let mut kept = Vec::new();
    let (mut at, mut copied) = (0, 0);
    while let Some(rest) = raw.get(at..).filter(|rest| !rest.is_empty()) {
        let next = at + memchr::memchr(b'\n', rest).map_or(rest.len(), |end| end + 1);
        let line = without_line_break(raw.get(at..next).unwrap_or_default());
        if is_mbox_line(line) {
            kept.extend_from_slice(raw.get(copied..at).unwrap_or_default());
            copied = next;
        } else if !matches!(line.first(), Some(b' ' | b'\t')) && field_name(line).is_none() {
            break;
        }
        at = next;
    }
    if copied > 0 {
        // In place, as there may be much behind them.
        raw.splice(..copied, kept);
    }
    raw
}

/// Where the colon stands, if the line can begin a field (RFC 5322 §3.6.8; §4.5 allows blanks before the colon).
fn field_name(line: &[u8]) -> Option<usize> {
    let colon = memchr::memchr(b':', line)?;
    let name = line.get(..colon)?.trim_ascii_end();
    (!name.is_empty() && name.iter().all(u8::is_ascii_graphic)).then_some(colon)
}

fn is_mbox_line(line: &[u8]) -> bool {
    line.starts_with(b"From ") || line.starts_with(b">From ")
}

fn without_line_break(line: &[u8]) -> &[u8] {
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    line.strip_suffix(b"\r").unwrap_or(line)
}

#[cfg(test)]
mod tests {
    use super::without_mbox_lines;

    #[test]
    fn lines_of_an_mbox_file_go_from_the_header_alone() {
        for (raw, wanted) in [
            ("From a@b Mon\r\nSubject: x\r\n\r\nFrom here\r\n", "Subject: x\r\n\r\nFrom here\r\n"),
            ("To: a\r\n b\r\n>From a@b Mon\r\nFrom c\r\nX: y\r\n\r\n", "To: a\r\n b\r\nX: y\r\n\r\n"),
            ("From: a@b\r\n\r\nFrom me\r\n", "From: a@b\r\n\r\nFrom me\r\n"),
            ("Subject: x\r\nno field\r\nFrom me\r\n", "Subject: x\r\nno field\r\nFrom me\r\n"),
            ("From a@b", ""),
            ("", ""),
        ] {
            let kept = without_mbox_lines(raw.as_bytes().to_vec());
            assert_eq!(String::from_utf8_lossy(&kept), wanted, "{raw:?}");
        }
    }
}
