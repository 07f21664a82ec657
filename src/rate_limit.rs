//! Rate limits: token buckets for rates, windows for failures, attempts for what may turn out to be a failure.
//!
//! Everything is in memory, bounded, and forgotten at a restart.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;

use crate::clock::{Clock, Timestamp};

/// Keys that one limit remembers; beyond it the expired ones are removed, then all.
const MAX_KEYS: usize = 50_000;

/// Returns the address that a client counts as: who has one IPv6 address has its whole /64 (contract 1.12).
pub(crate) fn address_network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => Ipv6Addr::from_bits(v6.to_bits() & !u128::from(u64::MAX)).into(),
        v4 => v4,
    }
}

/// Returns the key that an address counts under: IPv6 by its /64 (contract 1.12).
pub(crate) fn address_key(address: IpAddr) -> String {
    match address.to_canonical() {
        IpAddr::V4(v4) => v4.to_string(),
        IpAddr::V6(v6) => {
            let [a, b, c, d, ..] = v6.segments();
            format!("{a:x}:{b:x}:{c:x}:{d:x}::/64")
        }
    }
}

/// Token buckets: a sustained rate, and bursts of twice as much.
#[derive(Debug)]
pub(crate) struct TokenBuckets {
    per_second: u32,
    /// The time in microseconds at which each key's bucket is full again.
    full_at: Mutex<HashMap<String, i64>>,
}

impl TokenBuckets {
    /// Allows this many per second over time; 0 is no limit.
    pub(crate) fn new(per_second: u32) -> Self {
        Self { per_second, full_at: Mutex::default() }
    }

    /// Takes one token of `key`.
    ///
    /// # Errors
    /// The bucket is empty; contains the seconds until the next token.
    pub(crate) fn take(&self, key: &str, now: Timestamp) -> Result<(), u64> {
        if self.per_second == 0 {
            return Ok(());
        }
        // In microseconds, so that every configurable rate has a whole cost; a full bucket is two seconds' worth.
        let (now, burst_ms) = (now.as_millis().saturating_mul(1000), 2_000_000_i64);
        let cost = 1_000_000 / i64::from(self.per_second);
        let mut all = self.full_at.lock().unwrap_or_else(PoisonError::into_inner);
        let full_at = all.get(key).copied().unwrap_or(now).max(now);
        // After the clock stepped back, a bucket may seem to be full only in days.
        let full_at = if full_at - now > burst_ms { now } else { full_at };
        if full_at + cost - now > burst_ms {
            let wait_us = full_at + cost - now - burst_ms;
            return Err(u64::try_from(wait_us).unwrap_or(0).div_ceil(1_000_000));
        }
        if all.len() >= MAX_KEYS && !all.contains_key(key) {
            all.retain(|_, full_at| *full_at > now);
            if all.len() >= MAX_KEYS {
                all.clear();
            }
        }
        all.insert(key.to_owned(), full_at + cost);
        Ok(())
    }

    /// Returns an unused token.
    pub(crate) fn refund(&self, key: &str) {
        let cost = 1_000_000_i64.checked_div(i64::from(self.per_second)).unwrap_or(0);
        if let Some(full_at) = self.full_at.lock().unwrap_or_else(PoisonError::into_inner).get_mut(key) {
            *full_at = full_at.saturating_sub(cost);
        }
    }
}

/// Allows a number of events per key within a span that starts with the first.
pub(crate) struct FixedWindow {
    max: u32,
    span: Duration,
    windows: Mutex<HashMap<String, (Timestamp, u32)>>,
}

impl FixedWindow {
    /// Allows `most` events within `span`.
    pub(crate) fn new(max: u32, span: Duration) -> Self {
        Self { max, span, windows: Mutex::default() }
    }

