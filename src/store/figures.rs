//! Figures of the database for `/metrics`, read at each scrape at a bounded cost.

use std::fmt;

use rusqlite::{Connection, params};

use super::Result;
use super::jobs::JobKind;
use super::stored_enum::Words as _;
use crate::clock::Timestamp;
use crate::metrics::{Expose, Exposition};

/// Jobs that are counted by kind, the oldest first: some milliseconds of reading, whatever the backlog.
const COUNTED: u32 = 10_000;
/// Flows whose first job is read besides, so that many old jobs of one kind do not hide a flow that is stuck.
const FLOWS: usize = 1_000;

/// The queue, and the size of the file, at one time.
#[derive(Debug)]
pub(crate) struct DatabaseFigures {
    now: Timestamp,
    kinds: Vec<KindFigures>,
    /// All jobs. SQLite counts the pages of an index: 20 ms for a million.
    jobs: u64,
    page_size: u64,
    pages: u64,
    free_pages: u64,
}

/// The jobs of a kind.
#[derive(Debug)]
struct KindFigures {
    kind: &'static str,
    counted: u64,
    /// The time at which the oldest was first due.
    oldest: Option<Timestamp>,
}

impl DatabaseFigures {
    pub(crate) fn read(connection: &Connection, now: Timestamp) -> Result<Self> {
        let mut kinds: Vec<_> =
            JobKind::WORDS.iter().map(|kind| KindFigures { kind, counted: 0, oldest: None }).collect();
        let mut note = |kind: JobKind, counted: u64, since: i64| {
            if let Some(found) = kinds.iter_mut().find(|found| found.kind == kind.as_str()) {
                found.counted += counted;
                found.oldest = found.oldest.into_iter().chain([Timestamp::from_millis(since)]).min();
            }
        };
        let mut oldest = connection.prepare_cached(
            "SELECT kind, count(*), min(queued_at) FROM (SELECT kind, queued_at FROM job ORDER BY id LIMIT ?1)
             GROUP BY kind",
        )?;
        let mut rows = oldest.query([COUNTED])?;
        while let Some(row) = rows.next()? {
            note(row.get(0)?, row.get(1)?, row.get(2)?);
        }
        let mut next_flow = connection.prepare_cached(
            "SELECT lane, account_id, endpoint, kind, queued_at FROM job
             WHERE lease_until IS NULL AND (lane, account_id, endpoint) > (?1, ?2, ?3)
             ORDER BY lane, account_id, endpoint, run_at LIMIT 1",
        )?;
        let mut flow = (String::new(), i64::MIN, i64::MIN);
        for _ in 0..FLOWS {
            let mut rows = next_flow.query(params![flow.0, flow.1, flow.2])?;
            let Some(row) = rows.next()? else { break };
            note(row.get(3)?, 0, row.get(4)?);
            flow = (row.get(0)?, row.get(1)?, row.get(2)?);
        }
        let pragma = |name| connection.pragma_query_value(None, name, |row| row.get(0));
        Ok(Self {
            now,
            kinds,
            jobs: connection.query_row("SELECT count(*) FROM job", [], |row| row.get(0))?,
            page_size: pragma("page_size")?,
            pages: pragma("page_count")?,
            free_pages: pragma("freelist_count")?,
        })
    }
}

impl Expose for DatabaseFigures {
    fn expose(&self, exposition: &mut Exposition<'_>) -> fmt::Result {
        let Self { now, kinds, jobs, page_size, pages, free_pages } = self;
        exposition.gauge("mailkite_queue_jobs", "All jobs in the queue, running ones included.", *jobs)?;
        let counted = kinds.iter().map(|found| ([("kind", found.kind)], found.counted));
        exposition.gauges("mailkite_jobs", "The oldest 10,000 jobs in the queue, by kind.", counted)?;
        let age = |since: Option<Timestamp>| since.map_or(0.0, |since| now.since(since).as_secs_f64());
        let ages = kinds.iter().map(|found| ([("kind", found.kind)], age(found.oldest)));
        exposition.gauges("mailkite_job_oldest_age_seconds", "Time since the oldest job was first due.", ages)?;
        exposition.gauge("mailkite_database_bytes", "Size of the database file.", pages * page_size)?;
        let help = "Free room within the database file, which is used again.";
        exposition.gauge("mailkite_database_free_bytes", help, free_pages * page_size)
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests may panic")]

    use super::*;
    use crate::id::{AccountRowId, RowId};
    use crate::metrics::{Format, text};
    use crate::store::jobs::{Flow, JobSubject, insert};

    #[test]
    fn the_queue_is_counted_by_kind_and_a_scheduled_message_is_not_late() {
        let connection = Connection::open_in_memory().unwrap();
        connection.execute_batch(include_str!("../../schema.sql")).unwrap();
        let flow = Flow::new("a.test", AccountRowId::new(1));
        let at = Timestamp::from_millis;
        insert(&connection, &flow, JobSubject::Dispatch(RowId::new(1)), at(5_000)).unwrap();
        insert(&connection, &flow, JobSubject::Dispatch(RowId::new(2)), at(2_500)).unwrap();
        insert(&connection, &flow, JobSubject::ScheduledSend(RowId::new(3)), at(90_000)).unwrap();
        let figures = DatabaseFigures::read(&connection, at(10_000)).unwrap();
        let text = text(Format::Prometheus, vec![Box::new(figures)]).unwrap();
        for line in [
            "mailkite_queue_jobs 3",
            "mailkite_jobs{kind=\"dispatch\"} 2",
            "mailkite_jobs{kind=\"scheduled_send\"} 1",
            "mailkite_jobs{kind=\"webhook\"} 0",
            "mailkite_job_oldest_age_seconds{kind=\"dispatch\"} 7.5",
            "mailkite_job_oldest_age_seconds{kind=\"scheduled_send\"} 0.0",
        ] {
            assert!(text.lines().any(|other| other == line), "{line:?} is not in:\n{text}");
        }
    }

    #[test]
    fn a_crowd_of_scheduled_messages_does_not_hide_a_webhook_that_is_stuck() {
        let connection = Connection::open_in_memory().unwrap();
        connection.execute_batch(include_str!("../../schema.sql")).unwrap();
        let flow = Flow::new("scheduled", AccountRowId::new(1));
        let at = Timestamp::from_millis;
        for id in 0..i64::from(COUNTED) {
            insert(&connection, &flow, JobSubject::ScheduledSend(RowId::new(id)), at(90_000)).unwrap();
        }
        let stuck = Flow::new("https://a.test", AccountRowId::new(1));
        insert(&connection, &stuck, JobSubject::Webhook(RowId::new(1)), at(1_000)).unwrap();
        let figures = DatabaseFigures::read(&connection, at(61_000)).unwrap();
        let text = text(Format::Prometheus, vec![Box::new(figures)]).unwrap();
        assert!(text.contains("mailkite_job_oldest_age_seconds{kind=\"webhook\"} 60.0\n"), "{text}");
        assert!(text.contains("mailkite_queue_jobs 10001\n"), "{text}");
    }
}
