//! Webhooks: events, signatures, deliveries (contract 9).

pub(crate) mod attempt;
pub(crate) mod events;
pub(crate) mod manual;
mod owner_notice;

use crate::id::AccountRowId;
use crate::jobs::Flow;
use crate::net::egress::Target;

/// Returns the flow of an account's jobs for the endpoint at `url`.
pub fn flow_of(url: &str, account: AccountRowId) -> Flow {
    Flow { lane: Target::lane_of(url).into(), account, endpoint: Target::endpoint_of(url) }
}

/// Returns the flow for mail under zero retention, which has one attempt and waits only for its turn.
pub(crate) fn zero_retention_flow(flow: &Flow) -> Flow {
    Flow { endpoint: -1 - flow.endpoint, ..flow.clone() }
}
