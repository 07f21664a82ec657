//! Parses header blocks field by field, within limits, without decoding anything.
//!
//! A line that is not a field is skipped if the header continues after it, since programs that write headers by hand
//! leave such lines. Otherwise the body begins with it, so that mail without a header keeps its text.

use super::Limits;

/// Sent before the first field; several of them when files that begin with one are concatenated.
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// One raw header field: the value still folded, without its final line break.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Field<'x> {
    /// In the sender's case.
    pub(crate) name: &'x [u8],
    /// Everything after the colon. May include lines that begin without whitespace: they are not fields, but were
    /// found among the continuation lines.
    pub(crate) value: &'x [u8],
}

impl Field<'_> {
    /// True if this is the field `name`, ignoring case.
    pub(crate) fn is(&self, name: &str) -> bool {
        self.name.eq_ignore_ascii_case(name.as_bytes())
    }
}

/// Iterates over the fields of one header block.
pub(crate) struct Fields<'x, 'l> {
    raw: &'x [u8],
    limits: &'l Limits,
    start: usize,
    first_field: usize,
    at: usize,
    field_count: usize,
    /// True for the header of a part, in which only a few fields have a meaning.
    of_part: bool,
    /// Offset of the most recent field.
    last_field: usize,
    /// Up to this offset lines that are not fields are skipped.
    header_until: usize,
    /// End of the mbox lines checked most recently, and true if a field follows them.
    mbox_lines: (usize, bool),
    /// True if the block has lines that are not fields; for other parsers it may end there.
    pub(crate) has_stray_lines: bool,
    /// True if the block exceeded a limit; the fields beyond it are not parsed.
    pub(crate) truncated: bool,
    done: bool,
}

impl<'x, 'l> Fields<'x, 'l> {
    /// Starts at a message header at the offset `at` of `raw`.
    pub(crate) fn new(raw: &'x [u8], at: usize, limits: &'l Limits) -> Self {
        let mut first_field = at;
        while raw.get(first_field..).is_some_and(|rest| rest.starts_with(BYTE_ORDER_MARK)) {
            first_field += BYTE_ORDER_MARK.len();
        }
        // A byte order mark on its own line counts as a line that is not a field.
        if matches!(raw.get(first_field), None | Some(b'\r' | b'\n')) {
            first_field = at;
        }
        Self {
            raw,
            limits,
            start: first_field,
            first_field,
            at: first_field,
            field_count: 0,
            of_part: false,
            last_field: first_field,
            header_until: 0,
            mbox_lines: (0, false),
            has_stray_lines: first_field > at,
            truncated: false,
            done: false,
        }
    }

    /// Starts at the header of a part at the offset `at` of `raw`.
    pub(crate) fn of_part(raw: &'x [u8], at: usize, limits: &'l Limits) -> Self {
        Self { of_part: true, ..Self::new(raw, at, limits) }
    }

    /// Returns the offset of the first field once it has been parsed: after the separator line of an mbox file.
    pub(crate) fn header_offset(&self) -> usize {
        self.first_field.min(self.raw.len())
    }

    /// Returns the offset of the most recent field, which ends at [`Self::body_offset`].
    pub(crate) fn field_offset(&self) -> usize {
        self.last_field.min(self.raw.len())
    }

    /// Returns the offset of the body once there are no more fields.
    pub(crate) fn body_offset(&self) -> usize {
        self.at.min(self.raw.len())
    }

