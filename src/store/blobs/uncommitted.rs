//! Objects between their file and their row: durable, and not yet named by a committed transaction.

use std::sync::Arc;

use super::awaited::Hold;
use super::objects::{Object, Objects};
use super::pending::PendingObject;
use crate::clock::Timestamp;
use crate::id::{MessageId, UploadId};
use crate::store::Result;

/// A durable object that waits for the transaction whose row names it.
///
/// When it is dropped before its name was passed to a transaction, the file is removed; afterwards the file stays,
/// whatever the result of the transaction.
#[derive(Debug)]
#[must_use]
pub(crate) struct UncommittedObject {
    objects: Objects,
    object: Object,
    hold: Arc<Hold>,
    offered: bool,
}

impl UncommittedObject {
    fn place(objects: &Objects, draft: PendingObject, file_name: &str, now: Timestamp) -> Result<Self> {
        let (object, hold) = objects.place(draft, file_name, now)?;
        Ok(Self { objects: objects.clone(), object, hold: Arc::new(hold), offered: false })
    }

    /// Returns the values for its row.
    pub(crate) const fn object(&self) -> &Object {
        &self.object
    }

    /// Leaves the file to the transaction that the returned value is given to, which keeps it from the sweep.
    pub(super) fn offer(&mut self) -> Arc<Hold> {
        self.offered = true;
        Arc::clone(&self.hold)
    }

    /// Removes the file. Blocks.
    pub(super) fn remove(&self) {
        if let Err(error) = self.objects.remove(&self.object.name) {
            tracing::warn!(%error, "an unused object was not removed; the sweep will");
        }
    }
}

impl Drop for UncommittedObject {
    fn drop(&mut self) {
        if !self.offered {
            self.remove();
        }
    }
}

impl Objects {
    /// Makes a pending object the durable object of a message. Blocks until both fsyncs are done.
    ///
    /// # Errors
    /// The disk is full or fails; then no row may name what is left.
    pub(crate) fn commit(&self, draft: PendingObject, id: &MessageId, now: Timestamp) -> Result<UncommittedObject> {
        UncommittedObject::place(self, draft, &format!("{id}.eml"), now)
    }

    /// Makes a pending object the durable object of an upload, as [`Objects::commit`] does for a message.
    ///
    /// # Errors
    /// Those of [`Objects::commit`].
    pub(crate) fn commit_upload(
        &self,
        draft: PendingObject,
        id: &UploadId,
        now: Timestamp,
    ) -> Result<UncommittedObject> {
        UncommittedObject::place(self, draft, &format!("{id}.bin"), now)
    }
}
