//! The sweep removes whatever is past its retention time, rows first, then files; a second task fills the search index
//! behind the messages.
//!
//! Everything happens in small bounded steps, so that mail and webhooks never wait for it.

use std::time::Duration;

use crate::id::{JobRowId, MailDataRowId, MessageRowId};
use crate::store::Connection;
use tokio_util::sync::CancellationToken;

use crate::clock::{Clock, Timestamp};
use crate::content;
use crate::store;
use crate::store::accounts::{idempotency, links, notices, sessions, stats, verifications};
use crate::store::blobs::objects::{Damage, Objects};
use crate::store::jobs;
use crate::store::jobs::lane_pauses;
use crate::store::messages::mail_data::StoredMailData;
use crate::store::messages::removals::Reason;
use crate::store::messages::{dedup, mail_data, removals, uploads};
use crate::store::sending::{destinations, dispatches, forwarded_messages};
use crate::store::webhooks::zero_retention::ZeroRetentionRow;
use crate::store::webhooks::{attempts, deliveries, events, zero_retention};
use crate::store::{Db, audit, messages, reseal, search};

/// Lifetime of raw copies and attachments: seven days (contract 1.9).
const RAW_AGE: Duration = Duration::from_secs(604_800);
/// Lifetime of captures of attempts: 45 days (contract 1.9).
const ATTEMPT_AGE: Duration = Duration::from_secs(45 * 86_400);
/// Lifetime of the notes on removed messages and the reasons for their removal.
const REMOVAL_AGE: Duration = Duration::from_secs(90 * 86_400);
/// Lifetime of the keys of former master keys: that of the links which live longest.
const FORMER_KEY_AGE: Duration = Duration::from_secs(366 * 86_400);
/// A file without a row that is older than this is an orphan of a crash.
const ORPHAN_AGE: Duration = Duration::from_secs(3600);
/// Objects are removed within an hour after their links expire, so the sweep runs twice an hour.
const SWEEP_EVERY: Duration = Duration::from_secs(1800);
/// A starting server has more urgent work than the sweep.
const FIRST_SWEEP_AFTER: Duration = Duration::from_secs(60);
/// Rows per transaction of the sweep.
const STEP: u32 = 100;

/// Lifetime of a copy of the database from before an upgrade of its schema.
const SCHEMA_COPY_AGE: Duration = Duration::from_secs(30 * 86_400);

const INDEX_EVERY: Duration = Duration::from_millis(500);
/// Messages indexed per transaction: this takes the writer a few milliseconds, for which mail may have to wait.
const INDEX_STEP: u32 = 500;
/// Above this many commits per second the server is busy, and the index can wait …
const BUSY_COMMITS_PER_SEC: u64 = 300;
/// … until this many messages wait, which a search would notice; then a few indexing steps run in between.
const INDEX_BEHIND_MAX: u32 = 5_000;
/// Steps at a time, in quiet and in busy times.
const QUIET_STEPS: u32 = 200;
const BUSY_STEPS: u32 = 4;

/// The sweep and its data.
#[derive(Clone, Debug)]
pub struct Retention {
    /// The database.
    pub db: Db,
    /// Mail data on disk.
    pub objects: Objects,
    /// The clock.
    pub clock: Clock,
    /// Retention of messages in days, unless their domain has its own.
    pub default_days: u32,
}

/// Counts of what one sweep removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Swept {
    /// Messages with everything that belongs to them.
    pub messages: usize,
    /// Raw copies of messages that remain.
    pub mail_data: usize,
    /// Zero-retention mail whose webhook could not be reached in all that time.
    pub zero_retention: usize,
    /// Captures of attempts.
    pub attempts: usize,
    /// Files of clients.
    pub uploads: usize,
    /// Sessions, links in mails and remembered answers.
    pub ended: usize,
    /// Files that no row named.
    pub orphans: usize,
}

impl Retention {
    /// Sweeps at intervals and fills the search index, until `stop`.
    pub(crate) async fn run(self, stop: CancellationToken) {
        let sweeping = async {
            tokio::time::sleep(FIRST_SWEEP_AFTER).await;
            loop {
                match self.sweep(self.clock.now()).await {
                    Ok(swept) if swept != Swept::default() => tracing::info!(?swept, "swept what is past its time"),
                    Ok(_) => {}
                    Err(error) => tracing::warn!(%error, "the sweep stopped early; the next one goes on"),
                }
                tokio::time::sleep(SWEEP_EVERY).await;
            }
        };
        tokio::select! {
            () = sweeping => {}
            () = self.fill_index() => {}
            () = self.db.keep_small() => {}
            () = self.watch_objects() => {}
            () = stop.cancelled() => {}
        }
    }

