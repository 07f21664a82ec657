//! Converts charsets to UTF-8.
//!
//! Text without a label, or with an unknown one, is UTF-8 where valid and Windows-1252 elsewhere, so that no octet is
//! lost. Octets undefined in a known charset become U+FFFD; nothing here fails.

mod code_page;
mod escapes;
mod labels;
mod utf_7;

use encoding_rs::{CoderResult, EUC_KR, GBK, ISO_2022_JP, REPLACEMENT, UTF_8, UTF_16BE, UTF_16LE, WINDOWS_1252};

use escapes::EscapeFilter;

/// Maximum bytes buffered for the few charsets that can only be decoded as a whole.
const MAX_BUFFERED: usize = 4 * 1024 * 1024;
/// Bytes searched for the charset that HTML declares (WHATWG HTML, "prescan a byte stream").
const MAX_PRESCAN: usize = 1024;

#[derive(Clone, Copy, Debug)]
pub(crate) enum Charset {
    /// No label or an unknown one: UTF-8 or Windows-1252. ASCII counts too, since non-ASCII text is often labelled
    /// so.
    Unknown,
    /// A charset of the streaming decoder.
    Known(&'static encoding_rs::Encoding),
    /// RFC 2781: the byte order is taken from the text.
    Utf16,
    /// UTF-7 (RFC 2152).
    Utf7,
    /// UTF-7 in HTML, where no run becomes markup.
    Utf7Markup,
    /// UTF-32, in either byte order.
    Utf32,
    /// A charset that is decoded as a whole.
    Buffered(fn(&[u8]) -> String),
}

impl Charset {
    /// Returns the charset that `label` names.
    pub(crate) fn for_label(label: &[u8]) -> Self {
        let key = labels::key(label);
        if key == "utf8" {
            return Self::Known(UTF_8);
        }
        match labels::charset_name(&key) {
            None if key.starts_with("iso2022jp") => Self::Known(ISO_2022_JP),
            None | Some("us-ascii") => Self::Unknown,
            Some("utf-16") => Self::Utf16,
            Some("utf-7") => Self::Utf7,
            Some("utf-32") => Self::Utf32,
            Some("iso-2022-kr") => Self::Buffered(iso_2022_kr),
            Some("hz-gb-2312") => Self::Buffered(hz),
            Some(name) => code_page::decoder(name)
                .map(Self::Buffered)
                .or_else(|| {
                    let known = encoding_rs::Encoding::for_label(name.as_bytes());
                    known.filter(|known| *known != REPLACEMENT).map(Self::Known)
                })
                .unwrap_or(Self::Unknown),
        }
    }

    /// True if `label` names a known charset.
    pub(crate) fn is_label(label: &[u8]) -> bool {
        let key = labels::key(label);
        key.starts_with("iso2022jp") || labels::charset_name(&key).is_some()
    }

    /// Returns the usual name of the charset that `label` names.
    pub(crate) fn name_for_label(label: &[u8]) -> Option<&'static str> {
        labels::charset_name(&labels::key(label))
    }

    /// Returns the charset that HTML declares in its first octets, `head`.
    pub(crate) fn of_html(head: &[u8]) -> Option<Self> {
        let named = Self::for_label(meta_charset(head.get(..MAX_PRESCAN).unwrap_or(head))?);
        // The declaration itself was read as ASCII.
        Some(named).filter(|named| !matches!(named, Self::Unknown) && named.is_ascii_superset())
    }

    /// True if ASCII octets represent themselves, apart from escape sequences; UTF-7 would hide markup or syntax.
    pub(crate) fn is_ascii_superset(self) -> bool {
        match self {
            Self::Known(known) => known.is_ascii_compatible() || known == ISO_2022_JP,
            Self::Unknown | Self::Buffered(_) => true,
            Self::Utf7 | Self::Utf7Markup | Self::Utf16 | Self::Utf32 => false,
        }
    }

