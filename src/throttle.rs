//! How often somebody may do something: token buckets for rates, windows for failures.
//!
//! Everything is in memory, bounded, and forgotten at a restart.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::clock::Timestamp;

/// Keys remembered at once by one limit; beyond it the stale ones go, then all.
const MAX_KEYS: usize = 50_000;

/// The key that an address counts under: IPv6 by its /64 (contract 1.12).
pub fn address_key(address: IpAddr) -> String {
    match address.to_canonical() {
        IpAddr::V4(v4) => v4.to_string(),
        IpAddr::V6(v6) => {
            let [a, b, c, d, ..] = v6.segments();
            format!("{a:x}:{b:x}:{c:x}:{d:x}::/64")
        }
    }
}

/// Token buckets: a rate, and bursts of twice as much.
pub struct Buckets {
    per_second: u32,
    /// For each key the time at which its bucket is full again, in milliseconds.
    full_at: Mutex<HashMap<String, i64>>,
}

impl Buckets {
    /// So many a second over time; 0 is no limit.
    pub fn new(per_second: u32) -> Self {
        Self { per_second, full_at: Mutex::default() }
    }

    /// Takes one token of `key`.
    ///
    /// # Errors
    /// There is none; so many seconds later there will be.
    pub fn take(&self, key: &str, now: Timestamp) -> Result<(), u64> {
        if self.per_second == 0 {
            return Ok(());
        }
        // Counted in microseconds, so that every configurable rate has a whole cost; a full bucket is two seconds' worth.
        let (now, burst_ms) = (now.as_millis().saturating_mul(1000), 2_000_000_i64);
        let cost = 1_000_000 / i64::from(self.per_second);
        let mut all = self.full_at.lock().unwrap_or_else(PoisonError::into_inner);
        let full_at = all.get(key).copied().unwrap_or(now).max(now);
        // A clock that stepped back finds a bucket that seems to be full in days only.
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
}

/// So many events of one key within a span that starts with the first.
pub struct Window {
    most: u32,
    span: Duration,
    open: Mutex<HashMap<String, (Timestamp, u32)>>,
}

impl Window {
    /// So many within a span.
    pub fn new(most: u32, span: Duration) -> Self {
        Self { most, span, open: Mutex::default() }
    }

    /// Whether another event of `key` may happen.
    ///
    /// # Errors
    /// No; after so many seconds it may.
    pub fn check(&self, key: &str, now: Timestamp) -> Result<(), u64> {
        let open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        match open.get(key) {
            Some((since, count)) if *count >= self.most && self.holds(*since, now) => {
                let rest = self.span.saturating_sub(now.since(*since));
                Err(rest.as_secs() + u64::from(rest.subsec_nanos() > 0))
            }
            _ => Ok(()),
        }
    }

    /// Counts an event of `key`.
    pub fn count(&self, key: &str, now: Timestamp) {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if open.len() >= MAX_KEYS && !open.contains_key(key) {
            open.retain(|_, (since, _)| self.holds(*since, now));
            if open.len() >= MAX_KEYS {
                open.clear();
            }
        }
        let entry = open.entry(key.to_owned()).or_insert((now, 0));
        if !self.holds(entry.0, now) {
            *entry = (now, 0);
        }
        entry.1 = entry.1.saturating_add(1);
    }

    /// Checks and counts in one step.
    ///
    /// # Errors
    /// As [`Window::check`]; then nothing is counted.
    pub fn take(&self, key: &str, now: Timestamp) -> Result<(), u64> {
        self.check(key, now)?;
        self.count(key, now);
        Ok(())
    }

    /// Takes one event of `key` back that turned out to be none.
    pub fn give_back(&self, key: &str) {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, count)) = open.get_mut(key) {
            *count = count.saturating_sub(1);
        }
    }

    /// Forgets the events of `key`.
    pub fn clear(&self, key: &str) {
        self.open.lock().unwrap_or_else(PoisonError::into_inner).remove(key);
    }

    /// Whether the span from `since` still runs; a clock that stepped back ends it.
    fn holds(&self, since: Timestamp, now: Timestamp) -> bool {
        since <= now && now.since(since) < self.span
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    const fn at(millis: i64) -> Timestamp {
        Timestamp::from_millis(1_785_196_800_000 + millis)
    }

    #[test]
    fn a_bucket_gives_a_burst_of_twice_the_rate_and_then_the_rate() {
        let buckets = Buckets::new(10);
        assert_eq!((0..30).filter(|_| buckets.take("a", at(0)).is_ok()).count(), 20);
        assert_eq!(buckets.take("a", at(0)), Err(1));
        assert_eq!(buckets.take("b", at(0)), Ok(()), "another credential has its own");
        assert_eq!((0..30).filter(|_| buckets.take("a", at(500)).is_ok()).count(), 5);
        assert_eq!(
            (0..99).filter(|_| buckets.take("a", at(-864_000_000)).is_ok()).count(),
            20,
            "the clock went back"
        );
        assert!((0..999).all(|_| Buckets::new(0).take("a", at(0)).is_ok()), "0 is no limit");
    }

    #[test]
    fn a_window_counts_says_how_long_to_wait_and_ends() {
        let window = Window::new(2, MINUTE);
        assert_eq!((window.take("a", at(0)), window.take("a", at(1))), (Ok(()), Ok(())));
        assert_eq!(window.take("a", at(30_000)), Err(30));
        assert_eq!(window.check("b", at(30_000)), Ok(()));
        assert_eq!(window.take("a", at(60_000)), Ok(()));
        window.clear("a");
        assert_eq!(window.check("a", at(60_000)), Ok(()));
        assert_eq!((window.take("c", at(0)), window.take("c", at(0))), (Ok(()), Ok(())));
        window.give_back("c");
        window.give_back("nobody");
        assert_eq!((window.take("c", at(0)), window.take("c", at(0))), (Ok(()), Err(60)));
    }

    #[test]
    fn addresses_of_one_ipv6_network_count_together() {
        let key = |text: &str| address_key(text.parse().unwrap_or(IpAddr::from([0, 0, 0, 0])));
        assert_eq!(key("2001:db8::1"), key("2001:db8::ffff:1"));
        assert_ne!(key("2001:db8::1"), key("2001:db8:0:1::1"));
        assert_eq!(key("::ffff:192.0.2.1"), key("192.0.2.1"));
    }
}
