//! Webhooks: events, signatures, deliveries (contract 9).

mod budget;
mod damaged;
pub(crate) mod deliver;
mod delivery_updated;
pub(crate) mod email_received;
pub(crate) mod first_attempt_cache;
pub(crate) mod in_flight;
pub(crate) mod outcome;
mod owner_notice;
pub(crate) mod payload;
mod record;
pub(crate) mod replay;
mod request;
pub(crate) mod retry_now;
pub(crate) mod sending_events;
pub(crate) mod signature;
pub(crate) mod test_event;
pub(crate) mod zero_retention;

use crate::egress::Target;
use crate::jobs::Flow;

/// An account's jobs for the endpoint at `url`.
pub fn flow_of(url: &str, account: i64) -> Flow {
    Flow { lane: Target::lane_of(url).into(), account, endpoint: Target::endpoint_of(url) }
}

/// The same for mail that nothing is stored of, which has one attempt and waits for nothing but its turn.
pub(crate) fn zero_retention_flow(flow: &Flow) -> Flow {
    Flow { endpoint: -1 - flow.endpoint, ..flow.clone() }
}
