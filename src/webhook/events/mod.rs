//! The events that endpoints get and the JSON of each (contract 9.6, 9.7, 10).
//!
//! Uses rows of `store` and writes JSON; posting is `webhook::attempt`'s. A new event gets a file here and a section in
//! the contract.

pub(crate) mod delivery_updated;
pub(crate) mod email_received;
pub(crate) mod sending;
pub(crate) mod test_event;
