//! Extracts the text of RTF, or the HTML encapsulated in it ([MS-OXRTFEX]).

use std::collections::HashMap;

use super::code_page;
use crate::mail::mime::charset::Charset;

/// Nesting depth of groups; RTF in mail has about ten.
const MAX_DEPTH: usize = 500;
const MAX_FONTS: usize = 10_000;
/// Octets that may be pending before they are decoded, where the text permits.
const MAX_PENDING: usize = 64 * 1024;

/// The extracted body.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum RtfBody {
    /// The HTML that the RTF encapsulates.
    Html(String),
    /// Plain text.
    Text(String),
}

/// Extracts slightly more than `max` octets at most. `None` if this is not RTF.
pub(crate) fn read(source: &[u8], max: usize) -> Option<RtfBody> {
    if !source.starts_with(b"{\\rtf") {
        return None;
    }
    let mut reader = Reader::new(source);
    while reader.out.len() + reader.pending.len() <= max && reader.step().is_some() {}
    reader.flush();
    Some(if reader.is_html { RtfBody::Html(reader.out) } else { RtfBody::Text(reader.out) })
}

/// The state that a group inherits and restores at its end.
#[derive(Clone, Copy)]
struct Group {
    /// Nothing in it is text.
    ignored: bool,
    /// It holds original HTML.
    is_tag: bool,
    /// Its content is duplicated in HTML or was generated for RTF.
    hidden: bool,
    in_fonts: bool,
    font: i32,
    /// Octets of fallback text after each Unicode character.
    fallback: usize,
}

struct Reader<'s> {
    source: &'s [u8],
    at: usize,
    group: Group,
    outer: Vec<Group>,
    is_html: bool,
    code_page: u32,
    /// Code pages of fonts that declare one.
    fonts: HashMap<i32, u32>,
    /// Set if the group is to be ignored unless its control word is known.
    optional: bool,
    /// Octets of fallback text still to skip.
    to_skip: usize,
    /// The first half of a surrogate pair.
    high_surrogate: Option<u16>,
    /// Octets still to decode, in the code page `pending_page`.
    pending: Vec<u8>,
    pending_page: u32,
    charset: Charset,
    out: String,
}

impl<'s> Reader<'s> {
    fn new(source: &'s [u8]) -> Self {
        let group = Group { ignored: false, is_tag: false, hidden: false, in_fonts: false, font: -1, fallback: 1 };
        Self {
            source,
            at: 0,
            group,
            outer: Vec::new(),
            is_html: false,
            code_page: 1252,
            fonts: HashMap::new(),
            optional: false,
            to_skip: 0,
            high_surrogate: None,
            pending: Vec::new(),
            pending_page: 1252,
            charset: code_page::charset(1252),
            out: String::new(),
        }
    }

    fn next(&mut self) -> Option<u8> {
        let byte = *self.source.get(self.at)?;
        self.at += 1;
        Some(byte)
    }

    fn peek(&self) -> Option<u8> {
        self.source.get(self.at).copied()
    }

    /// Reads one element; `None` at the end.
    fn step(&mut self) -> Option<()> {
        match self.next()? {
            b'{' => {
                self.to_skip = 0;
                (self.outer.len() < MAX_DEPTH).then_some(())?;
                self.outer.push(self.group);
            }
            b'}' => {
                (self.to_skip, self.optional) = (0, false);
                self.group = self.outer.pop()?;
            }
            b'\\' => self.control_symbol()?,
            b'\r' | b'\n' | 0 => {}
            byte => self.literal(byte),
        }
        Some(())
    }

    fn control_symbol(&mut self) -> Option<()> {
        match self.next()? {
            byte if byte.is_ascii_alphabetic() => {
                let (start, mut name) = (self.at - 1, self.at);
                while self.peek().is_some_and(|byte| byte.is_ascii_alphabetic()) {
                    self.at += 1;
                    name = self.at;
                }
                let sign = self.peek() == Some(b'-');
                self.at += usize::from(sign);
                let mut number: Option<i32> = None;
                while let Some(digit) = self.peek().filter(u8::is_ascii_digit) {
                    let value = number.unwrap_or(0).saturating_mul(10).saturating_add(i32::from(digit - b'0'));
                    number = Some(value);
                    self.at += 1;
                }
                if self.peek() == Some(b' ') {
                    self.at += 1;
                }
                let number = number.map(|number| if sign { -number } else { number });
                let word = self.source.get(start..name).unwrap_or_default();
                let optional = std::mem::take(&mut self.optional);
                self.control_word(word, number, optional);
            }
            b'\'' => {
                let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
                let (high, low) = (self.next()?, self.next()?);
                if let (Some(high), Some(low)) = (digit(high), digit(low)) {
                    self.literal(high << 4 | low);
                }
            }
            b'*' => self.optional = true,
            b'\r' | b'\n' => self.character('\n'),
            b'~' => self.character('\u{a0}'),
            b'_' => self.character('\u{2011}'),
            byte @ (b'{' | b'}' | b'\\') => self.literal(byte),
            _ => {}
        }
        Some(())
    }

