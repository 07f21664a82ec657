//! The log, as the real binary writes it: what happens to mail, refused credentials, priorities for journald.
//!
//! A test of a new event stands in the file of its subject; `support/logged_process.rs` starts the server.

mod credentials;
mod inbound;
mod journal;
mod outbound;
