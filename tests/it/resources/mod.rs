//! Memory, threads and turns: what one request costs the process, and that no account waits for another.
//!
//! Memory is read from the real binary's `/proc`; fairness is seen from outside, by who is served first.
//! Limits of an account are tested in `accounts::limits`, of connections in `api::connections`.

mod fairness;
mod inbound_memory;
mod memory_budget;
mod outbound_memory;
mod thread_limit;
