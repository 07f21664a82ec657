//! `delivery.updated`, which is sent to streams after each attempt and when a delivery ends without one
//! (contract 10).
//!
//! Deliveries that wait while their endpoint is paused are not reported one by one: the event of the attempt that
//! begins or extends the pause carries its end, however many wait.

use serde::Serialize;

use crate::clock::Timestamp;
use crate::event_bus::realtime::{Body, Event};
use crate::id::{DomainRowId, EventId};
use crate::store::webhooks::deliveries::{DeliveryRow, DeliveryStatus};

const TYPE: &str = "delivery.updated";

/// The state of a delivery.
#[derive(Clone, Copy, Debug)]
pub(crate) struct DeliveryState {
    pub(crate) status: DeliveryStatus,
    pub(crate) attempts: u32,
    pub(crate) last_status_code: Option<u16>,
    /// End of the endpoint's pause; `None` if it is not paused.
    pub(crate) paused_until: Option<Timestamp>,
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
    delivery_id: &'a str,
    message_id: &'a str,
    route_id: Option<&'a str>,
    status: &'a str,
    attempts: u32,
    last_status_code: Option<u16>,
    paused_until: Option<Timestamp>,
}

/// Builds the event of a delivery whose message is `message` and belongs to `domain`.
pub(crate) fn event(
    delivery: &DeliveryRow,
    message: &str,
    domain: Option<DomainRowId>,
    state: DeliveryState,
    now: Timestamp,
) -> Event {
    let id = EventId::new(now);
    let payload = Payload {
        id: id.as_str(),
        r#type: TYPE,
        created_at: now,
        created_at_iso: now.iso(),
        data: Data {
            delivery_id: delivery.public_id.as_str(),
            message_id: message,
            route_id: delivery.route_id.as_ref().map(|route| route.as_str()),
            status: state.status.as_str(),
            attempts: state.attempts,
            last_status_code: state.last_status_code,
            paused_until: state.paused_until,
        },
    };
    // Strings and numbers always serialize.
    let json = serde_json::to_string(&payload).unwrap_or_default();
    Event { id: id.to_string(), domain, body: Body::Json { event_type: TYPE, json } }
}
