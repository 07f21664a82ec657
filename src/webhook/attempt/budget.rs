//! The memory that webhook attempts with large mail reserve.

use super::deliver::Webhooks;
use super::payload::{Payload, WHOLE_MAX};
use super::request::SMALL;
use crate::id::AccountRowId;
use crate::memory_budget::{Consumer, Reservation};

impl Webhooks {
    /// Waits, in turn with the account's other attempts, for the memory of a message of `size` octets: the mail data
    /// plus a payload of the same length while it is held whole.
    pub(crate) async fn reserve(&self, account: AccountRowId, size: u64) -> Reservation {
        let octets = size.saturating_add(size.min(WHOLE_MAX as u64));
        self.memory.reserve(Consumer::Webhooks, account, usize::try_from(octets).unwrap_or(usize::MAX)).await
    }
}

/// Shrinks a reservation to what is still needed while `payload` is posted, since the receiver may be slow.
pub(crate) fn shrink(mut reservation: Reservation, payload: &Payload) -> Option<Reservation> {
    let held = payload.memory_size();
    reservation.shrink_to(held);
    Some(reservation).filter(|_| held > SMALL)
}
