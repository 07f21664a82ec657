//! The media types of the files that go with a message.

use mail_builder::headers::content_type::ContentType;

use super::Attachment;
use crate::mail::{header_value, mime};

const UNKNOWN: &str = "application/octet-stream";
/// RFC 6838 §4.2: type and subtype, 127 octets each.
const MAX_LENGTH: usize = 255;
/// Endings of files that a system runs or installs when they are opened: a type would only help it to.
#[rustfmt::skip]
const RUNS: &[&str] = &[
    // Windows: programs, installers, what the shell and its script hosts run, links and settings.
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

/// The type of a file: the one given, else what its name suggests. A name beyond ASCII stands here too, in encoded
/// words: readers that know no RFC 2231 look for it there.
pub fn file_type(file: &Attachment) -> ContentType<'_> {
    let given = file.content_type.as_deref().filter(|given| !given.trim().is_empty());
    let kind = media_type(given.or_else(|| guessed_type(&file.filename)));
    let is_named = kind.attributes.iter().any(|(name, _)| name.eq_ignore_ascii_case("name"));
    if file.filename.is_ascii() || is_named {
        return kind;
    }
    kind.attribute("name", header_value::encoded_words(&file.filename))
}

/// What the ending of a file's name says of it; nothing of one that runs.
fn guessed_type(filename: &str) -> Option<&'static str> {
    let (_, ending) = filename.rsplit_once('.')?;
    let runs = RUNS.iter().any(|known| known.eq_ignore_ascii_case(ending));
    if runs { None } else { mime_guess::from_ext(ending).first_raw() }
}

/// `type/subtype` and its parameters, if it is one (RFC 2045 §5.1). A multipart or message type is not ours to vouch
/// for.
fn media_type(given: Option<&str>) -> ContentType<'_> {
    let unknown = || ContentType::new(UNKNOWN);
    let Some(given) = given else { return unknown() };
    let read = mime::Value::parse(given.as_bytes());
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
