//! Scheduled messages: released when due, or canceled before (contract 8.3).

use std::sync::Arc;

use crate::store::Connection;

use super::sender::SenderError;
use crate::clock::Timestamp;
use crate::event_bus::mail_log::{self, Event, Line};
use crate::id::{AccountRowId, DomainRowId, MessageRowId, ScheduledId};
use crate::jobs::{AttemptResult, ClaimedJob, EnqueuedJob, Flow, Handler, Health, Settlement, Verdict, mail_lane};
use crate::mail::address::{Mailbox, canonical};
use crate::outbound::{Dependencies, Outbound};
use crate::store;
use crate::store::accounts;
use crate::store::jobs::{self, JobSubject};
use crate::store::messages::MessageStatus;
use crate::store::messages::{self, MessageRow};
use crate::store::sending::dispatches;
use crate::store::sending::dispatches::DispatchRow;
use crate::store::sending::recipients;
use crate::store::sending::recipients::RecipientStatus;
use crate::store::sending::recipients::{RecipientRow, RecipientState};
use crate::store::sending::{outbound_details, suppressions};

/// The reason a scheduled send cannot be canceled.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CancelError {
    /// 404: there is none with this id.
    #[error("there is no such scheduled send")]
    NotFound,
    /// 403 `key_scope`.
    #[error("the key is limited to another domain")]
    KeyScope,
    /// 409 `already_sent`.
    #[error("it was sent already")]
    AlreadySent,
    #[error(transparent)]
    Store(#[from] store::Error),
}

store::transaction_error!(CancelError);

/// Releases scheduled messages; handles the jobs of that kind.
pub(crate) struct ScheduledSends {
    pub(crate) outbound: Outbound,
}

impl Handler for ScheduledSends {
    /// The message to release, and the time.
    type Attempted = (MessageRowId, Timestamp);
    type Settled = Released;

    async fn attempt(
        self: Arc<Self>,
        _: Flow,
        job: ClaimedJob,
        now: Timestamp,
    ) -> AttemptResult<(MessageRowId, Timestamp)> {
        let attempted = Some((job.subject_id.of_kind(), now));
        AttemptResult { verdict: Verdict::Delivered, health: Health::Up, attempted }
    }

    fn settle(
        &self,
        tx: &Connection,
        (message, now): (MessageRowId, Timestamp),
        _: Settlement,
    ) -> store::Result<Option<Released>> {
        self.outbound.parts.release(tx, message, now)
    }

    fn committed(&self, released: Released) {
        released.log();
        released.enqueued.into_iter().for_each(EnqueuedJob::notify_committed);
    }
}

/// A released message.
pub(crate) struct Released {
    row: MessageRow,
    enqueued: Vec<EnqueuedJob>,
    /// Recipients that were suppressed meanwhile.
    suppressed: Vec<String>,
    /// Reason that it is not sent at all.
    failure: Option<String>,
}

impl Released {
    fn log(&self) {
        let (message_id, from) = (Some(self.row.public_id.as_str()), Some(self.row.from_addr.as_str()));
        if !self.suppressed.is_empty() {
            let to = mail_log::join(&self.suppressed);
            Line { message_id, from, to: Some(&to), ..Line::default() }.log(Event::Suppressed);
        }
        if let Some(reason) = self.failure.as_deref() {
            Line { message_id, from, reason: Some(reason), ..Line::default() }.log(Event::Bounced);
        }
    }
}

