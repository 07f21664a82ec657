//! Persists signed messages: large mail data in a file that is durable beforehand, the rest in the one transaction that
//! the 202, or the 250 of a submission, confirms.
//!
//! The stored mail is the mail on the wire: composed, signed, complete. Only the jobs created in the transaction send
//! it.

use super::sender::Sender;
use super::signed::SignedMessage;
use super::{RELEASE_LANE, Remember};
use crate::clock::Timestamp;
use crate::config::Smarthost;
use crate::id::{MailDataRowId, MessageId};
use crate::jobs::{self, EnqueuedJob, Flow};
use crate::limits;
use crate::mail::address::Mailbox;
use crate::mail::mime::{self, Part};
use crate::mail::status_code::EnhancedStatusCode;
use crate::outbound::reports::bounce::Failure;
use crate::outbound::{Dependencies, Outbound};
use crate::store::accounts::limits::{MESSAGE_BYTES, add_deliveries};
use crate::store::accounts::{domains, idempotency};
use crate::store::blobs::uncommitted::UncommittedObject;
use crate::store::jobs::JobSubject;
use crate::store::messages::mail_data::NewMailData;
use crate::store::messages::{self, MessageStatus, attachments, mail_data};
use crate::store::sending::dispatches::NewDispatch;
use crate::store::sending::outbound_details::NewOutbound;
use crate::store::sending::recipients::RecipientStatus;
use crate::store::sending::{dispatches, outbound_details, recipients};
use crate::store::{self, Connection};

/// A message ready for the transaction; large mail data is on disk and no longer in memory.
pub(super) struct PersistedMessage {
    message: SignedMessage,
    raw: NewMailData,
    /// The object that holds the data, until a row refers to it.
    placed: Option<UncommittedObject>,
    parts: Vec<Part>,
}

impl Outbound {
    /// Prepares mail data for storage: details its row, or in a file that is durable before the transaction. The file
    /// of a message that is never committed is removed.
    ///
    /// # Errors
    /// The disk is full or fails.
    pub(super) async fn persist(&self, mut signed: SignedMessage, now: Timestamp) -> store::Result<PersistedMessage> {
        let data = std::mem::take(&mut signed.mail.data);
        if !signed.mail.has_attachments && data.len() <= mail_data::INLINE_MAX {
            return Ok(PersistedMessage {
                raw: NewMailData::inline(&data),
                placed: None,
                parts: Vec::new(),
                message: signed,
            });
        }
        let (objects, id) = (self.parts.objects.clone(), signed.id.clone());
        let writing = tokio::task::spawn_blocking(move || {
            let parts = mime::parse_without_bodies(&data).attachments;
            let mut draft = objects.create()?;
            draft.append(&data)?;
            objects.commit(draft, &id, now).map(|placed| (placed, parts))
        });
        let (placed, parts) = writing.await.unwrap_or(Err(store::Error::Stopped))?;
        Ok(PersistedMessage {
            message: signed,
            raw: NewMailData::File(placed.object().clone()),
            placed: Some(placed),
            parts,
        })
    }

