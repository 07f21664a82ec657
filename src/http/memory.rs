//! Memory reservation of one request: small until it is authenticated, and held until it is answered.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::FromRequestParts;
use axum::http::Extensions;
use axum::http::request::Parts;
use tokio::sync::{Mutex, OnceCell};
use tokio::time::Instant;

use super::AppState;
use super::error::{ApiError, Code};
use crate::id::AccountRowId;
use crate::memory_budget::{Consumer, MemoryBudget, Reservation};

/// A request waits this long for memory in total, then it is answered with 503.
const MAX_WAIT: Duration = Duration::from_secs(8);

/// The reservation of one request, shared by clones and released with the last of them.
#[derive(Clone, Debug)]
pub(crate) struct RequestMemory(Arc<Request>);

#[derive(Debug)]
struct Request {
    budget: MemoryBudget,
    /// Set once a credential was seen; holds its account, if it has one.
    account: OnceCell<Option<AccountRowId>>,
    share: Mutex<Share>,
}

#[derive(Debug, Default)]
struct Share {
    reservation: Option<Reservation>,
    /// Time that the request has waited for memory so far.
    waited: Duration,
}

impl FromRequestParts<AppState> for RequestMemory {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, app: &AppState) -> Result<Self, ApiError> {
        Ok(Self::of(&parts.extensions, app))
    }
}

impl RequestMemory {
    /// Returns the reservation of a request.
    pub(crate) fn of(extensions: &Extensions, app: &AppState) -> Self {
        extensions.get::<Self>().cloned().unwrap_or_else(|| Self::new(app.memory.clone()))
    }

    /// Creates an empty reservation of an anonymous client.
    pub(crate) fn new(budget: MemoryBudget) -> Self {
        Self(Arc::new(Request { budget, account: OnceCell::new(), share: Mutex::default() }))
    }

    /// Marks the request as authenticated, by this account if the credential has one.
    pub(crate) fn set_authenticated(&self, account: Option<AccountRowId>) {
        // A request is authenticated once.
        let _ = self.0.account.set(account);
    }

    /// Returns true once a credential was seen.
    pub(crate) fn is_authenticated(&self) -> bool {
        self.0.account.get().is_some()
    }

    /// Grows the reservation to at least this many octets; waits for them.
    ///
    /// # Errors
    /// 503 if there was not enough memory in time.
    pub(crate) async fn hold(&self, octets: usize) -> Result<(), ApiError> {
        self.resize(octets, false).await
    }

    /// Grows or shrinks the reservation to this many octets; waits for them.
    ///
    /// # Errors
    /// 503 if there was not enough memory in time.
    pub(crate) async fn hold_exactly(&self, octets: usize) -> Result<(), ApiError> {
        self.resize(octets, true).await
    }

    async fn resize(&self, octets: usize, shrink: bool) -> Result<(), ApiError> {
        let mut share = self.0.share.lock().await;
        let Share { reservation, waited } = &mut *share;
        let reservation = reservation.get_or_insert_with(|| match self.0.account.get() {
            Some(Some(account)) => self.0.budget.reservation_of(Consumer::Api, *account),
            Some(None) => self.0.budget.reservation(Consumer::Api),
            None => self.0.budget.reservation(Consumer::Anonymous),
        });
        if octets > reservation.held() {
            let started = Instant::now();
            let in_time = reservation.wait_within(octets, MAX_WAIT.saturating_sub(*waited)).await;
            *waited += started.elapsed();
            in_time.map_err(|_| out_of_memory())?;
        } else if shrink {
            reservation.shrink_to(octets);
        }
        Ok(())
    }

    /// Returns the octets held.
    pub(crate) async fn held(&self) -> usize {
        self.0.share.lock().await.reservation.as_ref().map_or(0, Reservation::held)
    }
}

/// Reserves octets for a response, beyond the end of its request; waits for them.
///
/// # Errors
/// 503 if there was not enough memory in time.
pub(crate) async fn reserve(app: &AppState, account: AccountRowId, octets: usize) -> Result<Reservation, ApiError> {
    let mut share = app.memory.reservation_of(Consumer::Api, account);
    share.wait_within(octets, MAX_WAIT).await.map_err(|_| out_of_memory())?;
    Ok(share)
}

fn out_of_memory() -> ApiError {
    ApiError::new(Code::Unavailable, "the server holds as much as its memory budget allows; try again")
}
