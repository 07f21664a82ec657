//! The API: one file per resource.

pub mod account;
pub mod auth;
pub mod deliveries;
pub mod domain_settings;
pub mod domain_webhook;
pub mod domains;
pub mod inject;
pub mod messages;
pub mod replay;
pub mod routes;
pub mod send;
pub mod stubs;
pub mod suppressions;
pub mod templates;
pub mod transmissions;
pub mod uploads;
