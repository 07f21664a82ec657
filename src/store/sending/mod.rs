//! Tables of sent mail: dispatches, their recipients, suppressions, templates, forwarding destinations.

pub(crate) mod destinations;
pub(crate) mod dispatches;
pub(crate) mod forwarded_messages;
pub(crate) mod outbound_details;
pub(crate) mod queue;
pub(crate) mod recipients;
pub(crate) mod suppressions;
pub(crate) mod templates;
