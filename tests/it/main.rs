//! The one integration binary: behaviour over real sockets and the command line, every listener on port 0.
//!
//! One folder for each room of the product; `support` has the server, its clients and its peers.
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
mod log;
mod metrics;
mod outbound;
mod resources;
mod smtp;
mod storage;
mod support;
mod webhooks;
