//! Which deliveries are being attempted: the job engine and a person never attempt the same one at once.
//!
//! Kept in memory alone. One process works on a data directory, and a crash ends its attempts with it, so there is
//! nothing to undo: the job of a delivery that a person attempts stays as it was.

use crate::id::DeliveryRowId;
use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};

/// The deliveries, by row id; clones share them.
#[derive(Clone, Debug, Default)]
pub(crate) struct InFlight {
    deliveries: Arc<Mutex<HashSet<DeliveryRowId>>>,
}

/// Holds a delivery as being attempted until it is dropped.
#[derive(Debug)]
pub(crate) struct Guard {
    delivery: DeliveryRowId,
    deliveries: Arc<Mutex<HashSet<DeliveryRowId>>>,
}

impl InFlight {
    /// Notes an attempt of this delivery; `None` while another one runs.
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
