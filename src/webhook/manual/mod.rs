//! Attempts that a person asks for: a retry at once, bulk retries, replay to a route (contract 6.2 to 6.4).
//!
//! Uses the same attempt as the job engine. What the dashboard or the API may ask of deliveries goes here.

pub(crate) mod replay;
pub(crate) mod retry_now;
