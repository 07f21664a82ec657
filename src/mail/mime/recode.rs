//! Mail for hosts that take 7-bit lines alone (RFC 6152 §3): parts with octets above 127 become base64.

mod lines;

use std::ops::Range;

use super::params::Value;
use super::walk::{Leaf, Reading, walk};
use super::{Encoding, Limits, decode};
use lines::Lines;
pub use lines::base64_lines;

/// RFC 5322 §2.1.1, without CRLF.
const MAX_LINE: usize = 998;
/// Messages inside one another.
const MAX_NESTED: usize = 10;
const FIELD: &[u8] = b"Content-Transfer-Encoding: ";

/// The message with every part in 7 bits; `None` when that cannot be: header fields are not ASCII, or the structure is
/// beyond the limits. Signatures over what is changed do not survive it. Costs the memory of what it returns.
pub fn to_seven_bit(raw: &[u8]) -> Option<Vec<u8>> {
    let mut edits = Vec::new();
    if !is_plain(raw) {
        collect(raw, 0, 0, &mut edits)?;
    }
    edits.sort_by_key(|edit| edit.at.start);
    let length = raw.len() + edits.iter().map(Edit::growth).sum::<usize>();
    let mut out = Vec::with_capacity(length);
    let mut done = 0;
    for edit in &edits {
        out.extend_from_slice(raw.get(done..edit.at.start).filter(|kept| kept.is_ascii())?);
        edit.write(raw, &mut out)?;
        done = edit.at.end;
    }
    out.extend_from_slice(raw.get(done..).filter(|kept| kept.is_ascii())?);
    Some(out)
}

/// What stands in place of a range of the message.
struct Edit {
    at: Range<usize>,
    with: With,
}

enum With {
    /// These.
    Octets(Vec<u8>),
    /// What the range says in this encoding, in base64, and perhaps a line break.
    Base64 { declared: Encoding, line_break: bool },
}

impl Edit {
    /// How many octets it adds at most.
    fn growth(&self) -> usize {
        match &self.with {
            With::Octets(octets) => octets.len(),
            With::Base64 { .. } => lines::room(self.at.len()) - self.at.len() + 2,
        }
    }

    fn write(&self, raw: &[u8], out: &mut Vec<u8>) -> Option<()> {
        match &self.with {
            With::Octets(octets) => out.extend_from_slice(octets),
            With::Base64 { declared, line_break } => {
                let mut lines = Lines::new(out);
                decode::in_pieces(*declared, raw.get(self.at.clone())?, |piece| {
                    lines.feed(piece);
                    true
                });
                lines.finish();
                out.extend_from_slice(if *line_break { b"\r\n" } else { b"" });
            }
        }
        Some(())
    }
}

/// The edits of the message `raw`, which stands at `base` of the whole one.
fn collect(raw: &[u8], base: usize, depth: usize, edits: &mut Vec<Edit>) -> Option<()> {
    let structure = walk(raw, &Limits::default(), |_| {});
    if structure.truncated || structure.header_truncated || depth > MAX_NESTED {
        return None;
    }
    for encoding in structure.multipart_encodings {
        edits.push(Edit { at: moved(place_of(raw, encoding)?, base), with: With::Octets(b" 7bit".to_vec()) });
    }
    for leaf in &structure.leaves {
        let body = raw.get(leaf.body.clone())?;
        if !is_plain(body) {
            collect_leaf(raw, leaf, body, (base, depth), edits)?;
        }
    }
    Some(())
}

fn collect_leaf(
    raw: &[u8],
    leaf: &Leaf<'_>,
    body: &[u8],
    (base, depth): (usize, usize),
    edits: &mut Vec<Edit>,
) -> Option<()> {
    let is_message = leaf.reading == Reading::Declared
        && leaf.header.content_type.is_some_and(|given| Value::parse(given).main.starts_with("message/"));
    // A message inside is never encoded as a whole (RFC 2045 §6.4).
    let word = if is_message { "7bit" } else { "base64" };
    // The empty line has to be there: a body that is written anew must not read as more of the header.
    let empty = leaf.body.start.checked_sub(2)?;
    let before = raw.get(..empty)?;
    if raw.get(empty..leaf.body.start)? != b"\r\n" || !(before.is_empty() || before.ends_with(b"\r\n")) {
        return None;
    }
    let (at, octets) = match leaf.header.encoding {
        Some(encoding) => (place_of(raw, encoding)?, format!(" {word}").into_bytes()),
        None => (empty..empty, [FIELD, word.as_bytes(), b"\r\n"].concat()),
    };
    edits.push(Edit { at: moved(at, base), with: With::Octets(octets) });
    if is_message {
        return collect(body, base + leaf.body.start, depth + 1, edits);
    }
    let declared = leaf.header.encoding.map_or(Encoding::Identity, Encoding::of_field).of_body(body);
    // The name of such a file stands in its body, and no octet of it is beyond ASCII.
    if declared == Encoding::Uuencode {
        return None;
    }
    // A delimiter brings its own line break; the end of a message does not.
    let line_break = leaf.body.end == raw.len();
    edits.push(Edit { at: moved(leaf.body.clone(), base), with: With::Base64 { declared, line_break } });
    Some(())
}