    /// Runs one whole sweep as of `now`.
    ///
    /// # Errors
    /// Whatever was swept before the error stays swept.
    pub async fn sweep(&self, now: Timestamp) -> store::Result<Swept> {
        Ok(Swept {
            messages: self.sweep_messages(now).await?,
            // Before the raw copies, which zero-retention rows hold.
            zero_retention: self.sweep_zero_retention(now).await?,
            // Steps that only remove come before those that also write, for which a full disk may have no room.
            uploads: self.sweep_uploads(now).await?,
            mail_data: self.sweep_mail_data(now).await?,
            attempts: self.sweep_attempts(now).await?,
            ended: self.sweep_ended(now).await?,
            orphans: {
                self.sweep_recent(now).await?;
                self.db.remove_schema_copies(SCHEMA_COPY_AGE).await?;
                self.sweep_orphans().await?
            },
        })
    }

    async fn sweep_messages(&self, now: Timestamp) -> store::Result<usize> {
        let mut gone = 0;
        loop {
            let days = self.default_days;
            let expired = self.db.read(move |connection| {
                let expired = messages::list_expired(connection, days, now, STEP)?;
                let rows: Vec<MessageRowId> = expired.iter().map(|(message, _)| *message).collect();
                Ok((find_jobs(connection, &rows)?, expired))
            });
            let (jobs, expired) = expired.await?;
            let count = expired.len();
            let files = self.db.write_removal(move |tx| {
                let mut files = Vec::new();
                jobs::delete_all(tx, &jobs)?;
                for (message, mail_data) in expired {
                    deliveries::delete_by_message(tx, message)?;
                    dispatches::delete_by_message(tx, message)?;
                    removals::note_message(tx, message, Reason::Retention, now)?;
                    messages::delete(tx, message)?;
                    if let Some(mail_data) = mail_data {
                        files.extend(mail_data::release(tx, mail_data)?);
                    }
                }
                Ok(files)
            });
            self.remove_files(files.await?).await?;
            gone += count;
            if count < STEP as usize {
                return Ok(gone);
            }
        }
    }

    async fn sweep_zero_retention(&self, now: Timestamp) -> store::Result<usize> {
        let mut gone = 0;
        loop {
            let old = self.db.read(move |c| zero_retention::list_created_before(c, now.minus(RAW_AGE), STEP)).await?;
            let count = old.len();
            if count == 0 {
                return Ok(gone);
            }
            let files = self.db.write_removal(move |tx| {
                let forget = |row: &ZeroRetentionRow| {
                    removals::note_zero_retention(tx, row.id, Reason::Undelivered, now)?;
                    zero_retention::finish(tx, row)
                };
                let files: store::Result<Vec<_>> = old.iter().map(forget).collect();
                Ok(files?.into_iter().flatten().collect())
            });
            self.remove_files(files.await?).await?;
            gone += count;
        }
    }

    async fn sweep_mail_data(&self, now: Timestamp) -> store::Result<usize> {
        let mut gone = 0;
        loop {
            let before = now.minus(RAW_AGE);
            let old = self.db.read(move |c| mail_data::list_created_before(c, before, STEP)).await?;
            let count = old.len();
            let mut unreadable = 0;
            for mail_data in old {
                unreadable += usize::from(!self.archive(mail_data).await?);
            }
            gone += count - unreadable;
            // Unreadable ones would be listed again and again.
            if count < STEP as usize || unreadable > 0 {
                return Ok(gone);
            }
        }
    }

    /// Replaces one raw copy by its readable parts; false if it cannot be read at the moment, and stays.
    async fn archive(&self, mail_data: MailDataRowId) -> store::Result<bool> {
        let objects = self.objects.clone();
        let body = self.db.read(move |connection| {
            let bytes = match mail_data::find(connection, mail_data)? {
                Some(StoredMailData::Inline(bytes)) => bytes,
                Some(StoredMailData::File(object)) => match objects.read_all(&object) {
                    // It leaves its message without content, but must not stop the sweep.
                    Err(store::Error::Damaged { .. }) => Vec::new(),
                    read => read?,
                },
                None => Vec::new(),
            };
            content::archive(&bytes)
        });
        let body = match body.await {
            Ok(body) => body,
            Err(error @ store::Error::Io { .. }) => {
                tracing::warn!(%error, "a raw copy cannot be read; it stays until the next sweep");
                return Ok(false);
            }
            Err(error) => return Err(error),
        };
        let file = self.db.write(move |tx| {
            for message in messages::list_by_mail_data(tx, mail_data)? {
                messages::set_body(tx, message, &body)?;
            }
            mail_data::release(tx, mail_data)
        });
        self.remove_files(file.await?.into_iter().collect()).await?;
        Ok(true)
    }

