//! Characters that are invisible or reorder the visible ones, so that two different texts look the same.

use icu_properties::props::{DefaultIgnorableCodePoint, GeneralCategory, GeneralCategoryGroup};
use icu_properties::{CodePointMapData, CodePointSetData};

/// Matches bidirectional controls, line separators and zero-width layout controls: `invoice\u{202e}fdp.exe` would be
/// displayed as `invoiceexe.pdf`. The joiners, which Arabic, Indic scripts and emoji need, are not among them.
pub(crate) const fn is_layout_control(c: char) -> bool {
    matches!(
        c,
        '\u{61c}' | '\u{200b}' | '\u{200e}' | '\u{200f}' | '\u{2028}'
            ..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}'
    )
}

/// Matches the same and everything else without a visible glyph: format characters, joiners, fillers, variation
/// selectors, tags, unusual spaces, noncharacters. None of it belongs in an address of ours.
pub(crate) fn is_invisible(c: char) -> bool {
    let category = CodePointMapData::<GeneralCategory>::new().get(c);
    c != ' ' && HIDDEN_CATEGORIES.contains(category)
        || CodePointSetData::new::<DefaultIgnorableCodePoint>().contains(c)
        || LOOKS_BLANK.contains(&c)
        || matches!(c, '\u{fdd0}'..='\u{fdef}' | '\u{fff0}'..='\u{ffff}' | '\u{e0000}'..='\u{10ffff}')
}

/// Controls (Cc), format characters (Cf), private use (Co), spaces and line separators (Z).
const HIDDEN_CATEGORIES: GeneralCategoryGroup = GeneralCategoryGroup::Control
    .union(GeneralCategoryGroup::Format)
    .union(GeneralCategoryGroup::PrivateUse)
    .union(GeneralCategoryGroup::Separator);

/// Letters and symbols that the code charts show as blank though no property says so: the Braille pattern without
/// dots, the Khitan filler, two blank hieroglyphs, a note without a head.
const LOOKS_BLANK: [char; 5] = ['\u{2800}', '\u{16fe4}', '\u{13441}', '\u{13442}', '\u{1d159}'];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_people_read_is_visible() {
        for text in ["ada.lovelace+x", "jürgen", "用户", "поддержка", "سعاد", "🐝", "e\u{301}"] {
            assert!(!text.chars().any(is_invisible), "{text}");
        }
        for c in ['\u{202e}', '\u{2066}', '\u{200b}', '\u{200d}', '\u{ad}', '\u{e0041}', '\u{3164}', '\0', '\u{3000}']
        {
            assert!(is_invisible(c), "{c:?}");
        }
    }

    #[test]
    fn nothing_that_leaves_no_mark_is_visible() {
        // Format characters (Cf) of Unicode 16, then characters that look blank.
        let formats = [
            0xad..=0xad,
            0x600..=0x605,
            0x61c..=0x61c,
            0x6dd..=0x6dd,
            0x70f..=0x70f,
            0x890..=0x891,
            0x8e2..=0x8e2,
            0x180e..=0x180e,
            0x200b..=0x200f,
            0x202a..=0x202e,
            0x2060..=0x2064,
            0x2066..=0x206f,
            0xfeff..=0xfeff,
            0xfff9..=0xfffb,
            0x110bd..=0x110bd,
            0x110cd..=0x110cd,
            0x13430..=0x1343f,
            0x1bca0..=0x1bca3,
            0x1d173..=0x1d17a,
            0xe0001..=0xe0001,
            0xe0020..=0xe007f,
        ];
        let blanks = [
            0..=0x1f,
            0x7f..=0xa0,
            0x34f..=0x34f,
            0x115f..=0x1160,
            0x1680..=0x1680,
            0x17b4..=0x17b5,
            0x180b..=0x180f,
            0x2000..=0x200a,
            0x2028..=0x2029,
            0x202f..=0x202f,
            0x205f..=0x205f,
            0x2065..=0x2065,
            0x2800..=0x2800,
            0x3000..=0x3000,
            0x3164..=0x3164,
            0xe000..=0xf8ff,
            0xfdd0..=0xfdef,
            0xfe00..=0xfe0f,
            0xffa0..=0xffa0,
            0xfff0..=0xffff,
            0x13441..=0x13442,
            0x16fe4..=0x16fe4,
            0x1d159..=0x1d159,
            0xe0000..=0xe0fff,
            0xf0000..=0x0010_ffff,
        ];
        for c in formats.into_iter().chain(blanks).flatten().filter_map(char::from_u32) {
            assert!(is_invisible(c), "{c:?}");
        }
        assert!(!is_invisible(' '), "it is seen between others");
    }
}
