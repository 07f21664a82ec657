//! `[limits]`: bounds of everything that a stranger could make grow. `crate::limits` enforces them.

use super::read::Section;
use super::value::number;

const MIB: u64 = 1024 * 1024;

/// `[limits]`: the limits of one account. 0 is no limit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Routes, inactive ones included.
    pub routes: u32,
    /// Routes among them whose match is a regex.
    pub regex_routes: u32,
    /// Routes that run for one recipient of one message.
    pub fan_out: u32,
    /// Messages that one message becomes while routes forward it between addresses of this server.
    pub local_copies: u32,
    /// Domains.
    pub domains: u32,
    /// API keys restricted to one domain.
    pub scoped_keys: u32,
    /// Templates.
    pub templates: u32,
    /// Login sessions; starting one more ends the oldest.
    pub sessions: u32,
    /// Uploaded files that have not expired.
    pub uploads: u32,
    /// Scheduled messages.
    pub scheduled: u32,
    /// Suppressed addresses.
    pub suppressions: u32,
    /// Blocked senders.
    pub blocked_senders: u32,
    /// Responses remembered by Idempotency-Key.
    pub idempotency_keys: u32,
    /// Bytes of messages, files, templates and captures of an account other than the owner's.
    pub storage_bytes: u64,
    /// The same for the owner's account.
    pub(crate) owner_storage_bytes: u64,
    /// Sustained requests per second, all credentials of the account together.
    pub requests_per_second: u32,
    /// Bytes of mail, request bodies and payloads in memory, all accounts and services together.
    pub memory_bytes: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            routes: 500,
            regex_routes: 50,
            fan_out: 20,
            local_copies: 100,
            domains: 100,
            scoped_keys: 200,
            templates: 500,
            sessions: 100,
            uploads: 2_000,
            scheduled: 10_000,
            suppressions: 500_000,
            blocked_senders: 10_000,
            idempotency_keys: 200_000,
            storage_bytes: 2048 * MIB,
            owner_storage_bytes: 0,
            requests_per_second: 200,
            memory_bytes: 192 * MIB,
        }
    }
}

pub(super) fn read(section: &Section<'_, '_>) -> Limits {
    let default = Limits::default();
    let count = |key: &str, default: u32, most: u64, unit: &str| section.value(key, default, number(0..=most, unit));
    let bytes = |key: &str, default: u64| section.value(key, default, number(0..=1 << 50, "bytes"));
    Limits {
        routes: count("routes", default.routes, 100_000, "routes"),
        regex_routes: count("regex_routes", default.regex_routes, 1_000, "routes"),
        fan_out: count("fan_out", default.fan_out, 1_000, "routes"),
        local_copies: count("local_copies", default.local_copies, 10_000, "messages"),
        domains: count("domains", default.domains, 100_000, "domains"),
        scoped_keys: count("scoped_keys", default.scoped_keys, 100_000, "keys"),
        templates: count("templates", default.templates, 100_000, "templates"),
        sessions: count("sessions", default.sessions, 100_000, "sessions"),
        uploads: count("uploads", default.uploads, 10_000_000, "files"),
        scheduled: count("scheduled", default.scheduled, 10_000_000, "messages"),
        suppressions: count("suppressions", default.suppressions, 100_000_000, "addresses"),
        blocked_senders: count("blocked_senders", default.blocked_senders, 100_000_000, "addresses"),
        idempotency_keys: count("idempotency_keys", default.idempotency_keys, 100_000_000, "keys"),
        storage_bytes: bytes("storage_bytes", default.storage_bytes),
        owner_storage_bytes: bytes("owner_storage_bytes", default.owner_storage_bytes),
        requests_per_second: count(
            "requests_per_second",
            default.requests_per_second,
            1_000_000,
            "requests a second",
        ),
        memory_bytes: section.value("memory_bytes", default.memory_bytes, number(32 * MIB..=1 << 50, "bytes")),
    }
}