    /// Returns how many more events of `key` are allowed.
    ///
    /// # Errors
    /// None; contains the seconds until one is.
    fn remaining(&self, key: &str, now: Timestamp) -> Result<u32, u64> {
        let open = self.windows.lock().unwrap_or_else(PoisonError::into_inner);
        match open.get(key) {
            Some((since, count)) if self.is_current(*since, now) => {
                let rest = self.span.saturating_sub(now.since(*since));
                let left = self.max.saturating_sub(*count);
                if left > 0 { Ok(left) } else { Err(rest.as_secs() + u64::from(rest.subsec_nanos() > 0)) }
            }
            _ => Ok(self.max),
        }
    }

    /// Checks that another event of `key` is allowed.
    ///
    /// # Errors
    /// It is not; contains the seconds until it is.
    pub(crate) fn check(&self, key: &str, now: Timestamp) -> Result<(), u64> {
        self.remaining(key, now).map(drop)
    }

    /// Counts an event of `key`.
    pub(crate) fn count(&self, key: &str, now: Timestamp) {
        let mut open = self.windows.lock().unwrap_or_else(PoisonError::into_inner);
        if open.len() >= MAX_KEYS && !open.contains_key(key) {
            open.retain(|_, (since, _)| self.is_current(*since, now));
            if open.len() >= MAX_KEYS {
                open.clear();
            }
        }
        let entry = open.entry(key.to_owned()).or_insert((now, 0));
        if !self.is_current(entry.0, now) {
            *entry = (now, 0);
        }
        entry.1 = entry.1.saturating_add(1);
    }

    /// Checks and counts in one step.
    ///
    /// # Errors
    /// As [`FixedWindow::check`]; then nothing is counted.
    pub(crate) fn take(&self, key: &str, now: Timestamp) -> Result<(), u64> {
        self.check(key, now)?;
        self.count(key, now);
        Ok(())
    }

    /// Forgets the events of `key`.
    pub(crate) fn clear(&self, key: &str) {
        self.windows.lock().unwrap_or_else(PoisonError::into_inner).remove(key);
    }

    /// Returns true while the span from `since` runs; a clock that stepped back by more than the span ends it, and a
    /// smaller step does not.
    fn is_current(&self, since: Timestamp, now: Timestamp) -> bool {
        now.since(since).max(since.since(now)) < self.span
    }
}

/// Limits failed attempts per key within a span. A running attempt holds the place of a failure until it ends, so
/// that parallel guesses are no more than sequential ones; when all places are held, further attempts wait.
pub(crate) struct AttemptLimiter {
    failures: FixedWindow,
    running: Mutex<HashMap<String, u32>>,
    ended: Notify,
}

impl AttemptLimiter {
    /// Allows `most` failures within `span`.
    pub(crate) fn new(most: u32, span: Duration) -> Self {
        Self { failures: FixedWindow::new(most, span), running: Mutex::default(), ended: Notify::new() }
    }

    /// Begins an attempt of `key`, once there is a place for its failure.
    ///
    /// # Errors
    /// There were too many failures; contains the seconds until an attempt may begin.
    pub(crate) async fn begin(&self, key: &str, clock: &Clock) -> Result<Attempt<'_>, u64> {
        loop {
            // Register before looking, so an end in between is not missed.
            let mut ended = std::pin::pin!(self.ended.notified());
            ended.as_mut().enable();
            if let Some(begun) = self.try_begin(key, clock.now())? {
                return Ok(begun);
            }
            ended.await;
        }
    }

    fn try_begin(&self, key: &str, now: Timestamp) -> Result<Option<Attempt<'_>>, u64> {
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        let left = self.failures.remaining(key, now)?;
        let others = running.get(key).copied().unwrap_or(0);
        if others >= left {
            return Ok(None);
        }
        running.insert(key.to_owned(), others + 1);
        Ok(Some(Attempt { limiter: self, key: key.to_owned(), now, failed: true }))
    }

    /// Forgets the failures of `key`.
    pub(crate) fn forget(&self, key: &str) {
        self.failures.clear(key);
    }

    fn end(&self, key: &str, failed_at: Option<Timestamp>) {
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(now) = failed_at {
            self.failures.count(key, now);
        }
        match running.get_mut(key) {
            Some(others) if *others > 1 => *others -= 1,
            _ => drop(running.remove(key)),
        }
        drop(running);
        self.ended.notify_waiters();
    }
}

