//! Text for a terminal: mail text made safe, cut and padded by display columns; sizes and waits for people.

use std::time::Duration;

use unicode_width::UnicodeWidthChar;

use crate::mail::invisible::is_layout_control;

/// Returns the columns of the terminal on standard output, within reason; 80 if unknown.
pub(crate) fn columns() -> usize {
    let size = rustix::termios::tcgetwinsize(std::io::stdout());
    size.map_or(80, |size| usize::from(size.ws_col)).clamp(60, 160)
}

/// Formats a size.
pub(crate) fn size(octets: u64) -> String {
    match octets {
        0..1_000 => format!("{octets} B"),
        1_000..1_000_000 => format!("{}.{} kB", octets / 1_000, octets % 1_000 / 100),
        1_000_000..1_000_000_000 => format!("{}.{} MB", octets / 1_000_000, octets % 1_000_000 / 100_000),
        _ => format!("{}.{} GB", octets / 1_000_000_000, octets % 1_000_000_000 / 100_000_000),
    }
}

/// Formats a wait.
pub(crate) fn wait(wait: Duration) -> String {
    match wait.as_secs() {
        seconds @ 0..100 => format!("{} s", seconds.max(1)),
        seconds @ 100..6_000 => format!("{} min", (seconds + 30) / 60),
        seconds => format!("{} h", (seconds + 1_800) / 3_600),
    }
}

/// Removes the characters that could control or garble a terminal: control, line-breaking, bidirectional.
fn safe(text: &str) -> impl Iterator<Item = char> {
    text.chars().filter(|c| !c.is_control() && !is_layout_control(*c))
}

/// Zero for combining marks, two for East Asian wide characters and emoji.
fn columns_of(c: char) -> usize {
    c.width().unwrap_or(0)
}

/// Returns the columns that a text takes.
pub(crate) fn width(text: &str) -> usize {
    text.chars().map(columns_of).sum()
}

/// Makes mail text safe and cuts it to at most `columns`.
pub(crate) fn cut(text: &str, columns: usize) -> String {
    let mut out = String::new();
    let mut taken = 0;
    for c in safe(text) {
        // A run of zero-width marks would still be an endless line.
        if out.len() >= columns * 8 {
            break;
        }
        if taken + columns_of(c) > columns {
            while taken + 1 > columns {
                let Some(last) = out.pop() else { break };
                taken -= columns_of(last);
            }
            out.push('…');
            break;
        }
        taken += columns_of(c);
        out.push(c);
    }
    out
}

/// Cuts as [`cut`] does, and pads with blanks to exactly `columns`.
pub(crate) fn fit(text: &str, columns: usize) -> String {
    let mut out = cut(text, columns);
    let missing = columns.saturating_sub(width(&out));
    out.extend(std::iter::repeat_n(' ', missing));
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mail_text_cannot_command_the_terminal() {
        assert_eq!(cut("a\u{1b}[31mb\u{202e}c\r\nd\u{9b}e\u{2028}f\u{2066}g", 80), "a[31mbcdefg");
        assert!(cut(&"e\u{301}".repeat(100), 10).len() <= 84);
        assert!(cut(&"\u{301}".repeat(100_000), 10).len() <= 84);
    }

    #[test]
    fn text_is_cut_and_filled_by_columns() {
        assert_eq!(cut("abcdef", 6), "abcdef");
        assert_eq!(cut("abcdefg", 6), "abcde…");
        assert_eq!(cut("日本語メール", 6), "日本…");
        assert_eq!(fit("日本語メール", 6), "日本… ");
        assert_eq!(fit("ab", 4), "ab  ");
    }

    #[test]
    fn waits_and_octets_are_for_people() {
        let waits = [0, 5, 302, 7_200, 86_400].map(|seconds| wait(Duration::from_secs(seconds)));
        assert_eq!(waits, ["1 s", "5 s", "5 min", "2 h", "24 h"]);
        let sizes = [999, 1_250, 26_214_400, 3_250_000_000].map(size);
        assert_eq!(sizes, ["999 B", "1.2 kB", "26.2 MB", "3.2 GB"]);
    }
}
