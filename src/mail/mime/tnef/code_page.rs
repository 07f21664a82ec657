//! Windows code pages by number.

use crate::mail::mime::charset::Charset;

/// The charset label of a code page.
pub const fn label(number: u32) -> &'static str {
    match number {
        437 => "cp437",
        850 => "cp850",
        852 => "cp852",
        855 => "cp855",
        857 => "cp857",
        858 => "cp858",
        860 => "cp860",
        861 => "cp861",
        862 => "cp862",
        863 => "cp863",
        865 => "cp865",
        866 => "ibm866",
        874 => "windows-874",
        932 => "shift_jis",
        936 | 51936 => "gbk",
        949 | 1361 | 51949 => "euc-kr",
        950 => "big5",
        1200 => "utf-16le",
        1250 => "windows-1250",
        1251 => "windows-1251",
        1253 => "windows-1253",
        1254 => "windows-1254",
        1255 => "windows-1255",
        1256 => "windows-1256",
        1257 => "windows-1257",
        1258 => "windows-1258",
        10000 => "macintosh",
        10007 => "x-mac-cyrillic",
        20127 | 65001 => "utf-8",
        20866 => "koi8-r",
        21866 => "koi8-u",
        28591 => "iso-8859-1",
        28592 => "iso-8859-2",
        28593 => "iso-8859-3",
        28594 => "iso-8859-4",
        28595 => "iso-8859-5",
        28596 => "iso-8859-6",
        28597 => "iso-8859-7",
        28598 => "iso-8859-8",
        28599 => "iso-8859-9",
        28603 => "iso-8859-13",
        28605 => "iso-8859-15",
        38598 => "iso-8859-8-i",
        50220..=50222 => "iso-2022-jp",
        50225 => "iso-2022-kr",
        51932 => "euc-jp",
        52936 => "hz-gb-2312",
        54936 => "gb18030",
        65000 => "utf-7",
        _ => "windows-1252",
    }
}

/// The charset of a code page.
pub fn charset(number: u32) -> Charset {
    Charset::for_label(label(number).as_bytes())
}

/// Markup in a code page; what is UTF-8 is that, whatever the number says.
pub fn decode_markup(bytes: &[u8], number: u32) -> String {
    let end = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
    let bytes = bytes.get(..end).unwrap_or_default();
    std::str::from_utf8(bytes).map_or_else(|_| charset(number).decode(bytes), str::to_owned)
}
