//! Sending events (contract 9.7): raised in the transaction that settles a recipient, and posted like any other
//! delivery.
//!
//! Their payload is stored with the delivery, because the message may be gone before the last attempt.

use crate::store::Connection;
use serde::Serialize;

use crate::clock::Timestamp;
use crate::event_bus::Publisher;
use crate::event_bus::realtime::{Body, Event};
use crate::id::{AccountRowId, DomainRowId, EventId, MessageRowId};
use crate::jobs::{Flow, Jobs};
use crate::store;
use crate::store::accounts::domains;
use crate::store::accounts::domains::DomainRow;
use crate::store::jobs::JobSubject;
use crate::store::webhooks::deliveries::DeliveryRow;
use crate::store::webhooks::events;
use crate::store::webhooks::events::NewEvent;
use crate::store::webhooks::routes::AckMode;
use crate::store::webhooks::{former_webhooks, routes};
use crate::store::{accounts, jobs};
use crate::webhook::attempt::deliver::{Lookup, Prepared, Webhooks};
use crate::webhook::flow_of;

/// The event of a recipient.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum SendingEvent<'a> {
    /// The remote host accepted the message.
    Sent,
    /// Rejected permanently, deferred for too long, or returned by a bounce.
    Bounced {
        /// The reply or status that explains it.
        diagnostic: &'a str,
    },
    /// The recipient complained.
    Complained {
        /// `abuse`, `fraud` and so on (RFC 5965 §7.3).
        feedback_type: &'a str,
    },
}

impl SendingEvent<'_> {
    /// Returns `email.sent` and so on.
    pub(crate) const fn event_type(&self) -> &'static str {
        match self {
            Self::Sent => "email.sent",
            Self::Bounced { .. } => "email.bounced",
            Self::Complained { .. } => "email.complained",
        }
    }
}

