//! The SMTP server: sessions on port 25 and submission.
//!
//! Tests speak SMTP over real sockets; dialogs that a script can express stand in `tests/dialogs`.
//! The way of an accepted message is tested in `inbound` and `outbound`.

mod session_memory;
mod sessions;
mod submission;
