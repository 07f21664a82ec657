//! What one request holds of the memory budget: little until a credential was seen, and all of it until it is answered.

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
use crate::memory_budget::{Door, MemoryBudget, Reservation};

/// How long a request waits for its turns, all in all, before the client is asked to come again.
const PATIENCE: Duration = Duration::from_secs(8);

/// The share of one request; clones are the same share. It ends with the last of them.
#[derive(Clone, Debug)]
pub(crate) struct RequestMemory(Arc<Request>);

#[derive(Debug)]
struct Request {
    budget: MemoryBudget,
    /// Whether a credential was seen, and of which account, if it is one's.
    known: OnceCell<Option<AccountRowId>>,
    share: Mutex<Share>,
}

#[derive(Debug, Default)]
struct Share {
    reservation: Option<Reservation>,
    /// How long the request waited for turns so far.
    waited: Duration,
}

impl FromRequestParts<AppState> for RequestMemory {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, app: &AppState) -> Result<Self, ApiError> {
        Ok(Self::of(&parts.extensions, app))
    }
}

impl RequestMemory {
    /// The share that a request was given.
    pub(crate) fn of(extensions: &Extensions, app: &AppState) -> Self {
        extensions.get::<Self>().cloned().unwrap_or_else(|| Self::new(app.memory.clone()))
    }

    /// Nothing yet, of somebody unknown.
    pub(crate) fn new(budget: MemoryBudget) -> Self {
        Self(Arc::new(Request { budget, known: OnceCell::new(), share: Mutex::default() }))
    }

    /// A credential was seen, of this account if it is one's.
    pub(crate) fn know(&self, account: Option<AccountRowId>) {
        // The first one counts; there are no others.
        let _ = self.0.known.set(account);
    }

    /// Whether a credential was seen.
    pub(crate) fn is_known(&self) -> bool {
        self.0.known.get().is_some()
    }

    /// Holds so many octets, at least: waits for its turn.
    ///
    /// # Errors
    /// 503: the turn did not come in time.
    pub(crate) async fn hold(&self, octets: usize) -> Result<(), ApiError> {
        self.resize(octets, false).await
    }

    /// Holds so many octets and no more.
    ///
    /// # Errors
    /// 503: the turn did not come in time.
    pub(crate) async fn hold_exactly(&self, octets: usize) -> Result<(), ApiError> {
        self.resize(octets, true).await
    }

    async fn resize(&self, octets: usize, shrink: bool) -> Result<(), ApiError> {
        let mut share = self.0.share.lock().await;
        let Share { reservation, waited } = &mut *share;
        let reservation = reservation.get_or_insert_with(|| match self.0.known.get() {
            Some(Some(account)) => self.0.budget.reservation_of(Door::Api, *account),
            Some(None) => self.0.budget.reservation(Door::Api),
            None => self.0.budget.reservation(Door::Anonymous),
        });
        if octets > reservation.held() {
            let asked = Instant::now();
            let in_time = reservation.wait_within(octets, PATIENCE.saturating_sub(*waited)).await;
            *waited += asked.elapsed();
            in_time.map_err(|_| used_up())?;
        } else if shrink {
            reservation.shrink_to(octets);
        }
        Ok(())
    }

    /// Octets that are held.
    pub(crate) async fn held(&self) -> usize {
        self.0.share.lock().await.reservation.as_ref().map_or(0, Reservation::held)
    }
}

/// Holds so many octets for an answer, beyond the end of its request: waits for its turn.
///
/// # Errors
/// 503: the turn did not come in time.
pub(crate) async fn reserve(app: &AppState, account: AccountRowId, octets: usize) -> Result<Reservation, ApiError> {
    let mut share = app.memory.reservation_of(Door::Api, account);
    share.wait_within(octets, PATIENCE).await.map_err(|_| used_up())?;
    Ok(share)
}

fn used_up() -> ApiError {
    ApiError::new(Code::Unavailable, "the server holds as much as its memory budget allows; try again")
}
