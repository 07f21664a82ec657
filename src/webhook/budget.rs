//! How much large mail the attempts of webhooks hold in memory at the same time.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::deliver::Webhooks;
use super::payload::{Payload, WHOLE_MAX};
use super::request::SMALL;

/// KiB of it.
const BUDGET_KIB: u32 = 48 * 1024;

impl Webhooks {
    /// How much large mail may be in memory at once.
    pub fn budget() -> Arc<Semaphore> {
        Arc::new(Semaphore::new(BUDGET_KIB as usize))
    }

    /// Waits for the share of a mail of `size` octets: the mail data, and a payload as long as it is held whole.
    pub(super) async fn share(&self, size: u64) -> Option<OwnedSemaphorePermit> {
        let octets = size.saturating_add(size.min(WHOLE_MAX as u64));
        let kib = u32::try_from(octets.div_ceil(1024)).unwrap_or(u32::MAX).min(BUDGET_KIB);
        Arc::clone(&self.budget).acquire_many_owned(kib).await.ok()
    }
}

/// What of a share is needed while `payload` is posted: the receiver may take its time over it.
pub(super) fn lower(share: OwnedSemaphorePermit, payload: &Payload) -> Option<OwnedSemaphorePermit> {
    let held = payload.held();
    let mut share = Some(share).filter(|_| held > SMALL)?;
    drop(share.split(share.num_permits().saturating_sub(held.div_ceil(1024))));
    Some(share)
}
