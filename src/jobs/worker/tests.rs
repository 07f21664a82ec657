//! Tests the engine over a real database, with a handler that reports its attempts.

#![expect(clippy::unwrap_used, reason = "tests may panic")]

use futures_util::FutureExt;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use super::*;
use crate::id::{JobSubjectId, RowId};
use crate::jobs::{AttemptResult, Handler, Schedule, Settlement, Verdict};
use crate::store::Connection;

/// Reports each attempt.
struct Reporter(UnboundedSender<JobSubjectId>);

impl Handler for Reporter {
    type Attempted = ();
    type Settled = ();

    async fn attempt(self: Arc<Self>, _: Flow, job: ClaimedJob, _: Timestamp) -> AttemptResult<()> {
        assert!(self.0.send(job.subject_id).is_ok());
        AttemptResult { verdict: Verdict::Delivered, health: Health::Up, attempted: None }
    }

    fn settle(&self, _: &Connection, (): (), _: Settlement) -> store::Result<Option<()>> {
        Ok(None)
    }

    fn committed(&self, (): ()) {}
}

fn worker(db: &Db, jobs: Jobs) -> (Worker, UnboundedReceiver<JobSubjectId>) {
    let (said, asked) = unbounded_channel();
    let registration =
        Registration::new(Arc::new(Reporter(said)), Schedule::new(Vec::new()), Duration::from_secs(60));
    let worker = Worker {
        db: db.clone(),
        clock: Clock::System,
        jobs,
        kinds: HashMap::from([(JobKind::Webhook, registration)]),
        config: WorkerConfig { lane_width: 1, mail_lane_width: 1, max_in_flight: 4 },
        stop: CancellationToken::new(),
    };
    (worker, asked)
}

async fn next(asked: &mut UnboundedReceiver<JobSubjectId>) -> JobSubjectId {
    tokio::time::timeout(Duration::from_secs(30), asked.recv()).await.unwrap().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_cannot_be_written_at_the_start_is_tried_again() {
    let dir = tempfile::tempdir().unwrap();
    let db = Db::open(dir.path()).unwrap();
    let now = Clock::System.now();
    db.write(move |tx| {
        store::jobs::insert(
            tx,
            &Flow::new("lane", RowId::new(1)),
            super::super::JobSubject::Webhook(RowId::new(7)),
            now,
        )
    })
    .await
    .unwrap();
    let (worker, mut asked) = worker(&db, Jobs::default());
    let lock = store::Connection::open(db.path()).unwrap();
    lock.execute_batch("BEGIN IMMEDIATE").unwrap();
    let stop = worker.stop.clone();
    let mut running = Box::pin(worker.run());
    // Its first write is under way, so it has failed once a later one has.
    assert!((&mut running).now_or_never().is_none());
    assert!(matches!(db.write(|_| Ok(())).await, Err(store::Error::Busy)));
    let running = tokio::spawn(running);
    lock.execute_batch("ROLLBACK").unwrap();
    assert_eq!(next(&mut asked).await, RowId::new(7));
    stop.cancel();
    running.await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_is_claimed_by_the_transaction_that_leaves_it_and_attempted_whether_announced_or_not() {
    let dir = tempfile::tempdir().unwrap();
    let db = Db::open(dir.path()).unwrap();
    let (jobs, now) = (Jobs::default(), Clock::System.now());
    let (worker, mut asked) = worker(&db, jobs.clone());
    let stop = worker.stop.clone();
    let running = tokio::spawn(worker.run());
    let leave = |lane: &'static str, subject, fails: bool| {
        let jobs = jobs.clone();
        db.write(move |tx| {
            let left = jobs.enqueue(
                tx,
                &Flow::new(lane, RowId::new(1)),
                super::super::JobSubject::Webhook(RowId::new(subject)),
                now,
            )?;
            if fails { Err(store::Error::Busy) } else { Ok(left) }
        })
    };
    // Once it attempts waiting jobs, it accepts jobs claimed on enqueueing.
    leave("before", 1, false).await.unwrap().notify_committed();
    assert_eq!(next(&mut asked).await, RowId::new(1));

    let left = leave("lane", 2, false).await.unwrap();
    assert!(left.is_claimed());
    let claimed = db.read(|connection| {
        let sql = "SELECT count(*) FROM job WHERE subject_id = 2 AND claims = 1 AND lease_until IS NOT NULL";
        Ok(connection.query_row(sql, [], |row| row.get::<_, i64>(0))?)
    });
    assert_eq!(claimed.await.unwrap(), 1);
    left.notify_committed();
    assert_eq!(next(&mut asked).await, RowId::new(2));

    assert!(matches!(leave("lane", 3, true).await, Err(store::Error::Busy)));
    drop(leave("lane", 4, false).await.unwrap());
    assert_eq!(next(&mut asked).await, RowId::new(4), "nobody announced it, and 3 was undone");
    stop.cancel();
    running.await.unwrap();
    assert_eq!(db.read(store::jobs::count).await.unwrap(), 0);
    assert!(asked.try_recv().is_err());
}
