//! One sign-in attempt: counted against its client from the start, forgiven when it succeeds.

use std::net::IpAddr;

use data_encoding::HEXLOWER;

use crate::accounts::Refusal;
use crate::event_bus::mail_log::Via;
use crate::http::AppState;
use crate::http::client::ClientAddress;
use crate::http::error::{ApiError, Code};
use crate::metrics::{RateLimit, Service};
use crate::rate_limit::{Attempt, AttemptLimiter};
use crate::secrets::token_hash;

/// A login attempt (contract 2.3). It counts as a failure in every limit from the start, until it is forgiven.
pub(super) struct LoginAttempt<'a> {
    app: &'a AppState,
    tries: Vec<Attempt<'a>>,
    client: IpAddr,
    /// Limits that a success resets.
    pairs: Vec<(&'a AttemptLimiter, String)>,
}

impl<'a> LoginAttempt<'a> {
    /// Begins an attempt for an e-mail.
    pub(super) async fn begin(app: &'a AppState, client: &ClientAddress, email: &str) -> Result<Self, ApiError> {
        // The given e-mail may be long; its hash is not.
        let email = HEXLOWER.encode(&token_hash(email));
        let mut pairs = vec![(&app.limits.logins_per_client_and_email, format!("{} {email}", client.narrow_key()))];
        if client.claimed.is_some() {
            pairs.push((&app.limits.logins_per_proxy_and_email, format!("{} {email}", client.key())));
        }
        Self::begin_at(app, client, pairs).await
    }

    /// Begins an attempt whose account is unknown, unless `pairs` names it.
    pub(super) async fn begin_at(
        app: &'a AppState,
        client: &ClientAddress,
        pairs: Vec<(&'a AttemptLimiter, String)>,
    ) -> Result<Self, ApiError> {
        let mut counters = pairs.clone();
        counters.push((&app.limits.logins_per_client, client.narrow_key()));
        if client.claimed.is_some() {
            counters.push((&app.limits.logins_per_proxy, client.key()));
        }
        let mut attempt = Self { app, tries: Vec::with_capacity(counters.len()), client: client.address, pairs };
        for (limit, key) in counters {
            match limit.begin(&key, &app.clock).await {
                Ok(one) => attempt.tries.push(one),
                Err(wait) => {
                    attempt.forgive();
                    return Err(app.rate_limited(RateLimit::SignIn)(wait));
                }
            }
        }
        Ok(attempt)
    }

    /// Ends it by its result: a refused credential counts, anything else is forgiven.
    pub(super) fn end<T>(self, result: &Result<T, Refusal>) {
        let code = match result {
            Err(Refusal::BadLogin) => Some(Code::BadLogin),
            Err(Refusal::WrongPassword) => Some(Code::WrongPassword),
            Err(Refusal::BadLink) => Some(Code::BadLink),
            _ => None,
        };
        if let Some(code) = code {
            self.app.metrics.credentials_failed.add(Service::Http);
            return ApiError::from(code).log_credential(Via::Login, self.client);
        }
        let pairs = self.forgive();
        if result.is_ok() {
            pairs.iter().for_each(|(limit, key)| limit.forget(key));
        }
    }

    /// Takes the failure back.
    pub(super) fn forgive(self) -> Vec<(&'a AttemptLimiter, String)> {
        self.tries.into_iter().for_each(Attempt::succeed);
        self.pairs
    }
}
