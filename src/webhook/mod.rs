//! Webhooks: events, signatures, deliveries (contract 9).
//!
//! [`Webhooks`] is the service; its parts are in the files of what they do. It uses `store`, `jobs` for attempts and
//! `net::egress` for requests. A new event belongs in `events`, a rule of an attempt in `attempt`, a request of a user
//! in `manual`.

pub(crate) mod attempt;
pub(crate) mod events;
pub(crate) mod manual;
mod owner_notice;

use std::sync::Arc;

use attempt::first_attempt_cache::FirstAttemptCache;
use attempt::in_flight::InFlight;

use crate::event_bus::Publisher;
use crate::id::AccountRowId;
use crate::jobs::{Flow, Jobs};
use crate::limits::Limits;
use crate::memory_budget::MemoryBudget;
use crate::metrics::Metrics;
use crate::net::egress::{Egress, Policy, Target};
use crate::secrets::Secrets;
use crate::secrets::signed_links::Links;
use crate::store::Db;
use crate::store::blobs::objects::Objects;

/// Delivers webhooks; handles the jobs of that kind.
pub struct Webhooks {
    pub(crate) db: Db,
    pub(crate) objects: Objects,
    /// Decrypts the signing secrets.
    pub(crate) secrets: Arc<Secrets>,
    /// Signs attachment links.
    pub(crate) links: Arc<Links>,
    /// Posts requests.
    pub(crate) egress: Egress,
    /// Decides which URLs may be posted to.
    pub(crate) policy: Policy,
    pub(crate) metrics: Arc<Metrics>,
    /// Limits per account.
    pub(crate) limits: Arc<Limits>,
    /// Publishes the events of live streams.
    pub(crate) publisher: Publisher,
    /// Woken for mail to account owners.
    pub jobs: Jobs,
    /// Memory budget for large mail.
    pub memory: MemoryBudget,
    /// Deliveries with an attempt in progress.
    pub(crate) in_flight: InFlight,
    /// Deliveries of mail that was just accepted.
    pub(crate) first_attempt_cache: FirstAttemptCache,
}

/// Returns the flow of an account's jobs for the endpoint at `url`.
pub fn flow_of(url: &str, account: AccountRowId) -> Flow {
    Flow { lane: Target::lane_of(url).into(), account, endpoint: Target::endpoint_of(url) }
}

/// Returns the flow for mail under zero retention, which has one attempt and waits only for its turn.
pub(crate) fn zero_retention_flow(flow: &Flow) -> Flow {
    Flow { endpoint: -1 - flow.endpoint, ..flow.clone() }
}
