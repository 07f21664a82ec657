//! Timing of commits: soon enough for those who wait, seldom enough that many share one.

use std::time::{Duration, Instant};

use super::sync;

/// Time for which transactions that are not urgent are held for a commit that has to be made anyway …
const LAZY_LINGER: Duration = Duration::from_millis(50);
/// … unless there are this many of them.
const PATIENT: usize = 128;
/// While an fsync runs, the next commit is at least this much later than the last.
const SPACING: Duration = Duration::from_millis(2);
/// Time for which a single urgent transaction is held for a second, where one is likely to come: two in one commit
/// write little more than one.
const LINGER: Duration = Duration::from_millis(7);
/// Maximum number of commits made without waiting after the second did not come; the number doubles each time.
const SKIP_MAX: u32 = 512;

/// Transactions waiting for a commit.
#[derive(Clone, Copy, Debug)]
pub(super) struct WaitingCommits {
    pub(crate) transactions: usize,
    /// Of these, the number that somebody waits for, and the number of those that need an fsync.
    pub(crate) urgent: usize,
    pub(crate) promises: usize,
    /// Arrival of the first, and of the first that somebody waits for.
    pub(crate) since: Instant,
    pub(crate) urgent_since: Option<Instant>,
}

impl WaitingCommits {
    const fn is_alone(&self) -> bool {
        self.urgent == 1 && self.promises == 1
    }
}

/// Time of the commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Due {
    At(Instant),
    /// After one of the running fsyncs has ended.
    AfterSync,
}

/// History of the last commits.
#[derive(Debug)]
pub(super) struct Pace {
    last: Option<Instant>,
    /// Number of single-transaction commits still to be made without waiting for a second.
    skip: u32,
    skip_next: u32,
}

impl Pace {
    pub(super) const fn new() -> Self {
        Self { last: None, skip: 0, skip_next: 1 }
    }

    /// Returns the time at which the waiting transactions are to be committed, while `running` fsyncs run that take
    /// `takes` each.
    pub(super) fn due(&self, waiting: WaitingCommits, running: usize, takes: Duration) -> Due {
        let earliest = match waiting.urgent_since {
            None if waiting.transactions < PATIENT => return Due::At(waiting.since + LAZY_LINGER),
            Some(since) if waiting.is_alone() && self.skip == 0 => since + LINGER,
            _ => waiting.since,
        };
        match self.last {
            Some(_) if running >= sync::MAX => Due::AfterSync,
            Some(last) if running > 0 => Due::At(earliest.max(last + SPACING.max(takes / sync::MAX_U32))),
            _ => Due::At(earliest),
        }
    }

    /// Records a commit.
    pub(super) fn committed(&mut self, waiting: WaitingCommits, now: Instant) {
        self.last = Some(now);
        let Some(since) = waiting.urgent_since else { return };
        if self.skip > 0 {
            self.skip -= 1;
        } else if waiting.urgent > 1 {
            self.skip_next = (self.skip_next / 2).max(1);
        } else if waiting.is_alone() && now >= since + LINGER {
            self.skip = self.skip_next;
            self.skip_next = (self.skip_next * 2).min(SKIP_MAX);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn waiting(urgent: usize, others: usize, since: Instant) -> WaitingCommits {
        let urgent_since = (urgent > 0).then_some(since);
        WaitingCommits { transactions: urgent + others, urgent, promises: urgent, since, urgent_since }
    }

    #[test]
    fn what_nobody_waits_for_goes_along_with_a_commit_or_soon_alone() {
        let (pace, now) = (Pace::new(), Instant::now());
        assert_eq!(pace.due(waiting(0, 1, now), 0, Duration::ZERO), Due::At(now + LAZY_LINGER));
        assert_eq!(pace.due(waiting(0, PATIENT, now), 0, Duration::ZERO), Due::At(now));
        assert_eq!(pace.due(waiting(2, 1, now), 0, Duration::ZERO), Due::At(now));
    }

    #[test]
    fn company_is_waited_for_only_where_it_comes() {
        let (mut pace, mut now) = (Pace::new(), Instant::now());
        let (mut lingered, commits) = (0, 2_000);
        for _ in 0..commits {
            let alone = waiting(1, 1, now);
            let Due::At(due) = pace.due(alone, 0, Duration::ZERO) else { return assert!(now < now, "no fsync runs") };
            lingered += u32::from(due > now);
            now = due;
            pace.committed(alone, now);
        }
        assert!(lingered < 20, "a client alone waited {lingered} times in {commits}");
        for _ in 0..2 * SKIP_MAX {
            pace.committed(waiting(2, 0, now), now);
        }
        assert_eq!(
            pace.due(waiting(1, 0, now), 0, Duration::ZERO),
            Due::At(now + LINGER),
            "company is expected again"
        );
    }

    #[test]
    fn while_fsyncs_run_commits_keep_a_distance_and_wait_when_there_are_too_many() {
        let (mut pace, now) = (Pace::new(), Instant::now());
        let crowd = waiting(3, 0, now);
        pace.committed(crowd, now);
        assert_eq!(pace.due(crowd, 1, Duration::from_micros(300)), Due::At(now + SPACING));
        assert_eq!(pace.due(crowd, 1, Duration::from_millis(60)), Due::At(now + Duration::from_millis(10)));
        assert_eq!(pace.due(crowd, sync::MAX, Duration::from_millis(60)), Due::AfterSync);
        assert_eq!(pace.due(crowd, 0, Duration::from_millis(60)), Due::At(now));
    }
}
