//! Parses Content-Type and Content-Disposition, value and parameters (RFC 2045 §5.1, RFC 2183, RFC 2231), and derives
//! the filenames of attachments.

use std::borrow::Cow;

use super::charset::Charset;
use super::decode::hex;
use super::header::is_parameter;
use super::words;
use crate::mail::invisible::is_layout_control;

/// Further parameters are ignored: the longest names take some twenty continuations.
const MAX_PARAMETERS: usize = 200;
const MAX_FILENAME_BYTES: usize = 255;

/// Matches RFC 2045 §5.1 `token`.
pub(crate) fn is_token(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic() && !b"()<>@,;:\\\"/[]?=".contains(&byte))
}

/// Matches `type/subtype`.
pub(super) fn is_type(main: &str) -> bool {
    main.len() <= 255 && main.split_once('/').is_some_and(|(kind, subtype)| is_token(kind) && is_token(subtype))
}

/// A value with parameters: `text/plain; charset=utf-8`.
#[derive(Debug, Default)]
pub(crate) struct ParameterizedValue {
    /// The part before the parameters, in lower case and without comments.
    pub(crate) main: String,
    parameters: Vec<Parameter>,
}

#[derive(Debug)]
struct Parameter {
    name: String,
    /// RFC 2231 §3: `name*0`, `name*1`, …
    section: Option<u32>,
    /// RFC 2231 §4: the value has a charset and percent-encoding.
    extended: bool,
    value: Vec<u8>,
}

impl ParameterizedValue {
    /// Parses a field value and leaves out what is malformed. Missing or doubled separators are tolerated.
    pub(crate) fn parse(raw: &[u8]) -> Self {
        let raw = unfold(raw);
        let (main, mut rest) = raw.split_at_checked(end_of_main(&raw)).unwrap_or_default();
        let main: Vec<u8> =
            main.iter().copied().filter(|byte| !byte.is_ascii_whitespace() && *byte != b'"').collect();
        let mut value = Self { main: String::from_utf8_lossy(&main).to_ascii_lowercase(), ..Self::default() };
        if value.main.contains('=') {
            // The disposition or type is missing and parameters come first.
            value.main.clear();
            rest = &raw;
        }
        while !rest.is_empty() && value.parameters.len() < MAX_PARAMETERS {
            let (parameter, after) = parameter(rest);
            value.parameters.extend(parameter);
            rest = after;
        }
        value
    }

    /// Returns the charset label, even if it lacks the parameter name.
    pub(crate) fn charset(&self) -> Option<Vec<u8>> {
        let bare = || self.parameters.iter().find(|p| p.name.is_empty() && Charset::is_label(&p.value));
        self.bytes("charset").or_else(|| bare().map(|p| p.value.clone()))
    }

    /// Returns the text of the parameter `name`, preferring an extended or continued form to the plain one.
    pub(crate) fn get(&self, name: &str) -> Option<String> {
        self.extended(name).or_else(|| self.plain(name).map(words::decode_text))
    }

    /// Returns the parameter names, each once.
    pub(crate) fn names(&self) -> Vec<&str> {
        let named = self.parameters.iter().map(|parameter| parameter.name.as_str());
        let mut names: Vec<&str> = named.filter(|name| !name.is_empty()).collect();
        let mut seen = std::collections::HashSet::new();
        names.retain(|name| seen.insert(*name));
        names
    }

    /// Returns the bytes of the parameter `name`, for comparison, not for display.
    pub(crate) fn bytes(&self, name: &str) -> Option<Vec<u8>> {
        self.plain(name).map(<[u8]>::to_vec).or_else(|| self.extended(name).map(String::into_bytes))
    }

    fn plain(&self, name: &str) -> Option<&[u8]> {
        let mut found = self.parameters.iter().filter(|p| p.name == name && p.section.is_none() && !p.extended);
        found.next().map(|p| p.value.as_slice())
    }

