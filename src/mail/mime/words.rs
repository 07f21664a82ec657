//! Decodes header text: unfolding and encoded words (RFC 2047), as leniently as senders require.
//!
//! Decoded text has no control characters: line breaks, NUL and the like become spaces.

use std::borrow::Cow;

use memchr::memmem;

use super::charset::Charset;
use super::decode::{self, Encoding, hex};

/// Decodes an unstructured field, a phrase or a comment.
pub(crate) fn decode_text(raw: &[u8]) -> String {
    let raw = raw.trim_ascii();
    let mut out = String::with_capacity(raw.len());
    if find_pair(raw, *b"=?").is_none() {
        push_unfolded(&String::from_utf8_lossy(raw), &mut out);
    } else {
        decode_words(raw, &mut out);
    }
    match out.trim() {
        trimmed if trimmed.len() == out.len() => out,
        trimmed => trimmed.to_owned(),
    }
}

/// Converts `value` to UTF-8: from the charset that `charset` returns if it is not valid UTF-8, and from ISO-2022-JP,
/// which is ASCII with escape sequences.
pub(crate) fn to_utf_8(value: &[u8], charset: impl FnOnce() -> Charset) -> Cow<'_, [u8]> {
    let is_escaped = || find_pair(value, *b"\x1b$").is_some();
    match std::str::from_utf8(value) {
        Ok(_) if is_escaped() => Cow::Owned(Charset::for_label(b"iso-2022-jp").decode(value).into_bytes()),
        Ok(_) => Cow::Borrowed(value),
        Err(_) => Cow::Owned(to_utf_8_around_words(value, charset())),
    }
}

/// Converts `value` from `charset` to UTF-8, except encoded words with raw octets, which are in the charset of their
/// word.
fn to_utf_8_around_words(value: &[u8], charset: Charset) -> Vec<u8> {
    let mut out = Vec::with_capacity(value.len() * 2);
    let (mut done, mut at) = (0, 0);
    // As in `decode_words`, this keeps the time linear.
    let last = memmem::rfind(value, b"?=").unwrap_or(0);
    while let Some(found) = value.get(at..last).and_then(|rest| find_pair(rest, *b"=?")) {
        let start = at + found;
        let rest = value.get(start..).unwrap_or_default();
        at = start + encoded_word(rest).map_or(2, |word| word.length);
        let word = value.get(start..at).unwrap_or_default();
        if !word.is_ascii() {
            out.extend(charset.decode(value.get(done..start).unwrap_or_default()).into_bytes());
            out.extend_from_slice(word);
            done = at;
        }
    }
    out.extend(charset.decode(value.get(done..).unwrap_or_default()).into_bytes());
    out
}

/// Finds two adjacent octets. Fields are many and short: a searcher would take longer to build than to use.
fn find_pair(text: &[u8], [first, second]: [u8; 2]) -> Option<usize> {
    memchr::memchr_iter(first, text).find(|at| text.get(at + 1) == Some(&second))
}

/// An encoded word at the beginning of `raw`.
pub(crate) struct EncodedWord<'x> {
    charset: &'x [u8],
    bytes: Vec<u8>,
    /// Its length in bytes of `raw`.
    pub(crate) length: usize,
}

/// Decodes the encoded word at the beginning of `raw`.
///
/// Spaces inside a word and words longer than 75 characters are accepted, as everywhere.
pub(crate) fn encoded_word(raw: &[u8]) -> Option<EncodedWord<'_>> {
    let inner = raw.strip_prefix(b"=?")?;
    let charset_end = memchr::memchr(b'?', inner.get(..inner.len().min(80))?)?;
    let (charset, rest) = inner.split_at_checked(charset_end)?;
    if charset.is_empty() || !charset.iter().all(u8::is_ascii_graphic) {
        return None;
    }
    let [b'?', kind, b'?', text @ ..] = rest else { return None };
    let quoted = match kind {
        b'q' | b'Q' => true,
        b'b' | b'B' => false,
        _ => return None,
    };
    let end = find_pair(text, *b"?=")?;
    let text_of_word = text.get(..end)?;
    let bytes = if quoted { decode_q(text_of_word) } else { decode::decode_part(Encoding::Base64, text_of_word) };
    // RFC 2231 §5: a language may follow the charset.
    let charset = charset.split(|byte| *byte == b'*').next().unwrap_or_default();
    Some(EncodedWord { charset, bytes, length: raw.len() - text.len() + end + 2 })
}

fn decode_q(text: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((byte, tail)) = rest.split_first() {
        rest = tail;
        match (byte, tail) {
            (b'_', _) => out.push(b' '),
            (b'=', [high, low, after @ ..]) => {
                if let (Some(high), Some(low)) = (hex(*high), hex(*low)) {
                    out.push(high << 4 | low);
                    rest = after;
                } else {
                    out.push(b'=');
                }
            }
            (b'\r' | b'\n', _) => {}
            _ => out.push(*byte),
        }
    }
    out
}

