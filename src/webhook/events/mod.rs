//! The events sent to endpoints and the JSON of each (contract 9.6, 9.7, 10).
//!
//! Reads rows of `store` and writes JSON; `webhook::attempt` posts it. A new event gets a file here and a section in
//! the contract.

pub(crate) mod delivery_updated;
pub(crate) mod email_received;
pub(crate) mod sending;
pub(crate) mod test_event;