    fn extended(&self, name: &str) -> Option<String> {
        if let Some(whole) = self.parameters.iter().find(|p| p.name == name && p.section.is_none() && p.extended) {
            let (charset, text) = charset_and_text(&whole.value);
            return Some(words::decode_text(charset.decode(&percent_decode(text)).as_bytes()));
        }
        let mut sections: Vec<(u32, &Parameter)> =
            self.parameters.iter().filter(|p| p.name == name).filter_map(|p| Some((p.section?, p))).collect();
        // The sort is stable: the first of two sections with the same number counts.
        sections.sort_by_key(|(number, _)| *number);
        sections.dedup_by_key(|(number, _)| *number);
        // RFC 2231 §3 counts from 0, some senders from 1. Sections after a gap are ignored.
        let start = sections.first().map(|(number, _)| *number).filter(|number| *number <= 1)?;
        let mut charset = Charset::for_label(b"");
        let mut bytes = Vec::new();
        for (expected, (number, section)) in (start..).zip(sections) {
            if number != expected {
                break;
            }
            let mut text = section.value.as_slice();
            if section.extended && number == start {
                (charset, text) = charset_and_text(text);
            }
            if section.extended { bytes.extend(percent_decode(text)) } else { bytes.extend_from_slice(text) }
        }
        Some(words::decode_text(charset.decode(&bytes).as_bytes()))
    }
}

/// Unfolds a value. A line that begins without whitespace is either a parameter that should have been indented or
/// does not belong there.
fn unfold(raw: &[u8]) -> Cow<'_, [u8]> {
    if memchr::memchr2(b'\r', b'\n', raw).is_none() {
        return Cow::Borrowed(raw);
    }
    let mut unfolded = Vec::with_capacity(raw.len());
    for (number, line) in raw.split(|byte| *byte == b'\n').enumerate() {
        let indented = number == 0 || matches!(line.first(), None | Some(b' ' | b'\t' | b'\r'));
        if !indented && !is_parameter(line, true) {
            continue;
        }
        if !indented && !unfolded.trim_ascii_end().ends_with(b";") {
            unfolded.push(b';');
        }
        unfolded.extend(line.iter().copied().filter(|byte| *byte != b'\r'));
    }
    Cow::Owned(unfolded)
}

/// Returns the offset of the parameters: after `type/subtype` or the disposition, whatever the separator.
fn end_of_main(raw: &[u8]) -> usize {
    let mut at = raw.len() - raw.trim_ascii_start().len();
    loop {
        let rest = raw.get(at..).unwrap_or_default();
        let word = rest.iter().position(|byte| byte.is_ascii_whitespace() || b";(,:".contains(byte));
        at += word.unwrap_or(rest.len());
        let rest = raw.get(at..).unwrap_or_default();
        let blanks = rest.len() - rest.trim_ascii_start().len();
        let is_open = raw.get(..at).is_some_and(|main| main.ends_with(b"/"));
        let continues = rest.trim_ascii_start().starts_with(b"/") || (is_open && blanks > 0 && blanks < rest.len());
        if blanks == 0 || !continues {
            return at;
        }
        at += blanks;
    }
}

/// Parses one parameter after a semicolon, and returns the rest. A word without `=` becomes the value of a parameter
/// without a name.
fn parameter(raw: &[u8]) -> (Option<Parameter>, &[u8]) {
    let is_separator = |byte: &u8| byte.is_ascii_whitespace() || b";,:".contains(byte);
    let raw = raw.get(raw.iter().position(|byte| !is_separator(byte)).unwrap_or(raw.len())..).unwrap_or_default();
    let end = memchr::memchr2(b'=', b';', raw).unwrap_or(raw.len());
    let (name, rest) = raw.split_at_checked(end).unwrap_or_default();
    let Some(rest) = rest.strip_prefix(b"=") else {
        let bare = bare_value("", name);
        let bare = Parameter { name: String::new(), section: None, extended: false, value: bare.0 };
        return (Some(bare).filter(|bare| !bare.value.is_empty()), rest);
    };
    let name = String::from_utf8_lossy(name.trim_ascii()).to_ascii_lowercase();
    // A comment before the name is dropped with its parenthesis.
    let name = name.rsplit([')', ' ', '\t', ',']).next().unwrap_or_default();
    let rest = rest.trim_ascii_start();
    let (value, after) = match rest.strip_prefix(b"\"") {
        Some(quoted) => quoted_value(quoted),
        None => {
            let (value, after) =
                rest.split_at_checked(memchr::memchr(b';', rest).unwrap_or(rest.len())).unwrap_or_default();
            let (value, behind) = bare_value(name, value);
            (
                value,
                if behind.is_empty() {
                    after
                } else {
                    rest.get(rest.len() - after.len() - behind.len()..).unwrap_or_default()
                },
            )
        }
    };
    let (name, extended) = match name.strip_suffix('*') {
        Some(name) => (name, true),
        None => (name, false),
    };
    let (name, section) = match name.split_once('*') {
        Some((name, number)) => match number.parse() {
            Ok(number) => (name, Some(number)),
            Err(_) => return (None, after),
        },
        None => (name, None),
    };
    (Some(Parameter { name: name.to_owned(), section, extended, value }), after)
}

