//! Who waits for a commit, and since when: what tells that storage stands still.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Those who wait; clones share it.
#[derive(Clone, Debug, Default)]
pub(in crate::store) struct Queue(Arc<Mutex<Entered>>);

#[derive(Debug, Default)]
struct Entered {
    next: u64,
    since: BTreeMap<u64, Instant>,
}

/// One who waits, until this value goes.
#[derive(Debug)]
pub(in crate::store) struct Ticket {
    queue: Queue,
    number: u64,
}

impl Queue {
    /// Enters somebody.
    pub(in crate::store) fn enter(&self) -> Ticket {
        let mut entered = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        entered.next += 1;
        let number = entered.next;
        entered.since.insert(number, Instant::now());
        Ticket { queue: self.clone(), number }
    }

    /// How long the first of them has waited.
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