    async fn sweep_attempts(&self, now: Timestamp) -> store::Result<usize> {
        let before = now.minus(ATTEMPT_AGE);
        while self.db.write_nosync(move |tx| deliveries::delete_detached(tx, before, STEP)).await? == STEP as usize {}
        while self.db.write_nosync(move |tx| events::forget_payloads(tx, before, STEP)).await? == STEP as usize {}
        let mut gone = 0;
        loop {
            let step = self.db.write_nosync(move |tx| attempts::delete_before(tx, before, STEP)).await?;
            gone += step;
            if step < STEP as usize {
                return Ok(gone);
            }
        }
    }

    async fn sweep_uploads(&self, now: Timestamp) -> store::Result<usize> {
        let mut gone = 0;
        loop {
            let expired = self.db.read(move |c| uploads::list_expired(c, now, STEP)).await?;
            let count = expired.len();
            if count == 0 {
                return Ok(gone);
            }
            let files = self.db.write_removal(move |tx| {
                let delete = |(id, file)| {
                    removals::note_upload(tx, id, Reason::Retention, now)?;
                    uploads::delete(tx, id).map(|()| file)
                };
                expired.into_iter().map(delete).collect()
            });
            self.remove_files(files.await?).await?;
            gone += count;
        }
    }

    async fn sweep_ended(&self, now: Timestamp) -> store::Result<usize> {
        let ended = self.db.write_nosync(move |tx| {
            Ok(reseal::delete_former(tx, now.minus(FORMER_KEY_AGE))?
                + sessions::delete_expired(tx, now)?
                + verifications::delete_expired(tx, now)?
                + links::delete_expired(tx, now)?
                + destinations::delete_expired(tx, now)?
                + forwarded_messages::delete_expired(tx, now)?
                + notices::delete_expired(tx, now)?
                + lane_pauses::delete_expired(tx, now)?)
        });
        let mut gone = ended.await?;
        let before = now.minus(REMOVAL_AGE);
        while self.db.write_nosync(move |tx| removals::delete_before(tx, before, STEP)).await? == STEP as usize {}
        while self.db.write_nosync(move |tx| stats::forget_before(tx, now, STEP)).await? == STEP as usize {}
        loop {
            let step = self.db.write_nosync(move |tx| idempotency::delete_expired(tx, now, STEP)).await?;
            gone += step;
            if step < STEP as usize {
                return Ok(gone);
            }
        }
    }

    async fn sweep_recent(&self, now: Timestamp) -> store::Result<()> {
        let mut from = Some(i64::MIN);
        while let Some(after) = from {
            from = self.db.write_nosync(move |tx| dedup::sweep(tx, after, STEP * 20, now)).await?;
        }
        Ok(())
    }

    /// Removes files that no row names. Those that existed before the start are left by a crash, and few: if they are
    /// many, the database has rather lost their rows, so they stay until the operator decides (`mailkite recover`).
    async fn sweep_orphans(&self) -> store::Result<usize> {
        let objects = self.objects.clone();
        let listed = tokio::task::spawn_blocking(move || objects.list(ORPHAN_AGE));
        let all = listed.await.unwrap_or(Err(store::Error::Stopped))?;
        let total = all.len();
        let objects = self.objects.clone();
        let old: Vec<_> =
            all.into_iter().filter(|one| one.is_older_than(ORPHAN_AGE) && !objects.is_awaited(&one.name)).collect();
        if !old.is_empty() {
            // A commit that hung for all that time may name one of them, and removed rows must not come back.
            self.db.sync().await?;
        }
        let found = self.db.read(move |connection| {
            let mut orphans = Vec::new();
            for one in old {
                if !audit::names_object(connection, &one.name)? {
                    orphans.push((objects.is_inherited(&one), one.name));
                }
            }
            Ok((total, orphans))
        });
        let (total, orphans) = found.await?;
        let inherited = orphans.iter().filter(|(inherited, _)| *inherited).count();
        let too_many = inherited > small_share(total);
        if self.objects.keep_orphan(if too_many { inherited as u64 } else { 0 }) && too_many {
            tracing::error!(
                orphans = inherited,
                objects = total,
                "many stored objects have no row: is the database an older one? None is removed; run mailkite recover"
            );
        }
        let gone: Vec<String> =
            orphans.into_iter().filter(|(inherited, _)| !(*inherited && too_many)).map(|(_, name)| name).collect();
        let count = gone.len();
        self.remove_files(gone).await?;
        Ok(count)
    }