/// RFC 2045 §5.1 allows no whitespace in an unquoted value, but filenames are sent with it. In other parameters it
/// begins a comment, or the next parameter if its semicolon is missing, which is returned as the second part.
fn bare_value<'v>(name: &str, value: &'v [u8]) -> (Vec<u8>, &'v [u8]) {
    let whole = value.trim_ascii();
    if name.starts_with("name") || name.starts_with("filename") {
        return (whole.to_vec(), &[]);
    }
    let end = whole.iter().position(|byte| byte.is_ascii_whitespace() || *byte == b'(').unwrap_or(whole.len());
    let (word, behind) = value.trim_ascii_start().split_at_checked(end).unwrap_or_default();
    (word.to_vec(), if next_is_parameter(behind) { behind } else { &[] })
}

/// True if a parameter begins there.
fn next_is_parameter(rest: &[u8]) -> bool {
    is_parameter(rest.trim_ascii_start(), true)
}

/// Parses a quoted value up to its closing quote. Only `\"` and `\\` are escapes: many senders write Windows paths
/// unescaped.
fn quoted_value(raw: &[u8]) -> (Vec<u8>, &[u8]) {
    let mut value = Vec::new();
    let mut rest = raw;
    while let Some((byte, tail)) = rest.split_first() {
        rest = tail;
        match (byte, tail) {
            (b'"', _) => break,
            (b'\\', [escaped @ (b'"' | b'\\'), after @ ..]) => {
                value.push(*escaped);
                rest = after;
            }
            _ => value.push(*byte),
        }
    }
    if next_is_parameter(rest) {
        return (value, rest);
    }
    let after = memchr::memchr(b';', rest).and_then(|at| rest.get(at..)).unwrap_or_default();
    (value, after)
}

/// Splits RFC 2231 §4 `charset'language'text`; without the two quotes everything is text.
fn charset_and_text(value: &[u8]) -> (Charset, &[u8]) {
    let mut parts = value.splitn(3, |byte| *byte == b'\'');
    match (parts.next(), parts.next(), parts.next()) {
        (Some(charset), Some(_language), Some(text)) => (Charset::for_label(charset), text),
        _ => (Charset::for_label(b""), value),
    }
}

fn percent_decode(text: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((byte, tail)) = rest.split_first() {
        rest = tail;
        if let (b'%', [high, low, after @ ..]) = (byte, tail)
            && let (Some(high), Some(low)) = (hex(*high), hex(*low))
        {
            out.push(high << 4 | low);
            rest = after;
        } else {
            out.push(*byte);
        }
    }
    out
}

/// Returns the filename, safe to offer for download. Precedence: `filename*`, `filename`, `name*`, `name`.
pub(crate) fn filename(disposition: &ParameterizedValue, content_type: &ParameterizedValue) -> Option<String> {
    [disposition.get("filename"), content_type.get("name")]
        .into_iter()
        .flatten()
        .find_map(|name| safe_filename(&name))
}

/// Removes the path, control and bidirectional characters from `name` and limits it to 255 bytes; `None` if nothing
/// is left.
pub(crate) fn safe_filename(name: &str) -> Option<String> {
    let last = name.rsplit(['/', '\\']).find(|part| !part.trim().is_empty())?;
    let clean: String = last.chars().filter(|c| !c.is_control() && !is_layout_control(*c)).collect();
    let clean = clean.trim();
    if clean.is_empty() || clean.bytes().all(|byte| byte == b'.') {
        return None;
    }
    Some(shortened(clean))
}

