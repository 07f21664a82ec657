//! Acceptance: mail data and its envelope become rows, objects and jobs in one durable transaction, so whatever `Ok`
//! promises is on disk. The steps are here: read and check the data, verify the sender, write the object if it is
//! large, run one transaction that contains everything promised, and wake the workers only after its commit; it uses
//! the rest of `inbound`, `webhook`, `outbound` and the levels below. A change of the rows of a message belongs in
//! `transaction` and `plan`, of domains that store nothing in `zero_retention`, of forward routes in `forwarding`, and
//! of reports that come back in `dsn`.

mod dsn;
mod forwarding;
mod plan;
mod transaction;
mod zero_retention;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use ring::hmac;

use self::plan::{MessageFields, RecipientPlan, is_plain_header, is_undated};
use self::transaction::{StoredAs, store_all};
use super::Inbound;
use super::recipients::{AccountRecipient, Recipient};
use super::verify::{Verdicts, Verification};
use crate::clock::Timestamp;
use crate::event_bus::Activity;
use crate::event_bus::mail_log::{self, Line};
use crate::event_bus::realtime::{Body, Event};
use crate::id::MessageId;
use crate::jobs::{EnqueuedJob, Jobs};
use crate::limits::{Kind, Limits};
use crate::mail::envelope::{Envelope, Peer};
use crate::mail::mime::{self, Mail};
use crate::mail::trace;
use crate::metrics::{Counter, MessageRefused, Service};
use crate::outbound::Outbound;
use crate::outbound::forward::{self, COPIES, FORWARDED};
use crate::store;
use crate::store::blobs::objects::Objects;
use crate::store::blobs::pending::MailData;
use crate::store::blobs::uncommitted::UncommittedObject;
use crate::store::messages::mail_data;
use crate::store::messages::mail_data::NewMailData;

/// RFC 5321 §6.3: a message with more Received fields than this is in a mail loop.
const MAX_RECEIVED: usize = 100;
/// A message that passed this host more often than this is certainly in a loop.
const MAX_OWN_RECEIVED: usize = 4;
/// Mail data up to this size is parsed on the async thread; larger data goes to a blocking thread.
const PARSE_HERE_MAX: usize = 64 * 1024;
/// Time for which a session waits for the commit before the sender is asked to retry.
const COMMIT_DEADLINE: Duration = Duration::from_secs(60);

/// Confirmation of an accepted message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct AcceptedMessage {
    /// Public id of the message of the first recipient.
    pub(crate) id: String,
    /// Those of all recipients, separated by commas; empty unless the log wants them.
    pub(crate) all_ids: String,
}

/// Reason why a message is not accepted. If a commit failed midway, a restart may find the message stored; its
/// repetition is recognised then. The cause of a storage error is for the log alone.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReceiveError {
    /// The message is in a mail loop.
    #[error("the message goes round in a loop")]
    MailLoop,
    /// The data directory's file system is full.
    #[error("no room to store the message")]
    StorageFull(String),
    /// The account of a recipient has reached its storage limit.
    #[error("the mailbox is full")]
    AccountFull,
    /// It came to an SRS address and is no report about the mail forwarded with it.
    #[error("only reports about forwarded mail are taken at this address")]
    NotAReport,
    /// Storage failed otherwise.
    #[error("storage failed")]
    Storage(String),
    /// Storage did not answer in time.
    #[error("storage is too slow")]
    Busy,
}

impl ReceiveError {
    pub(crate) fn storage(cause: impl ToString) -> Self {
        Self::Storage(cause.to_string())
    }

    /// Returns the fault of this server, if it is one.
    pub(crate) fn fault(&self) -> Option<String> {
        match self {
            Self::StorageFull(cause) | Self::Storage(cause) => Some(cause.clone()),
            Self::Busy => Some(self.to_string()),
            Self::MailLoop | Self::AccountFull | Self::NotAReport => None,
        }
    }
}

/// Logs the end of a transaction that did not come by SMTP. `reply` is the answer to accepted mail.
pub(crate) fn log_received(line: Line<'_>, reply: Option<&str>, received: &Result<AcceptedMessage, ReceiveError>) {
    match received {
        Ok(accepted) => Line { message_id: Some(&accepted.all_ids), reply, ..line }.log(mail_log::Event::Accepted),
        Err(error) => {
            let (fault, text) = (error.fault(), error.to_string());
            let reason = Some(fault.as_deref().unwrap_or(&text));
            Line { reason, fault: fault.is_some(), ..line }.log(mail_log::Event::Refused);
        }
    }
}

