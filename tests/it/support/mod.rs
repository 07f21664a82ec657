//! What several tests need: the real server, a client, and peers with scripted behaviour.

pub mod api;
pub mod audit;
pub mod dialog;
pub mod dns;
pub mod forwards;
pub mod google;
pub mod machine;
pub mod outgoing;
pub mod post;
pub mod process;
pub mod promises;
pub mod receiver;
pub mod remote;
pub mod served;
pub mod server;
pub mod smtp;
