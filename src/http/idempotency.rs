//! Idempotency keys (contract 1.11): a request with the same key and body gets the remembered answer, and waits for a
//! first one that is still in progress.
//!
//! The transaction of the operation stores the answer, with [`crate::store::accounts::idempotency::put`].

use std::collections::HashMap;
use std::ops::ControlFlow;
use std::sync::{Arc, Mutex, PoisonError};

use crate::store::Connection;
use axum::http::header::{CONTENT_TYPE, HeaderName};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use tokio::sync::{Mutex as AsyncMutex, OwnedMutexGuard};

use super::AppState;
use super::auth::Caller;
use super::error::{ApiError, Code};
use crate::clock::Timestamp;
use crate::id::{MessageId, ScheduledId};
use crate::outbound::submit::Remember;
use crate::store;
use crate::store::Db;
use crate::store::accounts::idempotency;
use crate::store::accounts::idempotency::{Remembered, RequestKey};
use crate::store::blobs::objects::Objects;
use crate::store::sending::outbound_details;

const HEADER: &str = "idempotency-key";
const REPLAYED: HeaderName = HeaderName::from_static("idempotent-replayed");
const MAX_KEY: usize = 255;

/// Requests with a key that are in progress.
#[derive(Debug, Default)]
pub(crate) struct Idempotency {
    running: Mutex<HashMap<RequestKey, Arc<AsyncMutex<()>>>>,
}

/// Outcome of [`Idempotency::begin`].
#[derive(Debug)]
pub(crate) enum BeginOutcome<'i> {
    /// First request with its key: carry it out and remember the answer.
    First(RunningRequest<'i>),
    /// Answered before; the response gets `Idempotent-Replayed: true`.
    Replayed(Remembered),
}

/// A request in progress; others with its key wait until this is dropped.
#[derive(Debug)]
pub(crate) struct RunningRequest<'i> {
    idempotency: &'i Idempotency,
    /// Key under which the answer is remembered.
    request: RequestKey,
    /// Hash remembered with the answer.
    body_hash: Vec<u8>,
    guard: Option<OwnedMutexGuard<()>>,
}

impl RunningRequest<'_> {
    /// Returns the record that remembers an answer.
    pub(crate) fn remember(&self, status: StatusCode, view: &impl Serialize) -> Remember {
        // Views always serialize.
        let response = serde_json::to_vec(view).unwrap_or_default();
        let answer = Remembered { body_hash: self.body_hash.clone(), status: status.as_u16(), response };
        Remember { request: self.request.clone(), answer }
    }
}

impl Drop for RunningRequest<'_> {
    fn drop(&mut self) {
        self.guard = None;
        let mut running = self.idempotency.running.lock().unwrap_or_else(PoisonError::into_inner);
        // One reference is the map's: nobody else holds or waits for it.
        if running.get(&self.request).is_some_and(|lock| Arc::strong_count(lock) == 1) {
            running.remove(&self.request);
        }
    }
}

/// Reads the key of a request: 1 to 255 visible ASCII characters; an empty one counts as absent.
///
/// # Errors
/// 400 `bad_request` for anything else in the header.
pub(crate) fn key(headers: &HeaderMap) -> Result<Option<String>, ApiError> {
    let Some(value) = headers.get(HEADER).filter(|value| !value.is_empty()) else { return Ok(None) };
    let visible = value.len() <= MAX_KEY && value.as_bytes().iter().all(u8::is_ascii_graphic);
    match value.to_str() {
        Ok(text) if visible => Ok(Some(text.to_owned())),
        _ => Err(ApiError::new(Code::BadRequest, "an Idempotency-Key has 1 to 255 visible ASCII characters")),
    }
}

/// Begins a request of `caller`; breaks with the response if it was answered before, and continues with `None` if it
/// has no key.
///
/// # Errors
/// 400 for a malformed key, 409 if it was used with another body.
pub(crate) async fn begin<'a>(
    app: &'a AppState,
    caller: &Caller,
    headers: &HeaderMap,
    path: &str,
    body_hash: &[u8],
    now: Timestamp,
) -> Result<ControlFlow<Response, Option<RunningRequest<'a>>>, ApiError> {
    let Some(key) = key(headers)? else { return Ok(ControlFlow::Continue(None)) };
    let request = RequestKey { account: caller.id(), path: path.to_owned(), key };
    Ok(match app.idempotency.begin(&app.db, &app.objects, request, body_hash, now).await? {
        BeginOutcome::First(running) => ControlFlow::Continue(Some(running)),
        BeginOutcome::Replayed(answer) => ControlFlow::Break(replay(answer)),
    })
}

/// Builds the response of a remembered answer, marked as replayed.
fn replay(answer: Remembered) -> Response {
    let status = StatusCode::from_u16(answer.status).unwrap_or(StatusCode::OK);
    let mut response = (status, [(CONTENT_TYPE, "application/json")], answer.response).into_response();
    response.headers_mut().insert(REPLAYED, HeaderValue::from_static("true"));
    response
}

