//! Figures of the database for `/metrics`, read at each scrape at a bounded cost.

use std::fmt;

use rusqlite::Connection;

use super::Result;
use super::jobs::JobKind;
use super::stored_enum::Words as _;
use crate::clock::Timestamp;
use crate::metrics::{Expose, Exposition};

/// Jobs that are counted, the oldest first: some milliseconds of reading. A longer queue shows this number, and since
/// ids grow with time, the age of its oldest job is right all the same.
const COUNTED: u32 = 100_000;

/// The queue, and the size of the file, at one time.
#[derive(Debug)]
pub(crate) struct DatabaseFigures {
    now: Timestamp,
    /// For each kind the jobs, and the time at which the oldest of them was first due.
    jobs: Vec<(&'static str, u64, Option<Timestamp>)>,
    page_size: u64,
    pages: u64,
    free_pages: u64,
}

impl DatabaseFigures {
    pub(crate) fn read(connection: &Connection, now: Timestamp) -> Result<Self> {
        let mut jobs: Vec<_> = JobKind::WORDS.iter().map(|word| (*word, 0, None)).collect();
        let mut statement = connection.prepare_cached(
            "SELECT kind, count(*), min(queued_at) FROM (SELECT kind, queued_at FROM job ORDER BY id LIMIT ?1)
             GROUP BY kind",
        )?;
        let mut rows = statement.query([COUNTED])?;
        while let Some(row) = rows.next()? {
            let kind: JobKind = row.get(0)?;
            if let Some(found) = jobs.iter_mut().find(|(word, ..)| *word == kind.as_str()) {
                (found.1, found.2) = (row.get(1)?, Some(Timestamp::from_millis(row.get(2)?)));
            }
        }
        let pragma = |name| connection.pragma_query_value(None, name, |row| row.get(0));
        Ok(Self {
            now,
            jobs,
            page_size: pragma("page_size")?,
            pages: pragma("page_count")?,
            free_pages: pragma("freelist_count")?,
        })
    }
}

impl Expose for DatabaseFigures {
    fn expose(&self, exposition: &mut Exposition<'_>) -> fmt::Result {
        let Self { now, jobs, page_size, pages, free_pages } = self;
        let counted = jobs.iter().map(|(word, count, _)| ([("kind", *word)], *count));
        exposition.gauges("mailkite_jobs", "Jobs in the queue, running ones included, up to 100,000.", counted)?;
        let age = |since: &Option<Timestamp>| since.map_or(0.0, |since| now.since(since).as_secs_f64());
        let ages = jobs.iter().map(|(word, _, since)| ([("kind", *word)], age(since)));
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
            "mailkite_jobs{kind=\"dispatch\"} 2",
            "mailkite_jobs{kind=\"scheduled_send\"} 1",
            "mailkite_jobs{kind=\"webhook\"} 0",
            "mailkite_job_oldest_age_seconds{kind=\"dispatch\"} 7.5",
            "mailkite_job_oldest_age_seconds{kind=\"scheduled_send\"} 0.0",
        ] {
            assert!(text.lines().any(|other| other == line), "{line:?} is not in:\n{text}");
        }
    }
}