    /// Stores messages with the jobs that send them and the answer about them, all or none; once this returns, neither
    /// a crash nor a power cut loses them.
    ///
    /// # Errors
    /// The disk is full or fails; [`store::Error::outcome`] says whether it is certain that nothing was stored.
    pub(super) async fn commit(
        &self,
        mut persisted: Vec<PersistedMessage>,
        remember: Option<Remember>,
        now: Timestamp,
    ) -> store::Result<()> {
        let placed = persisted.iter_mut().filter_map(|one| one.placed.take()).collect();
        let outbound = self.clone();
        let written = self.parts.db.write_naming(placed, move |tx| {
            let (parts, mut enqueued) = (&outbound.parts, Vec::new());
            let scheduled = persisted.iter().filter(|one| one.message.scheduled.is_some());
            if let Some(first) = scheduled.clone().next() {
                let account = first.message.sender.account;
                parts.limits.admit_many(tx, account, limits::Kind::Scheduled, scheduled.count() as u64)?;
            }
            for one in &persisted {
                let overhead = MESSAGE_BYTES.saturating_mul(one.message.recipients.len() as u64);
                let bytes = one.raw.size().saturating_add(overhead);
                parts.limits.admit_bytes(tx, one.message.sender.account, bytes)?;
                enqueued.extend(parts.store(tx, one, now)?);
                enqueued.extend(outbound.report_suppressed(tx, &one.message, now)?);
            }
            if let Some(remember) = remember {
                parts.limits.admit(tx, remember.request.account, limits::Kind::IdempotencyKeys)?;
                idempotency::put(tx, &remember.request, &remember.answer, now)?;
            }
            Ok((enqueued, true))
        });
        written.await?.into_iter().for_each(EnqueuedJob::notify_committed);
        Ok(())
    }

    fn report_suppressed(
        &self,
        tx: &Connection,
        signed: &SignedMessage,
        now: Timestamp,
    ) -> store::Result<Option<EnqueuedJob>> {
        if signed.suppressed.is_empty() || signed.return_to.is_none() {
            return Ok(None);
        }
        let addresses: Vec<String> = signed.suppressed.iter().map(ToString::to_string).collect();
        let status = EnhancedStatusCode::NOT_AUTHORIZED;
        let diagnostic = format!("{status} the recipient is suppressed");
        let failure = |recipient| Failure { recipient, code: None, status: Some(status), diagnostic: &diagnostic };
        let failures: Vec<Failure<'_>> = addresses.iter().map(|address| failure(address)).collect();
        match messages::find(tx, &signed.id)? {
            Some(message) => self.report_failures(tx, &message, &failures, now),
            None => Ok(None),
        }
    }
}

impl Dependencies {
    /// Returns the bounce address of a message for its recipient at index `place`: at its From domain if that
    /// receives here, else at the host name (contract 8.5). Without one, a bounce could not be matched to the
    /// message.
    fn bounce_address(&self, id: &MessageId, place: usize, sender: &Sender) -> String {
        let host = if sender.domain.verified { &sender.domain.name } else { &self.config.hostname };
        let address = u16::try_from(place).ok().and_then(|place| self.return_paths.bounce(id, place, host));
        address.map(|mailbox| mailbox.to_string()).unwrap_or_default()
    }

    /// Stores one message completely, as the answer confirms; returns its jobs.
    fn store(
        &self,
        tx: &Connection,
        persisted: &PersistedMessage,
        now: Timestamp,
    ) -> store::Result<Vec<EnqueuedJob>> {
        let signed = &persisted.message;
        let sender = &signed.sender;
        let status = if signed.scheduled.is_some() { RecipientStatus::Scheduled } else { RecipientStatus::Queued };
        let first = self.bounce_address(&signed.id, 0, sender);
        let mail_data_id = mail_data::insert(tx, &persisted.raw, now)?;
        let message =
            outbound_details::insert_message(tx, &signed.row(persisted, status.into(), first, mail_data_id), now)?;
        add_deliveries(tx, sender.account, message, signed.recipients.len())?;
        attachments::insert_all(tx, message, &persisted.parts)?;
        let details = signed.details();
        if !details.is_empty() {
            outbound_details::insert(tx, message, &details)?;
        }
        let mut routed = Vec::with_capacity(signed.recipients.len());
        for (place, mailbox) in signed.recipients.iter().enumerate() {
            let (domain, lane) = self.destination(tx, &sender.domain.name, mailbox)?;
            routed.push((domain, Flow::new(&lane, sender.account), self.bounce_address(&signed.id, place, sender)));
        }
        let new: Vec<NewDispatch<'_>> = routed
            .iter()
            .map(|(domain, _, reverse_path)| NewDispatch {
                account_id: sender.account,
                message: Some(message),
                route_id: None,
                sending_domain: &sender.domain.name,
                domain: *domain,
                reverse_path,
                prefix: "",
                mail_data_id,
                forwarding: None,
            })
            .collect();
        let dispatches = dispatches::insert_all(tx, &new, now)?;
        let addresses = signed.recipients.iter().map(ToString::to_string);
        let recipients: Vec<_> = dispatches.iter().copied().zip(addresses).collect();
        recipients::insert_all(tx, &recipients, status, now)?;
        if let Some((_, at)) = &signed.scheduled {
            let flow = Flow::new(RELEASE_LANE, sender.account);
            return Ok(vec![self.jobs.enqueue_at(tx, &flow, JobSubject::ScheduledSend(message), *at)?]);
        }
        let flows = routed.iter().map(|(_, flow, _)| flow);
        let jobs: Vec<_> = flows.zip(dispatches).map(|(flow, id)| (flow, JobSubject::Dispatch(id))).collect();
        self.jobs.enqueue_all(tx, &jobs, now)
    }