impl Idempotency {
    /// Waits for a request with the same key that is in progress, then looks up its answer.
    ///
    /// # Errors
    /// 409 `idempotency_conflict` if the key was used with another body.
    pub(crate) async fn begin(
        &self,
        db: &Db,
        objects: &Objects,
        request: RequestKey,
        body_hash: &[u8],
        now: Timestamp,
    ) -> Result<BeginOutcome<'_>, ApiError> {
        let lock = {
            let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(running.entry(request.clone()).or_default())
        };
        let guard = lock.lock_owned().await;
        let body_hash = body_hash.to_vec();
        let running = RunningRequest { idempotency: self, request: request.clone(), body_hash, guard: Some(guard) };
        let objects = objects.clone();
        let found = db.read(move |connection| {
            let Some(answer) = idempotency::find(connection, &request, now)? else { return Ok(None) };
            let lost = names_lost_message(connection, &objects, &answer)?;
            if lost {
                tracing::error!("a message that was promised is gone; its repeated request is carried out anew");
            }
            Ok(Some((answer, lost)))
        });
        let found = found.await?;
        match found {
            None => Ok(BeginOutcome::First(running)),
            Some((answer, _)) if answer.body_hash != running.body_hash => Err(Code::IdempotencyConflict.into()),
            Some((_, true)) => Ok(BeginOutcome::First(running)),
            Some((answer, false)) => {
                // The client of the first request may have disconnected before its fsync.
                db.until_durable().await?;
                Ok(BeginOutcome::Replayed(answer))
            }
        }
    }
}

/// Returns true if a message named by an answer can no longer be sent: a replay must not promise it again.
fn names_lost_message(connection: &Connection, objects: &Objects, answer: &Remembered) -> store::Result<bool> {
    let Ok(answer) = serde_json::from_slice::<AnswerIds>(&answer.response) else { return Ok(false) };
    let ids = answer.id.into_iter().chain(answer.results.into_iter().filter_map(|one| one.id));
    for id in ids {
        let lost = match (MessageId::parse(&id), ScheduledId::parse(&id)) {
            (Some(id), _) => outbound_details::is_lost(connection, objects, &id)?,
            (_, Some(id)) => outbound_details::is_scheduled_lost(connection, objects, &id)?,
            (None, None) => false,
        };
        if lost {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Ids in the answers of `/v1/send` and `/v1/send/batch`.
#[derive(Deserialize)]
struct AnswerIds {
    id: Option<String>,
    #[serde(default)]
    results: Vec<PromisedEntry>,
}

#[derive(Deserialize)]
struct PromisedEntry {
    id: Option<String>,
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, clippy::panic, reason = "tests may panic")]

    use std::time::Duration;

    use super::*;
    use crate::store::accounts::{self, NewAccount};

    const NOW: Timestamp = Timestamp::from_millis(1_785_196_800_000);

    async fn database(dir: &std::path::Path) -> (Db, RequestKey) {
        let db = Db::open(dir).unwrap();
        let new = NewAccount { email: "ada@acme.dev".to_owned(), ..NewAccount::default() };
        let account = db.write(move |tx| accounts::insert(tx, new, NOW)).await.unwrap().id;
        (db, RequestKey { account, path: "/v1/send".to_owned(), key: "k1".to_owned() })
    }

    #[tokio::test]
    async fn a_repeat_waits_for_the_first_and_gets_its_answer() {
        let dir = tempfile::tempdir().unwrap();
        let (db, request) = database(dir.path()).await;
        let objects = Objects::open(dir.path()).unwrap();
        let all = Idempotency::default();
        let BeginOutcome::First(first) = all.begin(&db, &objects, request.clone(), b"body", NOW).await.unwrap()
        else {
            panic!("first")
        };
        let mut second = Box::pin(all.begin(&db, &objects, request.clone(), b"body", NOW));
        assert!(tokio::time::timeout(Duration::from_millis(50), &mut second).await.is_err(), "it waits");
        let answer = Remembered { body_hash: first.body_hash.clone(), status: 202, response: b"{}".to_vec() };
        let (stored, key) = (answer.clone(), first.request.clone());
        db.write(move |tx| idempotency::put(tx, &key, &stored, NOW)).await.unwrap();
        drop(first);
        let BeginOutcome::Replayed(replayed) = second.await.unwrap() else { panic!("a repeat") };
        assert_eq!(replayed, answer);
        let conflict = all.begin(&db, &objects, request.clone(), b"other", NOW).await.unwrap_err();
        assert_eq!(conflict.code(), Code::IdempotencyConflict);
        let later = NOW.plus(idempotency::LIFETIME);
        assert!(
            matches!(all.begin(&db, &objects, request, b"other", later).await.unwrap(), BeginOutcome::First(_)),
            "a day later"
        );
        assert!(all.running.lock().unwrap().is_empty(), "nothing is kept of finished requests");
    }

    #[tokio::test]
    async fn a_first_that_failed_leaves_the_key_free() {
        let dir = tempfile::tempdir().unwrap();
        let (db, request) = database(dir.path()).await;
        let objects = Objects::open(dir.path()).unwrap();
        let all = Idempotency::default();
        drop(all.begin(&db, &objects, request.clone(), b"body", NOW).await.unwrap());
        assert!(matches!(all.begin(&db, &objects, request, b"other", NOW).await.unwrap(), BeginOutcome::First(_)));
    }

    #[test]
    fn a_key_is_visible_ascii() {
        let of = |value: &'static [u8]| {
            let mut headers = HeaderMap::new();
            headers.insert(HEADER, HeaderValue::from_bytes(value).unwrap());
            key(&headers)
        };
        assert_eq!(key(&HeaderMap::new()).unwrap(), None);
        assert_eq!(of(b"").unwrap(), None);
        assert_eq!(of(b"a-1").unwrap().as_deref(), Some("a-1"));
        for bad in [b"a b".as_slice(), b"\xc3\xa4", &[b'x'; 256]] {
            assert_eq!(of(bad).unwrap_err().code(), Code::BadRequest, "{bad:?}");
        }
    }
}
