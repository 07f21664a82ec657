//! Inbound mail: recipients, verification, acceptance.

pub mod verify;
