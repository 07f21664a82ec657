//! Room for mail data while it is received, of all doors together: admission by octets in memory and drafts on disk.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::memory_budget::{Door, MemoryBudget, Reservation};

/// The room; clones share it.
#[derive(Clone, Debug)]
pub(crate) struct MailDataBudget {
    memory: MemoryBudget,
    drafts: Arc<Semaphore>,
}

impl MailDataBudget {
    /// SMTP's share of the budget, and so many drafts, each of which is an open file.
    pub(crate) fn new(memory: MemoryBudget, drafts: usize) -> Self {
        Self { memory, drafts: Arc::new(Semaphore::new(drafts.min(Semaphore::MAX_PERMITS))) }
    }

    /// Whether no memory is left; then a message is refused.
    pub(crate) fn refuses(&self) -> bool {
        let used_up = self.memory.is_used_up(Door::Smtp);
        if used_up {
            self.memory.count_refusal(Door::Smtp);
        }
        used_up
    }

    /// The memory of one message, none at first.
    pub(crate) fn share(&self) -> Reservation {
        self.memory.reservation(Door::Smtp)
    }

    /// The right to one draft, as long as it is held; `None` when there are as many as may be.
    pub(crate) fn draft(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.drafts).try_acquire_owned().ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn so_many_drafts_and_no_more() {
        let room = MailDataBudget::new(MemoryBudget::new(192 << 20, 1024), 1);
        let held = room.draft();
        assert!(held.is_some() && room.draft().is_none());
        drop(held);
        assert!(room.draft().is_some());
    }

    #[test]
    fn a_message_is_refused_while_no_memory_is_left() {
        let room = MailDataBudget::new(MemoryBudget::new(192 << 20, 1024), 1);
        let mut share = room.share();
        assert!(!room.refuses() && share.resize(1) && room.refuses());
        drop(share);
        assert!(!room.refuses());
    }
}
