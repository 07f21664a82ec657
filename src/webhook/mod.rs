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