    fn control_word(&mut self, word: &[u8], number: Option<i32>, optional: bool) {
        if self.to_skip > 0 && word != b"bin" {
            self.to_skip -= 1;
            return;
        }
        let on = number != Some(0);
        match word {
            b"fromhtml" if on => self.is_html = true,
            b"htmltag" if self.is_html => self.group.is_tag = true,
            b"htmlrtf" => self.group.hidden = on,
            b"fonttbl" => (self.group.ignored, self.group.in_fonts) = (true, true),
            b"htmltag" | b"mhtmltag" | b"colortbl" | b"stylesheet" | b"info" | b"pict" | b"header" | b"headerl"
            | b"headerr" | b"headerf" | b"footer" | b"footerl" | b"footerr" | b"footerf" | b"footnote"
            | b"fldinst" | b"nonshppict" | b"objdata" => self.group.ignored = true,
            b"f" => {
                self.group.font = number.unwrap_or(0);
            }
            b"deff" if self.group.font < 0 => self.group.font = number.unwrap_or(0),
            b"fcharset" if self.group.in_fonts => {
                if let Some(page) = page_of_font(number.unwrap_or(0)).filter(|_| self.fonts.len() < MAX_FONTS) {
                    self.fonts.insert(self.group.font, page);
                }
            }
            b"ansicpg" => self.code_page = number.and_then(|page| u32::try_from(page).ok()).unwrap_or(1252),
            b"mac" => self.code_page = 10000,
            b"pc" => self.code_page = 437,
            b"pca" => self.code_page = 850,
            b"uc" => self.group.fallback = usize::try_from(number.unwrap_or(1)).unwrap_or(1),
            b"u" => self.unicode(number.unwrap_or(0)),
            b"bin" => {
                let length = usize::try_from(number.unwrap_or(0)).unwrap_or(0);
                self.at = self.at.saturating_add(length).min(self.source.len());
                self.to_skip = self.to_skip.saturating_sub(1);
            }
            b"par" | b"line" | b"sect" | b"page" | b"row" => self.character('\n'),
            b"tab" | b"cell" => self.character('\t'),
            b"lquote" => self.character('\u{2018}'),
            b"rquote" => self.character('\u{2019}'),
            b"ldblquote" => self.character('\u{201c}'),
            b"rdblquote" => self.character('\u{201d}'),
            b"bullet" => self.character('\u{2022}'),
            b"endash" => self.character('\u{2013}'),
            b"emdash" => self.character('\u{2014}'),
            b"emspace" => self.character('\u{2003}'),
            b"enspace" => self.character('\u{2002}'),
            _ if optional => self.group.ignored = true,
            _ => {}
        }
    }

    const fn is_visible(&self) -> bool {
        !self.group.ignored && (self.group.is_tag || !self.is_html || !self.group.hidden)
    }

    /// Escapes text between tags, which must not become markup.
    fn escaped(&self, c: char) -> Option<&'static str> {
        match c {
            '<' if self.is_html && !self.group.is_tag => Some("&lt;"),
            '>' if self.is_html && !self.group.is_tag => Some("&gt;"),
            '&' if self.is_html && !self.group.is_tag => Some("&amp;"),
            _ => None,
        }
    }

    /// Adds an octet of text, in the code page of its font.
    fn literal(&mut self, byte: u8) {
        if self.to_skip > 0 {
            self.to_skip -= 1;
            return;
        }
        if !self.is_visible() {
            return;
        }
        let page = self.fonts.get(&self.group.font).copied().unwrap_or(self.code_page);
        if page != self.pending_page {
            self.flush();
            self.pending_page = page;
            self.charset = code_page::charset(page);
        }
        match self.escaped(char::from(byte)) {
            Some(escaped) => self.pending.extend_from_slice(escaped.as_bytes()),
            None => self.pending.push(byte),
        }
        // No multibyte character ends with such an octet.
        if self.pending.len() >= MAX_PENDING && byte < b'0' {
            self.flush();
        }
    }

    fn character(&mut self, c: char) {
        if self.is_visible() {
            self.flush();
            self.out.push(c);
        }
    }

    /// Adds a UTF-16 code unit, which RTF writes as a signed number.
    fn unicode(&mut self, number: i32) {
        self.to_skip = self.group.fallback;
        if !self.is_visible() {
            return;
        }
        self.flush();
        let unit = u16::try_from(number & 0xffff).unwrap_or_default();
        let units = self.high_surrogate.take().into_iter().chain([unit]);
        for found in char::decode_utf16(units) {
            match found {
                Ok(c) => match self.escaped(c) {
                    Some(escaped) => self.out.push_str(escaped),
                    None => self.out.push(c),
                },
                Err(_) if (0xd800..0xdc00).contains(&unit) => self.high_surrogate = Some(unit),
                Err(_) => self.out.push(char::REPLACEMENT_CHARACTER),
            }
        }
    }

    /// Decodes the pending octets.
    fn flush(&mut self) {
        if !self.pending.is_empty() {
            self.out.push_str(&self.charset.decode(&self.pending));
            self.pending.clear();
        }
    }
}

