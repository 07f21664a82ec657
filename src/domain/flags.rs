//! Moves a domain's flags by the results of its checks (contract 3.2). Pure.

use std::time::Duration;

use super::records::Status;
use crate::clock::Timestamp;

/// Consecutive failed checks …
const FAILURES: u32 = 3;
/// … and the span from the first to the last of them, before a flag is cleared.
const SPAN: Duration = Duration::from_secs(72 * 3600);

/// A flag, and the consecutive failed checks since it last passed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Flag {
    pub(crate) set: bool,
    /// Consecutive failed checks.
    pub(crate) failures: u32,
    /// Time of the first of them.
    pub(crate) first_failed_at: Option<Timestamp>,
}

impl Flag {
    /// Returns the flag after a check at `now`. A check without an answer changes nothing, the first pass sets the
    /// flag, and only three failures over 72 hours clear it.
    pub(crate) fn after(self, result: Status, now: Timestamp) -> Self {
        match result {
            Status::Unchecked => self,
            Status::Ok => Self { set: true, failures: 0, first_failed_at: None },
            Status::Missing | Status::Mismatch => {
                // A first failure recorded by a clock that ran ahead would keep the flag set until that time comes
                // again.
                let first = self.first_failed_at.map_or(now, |first| first.min(now));
                let failures = self.failures.saturating_add(1);
                let falls = failures >= FAILURES && now.since(first) >= SPAN;
                Self { set: self.set && !falls, failures, first_failed_at: Some(first) }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn at(hours: i64) -> Timestamp {
        Timestamp::from_millis(1_785_196_800_000 + hours * 3_600_000)
    }

    fn run(checks: &[(i64, Status)]) -> bool {
        let flag = Flag { set: true, ..Flag::default() };
        checks.iter().fold(flag, |flag, (hours, result)| flag.after(*result, at(*hours))).set
    }

    #[test]
    fn a_flag_rises_at_the_first_pass() {
        assert!(Flag::default().after(Status::Ok, at(0)).set);
        for result in [Status::Missing, Status::Mismatch, Status::Unchecked] {
            assert!(!Flag::default().after(result, at(0)).set);
        }
    }

    #[test]
    fn a_flag_falls_after_three_failures_over_72_hours_and_not_before() {
        use Status::{Mismatch, Missing, Ok, Unchecked};
        assert!(run(&[(0, Missing), (24, Missing), (71, Missing)]), "not long enough");
        assert!(run(&[(0, Missing), (72, Missing)]), "not often enough");
        assert!(!run(&[(0, Missing), (24, Mismatch), (72, Missing)]));
        assert!(run(&[(0, Missing), (24, Missing), (48, Ok), (72, Missing)]), "it held in between");
        assert!(run(&[(0, Missing), (24, Unchecked), (72, Missing)]), "no answer is no failure");
        assert!(!run(&[(0, Missing), (1, Missing), (2, Missing), (73, Missing)]));
        assert!(run(&[(100, Missing), (101, Missing), (2, Missing)]), "the clock went back");
        assert!(!run(&[(500, Missing), (24, Missing), (96, Missing)]), "and counts from there");
    }
}