/// Verification that a message's sender needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Checks {
    /// Verifies everything. Verification skips loopback peers by itself.
    All,
    /// Reuses an earlier result: the message has not left this server since.
    Known(Verification),
    /// Verifies nothing: the account injected the message, which authenticates nobody.
    Injected {
        /// True if the account may send from the address in From.
        from_is_own: bool,
    },
}

impl Checks {
    /// Returns the service through which a message with these checks comes.
    const fn service(&self) -> Service {
        match self {
            Self::All => Service::Smtp,
            Self::Known(_) => Service::Local,
            Self::Injected { .. } => Service::Http,
        }
    }
}

/// Services used inside the transaction.
#[derive(Clone, Copy)]
struct Services<'a> {
    jobs: &'a Jobs,
    outbound: &'a Outbound,
    limits: &'a Limits,
    objects: &'a Objects,
}

impl Inbound {
    /// Accepts one message for all its recipients. `Ok` means that it is on disk.
    ///
    /// # Errors
    /// The sender may retry unless the message is in a loop.
    pub(crate) async fn receive(
        &self,
        peer: &Peer,
        envelope: Envelope<Recipient>,
        data: MailData,
    ) -> Result<AcceptedMessage, ReceiveError> {
        self.receive_checked(peer, envelope, data, Checks::All).await
    }

    /// Does the same as [`Inbound::receive`] with the given verification of the sender.
    pub(super) async fn receive_checked(
        &self,
        peer: &Peer,
        envelope: Envelope<Recipient>,
        data: MailData,
        checks: Checks,
    ) -> Result<AcceptedMessage, ReceiveError> {
        let service = checks.service();
        let outcome = self.accept(peer, envelope, data, checks).await;
        let metrics = &self.shared.metrics;
        let refuse = |reason| metrics.messages_refused.add(service, reason);
        match &outcome {
            Ok(_) => metrics.add(Counter::MessagesAccepted),
            Err(ReceiveError::MailLoop) => refuse(MessageRefused::Loop),
            Err(ReceiveError::NotAReport) => refuse(MessageRefused::NotAReport),
            Err(ReceiveError::StorageFull(_)) => {
                refuse(MessageRefused::StorageFull);
                self.note_full(self.shared.clock.now());
            }
            Err(ReceiveError::AccountFull) => refuse(MessageRefused::AccountFull),
            Err(ReceiveError::Storage(_) | ReceiveError::Busy) => refuse(MessageRefused::Storage),
        }
        outcome
    }

