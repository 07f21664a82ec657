//! mailkite: mail in over SMTP, signed webhooks out. This page is the map.

pub mod activity;
pub mod app;
pub mod cli;
pub mod clock;
pub mod config;
pub mod content;
pub mod dns;
pub mod egress;
pub mod hex;
pub mod http;
pub mod id;
pub mod inbound;
pub mod jobs;
pub mod links;
pub mod mail;
pub mod metrics;
pub mod retention;
pub mod secrets;
pub mod setup;
pub mod smtp_server;
pub mod store;
pub mod tls;
pub mod webhook;
