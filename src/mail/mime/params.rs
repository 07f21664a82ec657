//! Content-Type and Content-Disposition: value and parameters (RFC 2045 §5.1, RFC 2183, RFC 2231), and the file names
//! that parts are offered under.

use super::charset::Charset;
use super::decode::hex;
use super::words;
use crate::mail::invisible::changes_the_order;

/// More parameters than that are not read: a name of the longest kind takes some twenty continuations.
const MAX_PARAMETERS: usize = 200;
const MAX_FILENAME_BYTES: usize = 255;

/// A structured value: `text/plain; charset=utf-8`.
#[derive(Debug, Default)]
pub struct Value {
    /// What stands before the parameters, in lower case and without comments.
    pub main: String,
    parameters: Vec<Parameter>,
}

#[derive(Debug)]
struct Parameter {
    name: String,
    /// RFC 2231 §3: `name*0`, `name*1`, …
    section: Option<u32>,
    /// RFC 2231 §4: a charset and percent-encoding.
    extended: bool,
    value: Vec<u8>,
}

impl Value {
    /// Reads a field value; whatever cannot be read is left out.
    pub fn parse(raw: &[u8]) -> Self {
        let raw = words::unfold(raw);
        let end = memchr::memchr2(b';', b'(', &raw).unwrap_or(raw.len());
        let (main, mut rest) = raw.split_at_checked(end).unwrap_or_default();
        let mut value =
            Self { main: String::from_utf8_lossy(main.trim_ascii()).to_ascii_lowercase(), ..Self::default() };
        if value.main.contains('=') {
            // A disposition or type was forgotten and the parameters stand first.
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

    /// The text of the parameter `name`: an extended or continued form before the plain one.
    pub fn get(&self, name: &str) -> Option<String> {
        self.extended(name).or_else(|| self.plain(name).map(words::decode_text))
    }

    /// The names of its parameters, each once.
    pub fn names(&self) -> Vec<&str> {
        let mut names: Vec<&str> = self.parameters.iter().map(|parameter| parameter.name.as_str()).collect();
        let mut seen = std::collections::HashSet::new();
        names.retain(|name| seen.insert(*name));
        names
    }

    /// The bytes of the parameter `name`, which is compared and not shown.
    pub fn bytes(&self, name: &str) -> Option<Vec<u8>> {
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
        // Stable: of two sections with one number the first counts.
        sections.sort_by_key(|(number, _)| *number);
        sections.dedup_by_key(|(number, _)| *number);
        // RFC 2231 §3 counts from 0; some senders from 1. What follows a gap belongs to nothing.
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

/// One parameter from behind a semicolon, and what follows it.
fn parameter(raw: &[u8]) -> (Option<Parameter>, &[u8]) {
    let raw = raw.strip_prefix(b";").unwrap_or(raw).trim_ascii_start();
    let Some(end) = memchr::memchr2(b'=', b';', raw) else { return (None, &[]) };
    let (name, rest) = raw.split_at_checked(end).unwrap_or_default();
    let Some(rest) = rest.strip_prefix(b"=") else { return (None, rest) };
    let name = String::from_utf8_lossy(name.trim_ascii()).to_ascii_lowercase();
    // A comment before the name is dropped with its bracket.
    let name = name.rsplit([')', ' ']).next().unwrap_or_default();
    let rest = rest.trim_ascii_start();
    let (value, after) = match rest.strip_prefix(b"\"") {
        Some(quoted) => quoted_value(quoted),
        None => {
            let (value, after) =
                rest.split_at_checked(memchr::memchr(b';', rest).unwrap_or(rest.len())).unwrap_or_default();
            (bare_value(name, value), after)
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

/// RFC 2045 §5.1 allows no blank in a bare value, but names are sent with them; elsewhere a comment begins there.
fn bare_value(name: &str, value: &[u8]) -> Vec<u8> {
    let value = value.trim_ascii();
    if name.starts_with("name") || name.starts_with("filename") {
        return value.to_vec();
    }
    let end = value.iter().position(|byte| byte.is_ascii_whitespace() || *byte == b'(');
    value.get(..end.unwrap_or(value.len())).unwrap_or_default().to_vec()
}

/// A quoted value up to its closing quote. Only `\"` and `\\` are escapes: many senders write paths as they are.
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
    let after = memchr::memchr(b';', rest).and_then(|at| rest.get(at..)).unwrap_or_default();
    (value, after)
}

/// RFC 2231 §4: `charset'language'text`; without the two quotes it is all text.
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

/// The one precedence of names: `filename*` before `filename` before `name*` before `name`; safe to offer for download.
pub fn filename(disposition: &Value, content_type: &Value) -> Option<String> {
    [disposition.get("filename"), content_type.get("name")]
        .into_iter()
        .flatten()
        .find_map(|name| safe_filename(&name))
}

/// `name` without path, control and bidirectional characters, at most 255 bytes; `None` if nothing is left.
pub fn safe_filename(name: &str) -> Option<String> {
    let last = name.rsplit(['/', '\\']).find(|part| !part.trim().is_empty())?;
    let clean: String = last.chars().filter(|c| !c.is_control() && !changes_the_order(*c)).collect();
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
        filename(&Value::parse(disposition.as_bytes()), &Value::default())
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
        let value = Value::parse(b"Text/Plain (really); charset=us-ascii (Plain text); (x) format=flowed");
        assert_eq!(value.main, "text/plain");
        assert_eq!(value.get("charset").as_deref(), Some("us-ascii"));
        assert_eq!(value.get("format").as_deref(), Some("flowed"));
    }

    #[test]
    fn a_long_name_keeps_its_extension() {
        let long = safe_filename(&format!("{}.pdf", "\u{e4}".repeat(300)));
        assert!(long.is_some_and(|name| name.len() <= 255 && name.ends_with("\u{e4}.pdf")));
    }
}
