//! What the tests stand on: peers with scripted behaviour.

pub mod receiver;
