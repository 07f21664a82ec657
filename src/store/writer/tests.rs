//! Tests of sharing a commit, and of waiting for the right fsync.
#![expect(clippy::unwrap_used, reason = "tests may panic")]

use super::mark::Evidence;
use super::*;
use crate::store::migrate;

fn writer(dir: &tempfile::TempDir) -> Writer {
    let path = dir.path().join(crate::store::FILE_NAME);
    let evidence = Evidence::gather(dir.path());
    let mut connection = Connection::open(&path).unwrap();
    migrate::run(&mut connection, &path).unwrap();
    connection.pragma_update(None, "journal_mode", "WAL").unwrap();
    connection.execute_batch("CREATE TABLE one (value INTEGER)").unwrap();
    let mark = Keeper::begin(&connection, dir.path(), &evidence).unwrap();
    Writer::start(connection, &path, Arc::new(mark), Arc::new(Reserve::open(dir.path())), Arc::default()).unwrap()
}

fn insert(connection: &Connection) -> Result<()> {
    connection.execute("INSERT INTO one (value) VALUES (1)", [])?;
    Ok(())
}

/// Runs transactions of these urgencies that all wait before the first of them begins; returns the number of commits.
async fn commits(urgencies: &[Urgency]) -> u64 {
    let dir = tempfile::tempdir().unwrap();
    let writer = Arc::new(writer(&dir));
    let (release, held) = channel::<()>();
    let (begun, begins) = oneshot::channel();
    let hold = move |tx: &Connection| {
        begun.send(()).unwrap_or_default();
        held.recv().unwrap_or_default();
        insert(tx)
    };
    let holding = tokio::spawn({
        let writer = Arc::clone(&writer);
        async move { writer.run(Durability::Process, Urgency::Now, Room::Free, hold).await }
    });
    begins.await.unwrap();
    let before = writer.commits().0;
    let all = urgencies.iter().map(|urgency| writer.run(Durability::Process, *urgency, Room::Free, insert));
    let mut all = Box::pin(futures_util::future::join_all(all));
    // The first poll sends all of them.
    assert!(futures_util::poll!(&mut all).is_pending());
    drop(release);
    holding.await.unwrap().unwrap();
    all.await.into_iter().for_each(|outcome| outcome.unwrap());
    writer.commits().0 - before - 1
}

#[tokio::test]
async fn what_has_time_is_committed_with_what_is_urgent() {
    assert_eq!(commits(&[Urgency::Soon, Urgency::Soon, Urgency::Now]).await, 1);
}

#[tokio::test]
async fn what_has_time_waits_for_no_commit_that_never_comes() {
    assert_eq!(commits(&[Urgency::Soon]).await, 1);
}

#[tokio::test]
async fn what_is_urgent_takes_all_that_waits_along() {
    assert_eq!(commits(&[Urgency::Now, Urgency::Soon, Urgency::Now, Urgency::Soon]).await, 1);
}

#[tokio::test]
async fn whoever_waits_is_known_until_the_answer() {
    let dir = tempfile::tempdir().unwrap();
    let writer = writer(&dir);
    assert_eq!(writer.longest_wait(), Duration::ZERO);
    let (release, held) = channel::<()>();
    let mut waits = Box::pin(writer.run(Durability::Power, Urgency::Now, Room::Free, move |tx| {
        held.recv().unwrap_or_default();
        insert(tx)
    }));
    assert!(futures_util::poll!(&mut waits).is_pending());
    assert!(writer.longest_wait() > Duration::ZERO);
    assert!(!writer.committed_within(Duration::MAX));
    drop(release);
    waits.await.unwrap();
    assert!(writer.committed_within(Duration::from_secs(3600)));
}
