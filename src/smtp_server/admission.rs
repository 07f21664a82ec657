//! Admission of mail data, shared by all SMTP listeners: octets held in memory and spool files on disk.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::memory_budget::{Consumer, MemoryBudget, Reservation};

/// Bounds the mail data being received; clones share the bounds.
#[derive(Clone, Debug)]
pub(crate) struct MailDataBudget {
    memory: MemoryBudget,
    spool_permits: Arc<Semaphore>,
}

impl MailDataBudget {
    /// Takes SMTP's share of `memory` and allows at most `spool_files` open spool files.
    pub(crate) fn new(memory: MemoryBudget, spool_files: usize) -> Self {
        Self { memory, spool_permits: Arc::new(Semaphore::new(spool_files.min(Semaphore::MAX_PERMITS))) }
    }

    /// Returns true, and counts a refusal, when no memory is left for another message.
    pub(crate) fn must_refuse(&self) -> bool {
        let used_up = self.memory.is_used_up(Consumer::Smtp);
        if used_up {
            self.memory.count_refusal(Consumer::Smtp);
        }
        used_up
    }

    /// Opens an empty reservation for one message.
    pub(crate) fn reservation(&self) -> Reservation {
        self.memory.reservation(Consumer::Smtp)
    }

    /// Returns the permit for one spool file, or `None` when all are in use.
    pub(crate) fn spool_permit(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.spool_permits).try_acquire_owned().ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn so_many_drafts_and_no_more() {
        let room = MailDataBudget::new(MemoryBudget::new(192 << 20, 1024), 1);
        let held = room.spool_permit();
        assert!(held.is_some() && room.spool_permit().is_none());
        drop(held);
        assert!(room.spool_permit().is_some());
    }

    #[test]
    fn a_message_is_refused_while_no_memory_is_left() {
        let room = MailDataBudget::new(MemoryBudget::new(192 << 20, 1024), 1);
        let mut share = room.reservation();
        assert!(!room.must_refuse() && share.resize(1) && room.must_refuse());
        drop(share);
        assert!(!room.must_refuse());
    }
}