fn shortened(name: &str) -> String {
    if name.len() <= MAX_FILENAME_BYTES {
        return name.to_owned();
    }
    let (stem, extension) = match name.rsplit_once('.') {
        Some((stem, extension)) if !stem.is_empty() && extension.len() < 32 => (stem, format!(".{extension}")),
        _ => (name, String::new()),
    };
    let mut end = MAX_FILENAME_BYTES - extension.len();
    while !stem.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}{extension}", stem.get(..end).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(disposition: &str) -> Option<String> {
        filename(&ParameterizedValue::parse(disposition.as_bytes()), &ParameterizedValue::default())
    }

    #[test]
    fn names_are_read_in_every_form_senders_write() {
        for (raw, expected) in [
            ("attachment; filename=po.pdf", "po.pdf"),
            ("attachment; filename=\"a b;c.pdf\"; size=3", "a b;c.pdf"),
            ("attachment; filename=annual report (1).pdf", "annual report (1).pdf"),
            ("attachment; filename*=UTF-8''na%C3%AFve%20file.txt", "na\u{ef}ve file.txt"),
            ("attachment; filename*=iso-8859-1'en'%A3%20rates", "\u{a3} rates"),
            ("attachment; filename=plain.txt; filename*=UTF-8''better.txt", "better.txt"),
            ("attachment; filename*0=\"long \"; filename*1=\"name.txt\"", "long name.txt"),
            ("attachment; filename*1*=%C3%A4.txt; filename*0*=UTF-8''a", "a\u{e4}.txt"),
            ("attachment; filename*0*=UTF-8''%C3; filename*1*=%A4.txt", "\u{e4}.txt"),
            ("attachment; filename*1=one; filename*2=two", "onetwo"),
            ("attachment; filename*0=a.txt; filename*4294967295=b; filename*99999999999999=c", "a.txt"),
            ("attachment; filename=\"=?utf-8?B?w6QudHh0?=\"", "\u{e4}.txt"),
            ("attachment; filename=\"=?utf-8?Q?=C3?= =?utf-8?Q?=A4?=.txt\"", "\u{e4}.txt"),
            ("attachment; filename=\"C:\\Users\\Ada\\po.pdf\"", "po.pdf"),
            ("attachment; filename=\"../../etc/passwd\"", "passwd"),
            ("attachment; filename=\"say \\\"hi\\\".txt\"", "say \"hi\".txt"),
            ("attachment; filename=\"invoice\u{202e}fdp.exe\"", "invoicefdp.exe"),
            ("filename=alone.txt", "alone.txt"),
        ] {
            assert_eq!(name(raw).as_deref(), Some(expected), "{raw}");
        }
        assert_eq!(name("attachment; filename=\"..\""), None);
        assert_eq!(name("attachment; filename=\"\""), None);
        assert_eq!(name("attachment"), None);
    }

    #[test]
    fn a_type_is_read_past_comments() {
        let value =
            ParameterizedValue::parse(b"Text/Plain (really); charset=us-ascii (Plain text); (x) format=flowed");
        assert_eq!(value.main, "text/plain");
        assert_eq!(value.get("charset").as_deref(), Some("us-ascii"));
        assert_eq!(value.get("format").as_deref(), Some("flowed"));
    }

    #[test]
    fn forgotten_and_doubled_signs_are_of_no_account() {
        for raw in [
            "text/html; charset=koi8-r",
            "text/html charset=koi8-r",
            "text/html;koi8-r",
            "text/html koi8-r",
            "text/html;; charset = \"koi8-r\";",
            "text/html, charset=koi8-r",
            "text/html: charset=koi8-r",
            "text / html; charset=koi8-r",
            "\"text/html\"; charset='koi8-r'",
            "text/html; charset=\"koi8-r",
            "text/html; format=flowed charset=koi8-r",
            "text/html; format=\"flowed\" charset=koi8-r",
            "text/html;\r\ncharset=koi8-r",
            "text/html\r\ncharset=koi8-r",
            "text/html;\r\nwhat is that; charset=utf-8\r\n charset=koi8-r",
        ] {
            let value = ParameterizedValue::parse(raw.as_bytes());
            assert_eq!(value.main, "text/html", "{raw}");
            let charset = value.charset().unwrap_or_default();
            assert_eq!(String::from_utf8_lossy(&charset).trim_matches('\''), "koi8-r", "{raw}");
        }
        for raw in ["attachment filename=\"a b.pdf\"", "attachment;filename=a b.pdf;", "filename=a b.pdf"] {
            assert_eq!(name(raw).as_deref(), Some("a b.pdf"), "{raw}");
        }
        assert_eq!(ParameterizedValue::parse(b"text/html; x-y").charset(), None);
    }

    #[test]
    fn a_long_name_keeps_its_extension() {
        let long = safe_filename(&format!("{}.pdf", "\u{e4}".repeat(300)));
        assert!(long.is_some_and(|name| name.len() <= 255 && name.ends_with("\u{e4}.pdf")));
    }
}
