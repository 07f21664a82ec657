//! Transactions whose rows name objects.
//!
//! The one place that removes an object because its transaction failed, and only when it certainly failed. Anything
//! that may be on disk stays, until the sweep, or a later commit that proves the failed one absent, settles it.

use std::sync::{Arc, Mutex, PoisonError};

use rusqlite::Connection;

use super::awaited::Hold;
use super::objects::Objects;
use super::uncommitted::UncommittedObject;
use crate::store::{Db, Error, Outcome, Result, audit};

/// Maximum number of unconfirmed objects that are remembered; beyond that, the sweep finds those without a row.
const UNCONFIRMED_MAX: usize = 1_000;

/// Objects whose transaction failed after its commit had begun, each with the number of durable commits before it.
#[derive(Debug, Default)]
pub(crate) struct UnconfirmedObjects(Mutex<Vec<(UncommittedObject, u64)>>);

impl UnconfirmedObjects {
    fn push(&self, placed: Vec<UncommittedObject>, synced: u64) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let room = UNCONFIRMED_MAX.saturating_sub(all.len());
        all.extend(placed.into_iter().take(room).map(|one| (one, synced)));
    }

    /// Takes those that were followed by a durable commit.
    fn take_before(&self, synced: u64) -> Vec<UncommittedObject> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.extract_if(.., |(_, before)| *before < synced).map(|(placed, _)| placed).collect()
    }
}

impl Db {
    /// Runs [`Db::write`] for a transaction whose rows name `placed`; `work` also returns whether they do. Objects that
    /// no row names are removed, but never those of a transaction that may be on disk.
    ///
    /// # Errors
    /// Those of [`Db::write`].
    pub(crate) async fn write_naming<T, F>(&self, mut placed: Vec<UncommittedObject>, work: F) -> Result<T>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> Result<(T, bool)> + Send + 'static,
    {
        let holds: Vec<Arc<Hold>> = placed.iter_mut().map(UncommittedObject::offer).collect();
        let written = self
            .write(move |tx| {
                // The sweep waits for the commit of everything that it sees released.
                let _holds = holds;
                work(tx)
            })
            .await;
        let unused = match (Outcome::of(&written), &written) {
            (Outcome::NotCommitted, _) | (Outcome::Committed, Ok((_, false))) => placed,
            (Outcome::Committed, _) => Vec::new(),
            (Outcome::Unknown, _) => {
                self.inner.unconfirmed.push(placed, self.inner.writer.progress().0);
                Vec::new()
            }
        };
        if !unused.is_empty() {
            tokio::task::spawn_blocking(move || unused.iter().for_each(UncommittedObject::remove));
        }
        if matches!(written, Ok((_, true))) {
            self.settle_unconfirmed();
        }
        written.map(|(value, _)| value)
    }

    /// Removes objects that a committed transaction no longer names, once a power cut cannot bring their rows back.
    /// Needs the runtime.
    pub(crate) fn remove_later(&self, objects: &Objects, names: Vec<String>) {
        if names.is_empty() {
            return;
        }
        let (db, objects) = (self.clone(), objects.clone());
        tokio::spawn(async move {
            let removed = match db.sync().await {
                Ok(()) => {
                    let remove = move || names.iter().try_for_each(|name| objects.remove(name));
                    tokio::task::spawn_blocking(remove).await.unwrap_or(Err(Error::Stopped))
                }
                Err(error) => Err(error),
            };
            if let Err(error) = removed {
                tracing::warn!(%error, "an object that nothing needs was not removed; the sweep will");
            }
        });
    }

