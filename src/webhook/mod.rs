//! Webhooks: events, signatures, deliveries (contract 9).

mod budget;
mod damaged;
pub mod deliver;
pub mod event;
pub mod fresh;
pub mod in_flight;
pub mod manual;
pub mod outcome;
mod owner_notice;
pub mod passing;
pub mod payload;
pub mod probe;
mod record;
pub mod replay;
mod request;
pub mod sending;
pub mod signature;
mod updated;

use crate::egress::Target;
use crate::jobs::Flow;

/// An account's jobs for the endpoint at `url`.
pub fn flow_of(url: &str, account: i64) -> Flow {
    Flow { lane: Target::lane_of(url).into(), account, endpoint: Target::endpoint_of(url) }
}

/// The same for mail that nothing is stored of, which has one attempt and waits for nothing but its turn.
pub fn zero_retention_flow(flow: &Flow) -> Flow {
    Flow { endpoint: -1 - flow.endpoint, ..flow.clone() }
}