    /// Reports objects that readers found missing or damaged to the operator, each once.
    async fn watch_objects(&self) {
        loop {
            tokio::time::sleep(INDEX_EVERY).await;
            for (name, what) in self.objects.take_suspected() {
                let asked = name.clone();
                // A reader that opened it while it was removed with its row is no reason to report it.
                let named = self.db.read(move |connection| audit::names_object(connection, &asked)).await;
                let real = what != Damage::Missing || !matches!(named, Ok(false));
                if real && self.objects.confirm(name.clone(), what) {
                    tracing::error!(
                        object = name,
                        "a stored object is {what}; mailkite audit lists what it belongs to"
                    );
                }
            }
        }
    }

    async fn remove_files(&self, names: Vec<String>) -> store::Result<()> {
        remove_files(&self.objects, names).await
    }

    /// Keeps the search index close behind the messages, without delaying mail.
    async fn fill_index(&self) {
        let mut commits_before = self.db.commits().0;
        loop {
            tokio::time::sleep(INDEX_EVERY).await;
            let commits = self.db.commits().0;
            let rate = (commits - commits_before) * 1000 / u64::try_from(INDEX_EVERY.as_millis()).unwrap_or(1);
            let step = self.fill_step(rate > BUSY_COMMITS_PER_SEC).await;
            if let Err(error) = step {
                tracing::warn!(%error, "the search index was not filled; trying again");
            }
            commits_before = self.db.commits().0;
        }
    }

    async fn fill_step(&self, busy: bool) -> store::Result<()> {
        let behind = self.db.read(|connection| search::behind(connection, INDEX_BEHIND_MAX)).await?;
        if busy && behind < INDEX_BEHIND_MAX {
            return Ok(());
        }
        let steps = if busy { BUSY_STEPS } else { QUIET_STEPS };
        for _ in 0..behind.div_ceil(INDEX_STEP).min(steps) {
            self.db.write_nosync(|tx| search::fill(tx, INDEX_STEP)).await?;
        }
        Ok(())
    }
}

/// Returns how many of `total` objects the end of a process may leave without a row: the ones being accepted at that
/// moment.
fn small_share(total: usize) -> usize {
    (total / 100).max((total / 4).min(100)).max(10)
}

/// Removes a message with its content, attachments and captures; its deliveries end and are detached from it (contract
/// 5.5). Returns true if there was such a row.
///
/// An attempt that is running is not recorded any more.
///
/// # Errors
/// If only removing its file fails, the message is gone and the sweep removes the file.
pub async fn delete_message(
    db: &Db,
    objects: &Objects,
    message: MessageRowId,
    now: Timestamp,
) -> store::Result<bool> {
    let jobs = db.read(move |connection| find_jobs(connection, &[message])).await?;
    let removed = db.write_removal(move |tx| {
        let Some(row) = messages::find_by_row(tx, message)? else { return Ok(None) };
        jobs::delete_all(tx, &jobs)?;
        deliveries::detach_from_message(tx, message, now)?;
        dispatches::delete_by_message(tx, message)?;
        removals::note_message(tx, message, Reason::Api, now)?;
        messages::delete(tx, message)?;
        let file = row.mail_data_id.map(|mail_data| mail_data::release(tx, mail_data)).transpose()?;
        Ok(Some(file.flatten()))
    });
    let Some(file) = removed.await? else { return Ok(false) };
    if let Err(error) = remove_files(objects, file.into_iter().collect()).await {
        tracing::warn!(%error, "a removed message's object was not removed; the sweep will");
    }
    Ok(true)
}

/// Finds the jobs of the deliveries of these messages.
fn find_jobs(connection: &Connection, messages: &[MessageRowId]) -> store::Result<Vec<JobRowId>> {
    let deliveries = deliveries::list_ids_of_messages(connection, messages)?;
    Ok(jobs::find_by_deliveries(connection, &deliveries)?.into_iter().map(|(_, job)| job).collect())
}

async fn remove_files(objects: &Objects, names: Vec<String>) -> store::Result<()> {
    if names.is_empty() {
        return Ok(());
    }
    let objects = objects.clone();
    let removed = tokio::task::spawn_blocking(move || names.iter().try_for_each(|name| objects.remove(name)));
    removed.await.unwrap_or(Err(store::Error::Stopped))
}
