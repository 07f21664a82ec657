//! Limits the messages per minute to one recipient domain (`[outbound] domain_rate_per_minute`).
//!
//! A waiting attempt keeps its place in the lane, so a rate-limited lane holds only a few sleeping tasks, however
//! long its backlog is.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// Domains kept before those that may send at once are evicted.
const REMEMBERED: usize = 10_000;

/// The next free slot of each domain.
#[derive(Debug)]
pub(crate) struct RateLimiter {
    /// Interval between two messages; `None` without a limit.
    gap: Option<Duration>,
    next: Mutex<HashMap<String, Instant>>,
}

/// A sending slot.
#[derive(Debug)]
pub(crate) struct Slot {
    domain: String,
    at: Instant,
}

impl RateLimiter {
    /// Creates a limiter with this rate for each domain; 0 for no limit.
    pub(crate) fn new(per_minute: u32) -> Self {
        let gap = (per_minute > 0).then(|| Duration::from_secs(60) / per_minute);
        Self { gap, next: Mutex::default() }
    }

    /// Returns true if there is a rate limit.
    pub(crate) const fn is_limited(&self) -> bool {
        self.gap.is_some()
    }

    /// Waits for the next slot of `domain`; `None` if there is no limit.
    pub(crate) async fn acquire(&self, domain: &str) -> Option<Slot> {
        let at = self.take(domain, Instant::now())?;
        tokio::time::sleep_until(at).await;
        Some(Slot { domain: domain.to_owned(), at })
    }

    /// Returns an unused slot, unless a later one has been taken already.
    pub(crate) fn release(&self, turn: Slot) {
        let Some(gap) = self.gap else { return };
        let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(free) = next.get_mut(&turn.domain).filter(|free| **free == turn.at + gap) {
            *free = turn.at;
        }
    }

    fn take(&self, domain: &str, now: Instant) -> Option<Instant> {
        let gap = self.gap?;
        let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
        if next.len() > REMEMBERED {
            next.retain(|_, at| *at > now);
        }
        let free = next.entry(domain.to_owned()).or_insert(now);
        let turn = (*free).max(now);
        *free = turn + gap;
        Some(turn)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_to_one_domain_keep_their_distance() {
        let pace = RateLimiter::new(60);
        let now = Instant::now();
        let second = Duration::from_secs(1);
        assert_eq!(pace.take("a.test", now), Some(now));
        assert_eq!(pace.take("a.test", now), Some(now + second));
        assert_eq!(pace.take("b.test", now), Some(now), "each domain has its own turns");
        assert_eq!(pace.take("a.test", now + second * 9), Some(now + second * 9), "unused turns are not saved up");
        assert_eq!(RateLimiter::new(0).take("a.test", now), None);
    }

    #[test]
    fn a_turn_that_was_not_used_is_the_next_ones_unless_another_is_taken() {
        let pace = RateLimiter::new(60);
        let now = Instant::now();
        let second = Duration::from_secs(1);
        let turn = |at| Slot { domain: "a.test".to_owned(), at };
        assert_eq!(pace.take("a.test", now), Some(now));
        pace.release(turn(now));
        assert_eq!(pace.take("a.test", now), Some(now));
        assert_eq!(pace.take("a.test", now), Some(now + second));
        pace.release(turn(now));
        assert_eq!(pace.take("a.test", now), Some(now + second * 2), "messages keep their distance");
    }
}
