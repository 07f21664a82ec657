//! Dates of header fields (RFC 5322 §3.3).

use jiff::fmt::rfc2822::{DateTimeParser, DateTimePrinter};

use crate::clock::Timestamp;

/// Formats a time in UTC: `Tue, 28 Jul 2026 00:00:00 +0000`.
pub(crate) fn format(at: Timestamp) -> String {
    at.zoned().strftime("%a, %d %b %Y %H:%M:%S +0000").to_string()
}

/// Reads a date in the current or the obsolete syntax.
pub(crate) fn parse(text: &str) -> Option<Timestamp> {
    let date = DateTimeParser::new().parse_zoned(text.trim()).ok()?;
    Some(Timestamp::from_millis(date.timestamp().as_millisecond()))
}

/// Formats a time as in the separator lines of an mbox file (RFC 4155, appendix A): `Tue Jul 28 00:00:00 2026`, in UTC.
pub(crate) fn format_mbox(at: Timestamp) -> String {
    at.zoned().strftime("%a %b %e %H:%M:%S %Y").to_string()
}

/// Reads the time of such a line as UTC. Some programs write a time zone before or after the year, which is ignored.
pub(crate) fn parse_mbox(text: &str) -> Option<Timestamp> {
    const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let mut words = text.split_ascii_whitespace().skip(1);
    let month = words.next().and_then(|word| (1_i8..).zip(MONTHS).find(|(_, name)| *name == word))?.0;
    let day: i8 = words.next()?.parse().ok()?;
    let mut clock = words.next()?.split(':');
    let hour: i8 = clock.next()?.parse().ok()?;
    let minute: i8 = clock.next()?.parse().ok()?;
    let second: i8 = clock.next().map_or(Ok(0), str::parse).ok()?;
    let year: i16 = words.find_map(|word| word.parse().ok().filter(|year| (1970..10_000).contains(year)))?;
    let date = jiff::civil::DateTime::new(year, month, day, hour, minute, second, 0).ok()?;
    let zoned = date.to_zoned(jiff::tz::TimeZone::UTC).ok()?;
    Some(Timestamp::from_millis(zoned.timestamp().as_millisecond()))
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

    #[test]
    fn a_time_in_an_mbox_is_read_with_and_without_a_zone() {
        let at = Timestamp::from_millis(1_782_950_405_000);
        assert_eq!(format_mbox(at), "Thu Jul  2 00:00:05 2026");
        for text in [format_mbox(at).as_str(), "Thu Jul 2 00:00:05 2026 +0000", "Thu Jul 02 00:00:05 GMT 2026\r\n"] {
            assert_eq!(parse_mbox(text), Some(at), "{text}");
        }
        for text in ["", "the station at noon", "Thu Jul 32 00:00:05 2026", "Thu Jul 2 24:00:05 2026", "Thu Jul 2 26"]
        {
            assert_eq!(parse_mbox(text), None, "{text}");
        }
    }
}
