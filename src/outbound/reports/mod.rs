//! Reports about sent mail: those that this server sends, and those that come back (RFC 3464, RFC 5965).
//!
//! Uses `mail::report` to read them and the tables of `store::sending`. [`incoming`] decides which recipient a report
//! may settle, [`bounce`] who is sent one, and [`dsn`] writes it.

pub(crate) mod bounce;
pub(crate) mod dsn;
pub(crate) mod incoming;
