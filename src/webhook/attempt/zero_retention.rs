//! The single attempt of a message under zero retention (contract 3.8): prepare, post, forget.
//!
//! The job engine calls [`ZeroRetentionAttempts::attempt`]. Whatever the answer, the row is deleted in the
//! transaction that settles the job, and the raw copy with the last row that refers to it; a crash before that
//! repeats the attempt. Nothing else is stored except the route's health.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::store::Connection;
use hyper::body::Bytes;
use serde::{Deserialize, Serialize};

use super::budget;
use super::deliver::{ATTEMPT_TIME, answer_class, judge, postponed};
use super::log;
use super::outcome::Outcome;
use super::payload::{self, Payload, Segment};
use super::record::block_sender;
use super::request::{self, RequestMeta, SMALL};
use super::signature::SigningSecrets;
use crate::clock::Timestamp;
use crate::content::{Bodies, Texts};
use crate::event_bus::Activity;
use crate::id::{DeliveryId, MessageId, RouteId, ZeroRetentionRowId};
use crate::jobs::{self, AttemptResult, ClaimedJob, Flow, Handler, Health, Loaded, Settlement, Verdict};
use crate::mail::mime::{self, Encoding};
use crate::memory_budget::Reservation;
use crate::metrics::Counter;
use crate::net::egress::{Answer, EgressError};
use crate::store;
use crate::store::messages::mail_data;
use crate::store::messages::mail_data::StoredMailData;
use crate::store::messages::removals;
use crate::store::messages::removals::Reason;
use crate::store::webhooks::deliveries::DeliveryStatus;
use crate::store::webhooks::routes;
use crate::store::webhooks::routes::RouteRow;
use crate::store::webhooks::zero_retention;
use crate::store::webhooks::zero_retention::ZeroRetentionRow;
use crate::webhook::Webhooks;
use crate::webhook::events::email_received::{Attachment, AttachmentBytes, Auth, EmailReceived, Party};

/// The part of the payload that is not in the mail data, fixed when the message is accepted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct EventMetadata {
    /// The event's id.
    pub(crate) id: MessageId,
    /// `from_addr` of contract 5.2.
    pub(crate) from_addr: String,
    /// Display name of the sender.
    pub(crate) from_name: Option<String>,
    /// The envelope recipient.
    pub(crate) to_addr: String,
    /// Display name of the recipient.
    pub(crate) to_name: Option<String>,
    /// SPF verdict (RFC 7208).
    pub(crate) spf: Option<String>,
    /// DKIM verdict (RFC 6376).
    pub(crate) dkim: Option<String>,
    /// DMARC verdict (RFC 7489).
    pub(crate) dmarc: Option<String>,
    /// `ham` or `spam`.
    pub(crate) spam: Option<String>,
    /// Time of acceptance.
    pub(crate) received_at: Timestamp,
}

/// Posts mail under zero retention; handles the jobs of that kind.
pub(crate) struct ZeroRetentionAttempts {
    /// Posts the requests.
    pub(crate) webhooks: Arc<Webhooks>,
}

/// A message that is ready to be posted, with everything the attempt needs.
struct Prepared {
    row: ZeroRetentionRow,
    metadata: EventMetadata,
    route: RouteRow,
    url: String,
    secret: String,
    previous_secret: Option<String>,
    payload: Payload,
}

/// Result of looking up a claimed job.
enum Lookup {
    /// The message can be posted.
    Ready(Box<Prepared>),
    /// Its route, its content or the row itself is gone.
    Gone(Option<ZeroRetentionRow>),
}

/// An attempt to be recorded, after which nothing of the message is stored.
pub(crate) enum Attempted {
    Posted(Box<PostedMessage>),
    /// It can no longer be posted.
    Gone(ZeroRetentionRow, Timestamp),
}

/// A message that was posted, with the answer.
pub(crate) struct PostedMessage {
    prepared: Prepared,
    answer: Result<Answer, EgressError>,
    outcome: Option<Outcome>,
    started: Timestamp,
    duration: Duration,
}

/// A recorded attempt: the object to remove, and the activity to publish.
pub(crate) struct Settled {
    file: Option<String>,
    activity: Option<Activity>,
    route: RouteId,
    /// Public id that the message would have.
    message_id: String,
    status: DeliveryStatus,
}

