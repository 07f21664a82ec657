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
mod failure_reports;
mod fairness;
mod fetched_files;
mod flows;
mod forward_reports;
mod forwarding;
mod golden;
mod google;
mod host_pauses;
mod host_turns;
mod house;
mod http;
mod http_connections;
mod inbound;
mod keys;
mod lenient_fields;
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
mod odd_addresses;
mod openapi;
mod outcomes;
mod packaging;
mod proxies;
mod queue;
mod readiness;
mod readme;
mod realtime;
mod recover;
mod refusals;
mod repeats;
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
mod unnamed_proxy;
mod uploads;
mod verify;
mod verify_records;
mod webhook_answers;
mod winmail;
mod zero_retention;