    async fn accept(
        &self,
        peer: &Peer,
        envelope: Envelope<Recipient>,
        data: MailData,
        checks: Checks,
    ) -> Result<AcceptedMessage, ReceiveError> {
        let now = self.shared.clock.now();
        let size = data.len();
        let hostname = self.shared.config.hostname.as_str();
        let Envelope { reverse_path, recipients, smtputf8, eight_bit } = envelope;
        let (mut accounts, mut return_paths) = (Vec::with_capacity(recipients.len()), Vec::new());
        for recipient in recipients {
            match recipient {
                Recipient::Account(recipient) => accounts.push(recipient),
                Recipient::ReturnPath(recipient) => return_paths.push(recipient),
            }
        }
        // The first of several accounts is charged; mail to return paths alone is charged to none.
        let turn = self.acquire_parse_permit(accounts.first().map(|recipient| recipient.account), size).await?;
        let (bytes, draft) = match data {
            MailData::Memory(bytes) => (bytes, None),
            MailData::Spooled(mut draft) => {
                let read = tokio::task::spawn_blocking(move || draft.read_all().map(|bytes| (bytes, draft)));
                let (bytes, draft) = read.await.map_err(ReceiveError::storage)?.map_err(storage_error)?;
                (bytes, Some(draft))
            }
        };
        if accounts.is_empty() {
            return self.accept_dsn(&return_paths, &reverse_path, &bytes, now).await;
        }
        let mut reports = dsn::read_reports(&return_paths, &reverse_path, &bytes);
        let forwards = dsn::forward_reports(&return_paths, &reverse_path, &bytes);
        let envelope = Envelope { reverse_path, recipients: accounts, smtputf8, eight_bit };
        let mail_from = envelope.reverse_path.to_string();
        let mail = read_mail(&bytes, hostname)?;
        reports.extend(dsn::complaint(&mail, &bytes, self.shared.outbound.return_paths(), now));
        let spam = match &self.shared.spam {
            Some(check) if checks == Checks::All => check.check(&bytes, peer, &envelope).await,
            Some(_) | None => None,
        };
        let (verification, verdicts) = match checks {
            Checks::All => {
                let found = self.shared.verifier.verify(peer, &mail_from, &bytes, &mail).await;
                let verdicts = found.verdicts;
                (found, verdicts)
            }
            Checks::Known(known) => {
                let verdicts = known.verdicts;
                (known, verdicts)
            }
            Checks::Injected { from_is_own } => {
                (Verification { aligned: from_is_own, ..Verification::unchecked(hostname) }, Verdicts::default())
            }
        };
        let forwarded_by = mime::field_values(&bytes, FORWARDED);
        let copies = forward::copies_left(&mime::field_values(&bytes, COPIES), &self.shared.limits);
        let plain_header = is_plain_header(&bytes, &mail);
        let (mut fields, to_names) =
            MessageFields::new(mail, mail_from, hostname, verification, spam, size, (forwarded_by, copies));
        (fields.verdicts, fields.plain_header, fields.undated) = (verdicts, plain_header, is_undated(&bytes));
        let fingerprint = hmac::sign(&self.shared.fingerprint_key, &bytes);
        let id = MessageId::new(now);
        let plans: Vec<RecipientPlan> = envelope
            .recipients
            .into_iter()
            .map(|recipient| {
                self.plan(recipient, peer, envelope.smtputf8, &id, fingerprint.as_ref(), &to_names, &fields, now)
            })
            .collect();
        let (raw, placed, first_attempts) = if plans.iter().all(RecipientPlan::is_dropped) {
            (NewMailData::inline(&[]), None, None)
        } else if draft.is_none() && bytes.len() <= mail_data::INLINE_MAX && fields.parts.is_empty() {
            (NewMailData::inline(&bytes), None, Some(Bytes::from(bytes)))
        } else {
            let (raw, placed) = self.keep(draft, bytes, id.clone(), now).await?;
            (raw, Some(placed), None)
        };
        drop(turn);
        let accepted = self.commit(id, fields, plans, (raw, placed), first_attempts, now).await?;
        // Few messages go both to an address of ours and to another one, and reading a report twice changes nothing.
        self.settle_reports(reports, now).await?;
        self.report_forwards(forwards, now).await.map(|_| accepted)
    }

    #[expect(clippy::too_many_arguments, reason = "one call site; a struct would only rename the arguments")]
    fn plan(
        &self,
        mut recipient: AccountRecipient,
        peer: &Peer,
        smtputf8: bool,
        id: &MessageId,
        fingerprint: &[u8],
        to_names: &[mime::NamedAddress],
        fields: &MessageFields,
        now: Timestamp,
    ) -> RecipientPlan {
        let address = recipient.mailbox.canonical();
        if recipient.idle_routes > 0 {
            tracing::warn!(message = %id, routes = recipient.idle_routes, "more routes match than may run; these did not");
            self.shared.limits.count_refused(Kind::FanOut, recipient.idle_routes);
        }
        let mut context = hmac::Context::with_key(&self.shared.fingerprint_key);
        // Another device may send the same.
        let device = fields.undated.then(|| peer.address.to_canonical().to_string());
        let parts = [fingerprint, fields.mail_from.as_bytes(), address.as_bytes()];
        for part in parts.into_iter().chain(device.as_ref().map(String::as_bytes)) {
            context.update(&part.len().to_le_bytes());
            context.update(part);
        }
        let tag = context.sign();
        let head = tag.as_ref().first_chunk::<8>().copied().unwrap_or_default();
        let hostname = self.shared.config.hostname.as_str();
        let to = recipient.mailbox.to_string();
        let received = trace::received(peer, hostname, id.as_str(), smtputf8, Some(&to), now);
        RecipientPlan {
            fingerprint: i64::from_le_bytes(head),
            runs: recipient.runs(),
            routes: std::mem::take(&mut recipient.routes),
            to_name: mime::display_name(to_names, &to).map(str::to_owned),
            trace: format!("{}{received}", fields.verification.authentication_results),
            own_id: id.to_string(),
            recipient,
        }
    }

