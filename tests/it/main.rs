//! The one integration binary: everything that is proved from outside.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests may panic")]

mod golden;
mod support;
mod verify;
