//! The API: one file per resource.

pub mod account;
pub mod auth;
pub mod deliveries;
pub mod messages;
