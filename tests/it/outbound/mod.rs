//! Sending: requests, signatures, the queue, remote hosts, DSNs, forwarding.
//!
//! Mail leaves for scripted SMTP hosts on loopback, found through scripted DNS (`support::remote_host`,
//! `support::dns`). A change of the choice of hosts goes to `host_*`, `mx` or `transport`, of bounces to
//! `returned_reports` and `forwarded_dsn`.

mod dkim;
mod durability;
mod forward_destinations;
mod forwarded_dsn;
mod forwarding;
mod host_connections;
mod host_families;
mod host_pauses;
mod host_routing;
mod message_repair;
mod mta_sts;
mod mx;
mod rejections;
mod returned_reports;
mod send_requests;
mod send_validation;
mod sending;
mod submission_dsn;
mod suppressions;
mod templates;
mod transport;
mod transport_extensions;
mod transport_tls;
