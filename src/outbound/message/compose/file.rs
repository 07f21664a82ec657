//! Attachments: their media types and file names.

use std::borrow::Cow;

use mail_builder::headers::Header as _;
use mail_builder::headers::content_type::ContentType;
use mail_builder::headers::raw::Raw;
use mail_builder::mime::{BodyPart, MimePart};

use super::{Attachment, in_base64};
use crate::mail::{header_value, mime};

const UNKNOWN: &str = "application/octet-stream";
/// RFC 6838 §4.2: type and subtype, 127 octets each.
const MAX_LENGTH: usize = 255;
/// File name extensions that a system runs or installs on opening: a media type would only help it do so.
#[rustfmt::skip]
const RUNS: &[&str] = &[
    // Windows: programs, installers, files run by the shell and its script hosts, links and settings.
    "ade", "adp", "appinstaller", "application", "appref-ms", "appx", "appxbundle", "bat", "chm", "cmd", "com", "cpl", "diagcab",
    "diagcfg", "diagpkg", "dll", "drv", "exe", "gadget", "hlp", "hta", "inf", "ins", "isp", "job", "js", "jse", "library-ms",
    "lnk", "mad", "maf", "mam", "mda", "mde", "msc", "msh", "msh1", "msh2", "msi", "msix", "msixbundle", "msp", "mst",
    "nsh", "ocx", "osd", "pif", "prg", "ps1", "ps1xml", "ps2", "psc1", "psd1", "psm1", "reg", "scf", "scr", "sct",
    "search-ms", "settingcontent-ms", "shb", "shs", "sys", "theme", "themepack", "url", "vb", "vbe", "vbp", "vbs", "vxd", "ws",
    "wsc", "wsf", "wsh", "xll",
    // Java, Android, iOS, browsers, Flash.
    "aab", "air", "apk", "apkm", "apks", "class", "crx", "ipa", "jar", "jnlp", "swf", "war", "wasm", "xapk", "xpi",
    // macOS.
    "action", "app", "applescript", "command", "dmg", "dylib", "ipsw", "mpkg", "pkg", "prefpane", "scpt", "terminal", "tool",
    "webloc", "workflow",
    // Unix.
    "appimage", "bin", "deb", "desktop", "elf", "flatpak", "flatpakref", "ko", "out", "rpm", "run", "snap", "so",
    // Scripts.
    "awk", "bash", "cgi", "cjs", "csh", "ecma", "es", "fish", "ksh", "lua", "mjs", "php", "phar", "pl", "pm", "py", "pyc",
    "pyo", "pyw", "pyz", "pyzw", "rb", "sh", "tcl", "zsh",
];

/// Builds the MIME part of a file, with the given type, else the one its name suggests. A name that only RFC 2231 can
/// represent in Content-Disposition is repeated in Content-Type, for readers without RFC 2231.
pub(crate) fn part(file: &Attachment, lines: Vec<u8>) -> MimePart<'_> {
    let given = file.content_type.as_deref().filter(|given| !given.trim().is_empty());
    let mut kind = media_type(given.or_else(|| guessed_type(&file.filename)));
    let named = kind.attributes.iter().position(|(name, _)| name.eq_ignore_ascii_case("name"));
    let name = named.map_or(Cow::Borrowed(file.filename.as_str()), |at| kind.attributes.remove(at).1);
    if named.is_none() && is_plain(&name) {
        return in_base64(kind, lines).attachment(file.filename.as_str());
    }
    let mut value = Vec::new();
    kind.write_header(&mut value, "Content-Type: ".len());
    let value = String::from_utf8_lossy(&value);
    let value = format!("{};\r\n name=\"{}\"", value.trim_end(), plain_name(&name));
    let part = MimePart::raw(BodyPart::Binary(Cow::Owned(lines))).header("Content-Type", Raw::new(value));
    part.transfer_encoding("base64").attachment(file.filename.as_str())
}

/// Returns true if mail-builder writes a value as one quoted string.
fn is_plain(value: &str) -> bool {
    value.len() <= 78 && value.bytes().all(|byte| (b' '..=b'~').contains(&byte))
}

/// Writes a value for use between quotes, without RFC 2231: non-ASCII text in whole encoded words, which
/// RFC 2047 does not allow there but every reader decodes.
fn plain_name(name: &str) -> String {
    /// Octets per word, so that a line that begins with ` name="` has at most 76 characters (RFC 2047 §2).
    const FIT: usize = 39;
    /// Octets that fit on a line when quoted (RFC 5322 §2.1.1).
    const LONGEST: usize = 450;
    let is_quotable = name.is_ascii() && !name.contains("=?") && name.split(' ').all(|word| word.len() <= LONGEST);
    if is_quotable {
        return name.replace('\\', "\\\\").replace('"', "\\\"");
    }
    let (mut words, mut rest) = (Vec::new(), name);
    while !rest.is_empty() {
        let (now, later) = rest.split_at(rest.floor_char_boundary(FIT));
        words.push(header_value::encoded_words(now));
        rest = later;
    }
    words.join(" ")
}

/// Guesses the media type from a file name's extension; `None` for an unknown or executable one.
fn guessed_type(filename: &str) -> Option<&'static str> {
    let (_, ending) = filename.rsplit_once('.')?;
    let runs = RUNS.iter().any(|known| known.eq_ignore_ascii_case(ending));
    if runs { None } else { mime_guess::from_ext(ending).first_raw() }
}

/// Parses `type/subtype` and its parameters, if valid (RFC 2045 §5.1). A multipart or message type counts as
/// unknown, because its structure is not checked here.
fn media_type(given: Option<&str>) -> ContentType<'_> {
    let unknown = || ContentType::new(UNKNOWN);
    let Some(given) = given else { return unknown() };
    let read = mime::ParameterizedValue::parse(given.as_bytes());
    let Some((kind, subkind)) = read.main.split_once('/') else { return unknown() };
    let composite = ["multipart", "message"].contains(&kind);
    if !mime::is_token(kind) || !mime::is_token(subkind) || composite || read.main.len() > MAX_LENGTH {
        return unknown();
    }
    let mut found = ContentType::new(read.main.clone());
    for name in read.names() {
        let value = read.get(name).filter(|value| !value.is_empty() && !value.chars().any(char::is_control));
        if let Some(value) = value.filter(|_| mime::is_token(name)) {
            found = found.attribute(name.to_owned(), value);
        }
    }
    found
}
