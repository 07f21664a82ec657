//! Character sets to UTF-8.
//!
//! Labels follow the WHATWG list, then a few that mail uses besides. What has no or an unknown label is read as UTF-8.
//! Bytes that mean nothing become U+FFFD; nothing here fails.

mod code_page;
mod escapes;

use encoding_rs::{
    BIG5, CoderResult, EUC_JP, EUC_KR, GBK, ISO_2022_JP, MACINTOSH, SHIFT_JIS, UTF_8, UTF_16BE, UTF_16LE,
    X_MAC_CYRILLIC,
};

use escapes::Escapes;

/// The most that is gathered for the few sets that can only be decoded as a whole.
const MAX_WHOLE: usize = 4 * 1024 * 1024;

/// A character set.
#[derive(Clone, Copy, Debug)]
pub enum Charset {
    /// One that the streaming decoder knows.
    Known(&'static encoding_rs::Encoding),
    /// RFC 2781: the byte order comes from the text.
    Utf16,
    /// One that is decoded as a whole.
    Whole(fn(&[u8]) -> String),
}

impl Charset {
    /// The set that `label` names, UTF-8 when there is none of that name.
    ///
    /// US-ASCII is read as UTF-8 as well: it is the label of mail that has none, and a guess at a code page would turn
    /// broken text into wrong text.
    pub fn for_label(label: &[u8]) -> Self {
        let label: String = label
            .iter()
            .filter(|byte| byte.is_ascii_graphic() && !matches!(byte, b'"' | b'\''))
            .take(64)
            .map(|byte| char::from(byte.to_ascii_lowercase()))
            .collect();
        match label.as_str() {
            "" | "utf-8" | "utf8" | "us-ascii" | "ascii" | "ansi_x3.4-1968" | "unknown-8bit" => Self::Known(UTF_8),
            "utf-16" | "utf16" | "unicode" | "ucs-2" | "iso-10646-ucs-2" | "csunicode" => Self::Utf16,
            "utf-7" | "utf7" | "unicode-1-1-utf-7" | "x-unicode-2-0-utf-7" | "csutf7" => Self::Whole(utf_7),
            "iso-2022-kr" | "csiso2022kr" => Self::Whole(iso_2022_kr),
            "hz-gb-2312" | "hz" => Self::Whole(hz),
            "cp932" | "ms932" | "windows-932" | "shift-jis-2004" => Self::Known(SHIFT_JIS),
            "cp936" | "ms936" | "windows-936" | "euc-cn" | "gb_2312" | "gb2312-80" => Self::Known(GBK),
            "cp949" | "ms949" | "uhc" | "ks_c_5601" | "ks_c-5601-1987" => Self::Known(EUC_KR),
            "cp950" | "ms950" | "windows-950" => Self::Known(BIG5),
            "cp51932" | "eucjp" | "euc_jp" | "eucjp-ms" => Self::Known(EUC_JP),
            "mac-roman" | "macroman" => Self::Known(MACINTOSH),
            "mac-cyrillic" | "maccyrillic" => Self::Known(X_MAC_CYRILLIC),
            "cp50220" | "cp50221" | "cp50222" => Self::Known(ISO_2022_JP),
            other if other.starts_with("iso-2022-jp") => Self::Known(ISO_2022_JP),
            other => encoding_rs::Encoding::for_label(other.as_bytes())
                .or_else(|| encoding_rs::Encoding::for_label(other.replace('_', "-").as_bytes()))
                .filter(|known| *known != encoding_rs::REPLACEMENT)
                .map(Self::Known)
                .or_else(|| code_page::decoder(other).map(Self::Whole))
                .or_else(|| mail_parser::decoders::charsets::map::charset_decoder(other.as_bytes()).map(Self::Whole))
                .or_else(|| windows(other).map(Self::Known))
                .unwrap_or(Self::Known(UTF_8)),
        }
    }

    /// Whether `label` names a set.
    pub fn is_label(label: &[u8]) -> bool {
        matches!(label.trim_ascii().to_ascii_lowercase().as_slice(), b"utf-8" | b"utf8" | b"us-ascii")
            || !Self::for_label(label).is_utf_8()
    }

    /// Whether a valid UTF-8 text is its own decoding.
    pub fn is_utf_8(self) -> bool {
        matches!(self, Self::Known(known) if known == UTF_8)
    }

    /// Decodes a whole text.
    pub fn decode(self, bytes: &[u8]) -> String {
        if self.is_utf_8() {
            return String::from_utf8_lossy(bytes).into_owned();
        }
        let mut decoder = TextDecoder::new(self);
        let mut text = String::new();
        decoder.feed(bytes, &mut text);
        decoder.finish(&mut text);
        text
    }
}

/// The Windows sets by other names for them: `win-1251`, `cp-1252`.
fn windows(label: &str) -> Option<&'static encoding_rs::Encoding> {
    let number =
        label.strip_prefix("windows").or_else(|| label.strip_prefix("win")).or_else(|| label.strip_prefix("cp"))?;
    encoding_rs::Encoding::for_label(format!("windows-{}", number.trim_start_matches(['-', '_'])).as_bytes())
}

/// Decodes a text that comes in pieces.
pub struct TextDecoder {
    state: State,
    /// Set when a text was cut because its set can only be decoded as a whole and it is too large for that.
    pub cut: bool,
}

enum State {
    Stream(encoding_rs::Decoder),
    /// ISO-2022-JP.
    Escaped(encoding_rs::Decoder, Escapes),
    Utf16(Vec<u8>),
    Whole(fn(&[u8]) -> String, Vec<u8>),
}