    /// Returns the next field. `ends` is true for a line that ends the block without an empty line (RFC 2046 §5.1.1:
    /// a delimiter ends everything).
    pub(crate) fn next(&mut self, ends: impl Fn(&[u8]) -> bool) -> Option<Field<'x>> {
        while !self.done {
            let (line, next) = self.line(self.at);
            if self.at >= self.raw.len() || line.is_empty() {
                self.at = next;
                self.done = true;
            } else if line.starts_with(b"--") && ends(line) {
                self.done = true;
            } else if self.field_count >= self.limits.max_header_fields
                || self.at - self.start > self.limits.max_header_bytes
            {
                self.truncated = true;
                self.at = next;
            } else if let Some((indent, colon)) = self.field_start(line) {
                let name = line.get(indent..colon).unwrap_or_default().trim_ascii_end();
                let end = self.end_of_field(name, next, &ends);
                let value = self.raw.get(self.at + colon + 1..end).unwrap_or_default();
                self.has_stray_lines |= indent > 0;
                (self.last_field, self.at) = (self.at, end);
                self.field_count = self.field_count.saturating_add(1);
                return Some(Field { name, value: without_line_break(value) });
            } else if self.field_count == 0 && self.at == self.start && is_mbox_line(line) {
                (self.first_field, self.at) = (next, next);
            } else if (is_mbox_line(line) && self.field_follows(next)) || self.header_continues(next, &ends) {
                self.has_stray_lines = true;
                self.at = next;
            } else {
                self.done = true;
            }
        }
        None
    }

    /// Returns the offsets of the name and the colon of the field that `line` begins. Some programs indent even the
    /// first line.
    fn field_start(&self, line: &[u8]) -> Option<(usize, usize)> {
        let indent = if self.field_count == 0 { line.len() - line.trim_ascii_start().len() } else { 0 };
        let colon = colon_of_field(line.get(indent..)?)?;
        let is_known = || is_known_field(line.get(indent..).unwrap_or_default(), self.of_part);
        (indent == 0 || is_known()).then_some((indent, indent + colon))
    }

    /// True if a field begins at `next`, or after more separator lines of an mbox file.
    fn field_follows(&mut self, next: usize) -> bool {
        let mut at = next;
        while at > self.mbox_lines.0 && at < self.raw.len() && at - self.start <= self.limits.max_header_bytes {
            let (line, after) = self.line(at);
            if !is_mbox_line(line) {
                self.mbox_lines = (at, colon_of_field(line).is_some());
                break;
            }
            at = after;
        }
        if at > self.mbox_lines.0 {
            self.mbox_lines = (at, false);
        }
        self.mbox_lines.1
    }

    /// True if the header continues after a line that is not a field: before the next empty line there is another
    /// field, a known one, since texts have colons too.
    fn header_continues(&mut self, next: usize, ends: &impl Fn(&[u8]) -> bool) -> bool {
        if next <= self.header_until {
            return true;
        }
        let (mut at, mut known) = (next, None);
        while at < self.raw.len() && at - self.start <= self.limits.max_header_bytes {
            let (line, after) = self.line(at);
            if line.is_empty() || (line.starts_with(b"--") && ends(line)) {
                self.header_until = known.unwrap_or(self.header_until);
                return known.is_some();
            }
            if is_known_field(line, self.of_part) {
                known = Some(at);
            }
            at = after;
        }
        // No empty line follows: this is text.
        false
    }

    /// Returns the line at `at` without its line break, and the offset of the next one.
    fn line(&self, at: usize) -> (&'x [u8], usize) {
        let rest = self.raw.get(at..).unwrap_or_default();
        let length = memchr::memchr(b'\n', rest).map_or(rest.len(), |end| end + 1);
        (without_line_break(rest.get(..length).unwrap_or_default()), at + length)
    }

    /// Returns the end of the field `name`, skipping continuation lines from `end` on, but not far past the limit.
    fn end_of_field(&mut self, name: &[u8], mut end: usize, ends: &impl Fn(&[u8]) -> bool) -> usize {
        let begin = self.at;
        let has_parameters = has_parameters(name);
        loop {
            if matches!(self.raw.get(end), Some(b' ' | b'\t')) {
                if end - self.start > self.limits.max_header_bytes {
                    self.truncated = true;
                    self.field_count = usize::MAX;
                    return end;
                }
                end = self.line(end).1;
            } else if has_parameters && let Some(further) = self.continuation(begin, end, ends) {
                self.has_stray_lines = true;
                end = further;
            } else {
                return end;
            }
        }
    }

    /// Returns the offset at which the field from `begin` continues, if the line at `end` is not a field: its
    /// parameters may be unindented, or come after lines that do not belong there.
    fn continuation(&mut self, begin: usize, end: usize, ends: &impl Fn(&[u8]) -> bool) -> Option<usize> {
        let is_unfinished = self.raw.get(begin..end)?.trim_ascii_end().ends_with(b";");
        let mut at = end;
        while at < self.raw.len() && at - self.start <= self.limits.max_header_bytes {
            let (line, next) = self.line(at);
            if is_parameter(line, is_unfinished) {
                return Some(next);
            }
            if line.starts_with(b" ") || line.starts_with(b"\t") {
                return (is_unfinished || self.header_continues(next, ends)).then_some(at);
            }
            if line.is_empty() || is_common_field(line) || (line.starts_with(b"--") && ends(line)) {
                return None;
            }
            at = next;
        }
        None
    }
}