    /// Returns the recipient domain (`None` if a smarthost takes it) and the lane of mail from a domain to one
    /// recipient. Mail to a domain that is received here never uses a smarthost.
    pub(in crate::outbound) fn destination<'r>(
        &self,
        tx: &Connection,
        sending_domain: &str,
        recipient: &'r Mailbox,
    ) -> store::Result<(Option<&'r str>, String)> {
        let name = recipient.domain().as_str();
        Ok(match self.config.outbound.smarthost_of(sending_domain) {
            Some(relay) if domains::find_verified(tx, name)?.is_none() => (None, relay_lane(relay)),
            Some(_) | None => (Some(name), jobs::mail_lane(name)),
        })
    }
}

/// Returns the lane of a smarthost; it contains a blank, so it cannot collide with a domain.
pub(super) fn relay_lane(relay: &Smarthost) -> String {
    format!("{}relay {}:{}", jobs::MAIL_LANE, relay.host, relay.port)
}

impl SignedMessage {
    fn row(
        &self,
        persisted: &PersistedMessage,
        status: MessageStatus,
        mail_from: String,
        mail_data_id: MailDataRowId,
    ) -> NewOutbound {
        let addresses: Vec<&str> = self.mail.header_to.iter().map(|(address, _)| address.as_str()).collect();
        let only = self.mail.header_to.first().filter(|_| self.mail.header_to.len() == 1);
        NewOutbound {
            public_id: self.id.clone(),
            account_id: self.sender.account,
            domain_id: self.sender.domain.id,
            status,
            mail_from,
            from_addr: self.mail.from_addr.clone(),
            from_name: self.mail.from_name.clone(),
            to_addr: addresses.join(", "),
            to_name: only.and_then(|(_, name)| name.clone()),
            subject: self.mail.subject.clone(),
            message_id_header: self.mail.message_id_header.clone(),
            thread_id: self.mail.thread_id.clone(),
            attachment_count: persisted.parts.len(),
            size: persisted.raw.size(),
            mail_data_id,
        }
    }

    /// Returns the values that only few messages have, which are stored apart from the message's row.
    fn details(&self) -> outbound_details::Submission {
        let shown = |(address, name): &(String, Option<String>)| match name {
            Some(name) => serde_json::json!({"address": address, "name": name}),
            None => serde_json::json!({"address": address}),
        };
        let list = || serde_json::Value::Array(self.mail.header_to.iter().map(shown).collect()).to_string();
        outbound_details::Submission {
            header_to: (self.mail.header_to.len() != 1).then(list),
            metadata: self.metadata.clone(),
            scheduled_id: self.scheduled.as_ref().map(|(id, _)| id.clone()),
            scheduled_at: self.scheduled.as_ref().map(|(_, at)| *at),
            failure: None,
            return_to: self.return_to.as_ref().map(ToString::to_string),
        }
    }
}
