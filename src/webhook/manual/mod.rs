//! Attempts requested by a user: immediate retry, bulk retry, replay to a route (contract 6.2 to 6.4).
//!
//! Uses the same attempt as the job engine. New operations on deliveries for the dashboard or the API go here.

pub(crate) mod replay;
pub(crate) mod retry_now;
