//! A circuit breaker for one flow, or for one mail host: after several consecutive failures nothing is attempted for a
//! while, then one attempt probes.
//!
//! Each failed probe doubles the pause up to a bound; the first success closes the breaker. Waiting for it is no
//! attempt: the flow's jobs keep their step of the retry schedule. A flow may also be *held*, because the hosts of its
//! destination take nothing for a while: that is no failure of the flow.

use std::time::Duration;

use crate::clock::Timestamp;

/// Consecutive failures that open the breaker.
pub(super) const OPENS_AFTER: u32 = 5;
/// Length of the first pause; each further one is twice as long.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// Length of the longest pause, unless the remote asks for a longer one.
const LONGEST_PAUSE: Duration = Duration::from_secs(300);

/// A breaker, closed at first.
#[derive(Debug)]
pub(crate) struct Breaker {
    opens_after: u32,
    /// Consecutive failures.
    failures: u32,
    pauses: u32,
    /// Time of the next probe; `None` while it is closed.
    until: Option<Timestamp>,
    /// The latest time that one of these consecutive failures asked to wait for.
    asked_for: Option<Timestamp>,
    /// Attempts that have been running since before it opened; they are no probes.
    stale: usize,
    /// End of the hold; `None` if it is not held.
    held: Option<Timestamp>,
}

impl Default for Breaker {
    fn default() -> Self {
        Self::opening_after(OPENS_AFTER)
    }
}

impl Breaker {
    /// Creates a breaker that opens after this many consecutive failures.
    pub(crate) const fn opening_after(failures: u32) -> Self {
        Self { opens_after: failures, failures: 0, pauses: 0, until: None, asked_for: None, stale: 0, held: None }
    }

    /// Returns the time of the next probe; `None` while it is closed.
    pub(crate) fn until(&self) -> Option<Timestamp> {
        self.until.max(self.held)
    }

    /// True while it pauses or waits for its probe.
    pub(crate) const fn is_open(&self) -> bool {
        self.until.is_some() || self.held.is_some()
    }

    pub(super) const fn is_held(&self) -> bool {
        self.held.is_some()
    }

    /// True if nothing may be attempted at `now`, not even a probe.
    pub(crate) fn pauses(&self, now: Timestamp) -> bool {
        self.until().is_some_and(|until| now < until)
    }

    /// Notes an attempt that succeeded.
    pub(crate) fn succeeded(&mut self) {
        *self = Self::opening_after(self.opens_after);
    }

    /// Holds the flow until then, for a reason outside the flow.
    pub(super) const fn hold(&mut self, until: Timestamp) {
        self.held = Some(until);
    }

    /// Ends a hold, because an attempt was made.
    pub(super) const fn end_hold(&mut self) {
        self.held = None;
    }

    /// Lets a held flow probe at `at`, if that is sooner; false if it is not held.
    pub(super) fn resume_at(&mut self, at: Timestamp) -> bool {
        self.held = self.held.map(|until| until.min(at));
        self.held.is_some()
    }

    /// Notes an attempt that ended without information about the remote.
    pub(crate) const fn said_nothing(&mut self) {
        self.stale = self.stale.saturating_sub(1);
    }

    /// Notes an attempt that failed while `running` others run; true if a pause begins. `chance`, from 0 to 1,
    /// lengthens it by up to a quarter, so that the probes of one outage spread out.
    pub(crate) fn failed(
        &mut self,
        now: Timestamp,
        not_before: Option<Timestamp>,
        running: usize,
        chance: f64,
    ) -> bool {
        self.failures = self.failures.saturating_add(1);
        self.asked_for = self.asked_for.max(not_before);
        if let Some(until) = self.until
            && self.stale > 0
        {
            self.stale -= 1;
            self.until = Some(not_before.map_or(until, |at| at.max(until)));
            return false;
        }
        if self.failures < self.opens_after {
            return false;
        }
        let pause = FIRST_PAUSE.saturating_mul(1 << self.pauses.min(16)).min(LONGEST_PAUSE);
        let until = now.plus(pause.mul_f64(1.0 + chance / 4.0));
        self.pauses = self.pauses.saturating_add(1);
        self.until = Some(self.asked_for.map_or(until, |at| at.max(until)));
        self.stale = running;
        true
    }

