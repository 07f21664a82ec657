//! The queue of outbound mail: one attempt of a dispatch, the classification of replies, and how the outcome is
//! stored.
//!
//! Uses `outbound::transport` for the network and `jobs` for scheduling. A newly observed reply of remote hosts goes
//! into the table of [`refusal`]; anything else that depends on the remote host goes into [`hosts`].

pub(crate) mod deliver;
pub(crate) mod hosts;
pub(crate) mod outcome;
pub(crate) mod rate_limiter;
pub(crate) mod refusal;
pub(crate) mod settle;