/// Decodes all encoded words. Adjacent words of one charset are joined before their bytes are converted: many senders
/// split a character between two words, in violation of RFC 2047 §5 (3).
fn decode_words(raw: &[u8], out: &mut String) {
    let mut pending: Option<(&[u8], Vec<u8>)> = None;
    let mut text_from = 0;
    let mut at = 0;
    // No word follows the last terminator; so no search for one is in vain and the loop stays linear.
    let last = memmem::rfind(raw, b"?=").unwrap_or(0);
    while let Some(found) = raw.get(at..last).and_then(|rest| find_pair(rest, *b"=?")) {
        let start = at + found;
        let Some(word) = raw.get(start..).and_then(encoded_word) else {
            at = start + 2;
            continue;
        };
        let between = raw.get(text_from..start).unwrap_or_default();
        let joins = pending.is_some() && between.iter().all(u8::is_ascii_whitespace);
        if !joins {
            flush(&mut pending, out);
            push_unfolded(&String::from_utf8_lossy(between), out);
        }
        match &mut pending {
            Some((charset, bytes)) if charset.eq_ignore_ascii_case(word.charset) => bytes.extend(word.bytes),
            _ => {
                flush(&mut pending, out);
                pending = Some((word.charset, word.bytes));
            }
        }
        at = start + word.length;
        text_from = at;
    }
    flush(&mut pending, out);
    push_unfolded(&String::from_utf8_lossy(raw.get(text_from..).unwrap_or_default()), out);
}

fn flush(pending: &mut Option<(&[u8], Vec<u8>)>, out: &mut String) {
    if let Some((charset, bytes)) = pending.take() {
        push_unfolded(&Charset::for_label(charset).decode(&bytes), out);
    }
}

/// Appends `text` unfolded (RFC 5322 §2.2.3) and without control characters.
fn push_unfolded(text: &str, out: &mut String) {
    if !text.chars().any(is_line_break_or_control) {
        out.push_str(text);
        return;
    }
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '\r' | '\n' if matches!(chars.peek(), Some('\r' | '\n' | ' ' | '\t')) => {}
            c if is_line_break_or_control(c) => out.push(' '),
            c => out.push(c),
        }
    }
}

fn is_line_break_or_control(c: char) -> bool {
    c.is_control() || matches!(c, '\u{2028}' | '\u{2029}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn raw_octets_in_a_word_are_in_its_charset() {
        for (raw, text) in [
            (
                &b"Gr\xfc\xdfe =?iso-8859-5?Q?\xb0=B1?= Gr\xfc\xdfe"[..],
                "Gr\u{fc}\u{df}e \u{410}\u{411} Gr\u{fc}\u{df}e",
            ),
            (b"=?iso-8859-1?Q?Gr\xfc\xdfe?=", "Gr\u{fc}\u{df}e"),
            (b"=?iso-8859-1?X?Gr\xfc\xdfe =?utf-8?Q?=C3=A4?=", "=?iso-8859-1?X?Gr\u{fc}\u{df}e \u{e4}"),
        ] {
            assert_eq!(decode_text(&to_utf_8(raw, || Charset::Unknown)), text);
        }
    }

    #[test]
    fn encoded_words_are_read_as_rfc_2047_shows() {
        for (raw, text) in [
            ("=?US-ASCII?Q?Keith_Moore?=", "Keith Moore"),
            ("(=?ISO-8859-1?Q?a?=)", "(a)"),
            ("(=?ISO-8859-1?Q?a?= b)", "(a b)"),
            ("(=?ISO-8859-1?Q?a?= =?ISO-8859-1?Q?b?=)", "(ab)"),
            ("(=?ISO-8859-1?Q?a?=\r\n    =?ISO-8859-1?Q?b?=)", "(ab)"),
            ("(=?ISO-8859-1?Q?a_b?=)", "(a b)"),
            ("(=?ISO-8859-1?Q?a?= =?ISO-8859-2?Q?_b?=)", "(a b)"),
            ("=?US-ASCII*EN?Q?Keith?= Moore", "Keith Moore"),
            ("=?utf-8?B?w6Q=?= =?utf-8?B?w6Q=?=", "\u{e4}\u{e4}"),
            ("=?utf-8?B?w?= =?UTF-8?B?w6Q=?=", "\u{e4}"),
            ("=?utf-8?Q?=C3?= =?UTF-8?Q?=A4?=", "\u{e4}"),
            ("=?ISO-2022-JP?B?GyRCRnxLXBsoQg==?=\r\n =?iso-2022-jp?B?GyRCOGwbKEI=?=", "\u{65e5}\u{672c}\u{8a9e}"),
            ("a=?utf-8?Q?b?=c", "abc"),
            ("=?utf-8?Q?What??=", "What?"),
            ("=?utf-8?X?no?= =?utf-8?Q?open", "=?utf-8?X?no?= =?utf-8?Q?open"),
            ("=?utf-8?Q?a=0D=0ABcc:_x=00y?=", "a Bcc: x y"),
            ("folded\r\n\ttext\0", "folded text"),
        ] {
            assert_eq!(decode_text(raw.as_bytes()), text, "{raw}");
        }
    }
}
