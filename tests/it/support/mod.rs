//! What several tests need: peers with scripted behaviour.

pub mod dns;
pub mod receiver;