    /// True if valid UTF-8 decodes to itself.
    pub(crate) fn is_utf_8(self) -> bool {
        matches!(self, Self::Unknown) || matches!(self, Self::Known(known) if known == UTF_8)
    }

    /// True if texts in this charset are ASCII with escape sequences.
    pub(crate) fn is_escaped(self) -> bool {
        matches!(self, Self::Known(known) if known == ISO_2022_JP)
    }

    pub(crate) fn decode(self, bytes: &[u8]) -> String {
        if let Ok(text) = std::str::from_utf8(bytes)
            && self.is_utf_8()
        {
            return text.strip_prefix('\u{feff}').unwrap_or(text).to_owned();
        }
        let mut decoder = TextDecoder::new(self);
        let mut text = String::new();
        decoder.feed(bytes, &mut text);
        decoder.finish(&mut text);
        text
    }
}

/// Returns the label in the first `<meta>` that has one, as `<meta charset=x>` or in the content of `http-equiv`.
fn meta_charset(head: &[u8]) -> Option<&[u8]> {
    let mut at = 0;
    while let Some(found) = head.get(at..).and_then(|rest| memchr::memchr(b'<', rest)) {
        let rest = head.get(at + found..)?;
        let starts = |tag: &[u8]| rest.get(..tag.len()).is_some_and(|start| start.eq_ignore_ascii_case(tag));
        let length = if rest.starts_with(b"<!--") {
            memchr::memmem::find(rest, b"-->").map_or(rest.len(), |end| end + 3)
        } else {
            let end = memchr::memchr(b'>', rest).unwrap_or(rest.len());
            let label = || attribute_value(rest.get(..end)?, b"charset");
            if starts(b"<meta")
                && let Some(label) = label()
            {
                return Some(label);
            }
            if starts(b"<?xml")
                && let Some(label) = rest.get(..end).and_then(|tag| attribute_value(tag, b"encoding"))
            {
                return Some(label);
            }
            end.max(1)
        };
        at += found + length;
    }
    None
}

/// Returns the value of the first `name=` of a tag, without quotes.
fn attribute_value<'t>(tag: &'t [u8], name: &[u8]) -> Option<&'t [u8]> {
    let lower = tag.to_ascii_lowercase();
    let mut at = 0;
    while let Some(found) = lower.get(at..).and_then(|rest| memchr::memmem::find(rest, name)) {
        at += found + name.len();
        let Some(value) = tag.get(at..)?.trim_ascii_start().strip_prefix(b"=") else { continue };
        let value = value.trim_ascii_start();
        let value = value.strip_prefix(b"\"").or_else(|| value.strip_prefix(b"'")).unwrap_or(value);
        let ends = |byte: &u8| byte.is_ascii_whitespace() || b"\"';/>".contains(byte);
        let end = value.iter().position(ends).unwrap_or(value.len());
        return value.get(..end).filter(|label| !label.is_empty());
    }
    None
}

/// Decodes a text that arrives in pieces.
pub(crate) struct TextDecoder {
    state: State,
    /// Set if a text was cut because it is too large for a charset that can only be decoded as a whole.
    pub(crate) truncated: bool,
}

enum State {
    Stream(encoding_rs::Decoder),
    /// The possible beginning of a character; `begun` after the first octet of the text.
    Unknown {
        pending: Vec<u8>,
        begun: bool,
    },
    /// ISO-2022-JP.
    Escaped(encoding_rs::Decoder, EscapeFilter),
    Utf16(Vec<u8>),
    Buffered(fn(&[u8]) -> String, Vec<u8>),
}

impl TextDecoder {
    /// Starts at the beginning of a text.
    pub(crate) fn new(charset: Charset) -> Self {
        let state = match charset {
            Charset::Known(known) if known == ISO_2022_JP => {
                State::Escaped(known.new_decoder(), EscapeFilter::default())
            }
            Charset::Known(known) => State::Stream(known.new_decoder_with_bom_removal()),
            Charset::Unknown => State::Unknown { pending: Vec::new(), begun: false },
            Charset::Utf16 => State::Utf16(Vec::new()),
            Charset::Utf7 => State::Buffered(utf_7::decode, Vec::new()),
            Charset::Utf7Markup => State::Buffered(utf_7::decode_markup, Vec::new()),
            Charset::Utf32 => State::Buffered(code_page::utf_32, Vec::new()),
            Charset::Buffered(decode) => State::Buffered(decode, Vec::new()),
        };
        Self { state, truncated: false }
    }