    /// Lets a probe be made at once.
    pub(crate) fn probe_at(&mut self, now: Timestamp) {
        self.until = self.until.map(|until| until.min(now));
        self.held = self.held.map(|until| until.min(now));
        self.asked_for = None;
    }

    /// Moves times with a clock that was set back.
    pub(crate) fn shift_back(&mut self, by: Duration) {
        self.until = self.until.map(|until| until.minus(by));
        self.held = self.held.map(|until| until.minus(by));
        self.asked_for = self.asked_for.map(|until| until.minus(by));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn at(millis: i64) -> Timestamp {
        Timestamp::from_millis(millis)
    }

    fn opened() -> Breaker {
        let mut breaker = Breaker::default();
        for n in 1..=OPENS_AFTER {
            assert_eq!(breaker.failed(at(0), None, 0, 0.0), n == OPENS_AFTER);
        }
        breaker
    }

    #[test]
    fn it_opens_after_failures_in_a_row_and_one_success_in_between_begins_anew() {
        let mut breaker = Breaker::default();
        for _ in 0..100 {
            for _ in 1..OPENS_AFTER {
                assert!(!breaker.failed(at(0), None, 0, 0.0));
            }
            breaker.succeeded();
        }
        assert!(!breaker.is_open());
        let breaker = opened();
        assert_eq!(breaker.until(), Some(at(1_000)));
        assert!(breaker.pauses(at(999)) && !breaker.pauses(at(1_000)));
    }

    #[test]
    fn pauses_double_up_to_five_minutes_and_are_lengthened_by_at_most_a_quarter() {
        let mut breaker = opened();
        let mut pauses = Vec::new();
        for _ in 0..12 {
            assert!(breaker.failed(at(0), None, 0, 0.0));
            pauses.push(breaker.until().map_or(0, Timestamp::as_secs));
        }
        assert_eq!(pauses, [2, 4, 8, 16, 32, 64, 128, 256, 300, 300, 300, 300]);
        assert!(breaker.failed(at(0), None, 0, 1.0));
        assert_eq!(breaker.until(), Some(at(375_000)));
        breaker.succeeded();
        assert!(!breaker.failed(at(0), None, 0, 0.0), "the row begins anew");
    }

    #[test]
    fn what_ran_when_it_opened_is_no_probe() {
        let mut breaker = Breaker::default();
        for running in (2..7).rev() {
            breaker.failed(at(0), None, running, 0.0);
        }
        assert_eq!(breaker.until(), Some(at(1_000)));
        assert!(!breaker.failed(at(5_000), None, 1, 0.0));
        breaker.said_nothing();
        assert_eq!(breaker.until(), Some(at(1_000)), "both had begun before");
        assert!(breaker.failed(at(5_000), None, 0, 0.0));
        assert_eq!(breaker.until(), Some(at(7_000)));
    }

    #[test]
    fn a_hold_is_no_failure_and_ends_with_any_attempt() {
        let mut breaker = Breaker::default();
        breaker.hold(at(5_000));
        assert!(breaker.is_open() && breaker.pauses(at(4_999)) && !breaker.pauses(at(5_000)));
        assert!(breaker.resume_at(at(2_000)) && !breaker.pauses(at(2_000)));
        breaker.end_hold();
        assert!(!breaker.is_open() && !breaker.resume_at(at(1)));
        let mut breaker = opened();
        breaker.hold(at(500));
        assert_eq!(breaker.until(), Some(at(1_000)), "the longer of both");
    }

    #[test]
    fn a_pause_is_no_shorter_than_what_the_remote_asks_for() {
        let mut breaker = Breaker::default();
        breaker.failed(at(0), Some(at(90_000)), 0, 0.0);
        assert!(!breaker.is_open(), "one failure says little of the others");
        for _ in 1..OPENS_AFTER {
            breaker.failed(at(0), None, 0, 0.0);
        }
        assert_eq!(breaker.until(), Some(at(90_000)));
        breaker.probe_at(at(10));
        assert!(!breaker.pauses(at(10)));
    }
}
