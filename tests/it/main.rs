<<<<<<< HEAD
//! The one integration binary: behaviour through real sockets, everything on port 0.
#![expect(clippy::unwrap_used, clippy::panic, reason = "tests may panic")]

mod egress;
mod support;
=======
//! The one integration binary: everything that is proved from outside.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "tests may panic")]

mod golden;
mod support;
mod verify;
>>>>>>> mime
