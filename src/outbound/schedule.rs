//! When a message is to be sent, as people and programs write it (contract 8.3). Pure.

use std::time::Duration;

use jiff::civil::{Date, DateTime};
use jiff::tz::TimeZone;

use crate::clock::Timestamp;

/// The furthest ahead.
const FURTHEST: Duration = Duration::from_secs(365 * 86_400);
const DAY: u64 = 86_400;

/// A text that names no time within a year.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("scheduledAt must be a time at most 365 days ahead: milliseconds, ISO 8601, or such as \"in 2 hours\"")]
pub struct BadSchedule;

/// A time in milliseconds: `None` when it is past, which means now.
///
/// # Errors
/// It is more than 365 days ahead.
pub fn from_millis(millis: i64, now: Timestamp) -> Result<Option<Timestamp>, BadSchedule> {
    within(Timestamp::from_millis(millis), now)
}

/// A time as text: ISO 8601 (a date, or date and time; without offset it is UTC), `now`, `tomorrow` or
/// `in <n> minutes|hours|days|weeks`. `None` when it is past, which means now.
///
/// # Errors
/// It is none of these, or more than 365 days ahead.
pub fn from_text(text: &str, now: Timestamp) -> Result<Option<Timestamp>, BadSchedule> {
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
    if text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(BadSchedule);
    }
    within(Timestamp::from_millis(iso(text)?), now)
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
    if let Ok(stamp) = text.parse::<jiff::Timestamp>() {
        return Ok(stamp.as_millisecond());
    }
    // Without offset it is UTC. A zone in brackets is refused: jiff would drop it here.
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
        assert_eq!(from_millis(5, NOW).unwrap(), None);
        assert_eq!(from_millis(NOW.as_millis() + 5, NOW).unwrap(), Some(Timestamp::from_millis(NOW.as_millis() + 5)));
    }

    #[test]
    fn what_is_no_time_or_too_far() {
        for bad in [
            "",
            " ",
            "1785196800000",
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
        ] {
            assert_eq!(from_text(bad, NOW), Err(BadSchedule), "{bad}");
        }
        assert_eq!(after("in 365 days"), 365 * 86_400_000);
        assert_eq!(from_millis(i64::MAX, NOW), Err(BadSchedule));
    }
}
