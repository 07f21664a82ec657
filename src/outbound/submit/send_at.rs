//! Parses the time to send a message, as people and programs write it (contract 8.3). Pure.

use std::time::Duration;

use jiff::civil::{Date, DateTime};
use jiff::fmt::temporal::Pieces;
use jiff::tz::TimeZone;

use crate::clock::Timestamp;

/// Upper bound of the delay.
const FURTHEST: Duration = Duration::from_secs(365 * 86_400);
const DAY: u64 = 86_400;

/// A text that is not a time within a year.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("scheduledAt must be a time at most 365 days ahead: milliseconds, ISO 8601, or such as \"in 2 hours\"")]
pub(crate) struct BadSchedule;

/// Reads a time in milliseconds, ignoring the fraction; `None` when it is past, which means now.
///
/// # Errors
/// The time is more than 365 days ahead.
pub(crate) fn from_millis(millis: f64, now: Timestamp) -> Result<Option<Timestamp>, BadSchedule> {
    // A value that overflows becomes the largest integer, which is too far ahead.
    within(Timestamp::from_millis(millis.floor() as i64), now)
}

/// Reads a time as text: ISO 8601 (a date, or date and time; UTC without an offset), milliseconds, `now`, `tomorrow`
/// or `in <n> minutes|hours|days|weeks`. `None` when it is past, which means now.
///
/// # Errors
/// The text is none of these, or the time is more than 365 days ahead.
pub(crate) fn from_text(text: &str, now: Timestamp) -> Result<Option<Timestamp>, BadSchedule> {
    let text = text.trim();
    let lower = text.to_lowercase();
    match lower.as_str() {
        "now" => return Ok(None),
        "tomorrow" => return within(now.plus(Duration::from_secs(DAY)), now),
        _ => {}
    }
    if let Some(span) = lower.strip_prefix("in ") {
        return within(now.plus(relative(span)?), now);
    }
    if text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.') {
        return from_millis(digits(text)?, now);
    }
    within(Timestamp::from_millis(iso(text)?), now)
}

/// Parses milliseconds. Fewer digits are more likely seconds, or a date without dashes, than a time long past.
fn digits(text: &str) -> Result<f64, BadSchedule> {
    const FEWEST: usize = 12;
    let whole = text.split('.').next().unwrap_or_default();
    if whole.len() < FEWEST { Err(BadSchedule) } else { text.parse().map_err(|_| BadSchedule) }
}

fn within(at: Timestamp, now: Timestamp) -> Result<Option<Timestamp>, BadSchedule> {
    if at > now.plus(FURTHEST) {
        return Err(BadSchedule);
    }
    Ok((at > now).then_some(at))
}

fn relative(span: &str) -> Result<Duration, BadSchedule> {
    let mut words = span.split_whitespace();
    let (Some(count), Some(unit), None) = (words.next(), words.next(), words.next()) else { return Err(BadSchedule) };
    let count: u64 = match count {
        "a" | "an" => 1,
        digits if digits.len() <= 7 && digits.bytes().all(|byte| byte.is_ascii_digit()) => {
            digits.parse().map_err(|_| BadSchedule)?
        }
        _ => return Err(BadSchedule),
    };
    let seconds = match unit.strip_suffix('s').unwrap_or(unit) {
        "minute" => 60,
        "hour" => 3_600,
        "day" => DAY,
        "week" => 7 * DAY,
        _ => return Err(BadSchedule),
    };
    Ok(Duration::from_secs(count * seconds))
}

