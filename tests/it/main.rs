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
mod breaker;
mod config;
mod console;
mod conventions;
mod costly;
mod dashboard;
mod delivery;
mod dev;
mod disk;
mod domain_checks;
mod domain_webhook;
mod domains;
mod durability;
mod egress;
mod fairness;
mod flows;
mod forward_reports;
mod forwarding;
mod golden;
mod google;
mod house;
mod http;
mod http_connections;
mod inbound;
mod keys;
mod limits;
mod list;
mod local_doors;
mod mail_hosts;
mod manual;
mod memory_budget;
mod memory_received;
mod memory_sent;
mod messages;
mod objects;
mod openapi;
mod outcomes;
mod packaging;
mod queue;
mod readiness;
mod readme;
mod realtime;
mod recover;
mod retention;
mod routes;
mod send_errors;
mod sending;
mod sending_durability;
mod sending_hosts;
mod setup_token;
mod sign_in;
mod signatures;
mod smtp;
mod submission;
mod submission_repairs;
mod support;
mod suppressions;
mod templates;
mod tenancy;
mod tests_run;
mod threads;
mod tls;
mod transport;
mod uploads;
mod verify;
mod zero_retention;