impl TextDecoder {
    /// A decoder at the beginning of a text.
    pub fn new(charset: Charset) -> Self {
        let state = match charset {
            Charset::Known(known) if known == ISO_2022_JP => State::Escaped(known.new_decoder(), Escapes::default()),
            Charset::Known(known) => State::Stream(known.new_decoder_with_bom_removal()),
            Charset::Utf16 => State::Utf16(Vec::new()),
            Charset::Whole(decode) => State::Whole(decode, Vec::new()),
        };
        Self { state, cut: false }
    }

    /// Decodes the next piece to the end of `out`.
    pub fn feed(&mut self, bytes: &[u8], out: &mut String) {
        match &mut self.state {
            State::Stream(decoder) => run(decoder, bytes, out, false),
            State::Escaped(decoder, escapes) => run(decoder, &escapes.pass(bytes), out, false),
            State::Utf16(head) => {
                head.extend_from_slice(bytes);
                if head.len() >= 2 {
                    let mut decoder = byte_order(head).new_decoder_with_bom_removal();
                    run(&mut decoder, head, out, false);
                    self.state = State::Stream(decoder);
                }
            }
            State::Whole(_, gathered) => {
                let room = MAX_WHOLE.saturating_sub(gathered.len());
                self.cut |= bytes.len() > room;
                let taken = bytes.get(..room.min(bytes.len())).unwrap_or_default();
                if gathered.capacity() < gathered.len() + taken.len() {
                    gathered.reserve_exact(gathered.len() + 2 * taken.len());
                }
                gathered.extend_from_slice(taken);
            }
        }
    }

    /// Ends the text.
    pub fn finish(&mut self, out: &mut String) {
        match &mut self.state {
            State::Stream(decoder) => run(decoder, &[], out, true),
            State::Escaped(decoder, escapes) => run(decoder, &escapes.finish(), out, true),
            State::Utf16(head) if head.is_empty() => {}
            State::Utf16(_) => out.push(char::REPLACEMENT_CHARACTER),
            State::Whole(decode, gathered) => {
                let text = decode(&std::mem::take(gathered));
                if out.is_empty() { *out = text } else { out.push_str(&text) }
            }
        }
    }
}

fn run(decoder: &mut encoding_rs::Decoder, mut bytes: &[u8], out: &mut String, last: bool) {
    loop {
        // Enough for ASCII at once, more as the text turns out to need it.
        out.reserve(bytes.len().max(64));
        let (result, read, _) = decoder.decode_to_string(bytes, out, last);
        bytes = bytes.get(read..).unwrap_or_default();
        if result == CoderResult::InputEmpty {
            return;
        }
    }
}

/// RFC 2781 §4.3: the mark decides, and big-endian without one; but a text that begins with a Latin letter in
/// little-endian order shows it.
fn byte_order(head: &[u8]) -> &'static encoding_rs::Encoding {
    match head {
        [0xff, 0xfe, ..] => UTF_16LE,
        [first, 0, ..] if *first != 0 => UTF_16LE,
        _ => UTF_16BE,
    }
}

/// RFC 2152, with one reserve: a shifted run that stands for a character of markup stays as it is written, so that
/// no filter is passed by `+ADw-script+AD4-`.
fn utf_7(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len());
    let mut rest = bytes;
    while let Some((first, tail)) = rest.split_first() {
        rest = tail;
        if *first != b'+' {
            out.push(if first.is_ascii() { char::from(*first) } else { char::REPLACEMENT_CHARACTER });
            continue;
        }
        let length =
            tail.iter().take_while(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/')).count();
        let (run, after) = tail.split_at_checked(length).unwrap_or_default();
        let closed = after.first() == Some(&b'-');
        rest = after.get(usize::from(closed)..).unwrap_or_default();
        match shifted(run) {
            _ if run.is_empty() && closed => out.push('+'),
            Some(text) => out.push_str(&text),
            None => {
                out.push('+');
                out.extend(run.iter().map(|byte| char::from(*byte)));
                out.extend(closed.then_some('-'));
            }
        }
    }
    out
}

fn shifted(run: &[u8]) -> Option<String> {
    let bytes = super::decode::decode_part(super::decode::Encoding::Base64, run);
    let units = bytes
        .chunks_exact(2)
        .map(|pair| u16::from_be_bytes([pair.first().copied().unwrap_or(0), pair.last().copied().unwrap_or(0)]));
    let text: String = char::decode_utf16(units).collect::<Result<_, _>>().ok()?;
    let harmless = |c: char| !matches!(c, '<' | '>' | '&' | '"' | '\'' | '`') && !c.is_control();
    (!text.is_empty() && text.chars().all(harmless)).then_some(text)
}

/// RFC 1557: SO and SI switch between ASCII and KS X 1001, which is EUC-KR with the high bits off.
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

/// RFC 1843: `~{` and `~}` switch between ASCII and GB 2312.
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
    use super::*;

    fn decode(label: &str, bytes: &[u8]) -> String {
        Charset::for_label(label.as_bytes()).decode(bytes)
    }

    #[test]
    fn utf_7_is_read_but_never_becomes_markup() {
        assert_eq!(decode("utf-7", b"Gr+APwA3w-e +- 1"), "Gr\u{fc}\u{df}e + 1");
        assert_eq!(decode("utf-7", b"+ADw-script+AD4-alert(1)"), "+ADw-script+AD4-alert(1)");
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
    fn a_set_without_decoder_here_falls_back_to_the_tables_of_the_parser() {
        assert_eq!(decode("ibm850", b"\x9b\x9c"), "\u{f8}\u{a3}");
        assert_eq!(decode("x-nobody-knows", b"plain \xff"), "plain \u{fffd}");
        assert_eq!(decode("win-1251", b"\xcf"), "\u{41f}");
        assert_eq!(decode("CP-1252", b"\x80"), "\u{20ac}");
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
