//! The one integration binary: behaviour through real doors, everything on port 0.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::string_slice,
    clippy::panic,
    reason = "tests may panic"
)]

mod config;
mod delivery;
mod dev;
mod disk;
mod durability;
mod egress;
mod golden;
mod house;
mod http;
mod inbound;
mod list;
mod retention;
mod smtp;
mod support;
mod verify;
