//! Webhooks: deliveries, their retries, manual attempts, and the HTTP client that makes them.
//!
//! The endpoint is `support::receiver` or a raw socket; time moves by the test clock.
//! A change of the retry schedule goes to `retries`, of the pause of an endpoint to `circuit_breaker`.

mod circuit_breaker;
mod control_answers;
mod delivery;
mod egress;
mod egress_bodies;
mod egress_fetch;
mod manual_attempts;
mod removals;
mod replay;
mod responses;
mod retries;
mod routing;
