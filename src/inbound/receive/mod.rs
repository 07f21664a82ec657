//! Acceptance: mail data and its envelope become rows, objects and jobs in one durable transaction, so whatever `Ok`
//! promises is on disk. The steps are here: read and check the data, verify the sender, write the object if it is
//! large, run one transaction that contains everything promised, and wake the workers only after its commit; it uses
//! the rest of `inbound`, `webhook`, `outbound` and the levels below. A change of the rows of a message belongs in
//! `transaction`, of domains that store nothing in `zero_retention`, and of reports that come back in `dsn`.

mod dsn;
mod transaction;
mod zero_retention;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use ring::hmac;

use self::transaction::{Services, StoredAs, store_all};
use super::Inbound;
use super::recipients::Recipient;
use super::route::Route;
use super::verify::{Verdicts, Verification};
use crate::clock::Timestamp;
use crate::event_bus::Activity;
use crate::event_bus::realtime::{Body, Event};
use crate::id::{AccountRowId, MessageId};
use crate::jobs::EnqueuedJob;
use crate::limits::Kind;
use crate::mail::envelope::{Envelope, Peer};
use crate::mail::mime::{self, Mail, Part};
use crate::mail::trace;
use crate::metrics::Counter;
use crate::outbound::forward::{self, COPIES, FORWARDED};
use crate::store;
use crate::store::blobs::pending::MailData;
use crate::store::blobs::uncommitted::UncommittedObject;
use crate::store::messages::mail_data;
use crate::store::messages::mail_data::NewMailData;
use crate::store::webhooks::routes::Action;

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
pub(crate) struct Receipt {
    /// Public id of the message of the first recipient.
    pub(crate) id: String,
}

/// Reason why a message is not accepted. If a commit failed midway, a restart may find the message stored; its
/// repetition is recognised then.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReceiveError {
    /// The message is in a mail loop.
    #[error("the message goes round in a loop")]
    MailLoop,
    /// The data directory's file system is full.
    #[error("no room to store the message")]
    StorageFull,
    /// The account of a recipient has reached its storage limit.
    #[error("the mailbox is full")]
    AccountFull,
    /// It came to an SRS address and is no report about the mail forwarded with it.
    #[error("only reports about forwarded mail are taken at this address")]
    NotAReport,
    /// Storage failed otherwise.
    #[error("storage failed")]
    Storage,
    /// Storage did not answer in time.
    #[error("storage is too slow")]
    Busy,
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

/// Rows planned for one recipient's message.
struct RecipientPlan {
    recipient: Recipient,
    fingerprint: i64,
    routes: Vec<Arc<Route>>,
    /// Number of routes that make a delivery or a dispatch.
    runs: usize,
    to_name: Option<String>,
    trace: String,
    /// The id in our own Received field.
    own_id: String,
}