impl Handler for ZeroRetentionAttempts {
    type Attempted = Attempted;
    type Settled = Settled;

    async fn attempt(self: Arc<Self>, _: Flow, job: ClaimedJob, now: Timestamp) -> AttemptResult<Attempted> {
        let waiting = Instant::now();
        match self.prepare(job.subject_id.of_kind(), now).await {
            Ok((Lookup::Ready(prepared), _reservation)) => {
                let begins = now.plus(waiting.elapsed());
                if begins.plus(ATTEMPT_TIME) > job.lease_until {
                    return postponed(begins);
                }
                self.post(*prepared, begins).await
            }
            Ok((Lookup::Gone(row), _)) => {
                AttemptResult { attempted: row.map(|row| Attempted::Gone(row, now)), ..AttemptResult::failed() }
            }
            Err(error) => {
                tracing::warn!(job = job.id.get(), %error, "a mail that is not stored could not be prepared");
                postponed(now)
            }
        }
    }

    fn settle(&self, tx: &Connection, attempted: Attempted, _: Settlement) -> store::Result<Option<Settled>> {
        match attempted {
            Attempted::Posted(posted) => self.record(tx, &posted).map(Some),
            Attempted::Gone(row, now) => {
                removals::note_zero_retention(tx, row.id, Reason::Undelivered, now)?;
                let metadata = serde_json::from_str::<EventMetadata>(&row.event);
                Ok(Some(Settled {
                    file: zero_retention::finish(tx, &row)?,
                    activity: None,
                    route: row.route_id,
                    message_id: metadata.map(|metadata| metadata.id.to_string()).unwrap_or_default(),
                    status: DeliveryStatus::Failed,
                }))
            }
        }
    }

    fn committed(&self, settled: Settled) {
        if let Some(name) = settled.file
            && let Err(error) = self.webhooks.objects.remove(&name)
        {
            tracing::warn!(%error, "the object of a mail that is not stored was not removed; the sweep will");
        }
        let (message_id, route) = (&settled.message_id, &settled.route);
        if let Some(activity) = settled.activity {
            log::attempted(&activity, message_id, Some(route), settled.status);
            self.webhooks.publisher.publish(|| activity);
        } else {
            log::unattempted(message_id, route);
        }
    }
}

impl ZeroRetentionAttempts {
    async fn prepare(
        self: &Arc<Self>,
        id: ZeroRetentionRowId,
        now: Timestamp,
    ) -> store::Result<(Lookup, Option<Reservation>)> {
        let this = Arc::clone(self);
        let read = move |connection: &Connection, largest| this.look_up(connection, id, now, largest);
        let reserve = |account, size| self.webhooks.reserve(account, size);
        let (found, reservation) = jobs::load(&self.webhooks.db, SMALL as u64, read, reserve).await?;
        let reservation = match &found {
            Lookup::Ready(prepared) => reservation.and_then(|held| budget::shrink(held, &prepared.payload)),
            Lookup::Gone(_) => None,
        };
        Ok((found, reservation))
    }

    fn look_up(
        &self,
        connection: &Connection,
        id: ZeroRetentionRowId,
        now: Timestamp,
        largest: u64,
    ) -> store::Result<Loaded<Lookup>> {
        let gone = |row| Ok(Loaded::Complete(Lookup::Gone(row)));
        let Some(row) = zero_retention::find(connection, id)? else { return gone(None) };
        let route = routes::find(connection, &row.route_id)?.filter(|route| route.active);
        let Some(route) = route else { return gone(Some(row)) };
        let (Some(url), Some(sealed)) = (route.destination.clone(), route.secret_sealed.as_deref()) else {
            return gone(Some(row));
        };
        let size = mail_data::size(connection, row.mail_data_id)?.unwrap_or(0);
        if size > largest {
            return Ok(Loaded::Large { account: row.account_id, size });
        }
        let Some(raw) = self.content(connection, &row)? else { return gone(Some(row)) };
        let metadata: EventMetadata = serde_json::from_str(&row.event).map_err(|_| store::Error::Corrupt("event"))?;
        let in_overlap = route.previous_valid_until.is_some_and(|until| now < until);
        let previous = route.previous_secret_sealed.as_deref().filter(|_| in_overlap);
        let prepared = Prepared {
            secret: self.webhooks.unseal(routes::SECRET_PURPOSE, sealed)?,
            previous_secret: previous
                .map(|sealed| self.webhooks.unseal(routes::SECRET_PURPOSE, sealed))
                .transpose()?,
            payload: payload_of(&metadata, raw, SMALL),
            row,
            metadata,
            route,
            url,
        };
        Ok(Loaded::Complete(Lookup::Ready(Box::new(prepared))))
    }

