//! Re-encodes parts that not every host accepts, with octets above 127 or long lines, as base64: at submission, so
//! that signed content stays unchanged in transit, and for a host that accepts only 7-bit lines (RFC 6152 §3).

use std::ops::Range;

use super::edit::{Edit, Replacement, apply, is_ascii_outside, shift};
use super::params::{self, ParameterizedValue};
use super::walk::{Leaf, LeafKind, Parent, Structure, walk};
use super::{Encoding, Limits, base64_text, field_values, uuencode};
use crate::mail::line::is_seven_bit;

/// Nesting depth of messages.
const MAX_NESTED_MESSAGES: usize = 10;
const ENCODING_FIELD: &[u8] = b"Content-Transfer-Encoding: ";
/// Types whose content is signed or encrypted as it is (RFC 1847, RFC 8551).
const PROTECTED_TYPES: &[&str] =
    &["multipart/signed", "multipart/encrypted", "application/pkcs7-mime", "application/x-pkcs7-mime"];
/// Types whose content is a message; other message/ types hold fields or fragments and are encoded like any part.
const MESSAGE_TYPES: &[&str] = &["message/rfc822", "message/global", "message/news"];

/// Converts every part to 7 bits; `None` if that is impossible: header fields are not ASCII, or the structure exceeds
/// the limits or is so malformed that it would be parsed differently afterwards. Signatures over changed parts break.
pub fn to_seven_bit(raw: &[u8]) -> Option<Vec<u8>> {
    let mut edits = Vec::new();
    if !is_seven_bit(raw) {
        let mut recoding = Recoding::default();
        recoding.add_message(raw, &walk(raw, &Limits::default(), |_| {}), 0, 0);
        edits = recoding.finish(raw);
    }
    is_ascii_outside(raw, &edits, 0..raw.len()).then(|| apply_if_equivalent(raw, &edits))?
}

/// Applies the edits if the result has as many attachments as before, and texts if there were any. In a header with
/// lines that are not fields, an added field can turn more of them into header.
pub(crate) fn apply_if_equivalent(raw: &[u8], edits: &[Edit]) -> Option<Vec<u8>> {
    let done = apply(raw, edits);
    let found = |raw| {
        let mail = super::parse_without_bodies(raw);
        (mail.attachments.len(), mail.text.is_some(), mail.html.is_some())
    };
    (edits.is_empty() || found(raw) == found(&done)).then_some(done)
}

