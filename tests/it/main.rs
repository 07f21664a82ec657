//! The one integration binary: behaviour through real doors, everything on port 0.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "tests may panic")]

mod egress;
mod golden;
mod support;
mod verify;
