//! Inbound mail: recipients, verification, acceptance.
