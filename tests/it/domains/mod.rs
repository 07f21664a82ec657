//! Domains through the API: adding, DNS checks, settings, removal (contract 3).
//!
//! Tests use the API, SMTP and a scripted DNS server; `lifecycle` has the set-up that all share.
//! A change of what DNS has to say goes to `dns_checks`, of a setting to `settings`, of competing
//! proofs to `contested`, of DKIM keys that replace others to `key_rotation`.

mod contested;
mod dns_checks;
mod key_rotation;
mod lifecycle;
mod settings;