/// A running attempt; counts as a failure on drop unless it succeeded.
#[must_use]
pub(crate) struct Attempt<'t> {
    limiter: &'t AttemptLimiter,
    key: String,
    now: Timestamp,
    failed: bool,
}

impl Attempt<'_> {
    /// Ends the attempt without counting a failure.
    pub(crate) fn succeed(mut self) {
        self.failed = false;
    }
}

impl Drop for Attempt<'_> {
    fn drop(&mut self) {
        self.limiter.end(&self.key, self.failed.then_some(self.now));
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    const fn at(millis: i64) -> Timestamp {
        Timestamp::from_millis(1_785_196_800_000 + millis)
    }

    #[test]
    fn a_bucket_gives_a_burst_of_twice_the_rate_and_then_the_rate() {
        let buckets = TokenBuckets::new(10);
        assert_eq!((0..30).filter(|_| buckets.take("a", at(0)).is_ok()).count(), 20);
        assert_eq!(buckets.take("a", at(0)), Err(1));
        assert_eq!(buckets.take("b", at(0)), Ok(()), "another credential has its own");
        assert_eq!((0..30).filter(|_| buckets.take("a", at(500)).is_ok()).count(), 5);
        assert_eq!(
            (0..99).filter(|_| buckets.take("a", at(-864_000_000)).is_ok()).count(),
            20,
            "the clock went back"
        );
        assert!((0..999).all(|_| TokenBuckets::new(0).take("a", at(0)).is_ok()), "0 is no limit");
    }

    #[test]
    fn a_window_counts_says_how_long_to_wait_and_ends() {
        let window = FixedWindow::new(2, MINUTE);
        assert_eq!((window.take("a", at(0)), window.take("a", at(1))), (Ok(()), Ok(())));
        assert_eq!(window.take("a", at(30_000)), Err(30));
        assert_eq!(window.check("b", at(30_000)), Ok(()));
        assert_eq!(window.take("a", at(60_000)), Ok(()));
        window.clear("a");
        assert_eq!(window.check("a", at(60_000)), Ok(()));
        assert_eq!((window.take("c", at(1)), window.take("c", at(0))), (Ok(()), Ok(())), "two at the same time");
        assert_eq!(window.take("c", at(1)), Err(60));
        assert_eq!(window.take("c", at(-864_000_000)), Ok(()), "the clock went back");
    }

    #[tokio::test]
    async fn a_try_holds_the_place_of_a_failure_until_it_ends() {
        let (tries, clock) = (AttemptLimiter::new(2, MINUTE), Clock::manual(at(0)));
        let begin = |key| tries.begin(key, &clock);
        let (first, second) = (begin("a").await, begin("a").await);
        assert!(first.is_ok() && second.is_ok());
        let mut third = std::pin::pin!(begin("a"));
        assert!((&mut third).now_or_never().is_none(), "both places are held");
        assert!(begin("b").await.is_ok(), "another key has places of its own");
        if let Ok(first) = first {
            first.succeed();
        }
        let third = third.await;
        assert!(third.is_ok(), "the first was no failure");
        let mut fourth = std::pin::pin!(begin("a"));
        assert!((&mut fourth).now_or_never().is_none());
        drop((second, third));
        assert_eq!(fourth.await.err(), Some(60), "two failures");
        tries.forget("a");
        assert!(begin("a").await.is_ok());
    }

    #[test]
    fn addresses_of_one_ipv6_network_count_together() {
        let key = |text: &str| address_key(text.parse().unwrap_or(IpAddr::from([0, 0, 0, 0])));
        assert_eq!(key("2001:db8::1"), key("2001:db8::ffff:1"));
        assert_ne!(key("2001:db8::1"), key("2001:db8:0:1::1"));
        assert_eq!(key("::ffff:192.0.2.1"), key("192.0.2.1"));
    }
}
