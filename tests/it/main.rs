//! The one integration binary: behaviour through real doors, everything on port 0.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::string_slice,
    clippy::panic,
    reason = "tests may panic"
)]

mod accounts;
mod api;
mod cli;
mod dashboard;
mod domains;
mod house;
mod inbound;
mod outbound;
mod resources;
mod smtp;
mod storage;
mod support;
mod webhooks;
