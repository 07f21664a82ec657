//! What several tests need.

pub mod dns;
