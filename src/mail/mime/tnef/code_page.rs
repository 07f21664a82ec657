//! Windows code pages by number.

use crate::mail::mime::charset::Charset;

/// Returns the charset label of a code page; that of Western Europe for an unknown one.
pub(crate) fn label(number: u32) -> &'static str {
    Charset::name_for_label(format!("cp{number}").as_bytes()).unwrap_or("windows-1252")
}

/// Returns the charset of a code page.
pub(crate) fn charset(number: u32) -> Charset {
    Charset::for_label(label(number).as_bytes())
}

/// Decodes markup in a code page; valid UTF-8 is decoded as such, whatever the number.
pub(crate) fn decode_markup(bytes: &[u8], number: u32) -> String {
    let end = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
    let bytes = bytes.get(..end).unwrap_or_default();
    std::str::from_utf8(bytes).map_or_else(|_| charset(number).decode(bytes), str::to_owned)
}
