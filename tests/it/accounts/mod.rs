//! Accounts: signing up and in, credentials, Google, and what one account may have (contract 1.9, 2).
//!
//! Tests use the API; Google is a token endpoint and a key set of the tests (`support::google`).
//! A change of a limit goes to `limits`, of the cost of passwords to `password_hashing`.

mod credentials;
mod google_client;
mod google_sign_in;
mod limits;
mod password_hashing;
mod setup_token;
mod sign_up;