    /// Returns the mail data. `None` when a power cut brought the row back after its file was removed, since the
    /// attempt was made, and when the data is damaged, since it would be wrong each time.
    fn content(&self, connection: &Connection, row: &ZeroRetentionRow) -> store::Result<Option<Vec<u8>>> {
        match mail_data::find(connection, row.mail_data_id)? {
            Some(StoredMailData::Inline(bytes)) => Ok(Some(bytes)),
            Some(StoredMailData::File(object)) if !self.webhooks.objects.exists(&object.name) => Ok(None),
            Some(StoredMailData::File(object)) => match self.webhooks.objects.read_all(&object) {
                Err(store::Error::Damaged { .. }) => Ok(None),
                read => read.map(Some),
            },
            None => Ok(None),
        }
    }

    async fn post(&self, mut prepared: Prepared, now: Timestamp) -> AttemptResult<Attempted> {
        let payload = std::mem::take(&mut prepared.payload);
        let secrets = SigningSecrets { current: &prepared.secret, previous: prepared.previous_secret.as_deref() };
        let delivery = DeliveryId::new(now);
        let event_id = prepared.metadata.id.as_str();
        let head = RequestMeta { delivery: &delivery, event_id, attempt: 1, secrets };
        let (headers, body) = request::signed(head, payload, now);
        let clock = Instant::now();
        let mode = prepared.route.ack_mode.unwrap_or_default();
        let answer = self.webhooks.post(&prepared.url, mode, headers, body).await;
        let duration = clock.elapsed();
        let outcome = answer.as_ref().ok().map(|answer| judge(mode, answer, now.plus(duration)));
        let delivered = matches!(outcome, Some(Outcome::Delivered { .. }));
        let metrics = &self.webhooks.metrics;
        metrics.webhook_attempted(answer_class(&answer), duration);
        metrics.webhook_reached_after(now.plus(duration).since(prepared.metadata.received_at));
        metrics.add(if delivered { Counter::WebhooksDelivered } else { Counter::WebhooksRejected });
        // The message has one attempt and is not kept, so it does not wait for the endpoint to recover.
        let health = if answer.is_ok() { Health::Up } else { Health::Reluctant };
        let verdict = if delivered { Verdict::Delivered } else { Verdict::Failed };
        let posted = PostedMessage { prepared, answer, outcome, started: now, duration };
        AttemptResult { verdict, health, attempted: Some(Attempted::Posted(Box::new(posted))) }
    }

    /// Deletes the message. Of a control answer (contract 9.4) only the instruction about the sender can still be
    /// applied.
    fn record(&self, tx: &Connection, posted: &PostedMessage) -> store::Result<Settled> {
        let PostedMessage { prepared, answer, outcome, started, duration } = posted;
        let status_code = answer.as_ref().ok().map(|answer| answer.status);
        let (status, error, blocked) = match (answer, outcome.as_ref()) {
            (Err(error), _) => (DeliveryStatus::Failed, Some(error.as_str()), false),
            (_, Some(Outcome::Rejected { reason, .. })) => (DeliveryStatus::Failed, Some(reason.as_str()), false),
            (_, Some(Outcome::Delivered { control })) => (DeliveryStatus::Delivered, None, control.block_sender),
            (_, None) => (DeliveryStatus::Failed, None, false),
        };
        routes::note_outcome(tx, &prepared.route.public_id, status.as_str(), status_code)?;
        if blocked {
            let now = started.plus(*duration);
            block_sender(tx, &self.webhooks.limits, prepared.row.account_id, &prepared.metadata.from_addr, now)?;
        }
        let reason = match status {
            DeliveryStatus::Delivered => Reason::Delivered,
            DeliveryStatus::Pending | DeliveryStatus::Failed => Reason::Undelivered,
        };
        removals::note_zero_retention(tx, prepared.row.id, reason, started.plus(*duration))?;
        let file = zero_retention::finish(tx, &prepared.row)?;
        let activity = Activity::ZeroRetentionAttempted {
            message_id: prepared.metadata.id.to_string(),
            url: prepared.url.clone(),
            status_code,
            error,
            status: status.as_str(),
            duration_ms: u64::try_from(duration.as_millis()).unwrap_or(u64::MAX),
        };
        Ok(Settled {
            file,
            activity: Some(activity),
            route: prepared.route.public_id.clone(),
            message_id: prepared.metadata.id.to_string(),
            status,
        })
    }
}