fn iso(text: &str) -> Result<i64, BadSchedule> {
    /// RFC 3339 §5.6: an offset is at most 23 hours and 59 minutes; jiff accepts two hours more.
    const LARGEST_OFFSET: i32 = 86_399;
    let offset = Pieces::parse(text).ok().and_then(|pieces| pieces.to_numeric_offset());
    if offset.is_some_and(|offset| offset.seconds().abs() > LARGEST_OFFSET) {
        return Err(BadSchedule);
    }
    if let Ok(stamp) = text.parse::<jiff::Timestamp>() {
        return Ok(stamp.as_millisecond());
    }
    // UTC without an offset. A zone in brackets is rejected, because jiff would ignore it here.
    if text.contains('[') {
        return Err(BadSchedule);
    }
    let civil = text.parse::<DateTime>().or_else(|_| text.parse::<Date>().map(Into::into));
    let zoned = civil.map_err(|_| BadSchedule)?.to_zoned(TimeZone::UTC).map_err(|_| BadSchedule)?;
    Ok(zoned.timestamp().as_millisecond())
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests may panic")]

    use super::*;

    /// 2026-07-28T00:00:00Z
    const NOW: Timestamp = Timestamp::from_millis(1_785_196_800_000);

    fn after(text: &str) -> i64 {
        from_text(text, NOW).unwrap().unwrap().as_millis() - NOW.as_millis()
    }

    #[test]
    fn what_people_write() {
        assert_eq!(from_text("now", NOW).unwrap(), None);
        assert_eq!(from_text("  NOW ", NOW).unwrap(), None);
        assert_eq!(after("tomorrow"), 86_400_000);
        assert_eq!(after("in 5 minutes"), 300_000);
        assert_eq!(after("In 1 Minute"), 60_000);
        assert_eq!(after("in an hour"), 3_600_000);
        assert_eq!(after("in a day"), 86_400_000);
        assert_eq!(after("in 2 weeks"), 14 * 86_400_000);
        assert_eq!(from_text("in 0 days", NOW).unwrap(), None);
    }

    #[test]
    fn what_programs_write() {
        assert_eq!(after("2026-07-28T01:00:00Z"), 3_600_000);
        assert_eq!(after("2026-07-28T01:00:00.250Z"), 3_600_250);
        assert_eq!(after("2026-07-28T03:00:00+02:00"), 3_600_000);
        assert_eq!(after("2026-07-28T01:00"), 3_600_000);
        assert_eq!(after("2026-07-28 01:00:00"), 3_600_000);
        assert_eq!(after("2026-07-29"), 86_400_000);
        assert_eq!(from_text("2020-01-01", NOW).unwrap(), None, "past is now");
        assert_eq!(after("2026-07-29T00:59:00+23:59"), 3_600_000);
        assert_eq!(after("2026-07-28T02:00:00-14:00"), 16 * 3_600_000);
        assert_eq!(after("1785196800005"), 5);
        assert_eq!(after("1785196800005.999"), 5);
        assert_eq!(from_text("0999999999999", NOW).unwrap(), None);
        let millis = |millis| from_millis(millis, NOW).unwrap();
        assert_eq!(millis(5.0), None);
        assert_eq!(millis(-5.5), None);
        for fraction in [0.0, 0.25, 0.999] {
            assert_eq!(millis(1_785_196_800_005.0 + fraction), Some(Timestamp::from_millis(1_785_196_800_005)));
        }
    }

    #[test]
    fn what_is_no_time_or_too_far() {
        for bad in [
            "",
            " ",
            "1785196800",
            "20270728",
            "1785196800.5",
            "17851968000.00.5",
            "1.785196800000",
            "99999999999999999999",
            "1785196800000ms",
            "0x19fa8d8f400",
            "soon",
            "in",
            "in 5",
            "in 5 years",
            "in -1 days",
            "in five days",
            "in 1 2 days",
            "in 99999999 minutes",
            "2026-13-01",
            "2026-07-28T25:00",
            "next week",
            "in 366 days",
            "2030-01-01",
            "2026-07-28T01:00[Europe/Berlin]",
            "2026-07-29T01:00:00+25:00",
            "2026-07-29T01:00:00+24:00",
            "2026-07-27T01:00:00-25:59",
            "2026-07-29T01:00:00+02:60",
            "2026-07-29T01:00:00+2500",
        ] {
            assert_eq!(from_text(bad, NOW), Err(BadSchedule), "{bad}");
        }
        assert_eq!(after("in 365 days"), 365 * 86_400_000);
        assert_eq!(from_millis(i64::MAX as f64, NOW), Err(BadSchedule));
        assert_eq!(from_millis(1e300, NOW), Err(BadSchedule));
    }
}
