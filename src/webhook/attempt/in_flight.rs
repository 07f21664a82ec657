//! The deliveries with an attempt in progress, so that the job engine and a user never attempt the same one at once.
//!
//! Kept in memory only. One process owns a data directory and a crash ends its attempts with it, so there is nothing
//! to undo: a user's attempt leaves the delivery's job unchanged.

use crate::id::DeliveryRowId;
use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};

/// The deliveries, by row id; clones share them.
#[derive(Clone, Debug, Default)]
pub(crate) struct InFlight {
    deliveries: Arc<Mutex<HashSet<DeliveryRowId>>>,
}

/// Marks a delivery as being attempted until dropped.
#[derive(Debug)]
pub(crate) struct Guard {
    delivery: DeliveryRowId,
    deliveries: Arc<Mutex<HashSet<DeliveryRowId>>>,
}

impl InFlight {
    /// Registers an attempt of this delivery; `None` while another one runs.
    pub(crate) fn enter(&self, delivery: DeliveryRowId) -> Option<Guard> {
        let entered = self.deliveries.lock().unwrap_or_else(PoisonError::into_inner).insert(delivery);
        entered.then(|| Guard { delivery, deliveries: Arc::clone(&self.deliveries) })
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.deliveries.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.delivery);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::RowId;

    #[test]
    fn a_delivery_is_attempted_by_one_at_a_time() {
        let in_flight = InFlight::default();
        let first = in_flight.enter(RowId::new(7));
        assert!(first.is_some() && in_flight.enter(RowId::new(7)).is_none());
        assert!(in_flight.enter(RowId::new(8)).is_some());
        drop(first);
        assert!(in_flight.enter(RowId::new(7)).is_some());
    }
}
