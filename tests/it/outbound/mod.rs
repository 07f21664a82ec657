//! Sending: requests, signatures, the queue, remote hosts, DSNs, forwarding.
//!
//! Mail leaves for scripted SMTP hosts on loopback, found through scripted DNS (`support::remote_host`,
//! `support::dns`). A change of the choice of hosts goes to `host_*`, `mx` or `transport`, of bounces to `dsn` and
//! `forwarded_dsn`.

mod dkim;
mod durability;
mod forwarded_dsn;
mod forwarding;
mod host_connections;
mod host_pauses;
mod host_routing;
mod message_repair;
mod mx;
mod rejections;
mod send_validation;
mod sending;
mod submission_dsn;
mod suppressions;
mod templates;
mod transport;
