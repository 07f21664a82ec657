//! The event stream of an account, as server-sent events (contract 10).

use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Json;
use axum::body::Body as HttpBody;
use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderMap, HeaderName};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Instant, Interval, interval_at};
use utoipa::{IntoParams, ToSchema};

use super::App;
use super::auth::{Caller, bearer, identify};
use super::client::Client;
use super::error::{ApiError, Code};
use super::extract::Query;
use crate::activity::realtime::{Body, Event, Stream};
use crate::clock::Timestamp;
use crate::id::random_base62;
use crate::secrets::token_hash;
use crate::store::domains;

const HEARTBEAT: Duration = Duration::from_secs(15);
/// How soon a stream notices that its credential was revoked.
const RECHECK: Duration = Duration::from_secs(3);
const TOKEN_LIFETIME: Duration = Duration::from_secs(300);
const TOKEN_PREFIX: &str = "mkrt_";
/// Tokens that wait to be used, of all accounts.
const MAX_TOKENS: usize = 10_000;
/// Seconds after which a client is asked to try again when it has too many streams.
const RETRY_AFTER_SECS: u64 = 15;
const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");

/// Tokens of one use for clients that can send no header; they stand for the credential that asked for them.
#[derive(Default)]
pub struct StreamTokens(Mutex<HashMap<[u8; 32], (String, Timestamp)>>);

impl StreamTokens {
    /// A new token in place of `credential`, and when it expires; none when too many wait.
    fn issue(&self, credential: &str, now: Timestamp) -> Option<(String, Timestamp)> {
        let mut waiting = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if waiting.len() >= MAX_TOKENS {
            waiting.retain(|_, (_, expires)| now < *expires);
        }
        let (token, expires) = (format!("{TOKEN_PREFIX}{}", random_base62(40)), now.plus(TOKEN_LIFETIME));
        (waiting.len() < MAX_TOKENS).then(|| waiting.insert(token_hash(&token), (credential.to_owned(), expires)))?;
        Some((token, expires))
    }

    /// The credential that a token stands for; after this it stands for nothing.
    fn redeem(&self, token: &str, now: Timestamp) -> Option<String> {
        let mut waiting = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (credential, expires) = waiting.remove(&token_hash(token))?;
        (now < expires).then_some(credential)
    }
}

/// `POST /v1/realtime/token`
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct StreamToken {
    #[schema(example = "mkrt_dQw4w9WgXcQ0aB1cD2eF3gH4iJ5kL6mN7oP8qR9s")]
    token: String,
    expires_at: Timestamp,
}

/// `POST /v1/realtime/token`
pub async fn token(State(app): State<App>, _: Caller, headers: HeaderMap) -> Result<Json<StreamToken>, ApiError> {
    let credential = bearer(&headers).ok_or(Code::Unauthorized)?;
    let issued = app.stream_tokens.issue(credential, app.clock.now());
    let (token, expires_at) = issued.ok_or_else(|| ApiError::rate_limited(RETRY_AFTER_SECS))?;
    Ok(Json(StreamToken { token, expires_at }))
}

/// What a stream is to hold.
#[derive(Deserialize, IntoParams)]
pub struct StreamQuery {
    /// A token of `POST /v1/realtime/token`, for clients that can send no `Authorization`.
    token: Option<String>,
    /// Only events of this domain, by id or name.
    domain: Option<String>,
}

