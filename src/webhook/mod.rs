//! Webhooks: events, signatures, deliveries (contract 9).

pub mod deliver;
pub mod event;
pub mod outcome;
pub mod passing;
mod request;
pub mod signature;