    /// Decodes the next piece and appends it to `out`.
    pub(crate) fn feed(&mut self, bytes: &[u8], out: &mut String) {
        match &mut self.state {
            State::Stream(decoder) => decode_into(decoder, bytes, out, false),
            State::Unknown { pending, begun } => {
                pending.extend_from_slice(bytes);
                let rest = decode_utf_8_or_windows_1252(pending, begun, out);
                pending.drain(..pending.len() - rest);
            }
            State::Escaped(decoder, escapes) => decode_into(decoder, &escapes.feed(bytes), out, false),
            State::Utf16(head) => {
                head.extend_from_slice(bytes);
                if head.len() >= 2 {
                    let mut decoder = byte_order(head).new_decoder_with_bom_removal();
                    decode_into(&mut decoder, head, out, false);
                    self.state = State::Stream(decoder);
                }
            }
            State::Buffered(_, gathered) => {
                let room = MAX_BUFFERED.saturating_sub(gathered.len());
                self.truncated |= bytes.len() > room;
                let taken = bytes.get(..room.min(bytes.len())).unwrap_or_default();
                if gathered.capacity() < gathered.len() + taken.len() {
                    gathered.reserve_exact(gathered.len() + 2 * taken.len());
                }
                gathered.extend_from_slice(taken);
            }
        }
    }

    /// Ends the text and appends the rest to `out`.
    pub(crate) fn finish(&mut self, out: &mut String) {
        match &mut self.state {
            State::Stream(decoder) => decode_into(decoder, &[], out, true),
            State::Unknown { pending, .. } => out.push_str(&WINDOWS_1252.decode_without_bom_handling(pending).0),
            State::Escaped(decoder, escapes) => decode_into(decoder, &escapes.finish(), out, true),
            State::Utf16(head) if head.is_empty() => {}
            State::Utf16(_) => out.push(char::REPLACEMENT_CHARACTER),
            State::Buffered(decode, gathered) => {
                let text = decode(&std::mem::take(gathered));
                if out.is_empty() { *out = text } else { out.push_str(&text) }
            }
        }
    }
}

/// Decodes valid UTF-8 as such and every other octet as Windows-1252. Returns the number of octets at the end that
/// may be the beginning of a character.
fn decode_utf_8_or_windows_1252(bytes: &[u8], begun: &mut bool, out: &mut String) -> usize {
    for chunk in bytes.utf8_chunks() {
        let valid = chunk.valid();
        let valid = if *begun { valid } else { valid.strip_prefix('\u{feff}').unwrap_or(valid) };
        out.push_str(valid);
        let invalid = chunk.invalid();
        *begun |= !(chunk.valid().is_empty() && invalid.is_empty());
        let is_last = std::ptr::eq(invalid.as_ptr_range().end, bytes.as_ptr_range().end);
        if is_last && std::str::from_utf8(invalid).is_err_and(|error| error.error_len().is_none()) {
            return invalid.len();
        }
        out.push_str(&WINDOWS_1252.decode_without_bom_handling(invalid).0);
    }
    0
}

fn decode_into(decoder: &mut encoding_rs::Decoder, mut bytes: &[u8], out: &mut String, last: bool) {
    loop {
        // Reserve enough for ASCII, and more as the text turns out to need it.
        out.reserve(bytes.len().max(64));
        let (result, read, _) = decoder.decode_to_string(bytes, out, last);
        bytes = bytes.get(read..).unwrap_or_default();
        if result == CoderResult::InputEmpty {
            return;
        }
    }
}

