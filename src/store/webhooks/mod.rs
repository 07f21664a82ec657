//! Tables of webhooks: routes, deliveries, their attempts, and zero-retention mail that is posted once and not kept.

pub(crate) mod attempts;
pub(crate) mod blocked_senders;
pub(crate) mod deliveries;
pub(crate) mod delivery_list;
pub(crate) mod events;
pub(crate) mod former_webhooks;
pub(crate) mod routes;
pub(crate) mod zero_retention;
