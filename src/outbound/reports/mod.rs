//! Reports about mail that was sent: those that leave here, and those that come back (RFC 3464, RFC 5965).
//!
//! Uses `mail::report` to read them and the tables of `store::sending`. Which recipient may be settled by a report is
//! decided in [`incoming`]; what our own reports say is written in [`dsn`].

pub(crate) mod bounce;
pub(crate) mod dsn;
pub(crate) mod incoming;