/// The recipient of an event, with its message.
#[derive(Clone, Copy, Debug)]
pub(crate) struct EventSubject<'a> {
    pub(crate) account: AccountRowId,
    /// The From domain.
    pub(crate) domain: DomainRowId,
    pub(crate) message: MessageRowId,
    /// Public id of the message.
    pub(crate) message_id: &'a str,
    /// Its Message-ID header.
    pub(crate) message_id_header: Option<&'a str>,
    /// The From address.
    pub(crate) from: &'a str,
    pub(crate) to: &'a str,
    pub(crate) subject: Option<&'a str>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Payload<'a> {
    id: &'a str,
    r#type: &'static str,
    created_at: Timestamp,
    created_at_iso: String,
    data: Data<'a>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Data<'a> {
    message_id: &'a str,
    provider_message_id: Option<&'a str>,
    from: &'a str,
    to: &'a str,
    subject: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    bounce: Option<Bounce<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    complaint: Option<Complaint<'a>>,
}

#[derive(Serialize)]
struct Bounce<'a> {
    r#type: &'static str,
    diagnostic: &'a str,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Complaint<'a> {
    feedback_type: &'a str,
}

fn payload(id: &EventId, what: &SendingEvent<'_>, subject: EventSubject<'_>, now: Timestamp) -> String {
    let (bounce, complaint) = match *what {
        SendingEvent::Sent => (None, None),
        SendingEvent::Bounced { diagnostic } => (Some(Bounce { r#type: "hard", diagnostic }), None),
        SendingEvent::Complained { feedback_type } => (None, Some(Complaint { feedback_type })),
    };
    let event = Payload {
        id: id.as_str(),
        r#type: what.event_type(),
        created_at: now,
        created_at_iso: now.iso(),
        data: Data {
            message_id: subject.message_id,
            provider_message_id: subject.message_id_header,
            from: subject.from,
            to: subject.to,
            subject: subject.subject,
            bounce,
            complaint,
        },
    };
    // Strings and numbers always serialize.
    serde_json::to_string(&event).unwrap_or_default()
}

/// A raised event, to be published after the commit.
#[derive(Debug)]
#[must_use]
pub(crate) struct PendingEvent {
    account: AccountRowId,
    /// The flow of its delivery, if it has one.
    flow: Option<Flow>,
    /// The event for streams; `None` for a complaint, which streams do not carry.
    event: Option<Event>,
}

impl PendingEvent {
    /// Wakes the flow and notifies the streams.
    pub(crate) fn publish(self, publisher: &Publisher, jobs: &Jobs, now: Timestamp) {
        if let Some(event) = self.event {
            publisher.realtime.publish(self.account, event);
        }
        if let Some(flow) = self.flow {
            jobs.wake(&flow, now);
        }
    }
}

/// Stores the delivery of an event with its job, if a webhook subscribes to it.
pub(crate) fn raise(
    tx: &Connection,
    what: &SendingEvent<'_>,
    subject: EventSubject<'_>,
    now: Timestamp,
) -> store::Result<PendingEvent> {
    let id = EventId::new(now);
    let payload = payload(&id, what, subject, now);
    let flow = deliver(tx, what, subject, &id, &payload, now)?;
    let event = match what {
        SendingEvent::Complained { .. } => None,
        SendingEvent::Sent | SendingEvent::Bounced { .. } => Some(Event {
            id: id.to_string(),
            domain: Some(subject.domain),
            body: Body::Json { event_type: what.event_type(), json: payload },
        }),
    };
    Ok(PendingEvent { account: subject.account, flow, event })
}

/// Stores the delivery of an event for the webhook that subscribes to it; returns the flow to wake.
fn deliver(
    tx: &Connection,
    what: &SendingEvent<'_>,
    subject: EventSubject<'_>,
    id: &EventId,
    payload: &str,
    now: Timestamp,
) -> store::Result<Option<Flow>> {
    let Some(domain) = domains::find_by_row(tx, subject.domain)? else { return Ok(None) };
    let (route, url) = match &domain.tracking_webhook_url {
        Some(url) => (None, url.clone()),
        None if opted_in(&domain, what.event_type()) => {
            let route = routes::find_domain_webhook(tx, domain.id)?.filter(|route| route.active);
            let Some((route, url)) = route.and_then(|route| Some((route.public_id, route.destination?))) else {
                return Ok(None);
            };
            (Some(route), url)
        }
        None => return Ok(None),
    };
    let event = NewEvent {
        account_id: subject.account,
        message: subject.message,
        route_id: route.as_ref(),
        domain: route.is_none().then_some(domain.id),
        event_id: id,
        event_type: what.event_type(),
        url: &url,
        payload,
    };
    let delivery = events::insert(tx, &event, now)?;
    let flow = flow_of(&url, subject.account);
    jobs::insert(tx, &flow, JobSubject::Webhook(delivery), now)?;
    Ok(Some(flow))
}

fn opted_in(domain: &DomainRow, event_type: &str) -> bool {
    let Some(stored) = &domain.webhook_events else { return false };
    match serde_json::from_str(stored) {
        Ok(serde_json::Value::String(all)) => all == "all",
        Ok(serde_json::Value::Array(types)) => types.iter().any(|one| one == event_type),
        _ => false,
    }
}

impl Webhooks {
    /// Looks up the target of a sending event: its route's URL and secrets, or those of the tracking webhook and the
    /// account.
    pub(crate) fn look_up_event(
        &self,
        connection: &Connection,
        delivery: DeliveryRow,
        payload: String,
        now: Timestamp,
    ) -> store::Result<Lookup> {
        let gone = Lookup::Ended(Some((delivery.id, "route_gone")));
        if let Some(route_id) = delivery.route_id.clone() {
            let route = former_webhooks::find_route(connection, &route_id)?.filter(|route| route.active);
            let Some(route) = route else { return Ok(gone) };
            return self.ready(delivery, None, &route, payload.into(), now);
        }
        let Some(domain) = events::domain_of(connection, delivery.id)? else { return Ok(gone) };
        let domain = domains::find_by_row(connection, domain)?.filter(|row| row.account_id == delivery.account_id);
        let Some(url) = domain.and_then(|domain| domain.tracking_webhook_url) else { return Ok(gone) };
        let secret = accounts::find_webhook_secret(connection, delivery.account_id)?;
        let Some(current) = secret.sealed else { return Ok(gone) };
        let in_overlap = secret.previous_until.is_some_and(|until| now < until);
        let previous = secret.previous_sealed.filter(|_| in_overlap);
        let unseal = |sealed: &[u8]| self.unseal(accounts::WEBHOOK_SECRET_PURPOSE, sealed);
        Ok(Lookup::Ready(Box::new(Prepared {
            secret: unseal(&current)?,
            previous_secret: previous.map(|sealed| unseal(&sealed)).transpose()?,
            received: None,
            route: None,
            ack_mode: AckMode::Lenient,
            delivery,
            url,
            payload: payload.into(),
        })))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::RowId;

    #[test]
    fn the_payload_is_what_contract_9_7_shows() {
        let now = Timestamp::from_millis(1_785_196_800_000);
        let id = EventId::new(now);
        let subject = EventSubject {
            account: RowId::new(1),
            domain: RowId::new(1),
            message: RowId::new(1),
            message_id: "msg_2Hk9QpVn4tLdA1B2",
            message_id_header: Some("<2Hk9QpVn4tLdA1B2@acme.dev>"),
            from: "hi@acme.dev",
            to: "ada@example.com",
            subject: Some("Hi"),
        };
        let bounced = payload(&id, &SendingEvent::Bounced { diagnostic: "550 5.1.1 \"no\"" }, subject, now);
        let wanted = format!(
            r#"{{"id":"{id}","type":"email.bounced","createdAt":1785196800000,"createdAtIso":"2026-07-28T00:00:00.000Z","data":{{"messageId":"msg_2Hk9QpVn4tLdA1B2","providerMessageId":"<2Hk9QpVn4tLdA1B2@acme.dev>","from":"hi@acme.dev","to":"ada@example.com","subject":"Hi","bounce":{{"type":"hard","diagnostic":"550 5.1.1 \"no\""}}}}}}"#
        );
        assert_eq!(bounced, wanted);
        let complained = payload(&id, &SendingEvent::Complained { feedback_type: "abuse" }, subject, now);
        assert!(complained.ends_with(r#""subject":"Hi","complaint":{"feedbackType":"abuse"}}}"#), "{complained}");
        let sent = payload(
            &id,
            &SendingEvent::Sent,
            EventSubject { subject: None, message_id_header: None, ..subject },
            now,
        );
        assert!(sent.contains(r#""providerMessageId":null"#) && sent.ends_with(r#""subject":null}}"#), "{sent}");
    }
}