    /// Removes the objects of failed commits that were superseded by a later durable commit: it was made on a state
    /// without them, so no restart brings their rows back.
    fn settle_unconfirmed(&self) {
        let proven = self.inner.unconfirmed.take_before(self.inner.writer.progress().1);
        if proven.is_empty() {
            return;
        }
        let db = self.clone();
        tokio::task::spawn_blocking(move || {
            for one in proven {
                match db.read_now(|connection| audit::names_object(connection, &one.object().name)) {
                    Ok(false) => one.remove(),
                    Ok(true) => {}
                    Err(error) => tracing::warn!(%error, "an object in doubt was left to the sweep"),
                }
            }
        });
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests may panic")]

    use std::path::Path;
    use std::time::Duration;

    use super::*;
    use crate::clock::Timestamp;
    use crate::id::MessageId;
    use crate::store::messages::mail_data;
    use crate::store::messages::mail_data::NewMailData;
    use crate::store::writer::faults::Fault;

    const NOW: Timestamp = Timestamp::from_millis(1_785_196_800_000);

    fn place(objects: &Objects) -> UncommittedObject {
        let mut draft = objects.create().unwrap();
        draft.append(b"mail data").unwrap();
        objects.commit(draft, &MessageId::new(NOW), NOW).unwrap()
    }

    /// Stores mail data in an object; returns the object's name.
    async fn store(db: &Db, objects: &Objects) -> (String, Result<()>) {
        let placed = place(objects);
        let name = placed.object().name.clone();
        let new = NewMailData::File(placed.object().clone());
        let written =
            db.write_naming(vec![placed], move |tx| Ok((mail_data::insert(tx, &new, NOW).map(drop)?, true)));
        (name, written.await)
    }

    fn is_there(dir: &Path, name: &str) -> bool {
        dir.join("objects").join(name).exists()
    }

    async fn until_gone(dir: &Path, name: &str) {
        while is_there(dir, name) {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn an_object_whose_commit_failed_midway_is_there_whatever_the_disk_holds() {
        for fault in Fault::ALL {
            let dir = tempfile::tempdir().unwrap();
            let (db, objects) = (Db::open(dir.path()).unwrap(), Objects::open(dir.path()).unwrap());
            db.faults().arm(fault);
            let (name, written) = store(&db, &objects).await;
            assert_eq!(Outcome::of(&written), Outcome::Unknown, "{fault:?}: {written:?}");
            assert_eq!(db.is_healthy(), fault == Fault::Before, "{fault:?}");
            if fault != Fault::Before {
                let refused = store(&db, &objects).await.1;
                assert!(refused.is_err(), "{fault:?}: it went on");
            }
            assert!(is_there(dir.path(), &name), "{fault:?}: the object was removed");
            db.close().await;
            let again = Db::open(dir.path()).unwrap();
            let found = again.read(move |connection| audit::names_object(connection, &name)).await.unwrap();
            let kept = matches!(fault, Fault::SyncKept | Fault::After | Fault::Panic);
            assert_eq!(found, kept, "{fault:?}");
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn an_object_in_doubt_goes_once_a_later_commit_proves_that_no_row_names_it() {
        let dir = tempfile::tempdir().unwrap();
        let (db, objects) = (Db::open(dir.path()).unwrap(), Objects::open(dir.path()).unwrap());
        db.faults().arm(Fault::Before);
        let (doubtful, written) = store(&db, &objects).await;
        assert!(written.unwrap_err().is_full());
        // Nothing is written here, so nothing is proven.
        db.write(|_| Ok(())).await.unwrap();
        assert!(is_there(dir.path(), &doubtful));
        let (kept, written) = store(&db, &objects).await;
        written.unwrap();
        until_gone(dir.path(), &doubtful).await;
        assert!(is_there(dir.path(), &kept));
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn what_failed_before_the_commit_or_was_not_needed_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let (db, objects) = (Db::open(dir.path()).unwrap(), Objects::open(dir.path()).unwrap());
        for work in [|_: &Connection| Err(Error::Corrupt("value")), |_: &Connection| Ok(((), false))] {
            let placed = place(&objects);
            let name = placed.object().name.clone();
            drop(db.write_naming(vec![placed], work).await);
            until_gone(dir.path(), &name).await;
        }
        let placed = place(&objects);
        let name = placed.object().name.clone();
        drop(placed);
        assert!(!is_there(dir.path(), &name), "nobody was to name it");
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn one_that_fails_for_itself_is_certain_whatever_becomes_of_the_commit() {
        let dir = tempfile::tempdir().unwrap();
        let db = Db::open(dir.path()).unwrap();
        let (release, released) = std::sync::mpsc::channel::<()>();
        let (begun, begins) = tokio::sync::oneshot::channel();
        // Holds the thread until the other three wait, which then share one commit.
        let first = db.write(move |_| {
            begun.send(()).unwrap_or_default();
            let _ = released.recv();
            Ok(())
        });
        let mut first = Box::pin(first);
        tokio::select! {
            biased;
            _ = &mut first => unreachable!("it is held"),
            begins = begins => begins.unwrap(),
        }
        let armed = db.clone();
        let failing = db.write(move |_| {
            armed.faults().arm(Fault::SyncKept);
            Err::<(), _>(Error::Corrupt("value"))
        });
        let (one, two) = (db.write(|_| Ok(())), db.write(|_| Ok(())));
        let go = async { drop(release) };
        let (_, failed, one, two, ()) = tokio::join!(biased; first, failing, one, two, go);
        let outcomes = [&failed, &one, &two].map(Outcome::of);
        assert_eq!(outcomes, [Outcome::NotCommitted, Outcome::Unknown, Outcome::Unknown]);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn the_sweep_passes_over_what_a_transaction_may_come_to_name() {
        let dir = tempfile::tempdir().unwrap();
        let objects = Objects::open(dir.path()).unwrap();
        let mut placed = place(&objects);
        drop(placed.offer());
        let name = placed.object().name.clone();
        assert!(objects.is_awaited(&name));
        drop(placed);
        assert!(!objects.is_awaited(&name) && objects.exists(&name));
    }
}