impl Dependencies {
    /// Releases a scheduled message if it still passes the gates; returns its jobs.
    fn release(&self, tx: &Connection, message: MessageRowId, now: Timestamp) -> store::Result<Option<Released>> {
        let Some(row) = messages::find_by_row(tx, message)? else { return Ok(None) };
        if row.status != MessageStatus::Scheduled {
            return Ok(None);
        }
        match self.gate(tx, &row) {
            // Keys are generated at a domain's first send, which has happened already.
            Ok(()) | Err(SenderError::NoKeys(_)) => {}
            Err(SenderError::Store(error)) => return Err(error),
            Err(error) => {
                let failure = error.to_string();
                fail(tx, &row, &failure, now)?;
                return Ok(Some(Released {
                    row,
                    enqueued: Vec::new(),
                    suppressed: Vec::new(),
                    failure: Some(failure),
                }));
            }
        }
        let all = recipients::list_by_message(tx, message)?;
        let addresses: Vec<String> = all.iter().map(|one| canonical(&one.address)).collect();
        let suppressed = suppressions::find_suppressed(tx, row.account_id, &addresses)?;
        let mut left_out = Vec::new();
        for one in all.iter().filter(|one| suppressed.contains(&canonical(&one.address))) {
            left_out.push(one.address.clone());
            let state = RecipientState {
                status: RecipientStatus::Failed,
                smtp_code: None,
                diagnostic: Some("the recipient is suppressed"),
            };
            recipients::settle(tx, one.dispatch, one.idx, state, now)?;
        }
        recipients::set_status_of_message(tx, message, RecipientStatus::Scheduled, RecipientStatus::Queued, now)?;
        let mut enqueued = Vec::new();
        for dispatch in dispatches::list_by_message(tx, message)? {
            let left = recipients::list(tx, dispatch.id)?;
            if left.iter().any(RecipientRow::is_unsettled) {
                dispatches::set_queued_at(tx, dispatch.id, now)?;
                let flow = Flow::new(&self.lane_of(&dispatch), row.account_id);
                enqueued.push(self.jobs.enqueue(tx, &flow, JobSubject::Dispatch(dispatch.id), now)?);
            } else {
                dispatches::finish(tx, &dispatch)?;
            }
        }
        if enqueued.is_empty() {
            outbound_details::set_failure(tx, message, "every recipient is suppressed")?;
        }
        outbound_details::set_send_status(tx, message, recipients::send_status(tx, message)?)?;
        Ok(Some(Released { row, enqueued, suppressed: left_out, failure: None }))
    }

    /// Checks the gates of contract 8.1 again.
    fn gate(&self, tx: &Connection, row: &MessageRow) -> Result<(), SenderError> {
        let account = accounts::find_by_row(tx, row.account_id)?.ok_or(SenderError::DomainNotOwned)?;
        let from = Mailbox::parse(&row.from_addr).map_err(|_| SenderError::DomainNotOwned)?;
        self.find_sender(tx, &account, None, from.domain().as_str()).map(|_| ())
    }

    /// Returns the current lane of a dispatch; a smarthost may have been added or removed since it was stored.
    pub(crate) fn lane_of(&self, dispatch: &DispatchRow) -> String {
        match (&dispatch.domain, self.config.outbound.smarthost_of(&dispatch.sending_domain)) {
            (Some(domain), _) => mail_lane(domain),
            (None, Some(relay)) => super::persist::relay_lane(relay),
            (None, None) => mail_lane(&dispatch.sending_domain),
        }
    }
}

/// Fails a message for a local reason.
fn fail(tx: &Connection, row: &MessageRow, why: &str, now: Timestamp) -> store::Result<()> {
    recipients::set_status_of_message(tx, row.id, RecipientStatus::Scheduled, RecipientStatus::Failed, now)?;
    for dispatch in dispatches::list_by_message(tx, row.id)? {
        dispatches::finish(tx, &dispatch)?;
    }
    outbound_details::set_failure(tx, row.id, why)?;
    outbound_details::set_send_status(tx, row.id, MessageStatus::Failed)
}

impl Outbound {
    /// Cancels a scheduled send; repeating it changes nothing.
    ///
    /// # Errors
    /// See [`CancelError`].
    pub(crate) async fn cancel(
        &self,
        account: AccountRowId,
        scope: Option<DomainRowId>,
        id: ScheduledId,
        now: Timestamp,
    ) -> Result<(), CancelError> {
        let canceled = self.parts.db.try_write_removal(move |tx| {
            let message = outbound_details::find_scheduled(tx, &id)?;
            let row = message.map(|message| messages::find_by_row(tx, message)).transpose()?.flatten();
            let Some(row) = row.filter(|row| row.account_id == account) else {
                return Err(CancelError::NotFound);
            };
            if scope.is_some_and(|only| row.domain_id != Some(only)) {
                return Err(CancelError::KeyScope);
            }
            match row.status {
                MessageStatus::Canceled => return Ok(()),
                MessageStatus::Scheduled => {}
                _ => return Err(CancelError::AlreadySent),
            }
            jobs::delete_by_subject(tx, JobSubject::ScheduledSend(row.id))?;
            recipients::set_status_of_message(
                tx,
                row.id,
                RecipientStatus::Scheduled,
                RecipientStatus::Canceled,
                now,
            )?;
            for dispatch in dispatches::list_by_message(tx, row.id)? {
                dispatches::finish(tx, &dispatch)?;
            }
            outbound_details::set_send_status(tx, row.id, MessageStatus::Canceled)?;
            Ok(())
        });
        canceled.await
    }
}
