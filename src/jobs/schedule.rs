//! The retry schedule of deferred attempts: a list of waits, each lengthened by a random part (contract 9.5).

use std::time::Duration;

use crate::clock::Timestamp;
use crate::id::fill_random;

/// Waits after the first, second, … failure; after the last of them a failure is final, unless the last wait repeats.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Schedule {
    waits: Vec<Duration>,
    repeats: bool,
}

impl Schedule {
    /// Creates a schedule of these waits.
    pub(crate) const fn new(waits: Vec<Duration>) -> Self {
        Self { waits, repeats: false }
    }

    /// Creates a schedule whose last wait repeats forever; only an attempt's own verdict ends it.
    pub(crate) const fn repeating(waits: Vec<Duration>) -> Self {
        Self { waits, repeats: true }
    }

    /// Returns the longest wait that [`Schedule::next`] yields by itself.
    pub(crate) fn longest(&self) -> Duration {
        self.waits.iter().max().map_or(Duration::ZERO, |wait| wait.mul_f64(1.1))
    }

    /// Returns the longest time that all attempts of one job take, with an hour for the attempts themselves.
    pub(crate) fn whole(&self) -> Duration {
        self.waits.iter().sum::<Duration>().mul_f64(1.1) + Duration::from_secs(3600)
    }

    /// Returns the time of the next attempt after `failures` earlier failures and this one; `None` if that was the
    /// last.
    ///
    /// The wait is lengthened by up to a tenth so that retries of one outage spread out, and never ends before
    /// `not_before`.
    pub(crate) fn next(&self, failures: u32, now: Timestamp, not_before: Option<Timestamp>) -> Option<Timestamp> {
        let mut chance = [0_u8; 2];
        fill_random(&mut chance);
        self.next_with(failures, now, not_before, f64::from(u16::from_le_bytes(chance)) / 65_536.0)
    }

    fn next_with(
        &self,
        failures: u32,
        now: Timestamp,
        not_before: Option<Timestamp>,
        chance: f64,
    ) -> Option<Timestamp> {
        let planned = self.waits.get(usize::try_from(failures).unwrap_or(usize::MAX));
        let wait = planned.or_else(|| self.waits.last().filter(|_| self.repeats))?;
        let planned = now.plus(wait.mul_f64(1.0 + chance / 10.0));
        Some(not_before.map_or(planned, |bound| bound.max(planned)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_follow_the_list_are_lengthened_by_at_most_a_tenth_and_end() {
        let schedule = Schedule::new(vec![Duration::from_secs(5), Duration::from_secs(300)]);
        let now = Timestamp::from_millis(0);
        assert_eq!(schedule.next_with(0, now, None, 0.0), Some(Timestamp::from_millis(5_000)));
        assert_eq!(schedule.next_with(1, now, None, 1.0), Some(Timestamp::from_millis(330_000)));
        assert_eq!(schedule.next_with(2, now, None, 0.5), None);
    }

    #[test]
    fn the_last_wait_may_be_repeated() {
        let schedule = Schedule::repeating(vec![Duration::from_secs(5), Duration::from_secs(300)]);
        let now = Timestamp::from_millis(0);
        assert_eq!(schedule.next_with(99, now, None, 0.0), Some(Timestamp::from_millis(300_000)));
    }

    #[test]
    fn a_remotes_own_word_is_a_lower_bound() {
        let schedule = Schedule::new(vec![Duration::from_secs(5)]);
        let later = Timestamp::from_millis(60_000);
        assert_eq!(schedule.next(0, Timestamp::from_millis(0), Some(later)), Some(later));
    }
}
