//! The log, as the real binary writes it: what happens to mail, priorities for journald.
//!
//! A test of a new event stands in the file of its subject; `support/logged_process.rs` starts the server.

mod inbound;
mod journal;
mod outbound;
