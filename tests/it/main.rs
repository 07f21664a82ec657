//! The one integration binary: behaviour through real sockets, everything on port 0.
#![expect(clippy::unwrap_used, clippy::panic, reason = "tests may panic")]

mod egress;
mod support;
