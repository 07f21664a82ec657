//! Receiving: whose mail is accepted, how it is authenticated, parsed and matched to routes.
//!
//! Tests enter by SMTP and look at the webhook, the API or the rows; `authentication` and `mime` call the code itself.
//! A change of the SMTP dialog itself goes to `smtp`, of what a webhook receives to `webhooks`.

mod acceptance;
mod addresses;
mod ambiguous_headers;
mod authentication;
mod authentication_records;
mod changes;
mod duplicates;
mod mime;
mod routes;
mod tnef;
mod zero_retention;
