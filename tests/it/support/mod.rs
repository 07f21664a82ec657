//! What several tests need: the real server, a client, and peers with scripted behaviour.

pub(crate) mod api;
pub(crate) mod audit;
pub(crate) mod dialog;
pub(crate) mod dns;
pub(crate) mod forwards;
pub(crate) mod google;
pub(crate) mod machine;
pub(crate) mod outgoing;
pub(crate) mod post;
pub(crate) mod process;
pub(crate) mod promises;
pub(crate) mod receiver;
pub(crate) mod remote;
pub(crate) mod served;
pub(crate) mod server;
pub(crate) mod smtp;