/// `GET /v1/realtime`
pub async fn stream(
    State(app): State<App>,
    client: Client,
    Query(query): Query<StreamQuery>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let now = app.clock.now();
    let credential = match &query.token {
        Some(token) => app.stream_tokens.redeem(token, now),
        None => bearer(&headers).map(str::to_owned),
    };
    let (caller, credential) = match admit(&app, credential, now).await {
        Ok(admitted) => admitted,
        Err(error) => {
            if error.code().status() == 401 {
                app.limits.failures.take(&client.key(), now).map_err(ApiError::rate_limited)?;
            }
            return Err(error);
        }
    };
    let domain = match query.domain {
        Some(name) => Some(find_domain(&app, &caller, name).await?),
        None => caller.scope(),
    };
    let last = headers.get(LAST_EVENT_ID).and_then(|last| last.to_str().ok()).filter(|last| !last.is_empty());
    let followed = app.realtime.follow(caller.id(), last);
    let (stream, gap) = followed.map_err(|_| ApiError::rate_limited(RETRY_AFTER_SECS))?;
    let mut first = "retry: 3000\n\n".to_owned();
    if gap {
        let lost = serde_json::json!({"lastEventId": last});
        first.push_str(&format!("event: stream.gap\ndata: {lost}\n\n"));
    }
    let begin = Instant::now();
    let writer = Writer {
        first: Some(first.into()),
        stream,
        domain,
        credential,
        permit: None,
        heartbeat: interval_at(begin + HEARTBEAT, HEARTBEAT),
        recheck: interval_at(begin + RECHECK, RECHECK),
        app,
    };
    let chunks = futures_util::stream::unfold(writer, |mut writer| async move {
        let chunk = writer.next().await?;
        Some((Ok::<_, Infallible>(chunk), writer))
    });
    let fields = [(CONTENT_TYPE, "text/event-stream"), (HeaderName::from_static("x-accel-buffering"), "no")];
    Ok((fields, HttpBody::from_stream(chunks)).into_response())
}

/// Who opens a stream, by the credential that it stands on.
async fn admit(app: &App, credential: Option<String>, now: Timestamp) -> Result<(Caller, String), ApiError> {
    let credential = credential.ok_or(Code::Unauthorized)?;
    let caller = identify(app, &credential, now).await?;
    app.limits.requests.take(&caller.limit_key(), now).map_err(ApiError::rate_limited)?;
    Ok((caller, credential))
}

async fn find_domain(app: &App, caller: &Caller, name: String) -> Result<i64, ApiError> {
    let account = caller.id();
    let found =
        app.db.read(move |connection| domains::find_by_name_or_id(connection, account, &name.to_lowercase(), &name));
    let domain = found.await?.ok_or_else(ApiError::not_found)?;
    caller.needs_domain(Some(domain.id))?;
    Ok(domain.id)
}

/// Writes events until nobody reads them, they come too fast, their credential is revoked or the server stops.
struct Writer {
    app: App,
    first: Option<Bytes>,
    stream: Stream,
    domain: Option<i64>,
    credential: String,
    /// What the event that was written last takes of the budget of large payloads.
    permit: Option<OwnedSemaphorePermit>,
    heartbeat: Interval,
    recheck: Interval,
}

impl Writer {
    async fn next(&mut self) -> Option<Bytes> {
        if let Some(first) = self.first.take() {
            return Some(first);
        }
        self.permit = None;
        loop {
            tokio::select! {
                () = self.app.closing.cancelled() => return None,
                _ = self.recheck.tick() => {
                    identify(&self.app, &self.credential, self.app.clock.now()).await.ok()?;
                }
                event = self.stream.next() => {
                    let event = event?;
                    let wanted = self.domain.is_none_or(|domain| event.domain == Some(domain));
                    if wanted && let Some(frame) = self.frame(&event).await {
                        return Some(frame);
                    }
                }
                _ = self.heartbeat.tick() => return Some(Bytes::from_static(b": heartbeat\n\n")),
            }
        }
    }

    /// An event as it is written; nothing when its message is not stored any more.
    async fn frame(&mut self, event: &Arc<Event>) -> Option<Bytes> {
        let (event_type, json) = match &event.body {
            Body::Told { event_type, json } => (*event_type, Bytes::copy_from_slice(json.as_bytes())),
            Body::Received(message) => match self.app.webhooks.received(*message).await {
                Ok(found) => {
                    let (json, permit) = found?;
                    self.permit = permit;
                    ("email.received", json)
                }
                Err(error) => {
                    tracing::warn!(%error, "an event was left out of a stream");
                    return None;
                }
            },
        };
        let mut frame = format!("id: {}\nevent: {event_type}\ndata: ", event.id).into_bytes();
        frame.extend_from_slice(&json);
        frame.extend_from_slice(b"\n\n");
        Some(frame.into())
    }
}
