//! Handlers of the API, one file per resource. They may use everything below `http`, and shared parts of it such as
//! `body`, `extract` and `error`.
//!
//! A handler checks in the contract's order (1.7): the resource is the caller's (404), the key's domain (403), fields
//! (400), preconditions (409). The credential's class is checked before it runs, by `authorize`.

pub(crate) mod account;
mod attachment_url;
pub(crate) mod auth;
pub(crate) mod deliveries;
pub(crate) mod delivery_list;
pub(crate) mod domain_settings;
pub(crate) mod domain_webhook;
pub(crate) mod domains;
pub(crate) mod forwards;
pub(crate) mod inject;
mod login_attempt;
pub(crate) mod logins;
pub(crate) mod messages;
pub(crate) mod overview;
pub(crate) mod password_reset;
pub(crate) mod replay;
mod route_fields;
pub(crate) mod route_match;
pub(crate) mod routes;
pub(crate) mod send;
pub(crate) mod server;
pub(crate) mod suppressions;
pub(crate) mod templates;
pub(crate) mod transmissions;
pub(crate) mod unsupported;
pub(crate) mod uploads;
