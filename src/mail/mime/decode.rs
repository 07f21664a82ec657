//! Content-Transfer-Encodings (RFC 2045 §6), decoded incrementally with bounded memory.
//!
//! The size announced for a part and the bytes served at its link both come from [`Decoder`], so they cannot differ.
//! Decoding never fails: malformed input is skipped (base64) or kept as written (quoted-printable).

use super::base64_text;
use super::uuencode::{self, LineDecoder};

/// The encoding of a part in the raw message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoding {
    /// 7bit, 8bit, binary, and every unknown encoding: the bytes are served unchanged.
    Identity,
    /// RFC 2045 §6.8.
    Base64,
    /// RFC 2045 §6.7.
    QuotedPrintable,
    /// uuencode, which is older than MIME and has no RFC; POSIX specifies it.
    Uuencode,
}

impl Encoding {
    /// Returns the name, as it is stored.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Identity => "identity",
            Self::Base64 => "base64",
            Self::QuotedPrintable => "quoted-printable",
            Self::Uuencode => "uuencode",
        }
    }

    /// Parses the name of a Content-Transfer-Encoding (or [`Self::as_str`]); unknown names mean [`Self::Identity`].
    pub(crate) fn parse(word: &str) -> Self {
        let is = |known: &str| word.eq_ignore_ascii_case(known);
        if is("base64") {
            Self::Base64
        } else if is("quoted-printable") {
            Self::QuotedPrintable
        } else if ["uuencode", "x-uuencode", "uue", "x-uue"].into_iter().any(is) {
            Self::Uuencode
        } else {
            Self::Identity
        }
    }

    /// Parses the value of a Content-Transfer-Encoding field, ignoring everything after its first word.
    pub(super) fn of_field(value: &[u8]) -> Self {
        let value = value.trim_ascii();
        let ends = |byte: &u8| byte.is_ascii_whitespace() || matches!(byte, b';' | b'(');
        let word = value.split(ends).next().unwrap_or_default();
        std::str::from_utf8(word).map_or(Self::Identity, Self::parse)
    }

    /// Returns the effective encoding of `body` if this one is declared. Where decoding would lose something, the
    /// body stays as it is: a person can still read it and decode it by hand.
    pub(super) fn of_body(self, body: &[u8]) -> Self {
        match self {
            Self::Base64 if base64_text::is_prose(body) => Self::Identity,
            Self::Uuencode if !uuencode::has_file(body) || uuencode::has_several_files(body) => Self::Identity,
            declared => declared,
        }
    }
}

/// Maximum whitespace held back in case a line ends after it. Encoders write lines of 76; a longer run is content.
const MAX_BLANKS: usize = 1000;
/// Bytes fed at a time where the output is only measured or passed on.
pub(super) const PIECE: usize = 16 * 1024;

/// Decodes the raw bytes of a part in pieces of any size.
#[derive(Clone, Debug)]
pub struct Decoder(State);

#[derive(Clone, Debug)]
enum State {
    Identity,
    Base64 { bits: u32, digits: u8 },
    QuotedPrintable { blanks: Vec<u8>, state: QpState },
    Uuencode(LineDecoder),
}

/// The state within a quoted-printable line.
#[derive(Clone, Copy, Debug)]
enum QpState {
    Text,
    /// After `=`; whitespace may precede the line break of a soft line break.
    Equals,
    /// After `=` and one hexadecimal digit.
    Digit(u8),
    /// After `=`, optional whitespace and CR.
    SoftCr,
}

impl Decoder {
    /// Starts at the beginning of a part.
    pub const fn new(encoding: Encoding) -> Self {
        Self(match encoding {
            Encoding::Identity => State::Identity,
            Encoding::Base64 => State::Base64 { bits: 0, digits: 0 },
            Encoding::QuotedPrintable => State::QuotedPrintable { blanks: Vec::new(), state: QpState::Text },
            Encoding::Uuencode => State::Uuencode(LineDecoder::new()),
        })
    }

    /// Decodes the next piece of raw bytes to the end of `out`, which grows by at most `raw` plus 1,002 bytes.
    pub fn feed(&mut self, raw: &[u8], out: &mut Vec<u8>) {
        match &mut self.0 {
            State::Identity => out.extend_from_slice(raw),
            State::Base64 { bits, digits } => base64(raw, bits, digits, out),
            State::QuotedPrintable { blanks, state } => quoted_printable(raw, blanks, state, out),
            State::Uuencode(lines) => lines.feed(raw, out),
        }
    }

