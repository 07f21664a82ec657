//! How many messages a minute go to one recipient domain (`[outbound] domain_rate_per_minute`).
//!
//! An attempt that has to wait keeps its place in the lane, so a paced lane holds a few sleeping tasks and no more,
//! however much waits behind them.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// Domains remembered before those are forgotten that may send at once.
const REMEMBERED: usize = 10_000;

/// Turns of each domain.
#[derive(Debug)]
pub(crate) struct RateLimiter {
    /// Between two messages; none: no pacing.
    gap: Option<Duration>,
    next: Mutex<HashMap<String, Instant>>,
}

/// A turn that came.
#[derive(Debug)]
pub(crate) struct Slot {
    domain: String,
    at: Instant,
}

impl RateLimiter {
    /// So many messages a minute for each domain; 0: any number.
    pub(crate) fn new(per_minute: u32) -> Self {
        let gap = (per_minute > 0).then(|| Duration::from_secs(60) / per_minute);
        Self { gap, next: Mutex::default() }
    }

    /// Whether there are turns at all.
    pub(crate) const fn is_kept(&self) -> bool {
        self.gap.is_some()
    }

    /// Waits for the turn of a message to `domain`; none: there are no turns.
    pub(crate) async fn acquire(&self, domain: &str) -> Option<Slot> {
        let at = self.take(domain, Instant::now())?;
        tokio::time::sleep_until(at).await;
        Some(Slot { domain: domain.to_owned(), at })
    }

    /// Takes a turn back that was not used, unless somebody waits behind it already.
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