/// Whether octets go to any host as they are: 7 bits, and lines of at most 998 octets (RFC 5321 §4.5.3.1.6).
pub(super) fn is_plain(octets: &[u8]) -> bool {
    octets.is_ascii() && octets.split(|byte| *byte == b'\n').all(|line| line.len() <= MAX_LINE + 1)
}

fn moved(range: Range<usize>, by: usize) -> Range<usize> {
    range.start + by..range.end + by
}

/// Where a slice of the message stands in it.
fn place_of(raw: &[u8], slice: &[u8]) -> Option<Range<usize>> {
    let start = slice.as_ptr().addr().checked_sub(raw.as_ptr().addr())?;
    (start + slice.len() <= raw.len()).then(|| start..start + slice.len())
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests may panic")]

    use super::*;
    use crate::mail::mime;

    fn recoded(mail: &str) -> String {
        String::from_utf8(to_seven_bit(mail.as_bytes()).unwrap()).unwrap()
    }

    #[test]
    fn a_single_body_becomes_base64() {
        let mail = "Subject: x\r\nContent-Type: text/plain; charset=utf-8\r\n\r\nGrüße\r\n";
        let expected = "Subject: x\r\nContent-Type: text/plain; charset=utf-8\r\n\
                        Content-Transfer-Encoding: base64\r\n\r\nR3LDvMOfZQ0K\r\n";
        assert_eq!(recoded(mail), expected);
        assert_eq!(mime::parse(expected.as_bytes()).text, mime::parse(mail.as_bytes()).text);
    }

    #[test]
    fn what_is_no_base64_is_recoded_as_it_stands() {
        let mail = "Content-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: base64\r\n\r\n\
                    Grüße aus Köln\r\n";
        assert_eq!(mime::parse(recoded(mail).as_bytes()).text.as_deref(), Some("Grüße aus Köln"));
    }

    #[test]
    fn parts_are_recoded_where_they_stand_and_the_others_stay() {
        let mail = "Content-Type: multipart/mixed; boundary=b\r\nContent-Transfer-Encoding: 8bit\r\n\r\n\
            --b\r\nContent-Type: text/plain; charset=iso-8859-15\r\nContent-transfer-encoding: 8BIT\r\n\r\nEntrée €\r\n\
            --b\r\n\r\nplain\r\n\
            --b\r\nContent-Type: message/rfc822\r\nContent-Transfer-Encoding: 8bit\r\n\r\n\
            Subject: inside\r\nContent-Type: text/plain; charset=utf-8\r\n\r\nüber\r\n\
            --b\r\nContent-Type: application/x\r\n\r\né\r\n--b--\r\n";
        let out = recoded(mail);
        assert!(out.starts_with(
            "Content-Type: multipart/mixed; boundary=b\r\nContent-Transfer-Encoding: 7bit\r\n\r\n--b\r\n"
        ));
        assert!(
            out.contains("\r\nContent-transfer-encoding: base64\r\n\r\nRW50csOpZSDigqw=\r\n--b\r\n\r\nplain\r\n")
        );
        let inside = "Content-Transfer-Encoding: 7bit\r\n\r\nSubject: inside\r\n\
            Content-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: base64\r\n\r\nw7xiZXI=\r\n\r\n--b\r\n";
        assert!(out.contains(inside), "{out}");
        assert!(out.ends_with("Content-Transfer-Encoding: base64\r\n\r\nw6k=\r\n--b--\r\n"), "{out}");
        let (before, after) = (mime::parse(mail.as_bytes()), mime::parse(out.as_bytes()));
        assert_eq!(before.text, after.text);
        assert_eq!(before.attachments.len(), after.attachments.len());
    }

    #[test]
    fn header_fields_above_7_bits_cannot_be_helped() {
        assert_eq!(to_seven_bit("Subject: ü\r\n\r\nx\r\n".as_bytes()), None);
        assert_eq!(to_seven_bit("ü\r\n".as_bytes()), None);
        assert_eq!(to_seven_bit(b"Subject: x\r\n\r\nx\r\n").as_deref(), Some(&b"Subject: x\r\n\r\nx\r\n"[..]));
    }
}