/// Builds the event of contract 9.6 with inline attachments; generated from the mail data if that is larger than
/// `small`.
pub(crate) fn payload_of(metadata: &EventMetadata, raw: Vec<u8>, small: usize) -> Payload {
    let raw = Bytes::from(raw);
    let small = raw.len() <= small;
    let (mail, texts) = if small {
        let mut mail = mime::parse(&raw);
        let readable = Bodies { text: mail.text.take(), html: mail.html.take() };
        (mail, Texts::Decoded(readable))
    } else {
        let parsed = mime::parse_streaming(&raw);
        (parsed.mail, Texts::Placed(parsed.text, parsed.html))
    };
    let mut apart = payload::streamed_bodies(&texts);
    let carriers = carriers(&raw, &mail.attachments);
    let mut bytes = |part: &mime::Part| {
        let (encoding, whole, body) = match carriers.get(&part.offset).filter(|_| part.inner_offset.is_some()) {
            Some(carrier) => (Encoding::Identity, carrier, inside(carrier, part)),
            None => (part.encoding, &raw, body(&raw, part)),
        };
        if small {
            return AttachmentBytes::Content(encoding, body);
        }
        apart.push(Segment::File(encoding, whole.slice_ref(body)));
        AttachmentBytes::Apart
    };
    let attachments: Vec<Attachment<'_>> = (0_u32..)
        .zip(&mail.attachments)
        .map(|(index, part)| Attachment {
            index,
            filename: part.filename.as_deref(),
            content_type: part.content_type.as_deref(),
            size: part.size,
            bytes: bytes(part),
        })
        .collect();
    let (text, html) = payload::bodies(&texts);
    let event = EmailReceived {
        id: &metadata.id,
        from: Party { address: &metadata.from_addr, name: metadata.from_name.as_deref() },
        to: Party { address: &metadata.to_addr, name: metadata.to_name.as_deref() },
        subject: mail.subject.as_deref(),
        text,
        html,
        thread_id: mail.thread_id(),
        received_at: metadata.received_at,
        auth: Auth {
            spf: metadata.spf.as_deref(),
            dkim: metadata.dkim.as_deref(),
            dmarc: metadata.dmarc.as_deref(),
            spam: metadata.spam.as_deref(),
        },
        attachments: &attachments,
    };
    Payload::of(&event, apart)
}

/// Returns the decoded parts that contain other files, by their positions in the mail data.
fn carriers(raw: &[u8], parts: &[mime::Part]) -> HashMap<u64, Bytes> {
    let mut carriers = HashMap::new();
    for part in parts.iter().filter(|part| part.inner_offset.is_some()) {
        carriers.entry(part.offset).or_insert_with(|| mime::decode_part(part.encoding, body(raw, part)).into());
    }
    carriers
}

/// Returns a file within a decoded part.
fn inside<'c>(carrier: &'c [u8], part: &mime::Part) -> &'c [u8] {
    let from = usize::try_from(part.inner_offset.unwrap_or(0)).unwrap_or(usize::MAX);
    let size = usize::try_from(part.size).unwrap_or(usize::MAX);
    carrier.get(from..from.saturating_add(size)).unwrap_or_default()
}

/// Returns the encoded body of a part.
fn body<'r>(raw: &'r [u8], part: &mime::Part) -> &'r [u8] {
    let from = usize::try_from(part.offset).unwrap_or(usize::MAX);
    let length = usize::try_from(part.length).unwrap_or(usize::MAX);
    raw.get(from..from.saturating_add(length)).unwrap_or_default()
}
