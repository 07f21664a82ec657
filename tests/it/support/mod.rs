//! Helpers of the tests: the server in this process or as a child, clients, and peers with scripted behaviour.
//!
//! A helper that several files need stands here, one file for each peer or client; nothing here contains a test.

pub(crate) mod api;
pub(crate) mod audit;
pub(crate) mod database;
pub(crate) mod dev_process;
pub(crate) mod dialog;
pub(crate) mod dns;
pub(crate) mod forwarding_server;
pub(crate) mod google;
pub(crate) mod machine;
pub(crate) mod outbound;
pub(crate) mod promises;
pub(crate) mod receiver;
pub(crate) mod remote_host;
pub(crate) mod sending_server;
pub(crate) mod serve_process;
pub(crate) mod server;
pub(crate) mod service_manager;
pub(crate) mod smtp;
pub(crate) mod wait;
