//! Prepares an attempt of a delivery: reads what it needs, within the memory budget, and unseals its secrets.
//!
//! The payload is rebuilt from the stored message, so every attempt posts the same bytes.

use std::sync::Arc;

use crate::store::Connection;

use super::budget;
use super::payload::Payload;
use super::request::payload;
use super::request::{self, SMALL};
use crate::clock::Timestamp;
use crate::content::{StoredContent, Texts};
use crate::id::{DeliveryRowId, DomainRowId, MessageRowId, RouteId};
use crate::jobs::{self, Loaded};
use crate::memory_budget::Reservation;
use crate::store;
use crate::store::messages::{self, MessageRow};
use crate::store::webhooks::deliveries::{self, DeliveryRow, DeliveryStatus};
use crate::store::webhooks::routes;
use crate::store::webhooks::routes::AckMode;
use crate::store::webhooks::routes::RouteRow;
use crate::store::webhooks::{events, former_webhooks};
use crate::webhook::Webhooks;

/// The only event whose payload is built from the stored message.
pub(super) const EMAIL_RECEIVED: &str = "email.received";
/// A delivery that is ready to be attempted, with everything the attempt needs.
pub(crate) struct Prepared {
    pub(crate) delivery: DeliveryRow,
    /// The received message, which a control answer may change.
    pub(crate) received: Option<Received>,
    /// `None` for a tracking webhook.
    pub(crate) route: Option<RouteId>,
    pub(crate) ack_mode: AckMode,
    pub(crate) url: String,
    pub(crate) secret: String,
    pub(crate) previous_secret: Option<String>,
    pub(crate) payload: Payload,
}

/// The received message that an event reports.
pub(crate) struct Received {
    pub(crate) row: MessageRowId,
    pub(crate) domain: Option<DomainRowId>,
    pub(crate) from_addr: String,
}

impl Received {
    fn new(message: &MessageRow) -> Self {
        Self { row: message.id, domain: message.domain_id, from_addr: message.from_addr.clone() }
    }
}

/// The origin of an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Trigger {
    /// The job engine, for a pending delivery.
    Queue,
    /// A user, whatever the delivery's status.
    Manual,
}