    /// Ends the part and appends what was held back to `out`.
    pub fn finish(self, out: &mut Vec<u8>) {
        match self.0 {
            State::Identity => {}
            State::Base64 { bits, digits } => end_of_quantum(bits, digits, out),
            State::QuotedPrintable { state: QpState::Digit(digit), .. } => out.extend([b'=', digit]),
            State::Uuencode(lines) => lines.finish(out),
            // RFC 2045 §6.7 (3): trailing whitespace was added in transit.
            State::QuotedPrintable { .. } => {}
        }
    }
}

/// Decodes a whole part.
pub fn decode_part(encoding: Encoding, raw: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(if encoding == Encoding::Base64 { raw.len() / 4 * 3 + 3 } else { raw.len() });
    let mut decoder = Decoder::new(encoding);
    decoder.feed(raw, &mut out);
    decoder.finish(&mut out);
    out
}

/// Returns the number of bytes that [`decode_part`] yields, in constant memory.
pub(crate) fn decoded_size(encoding: Encoding, raw: &[u8]) -> u64 {
    if encoding == Encoding::Identity {
        return raw.len() as u64;
    }
    let mut size = 0;
    in_pieces(encoding, raw, |piece| {
        size += piece.len() as u64;
        true
    });
    size
}

/// Decodes `raw` and calls `each` with every piece until it returns false.
pub(super) fn in_pieces(encoding: Encoding, raw: &[u8], mut each: impl FnMut(&[u8]) -> bool) {
    if encoding == Encoding::Identity {
        raw.chunks(PIECE).all(each);
        return;
    }
    let mut decoder = Decoder::new(encoding);
    let mut out = Vec::with_capacity(raw.len().min(PIECE) + MAX_BLANKS + 2);
    for piece in raw.chunks(PIECE) {
        decoder.feed(piece, &mut out);
        if !each(&out) {
            return;
        }
        out.clear();
    }
    decoder.finish(&mut out);
    if !out.is_empty() {
        each(&out);
    }
}

const NO_DIGIT: u8 = 0xff;
const BASE64: [u8; 256] = base64_table();

#[expect(clippy::indexing_slicing, reason = "evaluated by the compiler, which would report it")]
const fn base64_table() -> [u8; 256] {
    let alphabet = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut table = [NO_DIGIT; 256];
    let mut value = 0;
    while value < 64 {
        table[alphabet[value] as usize] = value as u8;
        value += 1;
    }
    table
}

fn digit(byte: u8) -> u8 {
    BASE64.get(usize::from(byte)).copied().unwrap_or(NO_DIGIT)
}

/// RFC 2045 §6.8: bytes outside the alphabet are ignored. `=` ends a quantum, and another may follow, since some
/// senders encode a part in portions.
fn base64(raw: &[u8], bits: &mut u32, digits: &mut u8, out: &mut Vec<u8>) {
    let mut rest = raw;
    while let [a, b, c, d, tail @ ..] = rest {
        let (w, x, y, z) = (digit(*a), digit(*b), digit(*c), digit(*d));
        if *digits == 0 && (w | x | y | z) < 64 {
            out.extend([w << 2 | x >> 4, x << 4 | y >> 2, y << 6 | z]);
            rest = tail;
        } else {
            base64_byte(*a, bits, digits, out);
            rest = rest.get(1..).unwrap_or_default();
        }
    }
    for byte in rest {
        base64_byte(*byte, bits, digits, out);
    }
}

fn base64_byte(byte: u8, bits: &mut u32, digits: &mut u8, out: &mut Vec<u8>) {
    let value = digit(byte);
    if value < 64 {
        *bits = *bits << 6 | u32::from(value);
        *digits += 1;
        if *digits == 4 {
            let [_, a, b, c] = bits.to_be_bytes();
            out.extend([a, b, c]);
            (*bits, *digits) = (0, 0);
        }
    } else if byte == b'=' {
        end_of_quantum(*bits, *digits, out);
        (*bits, *digits) = (0, 0);
    }
}

fn end_of_quantum(bits: u32, digits: u8, out: &mut Vec<u8>) {
    match digits {
        2 => out.push((bits >> 4).to_be_bytes()[3]),
        3 => out.extend_from_slice(&(bits >> 2).to_be_bytes()[2..]),
        _ => {}
    }
}

fn quoted_printable(mut raw: &[u8], blanks: &mut Vec<u8>, state: &mut QpState, out: &mut Vec<u8>) {
    while let Some((byte, rest)) = raw.split_first() {
        if !matches!(state, QpState::Text) || matches!(byte, b'=' | b' ' | b'\t' | b'\r' | b'\n') {
            quoted_printable_byte(*byte, blanks, state, out);
            raw = rest;
            continue;
        }
        // Copy the line up to its trailing whitespace, which may have to go.
        let line = raw.get(..memchr::memchr3(b'=', b'\r', b'\n', raw).unwrap_or(raw.len())).unwrap_or_default();
        let length = line.iter().rposition(|byte| !matches!(byte, b' ' | b'\t')).map_or(1, |last| last + 1);
        out.append(blanks);
        out.extend_from_slice(raw.get(..length).unwrap_or_default());
        raw = raw.get(length..).unwrap_or_default();
    }
}

