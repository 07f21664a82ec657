//! The share of the memory budget for large mail that webhook attempts hold.

use super::deliver::Webhooks;
use super::payload::{Payload, WHOLE_MAX};
use super::request::SMALL;
use crate::id::AccountRowId;
use crate::memory_budget::{Consumer, Reservation};

impl Webhooks {
    /// Waits, in turn with the account's other attempts, for the share of a message of `size` octets: the mail data
    /// plus a payload of the same length while it is held whole.
    pub(crate) async fn share(&self, account: AccountRowId, size: u64) -> Reservation {
        let octets = size.saturating_add(size.min(WHOLE_MAX as u64));
        self.memory.reserve(Consumer::Webhooks, account, usize::try_from(octets).unwrap_or(usize::MAX)).await
    }
}

/// Returns the part of a share that is still needed while `payload` is posted, since the receiver may be slow.
pub(crate) fn lower(mut share: Reservation, payload: &Payload) -> Option<Reservation> {
    let held = payload.memory_size();
    share.shrink_to(held);
    Some(share).filter(|_| held > SMALL)
}