/// Result of looking up a delivery that is to be attempted.
pub(crate) enum Lookup {
    /// The delivery can be attempted.
    Ready(Box<Prepared>),
    /// The mail data is not what was accepted.
    Damaged(Box<Damaged>),
    /// The delivery has ended meanwhile, or its route or message is gone; carries the `last_error` value
    /// (contract 6.1).
    Ended(Option<(DeliveryRowId, &'static str)>),
}

/// A delivery whose stored message is no longer what was accepted.
pub(crate) struct Damaged {
    pub(crate) delivery: DeliveryRow,
    pub(crate) domain: Option<DomainRowId>,
    /// The URL it would have been posted to.
    pub(crate) url: String,
}

impl Webhooks {
    pub(crate) async fn prepare(
        self: &Arc<Self>,
        id: DeliveryRowId,
        trigger: Trigger,
        now: Timestamp,
    ) -> store::Result<(Lookup, Option<Reservation>)> {
        let this = Arc::clone(self);
        let read = move |connection: &Connection, largest| this.look_up(connection, id, trigger, now, largest);
        let reserve = |account, size| self.reserve(account, size);
        let (found, reservation) = jobs::load(&self.db, SMALL as u64, read, reserve).await?;
        let reservation = match &found {
            Lookup::Ready(prepared) => reservation.and_then(|held| budget::shrink(held, &prepared.payload)),
            Lookup::Damaged(_) | Lookup::Ended(_) => None,
        };
        Ok((found, reservation))
    }

    /// Returns the `email.received` JSON of the message `id` as it is stored now, if it still is, with its share of
    /// the memory budget. `message` is the row it had, which may belong to another message by now.
    pub(crate) async fn received(
        self: &Arc<Self>,
        message: MessageRowId,
        id: &str,
    ) -> store::Result<Option<(Payload, Option<Reservation>)>> {
        let found = self.db.read(move |connection| messages::find_by_row(connection, message)).await?;
        let Some(row) = found.filter(|row| row.public_id.as_str() == id) else { return Ok(None) };
        let permit = if row.size > SMALL as u64 { Some(self.reserve(row.account_id, row.size).await) } else { None };
        let this = Arc::clone(self);
        let made = self.db.read(move |connection| payload(connection, &this.objects, &this.links, &row)).await?;
        Ok(made.map(|made| {
            let permit = permit.and_then(|share| budget::shrink(share, &made));
            (made, permit)
        }))
    }

    /// Returns the body that each attempt of a delivery posts, as far as it is still stored, with its share of the
    /// memory budget.
    pub(crate) async fn request_body(
        self: &Arc<Self>,
        delivery: &DeliveryRow,
    ) -> store::Result<Option<(Payload, Option<Reservation>)>> {
        let id = delivery.id;
        let stored = self.db.read(move |connection| events::payload_of(connection, id)).await?;
        match (stored, delivery.message) {
            (Some(payload), _) => Ok(Some((payload.into(), None))),
            (None, Some(message)) if delivery.event_type == EMAIL_RECEIVED => {
                self.received(message, &delivery.event_id).await
            }
            (None, _) => Ok(None),
        }
    }

    fn look_up(
        &self,
        connection: &Connection,
        id: DeliveryRowId,
        trigger: Trigger,
        now: Timestamp,
        largest: u64,
    ) -> store::Result<Loaded<Lookup>> {
        let Some(delivery) = deliveries::find_by_row(connection, id)? else {
            return Ok(Loaded::Complete(Lookup::Ended(None)));
        };
        if trigger == Trigger::Queue && delivery.status != DeliveryStatus::Pending {
            return Ok(Loaded::Complete(Lookup::Ended(None)));
        }
        if let Some(payload) = events::payload_of(connection, id)? {
            return self.look_up_event(connection, delivery, payload, now).map(Loaded::Complete);
        }
        if delivery.event_type != EMAIL_RECEIVED {
            return Ok(Loaded::Complete(Lookup::Ended(Some((id, "message_gone")))));
        }
        let route = match &delivery.route_id {
            Some(route_id) => former_webhooks::find_route(connection, route_id)?,
            None => None,
        };
        let Some(route) = route.filter(|route| route.active) else {
            return Ok(Loaded::Complete(Lookup::Ended(Some((id, "route_gone")))));
        };
        let message = match delivery.message {
            Some(message) => messages::find_by_row(connection, message)?,
            None => None,
        };
        let Some(message) = message else { return Ok(Loaded::Complete(Lookup::Ended(Some((id, "message_gone"))))) };
        if message.size > largest {
            return Ok(Loaded::Large { account: message.account_id, size: message.size });
        }
        let payload = match payload(connection, &self.objects, &self.links, &message) {
            Err(store::Error::Damaged { .. }) => {
                let url = route.destination.unwrap_or_else(|| delivery.url.clone());
                return Ok(Loaded::Complete(Lookup::Damaged(Box::new(Damaged {
                    delivery,
                    domain: message.domain_id,
                    url,
                }))));
            }
            read => read?,
        };
        let Some(payload) = payload else { return Ok(Loaded::Complete(Lookup::Ended(Some((id, "message_gone"))))) };
        self.ready(delivery, Some(Received::new(&message)), &route, payload, now).map(Loaded::Complete)
    }

    /// Does the same from memory for mail that was just accepted; `None` if the database has to be read.
    pub(super) fn prepare_cached(&self, id: DeliveryRowId, now: Timestamp) -> Option<store::Result<Lookup>> {
        let (cached, data) = self.first_attempt_cache.take(id, |account| self.db.routes_version(account))?;
        let readable = StoredContent::Raw(data.into()).readable();
        Some(readable.and_then(|readable| {
            let payload = request::payload_of(&cached.message, Texts::Decoded(readable), &[], &self.links);
            self.ready(cached.delivery, Some(Received::new(&cached.message)), &cached.route, payload, now)
        }))
    }

    /// Combines a delivery with its route's current URL and secrets.
    pub(crate) fn ready(
        &self,
        delivery: DeliveryRow,
        received: Option<Received>,
        route: &RouteRow,
        payload: Payload,
        now: Timestamp,
    ) -> store::Result<Lookup> {
        let (Some(url), Some(sealed)) = (route.destination.clone(), route.secret_sealed.as_deref()) else {
            return Ok(Lookup::Ended(Some((delivery.id, "route_gone"))));
        };
        let in_overlap = route.previous_valid_until.is_some_and(|until| now < until);
        let previous = route.previous_secret_sealed.as_deref().filter(|_| in_overlap);
        let unseal = |sealed: &[u8]| self.unseal(routes::SECRET_PURPOSE, sealed);
        Ok(Lookup::Ready(Box::new(Prepared {
            secret: unseal(sealed)?,
            previous_secret: previous.map(unseal).transpose()?,
            received,
            route: Some(route.public_id.clone()),
            ack_mode: route.ack_mode.unwrap_or_default(),
            delivery,
            url,
            payload,
        })))
    }

    pub(crate) fn unseal(&self, purpose: &str, sealed: &[u8]) -> store::Result<String> {
        let plain = self.secrets.open_sealed(purpose, sealed).ok();
        plain.and_then(|bytes| String::from_utf8(bytes).ok()).ok_or(store::Error::Corrupt("signing secret"))
    }
}