/// Fields that prove that the lines before them belong to a header.
const KNOWN_FIELDS: &[&str] = &[
    "accept-language",
    "apparently-to",
    "authentication-results",
    "auto-submitted",
    "autocrypt",
    "bcc",
    "cc",
    "delivered-to",
    "delivery-date",
    "disposition-notification-to",
    "domainkey-signature",
    "envelope-to",
    "errors-to",
    "feedback-id",
    "from",
    "in-reply-to",
    "list-archive",
    "list-help",
    "list-id",
    "list-owner",
    "list-post",
    "list-subscribe",
    "list-unsubscribe",
    "list-unsubscribe-post",
    "mail-followup-to",
    "mailing-list",
    "message-id",
    "original-message-id",
    "original-recipient",
    "received",
    "received-spf",
    "references",
    "reply-to",
    "return-path",
    "return-receipt-to",
    "sender",
    "subject",
    "thread-index",
    "thread-topic",
    "to",
    "user-agent",
];
/// Name prefixes of whole families of such fields.
const KNOWN_PREFIXES: &[&str] = &["arc-", "dkim-", "old-", "resent-", "x400-"];
/// `Content-` fields that have a meaning in the header of a part too (RFC 2045 §9), without that prefix.
const PART_FIELDS: &[&str] = &[
    "alternative",
    "base",
    "class",
    "description",
    "disposition",
    "duration",
    "features",
    "id",
    "identifier",
    "language",
    "length",
    "location",
    "md5",
    "return",
    "transfer-encoding",
    "type",
];

/// True if `line` is a field that proves that the lines before it belong to a header.
fn is_known_field(line: &[u8], of_part: bool) -> bool {
    let Some((name, value)) = colon_of_field(line).and_then(|colon| line.split_at_checked(colon)) else {
        return false;
    };
    let (name, value) = (name.trim_ascii_end(), value.trim_ascii_start().get(1..).unwrap_or_default().trim_ascii());
    let is_any = |names: &[&str], name: &[u8]| names.iter().any(|one| name.eq_ignore_ascii_case(one.as_bytes()));
    let behind = |start: &str| {
        let (head, rest) = name.split_at_checked(start.len())?;
        head.eq_ignore_ascii_case(start.as_bytes()).then_some(rest)
    };
    behind("content-").is_some_and(|rest| is_any(PART_FIELDS, rest))
        || behind("x-").is_some()
        || name.eq_ignore_ascii_case(b"MIME-Version")
        || (!of_part
            && (is_any(KNOWN_FIELDS, name)
                || KNOWN_PREFIXES.iter().any(|family| behind(family).is_some())
                || is_known_by_value(name, value)))
}

/// The same for names that occur in any text: the value has to be typical of the field.
fn is_known_by_value(name: &[u8], value: &[u8]) -> bool {
    let is_one_of = |words: &[&str]| words.iter().any(|word| value.eq_ignore_ascii_case(word.as_bytes()));
    match name.to_ascii_lowercase().as_slice() {
        b"date" => value.contains(&b':') && value.iter().any(u8::is_ascii_digit),
        b"importance" => is_one_of(&["high", "low", "normal"]),
        b"precedence" => is_one_of(&["bulk", "first-class", "junk", "list"]),
        b"priority" => is_one_of(&["non-urgent", "normal", "urgent"]),
        b"sensitivity" => is_one_of(&["company-confidential", "personal", "private"]),
        // Mail programs keep message flags here in their mbox files.
        b"status" => value.len() <= 3 && value.iter().all(|byte| b"ADFNORTU".contains(byte)),
        _ => false,
    }
}

/// True for fields with parameters that determine the kind of a part.
fn has_parameters(name: &[u8]) -> bool {
    name.eq_ignore_ascii_case(b"Content-Type") || name.eq_ignore_ascii_case(b"Content-Disposition")
}

/// Parameters recognized even after a value that looks complete.
const PARAMETERS: &[&str] = &[
    "boundary",
    "charset",
    "filename",
    "format",
    "micalg",
    "name",
    "protocol",
    "report-type",
    "size",
    "start",
    "type",
];

/// True if the line is a parameter that should have been indented; any name counts if `has_to_be`.
pub(super) fn is_parameter(line: &[u8], has_to_be: bool) -> bool {
    let Some(equals) = memchr::memchr(b'=', line) else { return false };
    let name = line.get(..equals).unwrap_or_default().trim_ascii_end();
    let is_token = !name.is_empty() && name.iter().all(|byte| byte.is_ascii_alphanumeric() || b"-_*".contains(byte));
    let word = name.split(|byte| *byte == b'*').next().unwrap_or_default();
    is_token && (has_to_be || PARAMETERS.iter().any(|known| word.eq_ignore_ascii_case(known.as_bytes())))
}

