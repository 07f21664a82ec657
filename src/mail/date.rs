//! Dates of header fields (RFC 5322 §3.3).

use jiff::fmt::rfc2822::{DateTimeParser, DateTimePrinter};

use crate::clock::Timestamp;

/// Formats a time in UTC: `Tue, 28 Jul 2026 00:00:00 +0000`.
pub(crate) fn format(at: Timestamp) -> String {
    at.zoned().strftime("%a, %d %b %Y %H:%M:%S +0000").to_string()
}

/// Rewrites a valid date in the current form, in its own time zone: without the obsolete syntax of RFC 5322 §4.3.
pub(crate) fn normalize(text: &str) -> Option<String> {
    /// A zone offset is at most 23 hours and 59 minutes; jiff accepts more.
    const LARGEST_ZONE: i32 = 86_399;
    let date = DateTimeParser::new().parse_zoned(text.trim()).ok()?;
    if date.offset().seconds().abs() > LARGEST_ZONE {
        return None;
    }
    DateTimePrinter::new().zoned_to_string(&date).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_prints_as_rfc_5322_says() {
        assert_eq!(format(Timestamp::from_millis(1_785_196_800_000)), "Tue, 28 Jul 2026 00:00:00 +0000");
    }
}
