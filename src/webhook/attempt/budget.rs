//! What the attempts of webhooks hold of the memory budget for large mail.

use super::deliver::Webhooks;
use super::payload::{Payload, WHOLE_MAX};
use super::request::SMALL;
use crate::id::AccountRowId;
use crate::memory_budget::{Door, Reservation};

impl Webhooks {
    /// Waits, in the turn of its account, for the share of a mail of `size` octets: the mail data, and a payload as long
    /// as it is held whole.
    pub(crate) async fn share(&self, account: AccountRowId, size: u64) -> Reservation {
        let octets = size.saturating_add(size.min(WHOLE_MAX as u64));
        self.memory.reserve(Door::Webhooks, account, usize::try_from(octets).unwrap_or(usize::MAX)).await
    }
}

/// What of a share is needed while `payload` is posted: the receiver may take its time over it.
pub(crate) fn lower(mut share: Reservation, payload: &Payload) -> Option<Reservation> {
    let held = payload.memory_size();
    share.shrink_to(held);
    Some(share).filter(|_| held > SMALL)
}
