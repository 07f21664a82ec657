//! Webhooks: events, signatures, deliveries (contract 9).

mod budget;
mod damaged;
pub(crate) mod deliver;
pub(crate) mod event;
pub(crate) mod fresh;
pub(crate) mod in_flight;
pub(crate) mod manual;
pub(crate) mod outcome;
mod owner_notice;
pub(crate) mod passing;
pub(crate) mod payload;
pub(crate) mod probe;
mod record;
pub(crate) mod replay;
mod request;
pub(crate) mod sending;
pub(crate) mod signature;
mod updated;

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
