//! Callers waiting for a commit, with their start times: they show that storage is stalled.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// The waiting callers; clones share the set.
#[derive(Clone, Debug, Default)]
pub(in crate::store) struct Queue(Arc<Mutex<Entered>>);

#[derive(Debug, Default)]
struct Entered {
    next: u64,
    since: BTreeMap<u64, Instant>,
}

/// A waiting caller, until this value is dropped.
#[derive(Debug)]
pub(in crate::store) struct Ticket {
    queue: Queue,
    number: u64,
}

impl Queue {
    /// Adds a caller.
    pub(in crate::store) fn enter(&self) -> Ticket {
        let mut entered = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        entered.next += 1;
        let number = entered.next;
        entered.since.insert(number, Instant::now());
        Ticket { queue: self.clone(), number }
    }

    /// Returns the time that the first of them has waited.
    pub(in crate::store) fn longest(&self) -> Duration {
        let entered = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        entered.since.first_key_value().map_or(Duration::ZERO, |(_, since)| since.elapsed())
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.queue.0.lock().unwrap_or_else(PoisonError::into_inner).since.remove(&self.number);
    }
}
