//! The API: one file per resource.

pub mod account;
pub mod deliveries;
pub mod messages;