/// Fields common to the messages of all recipients.
struct MessageFields {
    mail_from: String,
    from_addr: String,
    from_name: Option<String>,
    subject: Option<String>,
    message_id_header: Option<String>,
    thread_id: Option<String>,
    verdicts: Verdicts,
    verification: Verification,
    /// Domain of the author whom every reader finds in From.
    author: Option<String>,
    /// True if every reader finds the same fields.
    plain_header: bool,
    /// True without Date and Message-ID, so that the same bytes may be another message.
    undated: bool,
    spam: Option<&'static str>,
    truncated: bool,
    size: u64,
    parts: Vec<Part>,
    received_count: usize,
    /// Ids of routes that forwarded it already.
    forwarded_by: Vec<String>,
    /// Number of copies that forwarding may still make; `None` is unlimited.
    copies: Option<u64>,
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
    ) -> Result<Receipt, ReceiveError> {
        self.receive_checked(peer, envelope, data, Checks::All).await
    }

    /// Does the same as [`Inbound::receive`] with the given verification of the sender.
    pub(super) async fn receive_checked(
        &self,
        peer: &Peer,
        envelope: Envelope<Recipient>,
        data: MailData,
        checks: Checks,
    ) -> Result<Receipt, ReceiveError> {
        let outcome = self.accept(peer, envelope, data, checks).await;
        let metrics = &self.shared.metrics;
        match &outcome {
            Ok(_) => metrics.add(Counter::MessagesAccepted),
            Err(ReceiveError::MailLoop) => metrics.add(Counter::RefusedLoop),
            Err(ReceiveError::NotAReport) => metrics.add(Counter::RefusedReport),
            Err(ReceiveError::StorageFull) => {
                metrics.add(Counter::RefusedStorageFull);
                self.note_full(self.shared.clock.now());
            }
            Err(ReceiveError::AccountFull) => {}
            Err(ReceiveError::Storage | ReceiveError::Busy) => metrics.add(Counter::RefusedStorage),
        }
        outcome
    }

    async fn accept(
        &self,
        peer: &Peer,
        envelope: Envelope<Recipient>,
        data: MailData,
        checks: Checks,
    ) -> Result<Receipt, ReceiveError> {
        let now = self.shared.clock.now();
        let size = data.len();
        // The first of several accounts is charged; a message to an address of our own is charged to the server.
        let account = envelope.recipients.first().map_or(AccountRowId::SERVER, |recipient| recipient.account);
        let turn = self.acquire_parse_permit(account, size).await?;
        let (bytes, draft) = match data {
            MailData::Memory(bytes) => (bytes, None),
            MailData::Spooled(mut draft) => {
                let read = tokio::task::spawn_blocking(move || draft.read_all().map(|bytes| (bytes, draft)));
                let (bytes, draft) = read.await.map_err(|_| ReceiveError::Storage)?.map_err(storage_trouble)?;
                (bytes, Some(draft))
            }
        };
        let hostname = self.shared.config.hostname.as_str();
        let Envelope { reverse_path, recipients, smtputf8, eight_bit } = envelope;
        let (returned, recipients): (Vec<_>, Vec<_>) =
            recipients.into_iter().partition(|recipient| recipient.returned.is_some());
        if recipients.is_empty() {
            return self.accept_dsn(returned, reverse_path, &bytes, now).await;
        }
        let mut reports = dsn::read_reports(&returned, &reverse_path, &bytes);
        let forwards = dsn::forward_reports(&returned, &reverse_path, &bytes);
        let envelope = Envelope { reverse_path, recipients, smtputf8, eight_bit };
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
        let (mut common, to_names) =
            MessageFields::new(mail, mail_from, hostname, verification, spam, size, (forwarded_by, copies));
        (common.verdicts, common.plain_header, common.undated) = (verdicts, plain_header, is_undated(&bytes));
        let fingerprint = hmac::sign(&self.shared.fingerprint_key, &bytes);
        let id = MessageId::new(now);
        let plans: Vec<RecipientPlan> = envelope
            .recipients
            .into_iter()
            .map(|recipient| {
                self.plan(recipient, peer, envelope.smtputf8, &id, fingerprint.as_ref(), &to_names, &common, now)
            })
            .collect();
        let (raw, placed, fresh) = if plans.iter().all(RecipientPlan::is_dropped) {
            (NewMailData::inline(&[]), None, None)
        } else if draft.is_none() && bytes.len() <= mail_data::INLINE_MAX && common.parts.is_empty() {
            (NewMailData::inline(&bytes), None, Some(Bytes::from(bytes)))
        } else {
            let (raw, placed) = self.keep(draft, bytes, id.clone(), now).await?;
            (raw, Some(placed), None)
        };
        drop(turn);
        let receipt = self.commit(id, common, plans, (raw, placed), fresh, now).await?;
        // Few messages go both to an address of ours and to another one, and reading a report twice changes nothing.
        self.settle_reports(reports, now).await?;
        self.report_forwards(forwards, now).await.map(|_| receipt)
    }

    #[expect(clippy::too_many_arguments, reason = "one call site; a struct would only rename the arguments")]
    fn plan(
        &self,
        mut recipient: Recipient,
        peer: &Peer,
        smtputf8: bool,
        id: &MessageId,
        fingerprint: &[u8],
        to_names: &[mime::NamedAddress],
        common: &MessageFields,
        now: Timestamp,
    ) -> RecipientPlan {
        let address = recipient.mailbox.canonical();
        if recipient.idle_routes > 0 {
            tracing::warn!(message = %id, routes = recipient.idle_routes, "more routes match than may run; these did not");
            self.shared.limits.count_refused(Kind::FanOut, recipient.idle_routes);
        }
        let mut context = hmac::Context::with_key(&self.shared.fingerprint_key);
        // Another device may send the same.
        let device = common.undated.then(|| peer.address.to_canonical().to_string());
        let parts = [fingerprint, common.mail_from.as_bytes(), address.as_bytes()];
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
            trace: format!("{}{received}", common.verification.authentication_results),
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
        let kept = tokio::task::spawn_blocking(move || {
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
        let placed = kept.await.map_err(|_| ReceiveError::Storage)?.map_err(storage_trouble)?;
        Ok((NewMailData::File(placed.object().clone()), placed))
    }

    async fn commit(
        &self,
        id: MessageId,
        common: MessageFields,
        plans: Vec<RecipientPlan>,
        (raw, placed): (NewMailData, Option<UncommittedObject>),
        data: Option<Bytes>,
        now: Timestamp,
    ) -> Result<Receipt, ReceiveError> {
        let first = id.to_string();
        let (from, subject, size) = (common.from_addr.clone(), common.subject.clone(), common.size);
        let attachments = common.parts.len();
        let (jobs, outbound) = (self.shared.jobs.clone(), self.shared.outbound.clone());
        let limits = Arc::clone(&self.shared.limits);
        let objects = self.shared.objects.clone();
        let written = self.shared.db.write_naming(placed.into_iter().collect(), move |tx| {
            let ways = Services { jobs: &jobs, outbound: &outbound, limits: &limits, objects: &objects };
            store_all(tx, ways, id, &common, plans, &raw, now)
        });
        let stored = within_deadline(written).await?;
        let id = stored.first().map_or(first, |one| one.id.clone());
        for one in stored {
            if let StoredAs::Message { account, domain, row } = one.kept {
                let event = Event { id: one.id.clone(), domain, body: Body::Received(row) };
                self.shared.feed.realtime.publish(account, event);
                self.shared.feed.publish(|| Activity::Accepted {
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
                one.fresh.into_iter().for_each(|fresh| self.shared.fresh.put(fresh, data.clone()));
            }
            one.jobs.into_iter().for_each(EnqueuedJob::notify_committed);
        }
        Ok(Receipt { id })
    }
}

impl RecipientPlan {
    fn is_dropped(&self) -> bool {
        self.routes.iter().any(|route| route.row.action == Action::Drop)
    }

    /// Returns the oldest matching webhook, else the oldest matching route (contract 5.2).
    fn route_id(&self) -> Option<String> {
        let webhook = self.routes.iter().find(|route| route.row.action == Action::Webhook);
        webhook.or_else(|| self.routes.first()).map(|route| route.row.public_id.to_string())
    }
}

/// True if the header ends where every reader sees it end, and has one From field: mail forwarded with our name in the
/// envelope must not show another author than the verified one.
fn is_plain_header(bytes: &[u8], mail: &Mail) -> bool {
    let end = memchr::memmem::find(bytes, b"\r\n\r\n").map_or(bytes.len(), |end| end + 4);
    let is_read_alike = !mail.header_truncated && !mail.has_stray_lines && mail.body_offset == end;
    is_read_alike && mail.from_fields == 1 && !mail.header_from.is_empty()
}

/// True if nothing in the header distinguishes the message from another one with the same text.
fn is_undated(bytes: &[u8]) -> bool {
    let lacks = |name| mime::field_values(bytes, name).iter().all(String::is_empty);
    lacks("Date") && lacks("Message-ID")
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

impl MessageFields {
    /// Returns the fields that the rows need, and the names given in the To field.
    fn new(
        mail: Mail,
        mail_from: String,
        hostname: &str,
        verification: Verification,
        spam: Option<&'static str>,
        size: u64,
        (forwarded_by, copies): (Vec<String>, Option<u64>),
    ) -> (Self, Vec<mime::NamedAddress>) {
        let from_addr = mail.sender_address(&mail_from, hostname);
        let author = mail.author_domain().map(str::to_owned);
        let common = Self {
            from_name: mime::display_name(&mail.header_from, &from_addr).map(str::to_owned),
            from_addr,
            mail_from,
            thread_id: mail.thread_id().map(str::to_owned),
            subject: mail.subject,
            message_id_header: mail.message_id,
            verdicts: verification.verdicts,
            verification,
            author,
            plain_header: false,
            undated: false,
            spam,
            truncated: mail.truncated,
            size,
            parts: mail.attachments,
            received_count: mail.received_count,
            forwarded_by,
            copies,
        };
        (common, mail.header_to)
    }
}

/// Waits for a transaction as long as a session may. A slower one may still be committed, and its repetition is
/// recognised then; nothing that it relies on is undone.
async fn within_deadline<T>(written: impl Future<Output = store::Result<T>>) -> Result<T, ReceiveError> {
    match tokio::time::timeout(COMMIT_DEADLINE, written).await {
        Ok(written) => written.map_err(storage_trouble),
        Err(_) => Err(ReceiveError::Busy),
    }
}

/// Logs the error once, here; the sender learns only whether a retry helps.
fn storage_trouble(error: store::Error) -> ReceiveError {
    match error {
        store::Error::Limit { .. } => ReceiveError::AccountFull,
        _ if error.is_full() => {
            tracing::warn!(%error, "a message was refused");
            ReceiveError::StorageFull
        }
        _ => {
            tracing::error!(%error, "a message could not be stored and was refused");
            ReceiveError::Storage
        }
    }
}