fn quoted_printable_byte(byte: u8, blanks: &mut Vec<u8>, state: &mut QpState, out: &mut Vec<u8>) {
    match (*state, byte) {
        (QpState::Text, b' ' | b'\t') => {
            blanks.push(byte);
            if blanks.len() > MAX_BLANKS {
                out.append(blanks);
            }
        }
        (QpState::Text, b'\r' | b'\n') => {
            blanks.clear();
            out.push(byte);
        }
        (QpState::Text, b'=') => {
            out.append(blanks);
            *state = QpState::Equals;
        }
        (QpState::Text, _) => {
            out.append(blanks);
            out.push(byte);
        }
        (QpState::Equals, b' ' | b'\t') => {
            blanks.push(byte);
            if blanks.len() > MAX_BLANKS {
                push_literal_equals(&[], blanks, state, out);
            }
        }
        (QpState::Equals, b'\r') => *state = QpState::SoftCr,
        (QpState::Equals | QpState::SoftCr, b'\n') => {
            blanks.clear();
            *state = QpState::Text;
        }
        (QpState::Equals, _) if blanks.is_empty() && byte.is_ascii_hexdigit() => *state = QpState::Digit(byte),
        (QpState::Digit(high), _) => {
            if let (Some(high), Some(low)) = (hex(high), hex(byte)) {
                out.push(high << 4 | low);
                *state = QpState::Text;
            } else {
                push_literal_equals(&[high], blanks, state, out);
                quoted_printable_byte(byte, blanks, state, out);
            }
        }
        (QpState::SoftCr, _) => {
            blanks.clear();
            *state = QpState::Text;
            quoted_printable_byte(byte, blanks, state, out);
        }
        (QpState::Equals, _) => {
            push_literal_equals(&[], blanks, state, out);
            quoted_printable_byte(byte, blanks, state, out);
        }
    }
}

/// Outputs an `=` that began no escape, and what was held back after it, as text.
fn push_literal_equals(after: &[u8], blanks: &mut Vec<u8>, state: &mut QpState, out: &mut Vec<u8>) {
    out.push(b'=');
    out.extend_from_slice(after);
    out.append(blanks);
    *state = QpState::Text;
}

/// Returns the value of a hexadecimal digit.
pub(super) fn hex(byte: u8) -> Option<u8> {
    char::from(byte).to_digit(16).and_then(|value| u8::try_from(value).ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn text(encoding: Encoding, raw: &str) -> String {
        String::from_utf8(decode_part(encoding, raw.as_bytes())).unwrap_or_default()
    }

    #[test]
    fn base64_ignores_what_is_no_digit_and_goes_on_after_padding() {
        assert_eq!(text(Encoding::Base64, "SGVs\r\nbG8="), "Hello");
        assert_eq!(text(Encoding::Base64, "S G!V-s b G 8"), "Hello");
        assert_eq!(text(Encoding::Base64, "SGVsbG8=SGVsbG8="), "HelloHello");
        assert_eq!(text(Encoding::Base64, "SGVsbA=="), "Hell");
        assert_eq!(text(Encoding::Base64, "SGVsb"), "Hel");
    }

    #[test]
    fn quoted_printable_joins_soft_breaks_and_drops_blanks_at_line_ends() {
        assert_eq!(text(Encoding::QuotedPrintable, "a=3Db=\r\nc=  \r\nd \t\r\ne=3d"), "a=bcd\r\ne=");
        assert_eq!(text(Encoding::QuotedPrintable, "100 = 50% =G1 =4"), "100 = 50% =G1 =4");
        assert_eq!(text(Encoding::QuotedPrintable, "end="), "end");
    }

    proptest! {
        #[test]
        fn pieces_of_any_size_decode_as_the_whole(raw in "[A-Za-z0-9+/= \r\n\t=!]{0,400}", cut in 1_usize..64) {
            for encoding in [Encoding::Identity, Encoding::Base64, Encoding::QuotedPrintable, Encoding::Uuencode] {
                let whole = decode_part(encoding, raw.as_bytes());
                let mut decoder = Decoder::new(encoding);
                let mut out = Vec::new();
                for piece in raw.as_bytes().chunks(cut) {
                    decoder.feed(piece, &mut out);
                }
                decoder.finish(&mut out);
                prop_assert_eq!(&out, &whole);
                prop_assert_eq!(decoded_size(encoding, raw.as_bytes()), whole.len() as u64);
            }
        }
    }
}
