//! Mail for hosts that take 7-bit lines alone (RFC 6152 §3): parts with octets above 127 become base64.

use std::ops::Range;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;

use super::params::Value;
use super::walk::{Leaf, Reading, walk};
use super::{Encoding, Limits, decode_part};

/// Messages inside one another.
const MAX_NESTED: usize = 10;
const FIELD: &[u8] = b"Content-Transfer-Encoding: ";

/// The message with every part in 7 bits; `None` when that cannot be: header fields are not ASCII, or the structure is
/// beyond the limits. Signatures over what is changed do not survive it.
pub fn to_seven_bit(raw: &[u8]) -> Option<Vec<u8>> {
    recode(raw, 0)
}

/// RFC 2045 §6.8: lines of 76 characters, without a line break at the end.
pub fn base64_lines(content: &[u8]) -> String {
    const LINE_OCTETS: usize = 57;
    let mut lines = String::with_capacity(content.len() * 78 / LINE_OCTETS + 80);
    for line in content.chunks(LINE_OCTETS) {
        if !lines.is_empty() {
            lines.push_str("\r\n");
        }
        BASE64.encode_string(line, &mut lines);
    }
    lines
}

/// What stands in place of a range of the message.
struct Edit {
    at: Range<usize>,
    with: Vec<u8>,
}

fn recode(raw: &[u8], depth: usize) -> Option<Vec<u8>> {
    if raw.is_ascii() {
        return Some(raw.to_vec());
    }
    let structure = walk(raw, &Limits::default(), |_| {});
    if structure.truncated || structure.header_truncated || depth > MAX_NESTED {
        return None;
    }
    let mut edits = Vec::new();
    for encoding in structure.multipart_encodings {
        edits.push(Edit { at: place_of(raw, encoding)?, with: b" 7bit".to_vec() });
    }
    for leaf in &structure.leaves {
        let body = raw.get(leaf.body.clone())?;
        if !body.is_ascii() {
            edits.extend(leaf_edits(raw, leaf, body, depth)?);
        }
    }
    edits.sort_by_key(|edit| edit.at.start);
    let mut out = Vec::with_capacity(raw.len() + raw.len() / 2);
    let mut done = 0;
    for edit in edits {
        out.extend_from_slice(raw.get(done..edit.at.start)?);
        out.extend_from_slice(&edit.with);
        done = edit.at.end;
    }
    out.extend_from_slice(raw.get(done..)?);
    out.is_ascii().then_some(out)
}

fn leaf_edits(raw: &[u8], leaf: &Leaf<'_>, body: &[u8], depth: usize) -> Option<[Edit; 2]> {
    let is_message = leaf.reading == Reading::Declared
        && leaf.header.content_type.is_some_and(|given| Value::parse(given).main.starts_with("message/"));
    let declared = leaf.header.encoding.map_or(Encoding::Identity, Encoding::of_field);
    let (word, content) = if is_message {
        // A message inside is never encoded as a whole (RFC 2045 §6.4).
        ("7bit", recode(body, depth + 1)?)
    } else {
        let mut lines = base64_lines(&decode_part(declared, body));
        // A delimiter brings its own line break; the end of a message does not.
        lines.push_str(if leaf.body.end == raw.len() { "\r\n" } else { "" });
        ("base64", lines.into_bytes())
    };
    let field = match leaf.header.encoding {
        Some(encoding) => Edit { at: place_of(raw, encoding)?, with: format!(" {word}").into_bytes() },
        None => {
            // Before the empty line, which has to be there.
            let at = leaf.body.start.checked_sub(2)?;
            let before = raw.get(..at)?;
            if raw.get(at..leaf.body.start)? != b"\r\n" || !(before.is_empty() || before.ends_with(b"\r\n")) {
                return None;
            }
            Edit { at: at..at, with: [FIELD, word.as_bytes(), b"\r\n"].concat() }
        }
    };
    Some([field, Edit { at: leaf.body.clone(), with: content }])
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