/// RFC 2781 §4.3: the byte order mark decides, else the order is big-endian; but a Latin letter at the beginning
/// reveals little-endian text.
fn byte_order(head: &[u8]) -> &'static encoding_rs::Encoding {
    match head {
        [0xff, 0xfe, ..] => UTF_16LE,
        [first, 0, ..] if *first != 0 => UTF_16LE,
        _ => UTF_16BE,
    }
}

/// Decodes ISO-2022-KR (RFC 1557): SO and SI switch between ASCII and KS X 1001, which is EUC-KR without the high
/// bits.
fn iso_2022_kr(bytes: &[u8]) -> String {
    let mut korean = false;
    let mut euc = Vec::with_capacity(bytes.len());
    let mut rest = bytes;
    while let Some((byte, tail)) = rest.split_first() {
        rest = tail;
        match byte {
            0x0e => korean = true,
            0x0f => korean = false,
            0x1b if tail.starts_with(b"$)C") => rest = tail.get(3..).unwrap_or_default(),
            b'\n' => {
                korean = false;
                euc.push(b'\n');
            }
            0x21..=0x7e if korean => euc.push(byte | 0x80),
            _ => euc.push(*byte),
        }
    }
    Charset::Known(EUC_KR).decode(&euc)
}

/// Decodes HZ (RFC 1843): `~{` and `~}` switch between ASCII and GB 2312.
fn hz(bytes: &[u8]) -> String {
    let mut chinese = false;
    let mut gb = Vec::with_capacity(bytes.len());
    let mut rest = bytes;
    while let Some((byte, tail)) = rest.split_first() {
        rest = tail;
        let escape = (*byte == b'~').then(|| tail.first()).flatten();
        match escape {
            Some(b'{') => chinese = true,
            Some(b'}') => chinese = false,
            Some(b'~') => gb.push(b'~'),
            Some(b'\n') => {}
            _ => {
                if *byte == b'\n' {
                    chinese = false;
                }
                gb.push(if chinese && byte.is_ascii_graphic() { byte | 0x80 } else { *byte });
                continue;
            }
        }
        rest = tail.get(1..).unwrap_or_default();
    }
    Charset::Known(GBK).decode(&gb)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests may panic")]

    use super::*;

    fn decode(label: &str, bytes: &[u8]) -> String {
        Charset::for_label(label.as_bytes()).decode(bytes)
    }

    #[test]
    fn shifted_korean_and_chinese_are_read() {
        assert_eq!(decode("iso-2022-kr", b"\x1b$)CHi \x0e>H3g\x0f!"), "Hi \u{c548}\u{b155}!");
        assert_eq!(
            decode("hz-gb-2312", b"This: ~{<:Ky2;S{#,NpJ)l6HK!#~} ~~ok"),
            "This: \u{5df1}\u{6240}\u{4e0d}\u{6b32}\u{ff0c}\u{52ff}\u{65bd}\u{65bc}\u{4eba}\u{3002} ~ok"
        );
    }

    #[test]
    fn labels_are_read_in_every_spelling() {
        for (labels, octets, text) in [
            ("latin-1 Latin_1 8859-1 8859_1 x-iso-8859-1 ISO-8859-01 iso-8859-1-windows-3.1-latin-1", "df", "ß"),
            ("cp1252 CP-1252 windows1252 \"windows-1252\" x-nobody-knows default us_ascii", "80", "€"),
            ("latin9 ISO_8859-15 iso8859_15", "a4", "€"),
            ("koi8r KOI8_R", "f0", "П"),
            ("win-1251 windows1251 CP1251", "cf", "П"),
            ("gb18030-2000 gb_2312-80 cp936 x-gbk", "c4e3", "你"),
            ("euckr KS_C_5601-1987 cp949 uhc", "b0a1", "가"),
            ("big5hkscs big-5 cp950", "a741", "你"),
            ("shiftjis cswindows31j s-jis cp932", "93fa", "日"),
            ("ujis eucjp EUC_JP", "c6fc", "日"),
            ("iso2022-jp ISO-2022-JP-3 csISO2022JP", "1b24424673", "二"),
            ("tis620 x-windows-874 iso-8859-11", "a1", "ก"),
            ("x-mac-ce macce", "8e", "é"),
            ("mac x-mac-roman", "8e", "é"),
            ("ibm850 cp-850 850", "9b", "ø"),
            ("utf8 UTF_8 unicode-1-1-utf-8 cp65001", "c3a9", "é"),
        ] {
            let octets: Vec<u8> = (0..octets.len())
                .step_by(2)
                .map(|at| u8::from_str_radix(octets.get(at..at + 2).unwrap(), 16).unwrap())
                .collect();
            for label in labels.split(' ') {
                assert_eq!(decode(label, &octets), text, "{label}");
            }
        }
    }

    #[test]
    fn what_has_no_known_set_loses_no_octet() {
        let octets: Vec<u8> = (0..=u8::MAX).collect();
        for label in ["", "x-nobody-knows", "us-ascii", "unknown-8bit"] {
            assert!(!decode(label, &octets).contains(char::REPLACEMENT_CHARACTER), "{label}");
            assert_eq!(decode(label, "\u{feff}grün".as_bytes()), "grün", "{label}");
            let mixed = "– \u{1f600}".bytes().chain([0xfc, 0xe2, 0x82]);
            let mixed: Vec<u8> = mixed.collect();
            for cut in 1..mixed.len() {
                let mut decoder = TextDecoder::new(Charset::for_label(label.as_bytes()));
                let mut text = String::new();
                mixed.chunks(cut).for_each(|piece| decoder.feed(piece, &mut text));
                decoder.finish(&mut text);
                assert_eq!(text, "– \u{1f600}üâ‚", "{label} {cut}");
            }
        }
    }

    #[test]
    fn html_says_what_it_is_in() {
        for (head, name) in [
            ("<html><head><meta charset=\"Shift_JIS\">", Some("Shift_JIS")),
            ("<META http-equiv='Content-Type' content='text/html; charset=koi8-r'>", Some("koi8-r")),
            ("<meta content=\"text/html;charset=koi8-r\" http-equiv=Content-Type/>", Some("koi8-r")),
            ("<!-- <meta charset=a> --><meta name=charset><meta charset = big5 >", Some("big5")),
            ("<?xml version='1.0' encoding='iso-8859-2'?><html>", Some("iso-8859-2")),
            ("<p>charset=koi8-r</p>", None),
            ("<meta charset=>", None),
            ("<!-- <meta charset=koi8-r>", None),
        ] {
            assert_eq!(meta_charset(head.as_bytes()), name.map(str::as_bytes), "{head}");
        }
        assert!(Charset::of_html(b"<meta charset=utf-7>").is_none());
        assert!(Charset::of_html(b"<meta charset=nobody-knows>").is_none());
    }

    #[test]
    fn a_japanese_text_may_change_its_set_twice_in_a_row() {
        let text = b"\x1b$BF|K\\\x1b(B\x1b$B8l\x1b(B! \x1b(J\x1b$B8l\x1b(B";
        assert_eq!(decode("iso-2022-jp", text), "\u{65e5}\u{672c}\u{8a9e}! \u{8a9e}");
        for cut in 1..text.len() {
            let mut decoder = TextDecoder::new(Charset::for_label(b"iso-2022-jp"));
            let mut out = String::new();
            text.chunks(cut).for_each(|piece| decoder.feed(piece, &mut out));
            decoder.finish(&mut out);
            assert_eq!(out, "\u{65e5}\u{672c}\u{8a9e}! \u{8a9e}", "{cut}");
        }
    }

    #[test]
    fn utf_16_takes_its_order_from_the_mark_or_the_text() {
        assert_eq!(decode("utf-16", b"\xff\xfeA\0"), "A");
        assert_eq!(decode("utf-16", b"\xfe\xff\0A"), "A");
        assert_eq!(decode("utf-16", b"\0A"), "A");
        assert_eq!(decode("utf-16", b"A\0"), "A");
    }
}
