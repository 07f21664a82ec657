//! Characters that are not seen, or that change the order of those that are: two texts that look the same are not.

/// Bidirectional marks and line separators: `invoice\u{202e}fdp.exe` would be shown as `invoiceexe.pdf`. The joiners, which
/// Arabic, Indic scripts and emoji need, are not among them.
pub const fn changes_the_order(c: char) -> bool {
    matches!(
        c,
        '\u{61c}' | '\u{200b}' | '\u{200e}' | '\u{200f}' | '\u{2028}'
            ..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}'
    )
}

/// The same, and everything else that leaves no mark of its own: joiners, fillers, selectors, tags, odd blanks, what stands
/// for no character. None of it belongs into an address of ours.
pub fn is_invisible(c: char) -> bool {
    changes_the_order(c)
        || c.is_control()
        || matches!(
            c,
            '\u{a0}'
                | '\u{ad}'
                | '\u{34f}'
                | '\u{115f}'
                | '\u{1160}'
                | '\u{1680}'
                | '\u{17b4}'
                | '\u{17b5}'
                | '\u{180b}'..='\u{180f}'
                | '\u{2000}'..='\u{200f}'
                | '\u{202f}'
                | '\u{205f}'
                | '\u{3000}'
                | '\u{3164}'
                | '\u{e000}'..='\u{f8ff}'
                | '\u{fdd0}'..='\u{fdef}'
                | '\u{fe00}'..='\u{fe0f}'
                | '\u{ffa0}'
                | '\u{fff0}'..='\u{ffff}'
                | '\u{1bca0}'..='\u{1bca3}'
                | '\u{1d173}'..='\u{1d17a}'
                | '\u{e0000}'..='\u{10ffff}'
        )
}

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
}