/// Removes everything from the header of `raw` that is not a field and ends the header for some parsers: separator
/// lines of mbox files, byte order marks and so on. Unindented parameters are indented.
pub(crate) fn without_stray_lines(mut raw: Vec<u8>) -> Vec<u8> {
    let limits = Limits::default();
    let mut fields = Fields::new(&raw, 0, &limits);
    let mut header = Vec::new();
    while fields.next(|_| false).is_some() {
        let whole = raw.get(fields.field_offset()..fields.body_offset()).unwrap_or_default();
        for (number, line) in whole.split_inclusive(|byte| *byte == b'\n').enumerate() {
            match line.first() {
                Some(b' ' | b'\t') if number == 0 => header.extend_from_slice(line.trim_ascii_start()),
                Some(b' ' | b'\t') => header.extend_from_slice(line),
                _ if number == 0 => header.extend_from_slice(line),
                _ if is_parameter(line, true) => {
                    header.push(b' ');
                    header.extend_from_slice(line);
                }
                _ => {}
            }
        }
    }
    let end = fields.body_offset();
    if !fields.truncated && (fields.has_stray_lines || fields.header_offset() > 0) {
        // Keep the empty line, if there is one. Splice in place, as the body may be large.
        let fields_end = raw.get(..end).unwrap_or_default();
        let empty = if fields_end.ends_with(b"\n\r\n") { 2 } else { usize::from(fields_end.ends_with(b"\n\n")) };
        raw.splice(..end - empty, header);
    }
    raw
}

/// Returns the offset of the colon, if the line can begin a field (RFC 5322 §3.6.8; §4.5 allows whitespace before the
/// colon).
fn colon_of_field(line: &[u8]) -> Option<usize> {
    let colon = memchr::memchr(b':', line)?;
    let name = line.get(..colon)?.trim_ascii_end();
    (!name.is_empty() && name.iter().all(u8::is_ascii_graphic)).then_some(colon)
}

/// True if the line begins a `Content-` field.
pub(super) fn is_field_of_part(line: &[u8]) -> bool {
    let family = b"content-";
    colon_of_field(line).is_some() && line.get(..family.len()).is_some_and(|start| start.eq_ignore_ascii_case(family))
}

/// True if the line begins a field whose name has only letters, digits, hyphens, underscores and dots, as all names
/// in use do.
fn is_common_field(line: &[u8]) -> bool {
    let name = colon_of_field(line).and_then(|colon| line.get(..colon)).map(<[u8]>::trim_ascii_end);
    name.is_some_and(|name| name.iter().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(byte)))
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
    use super::without_stray_lines;

    #[test]
    fn stray_lines_go_from_the_header_alone() {
        for (raw, wanted) in [
            ("From a@b Mon\r\nSubject: x\r\n\r\nFrom here\r\n", "Subject: x\r\n\r\nFrom here\r\n"),
            ("To: a\r\n b\r\n>From a@b Mon\r\nFrom c\r\nX: y\r\n\r\n", "To: a\r\n b\r\nX: y\r\n\r\n"),
            ("From: a@b\r\n\r\nFrom me\r\n", "From: a@b\r\n\r\nFrom me\r\n"),
            ("Subject: x\r\nno field\r\nFrom me\r\n", "Subject: x\r\nno field\r\nFrom me\r\n"),
            ("\u{feff}To: a\r\nstray\r\nFrom: b\r\n\r\nstray\r\n", "To: a\r\nFrom: b\r\n\r\nstray\r\n"),
            (
                "Content-Type: a/b;\r\nboundary=x\r\nstray\r\n c=d\r\nTo: b\r\n\r\n",
                "Content-Type: a/b;\r\n boundary=x\r\n c=d\r\nTo: b\r\n\r\n",
            ),
            ("stray\r\nTo: b\r\nno field\r\nnor this\r\n\r\nx", "To: b\r\nno field\r\nnor this\r\n\r\nx"),
            ("From a@b", ""),
            ("", ""),
        ] {
            let cleaned = without_stray_lines(raw.as_bytes().to_vec());
            assert_eq!(String::from_utf8_lossy(&cleaned), wanted, "{raw:?}");
        }
    }
}
