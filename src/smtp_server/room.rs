//! Room for mail data while it is received, of all doors together: admission by octets in memory and drafts on disk.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// What memory is counted in, in octets. Small, so that those who send a little hold a little.
const UNIT: usize = 1024;

/// The room; clones share it.
#[derive(Clone, Debug)]
pub struct Room {
    memory: Arc<Semaphore>,
    drafts: Arc<Semaphore>,
}

impl Room {
    /// So many octets in memory, and so many drafts, each of which is an open file.
    pub fn new(octets: u64, drafts: usize) -> Self {
        let units = usize::try_from(octets).unwrap_or(usize::MAX) / UNIT;
        let limited = |permits: usize| Arc::new(Semaphore::new(permits.min(Semaphore::MAX_PERMITS)));
        Self { memory: limited(units), drafts: limited(drafts) }
    }

    /// Whether no memory is left.
    pub fn is_used_up(&self) -> bool {
        self.memory.available_permits() == 0
    }

    /// A share of the memory, empty at first.
    pub const fn share(&self) -> Share<'_> {
        Share { room: self, permit: None }
    }

    /// The right to one draft, as long as it is held; `None` when there are as many as may be.
    pub fn draft(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.drafts).try_acquire_owned().ok()
    }
}

/// What one message holds of the memory.
#[derive(Debug)]
pub struct Share<'r> {
    room: &'r Room,
    permit: Option<OwnedSemaphorePermit>,
}

impl Share<'_> {
    /// Makes the share as large as what is held; `false` when there is no more, and the share stays as it was.
    pub fn cover(&mut self, octets: usize) -> bool {
        let needed = octets.div_ceil(UNIT);
        let have = self.permit.as_ref().map_or(0, OwnedSemaphorePermit::num_permits);
        if needed <= have {
            drop(self.permit.as_mut().and_then(|permit| permit.split(have - needed)));
            return true;
        }
        let missing = u32::try_from(needed - have).unwrap_or(u32::MAX);
        let Ok(more) = Arc::clone(&self.room.memory).try_acquire_many_owned(missing) else { return false };
        match &mut self.permit {
            Some(permit) => permit.merge(more),
            None => self.permit = Some(more),
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_grow_and_shrink_within_the_room_and_end_with_their_message() {
        let room = Room::new(10 * 1024, 1);
        let (mut one, mut other) = (room.share(), room.share());
        assert!(one.cover(1) && other.cover(8 * 1024) && one.cover(1025));
        assert!(room.is_used_up());
        assert!(!one.cover(2049) && one.cover(2048));
        assert!(other.cover(0) && one.cover(10 * 1024) && room.is_used_up());
        drop(one);
        assert!(!room.is_used_up() && other.cover(10 * 1024));
    }

    #[test]
    fn so_many_drafts_and_no_more() {
        let room = Room::new(0, 1);
        let held = room.draft();
        assert!(held.is_some() && room.draft().is_none());
        drop(held);
        assert!(room.draft().is_some());
    }
}