    /// Writes mail data to the object store: durable before the transaction that names it.
    async fn keep(
        &self,
        draft: Option<store::blobs::pending::PendingObject>,
        bytes: Vec<u8>,
        id: MessageId,
        now: Timestamp,
    ) -> Result<(NewMailData, UncommittedObject), ReceiveError> {
        let objects = self.shared.objects.clone();
        let writing = tokio::task::spawn_blocking(move || {
            let draft = match draft {
                Some(draft) => draft,
                None => {
                    let mut draft = objects.create()?;
                    draft.append(&bytes)?;
                    draft
                }
            };
            objects.commit(draft, &id, now)
        });
        let placed = writing.await.map_err(ReceiveError::storage)?.map_err(storage_error)?;
        Ok((NewMailData::File(placed.object().clone()), placed))
    }

    async fn commit(
        &self,
        id: MessageId,
        fields: MessageFields,
        plans: Vec<RecipientPlan>,
        (raw, placed): (NewMailData, Option<UncommittedObject>),
        data: Option<Bytes>,
        now: Timestamp,
    ) -> Result<AcceptedMessage, ReceiveError> {
        let first = id.to_string();
        let logged = mail_log::is_enabled().then(|| fields.mail_from.clone());
        let (from, subject, size) = (fields.from_addr.clone(), fields.subject.clone(), fields.size);
        let attachments = fields.parts.len();
        let (jobs, outbound) = (self.shared.jobs.clone(), self.shared.outbound.clone());
        let limits = Arc::clone(&self.shared.limits);
        let objects = self.shared.objects.clone();
        let written = self.shared.db.write_naming(placed.into_iter().collect(), move |tx| {
            let services = Services { jobs: &jobs, outbound: &outbound, limits: &limits, objects: &objects };
            store_all(tx, services, id, &fields, plans, &raw, now)
        });
        let stored = within_deadline(written).await?;
        let id = stored.first().map_or(first, |one| one.id.clone());
        let mut all_ids = String::new();
        if let Some(mail_from) = logged {
            all_ids = mail_log::join(stored.iter().map(|one| one.id.as_str()));
            stored.iter().for_each(|one| one.log_discarded(&mail_from));
        }
        for one in stored {
            if let StoredAs::Message { account, domain, row } = one.stored_as {
                let event = Event { id: one.id.clone(), domain, body: Body::Received(row) };
                self.shared.publisher.realtime.publish(account, event);
                self.shared.publisher.publish(|| Activity::Accepted {
                    message_id: one.id,
                    from: from.clone(),
                    to: one.to,
                    subject: subject.clone(),
                    size,
                    attachments,
                    deliveries: one.jobs.len(),
                });
            }
            if let Some(data) = &data {
                one.first_attempts
                    .into_iter()
                    .for_each(|first_attempts| self.shared.first_attempt_cache.put(first_attempts, data.clone()));
            }
            one.jobs.into_iter().for_each(EnqueuedJob::notify_committed);
        }
        Ok(AcceptedMessage { id, all_ids })
    }
}

/// Parses mail data, unless it is in a loop. Text bodies are decoded later, when they are shown.
fn read_mail(bytes: &[u8], hostname: &str) -> Result<Mail, ReceiveError> {
    reading(bytes.len(), || {
        let mail = mime::parse_without_bodies(bytes);
        let loops = mail.received_count > MAX_RECEIVED || mime::received_count_by(bytes, hostname) > MAX_OWN_RECEIVED;
        if loops { Err(ReceiveError::MailLoop) } else { Ok(mail) }
    })
}

/// Runs work that takes time in proportion to a mail of `size` octets, without blocking other tasks.
fn reading<T>(size: usize, read: impl FnOnce() -> T) -> T {
    if size <= PARSE_HERE_MAX { read() } else { tokio::task::block_in_place(read) }
}

/// Waits for a transaction as long as a session may. A slower one may still be committed, and its repetition is
/// recognised then; nothing that it relies on is undone.
async fn within_deadline<T>(written: impl Future<Output = store::Result<T>>) -> Result<T, ReceiveError> {
    match tokio::time::timeout(COMMIT_DEADLINE, written).await {
        Ok(written) => written.map_err(storage_error),
        Err(_) => Err(ReceiveError::Busy),
    }
}

/// Hides the cause, which is for the log: the sender learns only whether a retry helps.
fn storage_error(error: store::Error) -> ReceiveError {
    match error {
        store::Error::Limit { .. } => ReceiveError::AccountFull,
        _ if error.is_full() => ReceiveError::StorageFull(error.to_string()),
        _ => ReceiveError::storage(error),
    }
}
