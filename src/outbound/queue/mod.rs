//! The queue of outbound mail: one attempt of a dispatch, what a reply means, and how the outcome is stored.
//!
//! Uses `outbound::transport` for the network and `jobs` for turns. A new reply of hosts in the field goes into the table
//! of [`refusal`]; whatever else depends on the remote host goes into [`hosts`].

pub(crate) mod deliver;
pub(crate) mod hosts;
pub(crate) mod outcome;
pub(crate) mod rate_limiter;
pub(crate) mod refusal;
pub(crate) mod settle;