/// Returns the code page of a font's charset; `None` if it is the document's.
const fn page_of_font(charset: i32) -> Option<u32> {
    match charset {
        0 => Some(1252),
        77 => Some(10000),
        128 => Some(932),
        129 | 130 => Some(949),
        134 => Some(936),
        136 => Some(950),
        161 => Some(1253),
        162 => Some(1254),
        163 => Some(1258),
        177 => Some(1255),
        178 => Some(1256),
        186 => Some(1257),
        204 => Some(1251),
        222 => Some(874),
        238 => Some(1250),
        254 => Some(437),
        255 => Some(850),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::panic, reason = "tests may panic")]

    use proptest::prelude::*;

    use super::{RtfBody, read};

    fn html(source: &str) -> String {
        match read(source.as_bytes(), 10_000) {
            Some(RtfBody::Html(html)) => html,
            other => panic!("{other:?}"),
        }
    }

    fn text(source: &str) -> String {
        match read(source.as_bytes(), 10_000) {
            Some(RtfBody::Text(text)) => text,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn html_comes_out_as_it_went_in() {
        let packed = "{\\rtf1\\ansi\\ansicpg1251\\fromhtml1 \\deff0{\\fonttbl\r\n{\\f0\\fmodern Courier New;}\
             {\\f1\\fswiss\\fcharset161 Arial;}}\r\n{\\colortbl\\red0\\green0\\blue0;\\red5\\green0\\blue255;}\r\n\
             \\uc1\\pard\\plain\\deftab360 \\f0\\fs24\r\n{\\*\\htmltag19 <html>}\r\n{\\*\\htmltag34 <head>}\r\n\
             {\\*\\htmltag1 \\par }{\\*\\htmltag41 </head>}{\\*\\htmltag50 <body>}\\htmlrtf {\\htmlrtf0 \
             {\\*\\htmltag64 <p class=\"a\\{b\\}\">}\\htmlrtf {\\b \\htmlrtf0 \\'cf\\'f0{\\f1 \\'e1}\\u8364?\\u-10179?\\u-8704?\
             {\\*\\htmltag84 &lt;}\\htmlrtf <\\htmlrtf0 1 < 2 \\lquote x\\rquote\\tab{\\*\\mhtmltag64 <img>}\\htmlrtf }\\htmlrtf0 \
             {\\*\\htmltag72 </p>}\\htmlrtf \\par\\htmlrtf0 {\\*\\generator x;}{\\*\\htmltag27 </html>}}}";
        assert_eq!(
            html(packed),
            "<html><head>\n</head><body><p class=\"a{b}\">\u{41f}\u{440}\u{3b1}\u{20ac}\u{1f600}&lt;1 &lt; 2 \
             \u{2018}x\u{2019}\t</p></html>"
        );
    }

    #[test]
    fn text_is_what_a_reader_sees() {
        let source = "{\\rtf1\\ansi\\ansicpg932{\\fonttbl{\\f0 A;}{\\f1\\fcharset238 B;}}{\\info{\\author Eve}}\
             {\\*\\unknown hidden}\\f0 \\'83A\\'83\\'5c\\par {\\f1 \\'e8}\\b bold\\b0 .\\line\r\n\
             {\\pict\\bin4 }}}{x}\\~\\uc2\\u233 ab\\uc0\\u233 c\\emdash{\\fldinst HYPERLINK}{\\fldrslt link}\\{\\}\\\\\
             \\u55357?}";
        assert_eq!(text(source), "\u{30a2}\u{30bd}\n\u{10d}bold.\n\u{a0}\u{e9}\u{e9}c\u{2014}link{}\\?");
        assert_eq!(read(b"hello", 10), None);
    }

    proptest! {
        #[test]
        fn anything_is_read_within_its_limit(tail in "[\\x00-\\x7f]{0,300}", max in 0_usize..200) {
            let source = format!("{{\\rtf1\\fromhtml1 {tail}");
            let Some(RtfBody::Html(read) | RtfBody::Text(read)) = read(source.as_bytes(), max) else { unreachable!() };
            prop_assert!(read.len() <= max + 2_000);
        }
    }
}
