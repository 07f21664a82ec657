//! The API: one file per resource.

pub mod account;
pub mod auth;
pub mod deliveries;
pub mod delivery_list;
pub mod domain_settings;
pub mod domain_webhook;
pub mod domains;
pub mod forwards;
mod given_file;
pub mod inject;
pub mod logins;
pub mod messages;
pub mod overview;
pub mod replay;
pub mod route_match;
pub mod routes;
pub mod send;
pub mod server;
pub mod stubs;
pub mod suppressions;
pub mod templates;
pub mod transmissions;
pub mod uploads;