/// Returns the edits to the fields of a nested message, given its protected ranges.
pub(crate) type NestedFieldEdits = fn(&[u8], &Structure<'_>, &[Range<usize>]) -> Vec<Edit>;

/// Collects the edits of a message. A part that cannot be re-encoded stays as it is.
#[derive(Default)]
pub(crate) struct Recoding {
    /// If given, nothing signed or encrypted changes, at any depth.
    nested_fields: Option<NestedFieldEdits>,
    /// Rewritten fields.
    pub(crate) fields: Vec<Edit>,
    parts: Vec<Edit>,
    /// Multiparts and messages that declare an encoding: the range of that value, and of the body.
    containers: Vec<(Range<usize>, Range<usize>)>,
    /// Ranges that are signed or encrypted.
    pub(crate) protected: Vec<Range<usize>>,
}

impl Recoding {
    /// Leaves everything signed or encrypted unchanged.
    pub(crate) fn preserving_protected(inner_fields: NestedFieldEdits) -> Self {
        Self { nested_fields: Some(inner_fields), ..Self::default() }
    }

    /// Adds the message `raw`, which is at offset `base` of the outermost one, at nesting depth `depth`.
    pub(crate) fn add_message(&mut self, raw: &[u8], structure: &Structure<'_>, base: usize, depth: usize) {
        let mut protected = Vec::new();
        if let Some(inner_fields) = self.nested_fields {
            protected = protected_ranges(structure);
            self.protected.extend(protected.iter().map(|range| shift(range, base)));
            if depth > 0 {
                let fields = inner_fields(raw, structure, &protected);
                self.fields.extend(fields.into_iter().map(|edit| edit.shifted(base)));
            }
        }
        if structure.truncated || structure.header_truncated {
            return;
        }
        for multipart in &structure.multiparts {
            self.add_container(raw, multipart.header.encoding, &multipart.body, base);
        }
        let before = self.parts.len();
        for leaf in &structure.leaves {
            let body = raw.get(leaf.body.clone()).unwrap_or_default();
            if !is_seven_bit(body) && !is_within(&protected, leaf.body.start) {
                self.add_leaf(raw, leaf, body, base, depth);
            }
        }
        // Without this field the other MIME fields have no meaning (RFC 2045 §4).
        if self.parts.len() > before
            && field_values(raw, "MIME-Version").is_empty()
            && let Some(empty) = empty_line(raw, structure.body_offset)
        {
            let version = Edit::octets(empty..empty, b"MIME-Version: 1.0\r\n".to_vec());
            self.parts.push(version.shifted(base));
        }
    }

    fn add_container(&mut self, raw: &[u8], encoding: Option<&[u8]>, body: &Range<usize>, base: usize) {
        if let Some(at) = encoding.and_then(|encoding| range_of(raw, encoding)) {
            self.containers.push((shift(&at, base), shift(body, base)));
        }
    }

    fn add_leaf(&mut self, raw: &[u8], leaf: &Leaf<'_>, body: &[u8], base: usize, depth: usize) {
        let declared = leaf.header.encoding.map_or(Encoding::Identity, Encoding::of_field);
        // A nested message is never encoded as a whole (RFC 2045 §6.4).
        if is_message(leaf) && declared == Encoding::Identity {
            self.add_container(raw, leaf.header.encoding, &leaf.body, base);
            // Without an empty line, fields added to the nested message would become fields of the part.
            if depth < MAX_NESTED_MESSAGES && empty_line(raw, leaf.body.start).is_some() {
                let structure = walk(body, &Limits::default(), |_| {});
                self.add_message(body, &structure, base + leaf.body.start, depth + 1);
            }
            return;
        }
        let declared = declared.of_body(body);
        let is_changed_by_encoding = match declared {
            // A multipart without parts is displayed as text; encoded it would be an attachment.
            _ if leaf.kind != LeafKind::Declared => true,
            // A uuencoded file has its name in the body, and is ASCII anyway.
            Encoding::Uuencode => true,
            // A uuencoded file in a text is only found while the text is unencoded.
            Encoding::Identity => uuencode::find_file(body, 0).is_some(),
            // The same for text after the data.
            Encoding::Base64 => base64_text::end_of_data(body) < body.len(),
            Encoding::QuotedPrintable => false,
        };
        if is_changed_by_encoding {
            return;
        }
        let Some(empty) = empty_line(raw, leaf.body.start) else { return };
        let field = match leaf.header.encoding {
            Some(encoding) => range_of(raw, encoding).map(|at| Edit::octets(at, b" base64".to_vec())),
            None => Some(Edit::octets(empty..empty, [ENCODING_FIELD, b"base64\r\n"].concat())),
        };
        let Some(field) = field else { return };
        // The default type is ASCII (RFC 2045 §5.2). A named file without a type is not text, and stray octets in
        // base64 say nothing about the data.
        let is_text = leaf.header.content_type.is_none() && leaf.parent != Parent::Digest && !is_named(leaf);
        if is_text && declared != Encoding::Base64 && !body.is_ascii() {
            let charset = if std::str::from_utf8(body).is_ok() { "utf-8" } else { "windows-1252" };
            let kind = format!("Content-Type: text/plain; charset={charset}\r\n");
            self.parts.push(Edit::octets(empty..empty, kind.into_bytes()).shifted(base));
        }
        // A delimiter includes the line break before it; the end of the message does not.
        let line_break = leaf.body.end == raw.len();
        let body = Edit { range: leaf.body.clone(), replacement: Replacement::Base64 { declared, line_break } };
        self.parts.extend([field.shifted(base), body.shifted(base)]);
    }

    /// Returns all edits of `raw`, in order.
    pub(crate) fn finish(self, raw: &[u8]) -> Vec<Edit> {
        let Self { mut fields, mut parts, containers, .. } = self;
        parts.sort_by_key(|edit| edit.range.start);
        // The encoding field of a part may be among them.
        fields.retain(|field| {
            let next = parts.partition_point(|edit| edit.range.start < field.range.start);
            parts.get(next).is_none_or(|edit| edit.range.start >= field.range.end)
        });
        parts.extend(fields);
        parts.sort_by_key(|edit| edit.range.start);
        let is_changed = |body: &Range<usize>| {
            let next = parts.partition_point(|edit| edit.range.start < body.start);
            parts.get(next).is_some_and(|edit| edit.range.start < body.end)
        };
        let is_in_field = |at: &Range<usize>| {
            let next = parts.partition_point(|edit| edit.range.start <= at.start);
            next.checked_sub(1).and_then(|last| parts.get(last)).is_some_and(|edit| edit.range.end > at.start)
        };
        let to_seven = |(encoding, body): (Range<usize>, Range<usize>)| {
            let fits = is_changed(&body) && !is_in_field(&encoding) && is_ascii_outside(raw, &parts, body);
            fits.then(|| Edit::octets(encoding, b" 7bit".to_vec()))
        };
        let labels: Vec<Edit> = containers.into_iter().filter_map(to_seven).collect();
        parts.extend(labels);
        parts.sort_by_key(|edit| edit.range.start);
        parts
    }
}

/// Returns the offset of the empty line before a body. It is required: a rewritten body must not become part of the
/// header.
fn empty_line(raw: &[u8], body: usize) -> Option<usize> {
    let empty = body.checked_sub(2)?;
    let before = raw.get(..empty)?;
    let is_empty = raw.get(empty..body)? == b"\r\n" && (before.is_empty() || before.ends_with(b"\r\n"));
    is_empty.then_some(empty)
}

/// Returns the ranges that are signed or encrypted.
pub(crate) fn protected_ranges(structure: &Structure<'_>) -> Vec<Range<usize>> {
    let multiparts = structure.multiparts.iter().map(|part| (part.header.content_type, &part.body));
    let leaves = structure.leaves.iter().map(|part| (part.header.content_type, &part.body));
    let protected = multiparts.chain(leaves).filter(|(kind, _)| kind.is_some_and(is_protected));
    protected.map(|(_, body)| body.clone()).collect()
}

/// True if an offset is in one of the ranges.
pub(crate) fn is_within(ranges: &[Range<usize>], at: usize) -> bool {
    ranges.iter().any(|range| range.contains(&at))
}

fn is_protected(kind: &[u8]) -> bool {
    PROTECTED_TYPES.contains(&ParameterizedValue::parse(kind).main.as_str())
}

fn is_message(leaf: &Leaf<'_>) -> bool {
    let kind = leaf.header.content_type.map(|kind| ParameterizedValue::parse(kind).main);
    let is_one = kind.map_or(leaf.parent == Parent::Digest, |kind| MESSAGE_TYPES.contains(&kind.as_str()));
    leaf.kind == LeafKind::Declared && is_one
}

/// True if the part, which declares no type, has a filename.
fn is_named(leaf: &Leaf<'_>) -> bool {
    let disposition = leaf.header.disposition.map(ParameterizedValue::parse).unwrap_or_default();
    params::filename(&disposition, &ParameterizedValue::default()).is_some()
}

/// Returns the range of a slice within the message.
fn range_of(raw: &[u8], slice: &[u8]) -> Option<Range<usize>> {
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
        let mail = "MIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\n\r\nGrüße\r\n";
        let expected = "MIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\n\
                        Content-Transfer-Encoding: base64\r\n\r\nR3LDvMOfZQ0K\r\n";
        assert_eq!(recoded(mail), expected);
        assert_eq!(mime::parse(expected.as_bytes()).text, mime::parse(mail.as_bytes()).text);
    }

    #[test]
    fn what_goes_without_saying_is_said_of_an_encoded_body() {
        let version = "Content-Transfer-Encoding: base64\r\nMIME-Version: 1.0\r\n\r\n";
        for (mail, head) in [
            (
                "Subject: x\r\n\r\nhü\r\n",
                format!("Subject: x\r\nContent-Type: text/plain; charset=utf-8\r\n{version}"),
            ),
            ("Content-Type: text/html\r\n\r\nhü\r\n", format!("Content-Type: text/html\r\n{version}")),
        ] {
            let out = recoded(mail);
            assert!(out.starts_with(&head), "{out}");
            let (before, after) = (mime::parse(mail.as_bytes()), mime::parse(out.as_bytes()));
            assert_eq!((before.text, before.html), (after.text, after.html));
        }
        let out = to_seven_bit(b"Subject: x\r\n\r\nh\xfc\r\n").unwrap();
        assert!(String::from_utf8(out.clone()).unwrap().contains("charset=windows-1252"));
        assert_eq!(mime::parse(&out).text.as_deref(), Some("hü"));
        let part = "MIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n\r\nhü\r\n--b--\r\n";
        assert!(recoded(part).contains("--b\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Transfer"));
    }

    #[test]
    fn a_named_file_without_a_type_stays_a_file() {
        for field in ["", "Content-Transfer-Encoding: base64\r\n", "Content-Transfer-Encoding: quoted-printable\r\n"]
        {
            let mail = format!(
                "Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n{field}\
                 Content-Disposition: attachment; filename=winmail.dat\r\n\r\nR3LD\u{fc}vMOfZQ0K\r\n--b--\r\n"
            );
            let out = recoded(&mail);
            let types = |mail: &[u8]| -> Vec<_> {
                mime::parse(mail).attachments.into_iter().map(|file| (file.filename, file.content_type)).collect()
            };
            assert_eq!(types(out.as_bytes()), [(Some("winmail.dat".to_owned()), None)], "{out}");
            assert_eq!(types(mail.as_bytes()), types(out.as_bytes()));
        }
        // If it were text, a named first part would be the body.
        let mail = "Content-Disposition: inline; filename=a.bin\r\n\r\nh\u{fc}\r\n";
        assert_eq!(mime::parse(recoded(mail).as_bytes()).attachments.len(), 1);
    }

    #[test]
    fn a_message_without_an_empty_line_before_it_stays_as_it_is() {
        let mail = |before: &str| {
            format!(
                "Content-Type: multipart/digest; boundary=b\r\n\r\n--b\r\n{before}\
                 stray\r\nSubject: x\r\n\r\nh\u{fc}\r\n--b--\r\n"
            )
        };
        assert_eq!(to_seven_bit(mail("").as_bytes()), None);
        assert_eq!(mime::parse(recoded(&mail("\r\n")).as_bytes()).attachments.len(), 1);
    }

    #[test]
    fn what_would_read_otherwise_stays_as_it_is() {
        let stray =
            "Content-Type:\r\nstr`y: base64\r\n multipart/mixed; boundary=m\r\n\r\n--m\r\n\r\nh\u{fc}\r\n--m--\r\n";
        let unnamed = "Content-Type: multipart/\r\n--m\r\nstray\"e: x\r\n\r\nh\u{fc}\r\n--m\r\n\
            Content-Type: application/pdf\r\n\r\nx\r\n";
        for mail in [stray, unnamed] {
            assert_eq!(to_seven_bit(mail.as_bytes()), None, "{mail}");
        }
    }

    #[test]
    fn a_multipart_without_parts_stays_as_it_is() {
        let mail = "Content-Type: multipart/mixed; boundary=b\r\n\r\nh\u{fc}\r\n";
        assert_eq!(to_seven_bit(mail.as_bytes()), None);
    }

    #[test]
    fn what_is_no_base64_is_recoded_as_it_stands() {
        let mail = "Content-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: base64\r\n\r\n\
                    Grüße aus Köln\r\n";
        assert_eq!(mime::parse(recoded(mail).as_bytes()).text.as_deref(), Some("Grüße aus Köln"));
    }

    #[test]
    fn parts_are_recoded_where_they_stand_and_the_others_stay() {
        let mail = "Mime-version: 1.0\r\nContent-Type: multipart/mixed; boundary=b\r\nContent-Transfer-Encoding: 8bit\r\n\r\n\
            --b\r\nContent-Type: text/plain; charset=iso-8859-15\r\nContent-transfer-encoding: 8BIT\r\n\r\nEntrée €\r\n\
            --b\r\n\r\nplain\r\n\
            --b\r\nContent-Type: message/rfc822\r\nContent-Transfer-Encoding: 8bit\r\n\r\n\
            MIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\n\r\nüber\r\n\
            --b\r\nContent-Type: application/x\r\n\r\né\r\n--b--\r\n";
        let out = recoded(mail);
        assert!(out.starts_with(
            "Mime-version: 1.0\r\nContent-Type: multipart/mixed; boundary=b\r\nContent-Transfer-Encoding: 7bit\r\n\r\n--b\r\n"
        ));
        assert!(
            out.contains("\r\nContent-transfer-encoding: base64\r\n\r\nRW50csOpZSDigqw=\r\n--b\r\n\r\nplain\r\n")
        );
        let inside = "Content-Transfer-Encoding: 7bit\r\n\r\nMIME-Version: 1.0\r\n\
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

    #[test]
    fn a_report_inside_keeps_its_groups_of_fields() {
        let mail = "Content-Type: multipart/report; boundary=b\r\n\r\n--b\r\nContent-Type: message/delivery-status\r\n\r\n\
            Reporting-MTA: dns; a.test\r\n\r\nFinal-Recipient: rfc822; a@b.test\r\nAction: failed\r\n\
            Diagnostic-Code: smtp; 550 Boîte\r\n--b--\r\n";
        let (before, after) = (mime::parse(mail.as_bytes()), recoded(mail));
        let part = mime::parse(after.as_bytes()).attachments.pop().unwrap();
        assert_eq!(part.size, before.attachments.first().unwrap().size, "{after}");
    }
}
