//! One attempt of a delivery: load it, build and sign its request, post it, record the result.
//!
//! Uses `net::egress` for the network and `store::webhooks` for the rows. A request header goes into [`request`], a
//! rule about answers into [`outcome`], a new signature scheme into [`signature`].

pub(crate) mod budget;
pub(crate) mod damaged;
pub(crate) mod deliver;
pub(crate) mod first_attempt_cache;
pub(crate) mod in_flight;
mod log;
pub(crate) mod outcome;
pub(crate) mod payload;
pub(crate) mod prepare;
pub(crate) mod record;
pub(crate) mod request;
pub(crate) mod signature;
pub(crate) mod zero_retention;
