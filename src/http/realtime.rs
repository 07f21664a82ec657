//! The event stream of an account, as server-sent events (contract 10).

use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Json;
use axum::body::Body as HttpBody;
use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::http::{Extensions, HeaderMap, HeaderName};
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;
use tokio::time::{Instant, Interval, MissedTickBehavior, interval_at, sleep};
use utoipa::{IntoParams, ToSchema};

use super::AppState;
use super::auth::{Caller, bearer, identify};
use super::client::ClientAddress;
use super::connections::note_credential;
use super::error::{ApiError, Code};
use super::extract::Query;
use super::listener::Hangup;
use crate::clock::Timestamp;
use crate::event_bus::mail_log::Via;
use crate::event_bus::realtime::{Body, Event, Stream};
use crate::id::{DomainRowId, fill_random};
use crate::memory_budget::Reservation;
use crate::metrics::{RateLimit, Service};
use crate::secrets::token_hash;
use crate::store::accounts::domains;
use crate::webhook::attempt::payload::Payload;

const HEARTBEAT: Duration = Duration::from_secs(15);
/// Frames are written in pieces of this size, in octets.
const PIECE: usize = 64 * 1024;
/// Time for a client to read a piece of a frame that holds memory of the budget for large payloads.
const PIECE_TIME: Duration = Duration::from_secs(15);
/// An idle stream checks this often that its credential was not revoked.
const RECHECK: Duration = Duration::from_secs(3);
const TOKEN_LIFETIME: Duration = Duration::from_secs(300);
const TOKEN_PREFIX: &str = "mkrt_";
/// 43 characters of base64url (contract 1.4).
const TOKEN_BYTES: usize = 32;
/// Unused tokens of all accounts.
const MAX_TOKENS: usize = 10_000;
/// `Retry-After` for a client with too many streams.
const RETRY_AFTER_SECS: u64 = 15;
const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");

/// Single-use tokens for clients that cannot send header fields; each stands for the credential that requested it.
#[derive(Default)]
pub(crate) struct StreamTokens(Mutex<HashMap<[u8; 32], (String, Timestamp)>>);

impl StreamTokens {
    /// Issues a token for `credential` and returns it with its expiry; `None` if there are too many unused ones.
    fn issue(&self, credential: &str, now: Timestamp) -> Option<(String, Timestamp)> {
        let mut tokens = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if tokens.len() >= MAX_TOKENS {
            tokens.retain(|_, (_, expires)| now < *expires);
        }
        let mut random = [0; TOKEN_BYTES];
        fill_random(&mut random);
        let token = format!("{TOKEN_PREFIX}{}", URL_SAFE_NO_PAD.encode(random));
        let expires = now.plus(TOKEN_LIFETIME);
        (tokens.len() < MAX_TOKENS).then(|| tokens.insert(token_hash(&token), (credential.to_owned(), expires)))?;
        Some((token, expires))
    }

    /// Returns the credential of a token and invalidates the token.
    fn redeem(&self, token: &str, now: Timestamp) -> Option<String> {
        let mut tokens = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (credential, expires) = tokens.remove(&token_hash(token))?;
        (now < expires).then_some(credential)
    }
}

/// `POST /v1/realtime/token`
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct StreamToken {
    #[schema(example = "mkrt_dQw4w9WgXcQ0aB1cD2eF3gH4iJ5kL6mN7oP8qR9sTuv")]
    token: String,
    expires_at: Timestamp,
}

/// `POST /v1/realtime/token`
pub(crate) async fn token(State(app): State<AppState>, headers: HeaderMap) -> Result<Json<StreamToken>, ApiError> {
    let credential = bearer(&headers).ok_or(Code::Unauthorized)?;
    let issued = app.stream_tokens.issue(credential, app.clock.now());
    let (token, expires_at) = issued.ok_or_else(|| app.rate_limited(RateLimit::EventStreams)(RETRY_AFTER_SECS))?;
    Ok(Json(StreamToken { token, expires_at }))
}

#[derive(Deserialize, IntoParams)]
pub(crate) struct StreamQuery {
    /// A token of `POST /v1/realtime/token`, for clients that can send no `Authorization`.
    token: Option<String>,
    /// Only events of this domain, by id or name.
    domain: Option<String>,
}

/// `GET /v1/realtime`
pub(crate) async fn stream(
    State(app): State<AppState>,
    client: ClientAddress,
    Query(query): Query<StreamQuery>,
    extensions: Extensions,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let hangup = extensions.get::<Hangup>().ok_or(Code::Internal)?.clone();
    let now = app.clock.now();
    let credential = match &query.token {
        Some(token) => app.stream_tokens.redeem(token, now),
        None => bearer(&headers).map(str::to_owned),
    };
    let (caller, credential) = match admit(&app, credential, now).await {
        Ok(admitted) => admitted,
        Err(error) => {
            if error.code().status() == 401 {
                app.limits.failures.take(&client.key(), now).map_err(app.rate_limited(RateLimit::Unauthorized))?;
                if query.token.is_some() || bearer(&headers).is_some() {
                    app.metrics.credentials_failed.add(Service::Http);
                    error.log_credential(Via::Stream, client.address);
                }
            }
            return Err(error);
        }
    };
    note_credential(&extensions, Some(caller.id()));
    let domain = match query.domain {
        Some(name) => Some(find_domain(&app, &caller, name).await?),
        None => caller.scope(),
    };
    let last = headers.get(LAST_EVENT_ID).and_then(|last| last.to_str().ok()).filter(|last| !last.is_empty());
    let followed = app.realtime.follow(caller.id(), last);
    let (stream, gap) = followed.map_err(|_| app.rate_limited(RateLimit::EventStreams)(RETRY_AFTER_SECS))?;
    let mut first = "retry: 3000\n\n".to_owned();
    if gap {
        let lost = serde_json::json!({"lastEventId": last});
        first.push_str(&format!("event: stream.gap\ndata: {lost}\n\n"));
    }
    let writer = Writer {
        first: Some(first.into()),
        stream,
        domain,
        credential,
        permit: None,
        heartbeat: every(HEARTBEAT),
        recheck: every(RECHECK),
        app,
    };
    let (pieces, taken) = mpsc::channel(1);
    tokio::spawn(async move {
        if writer.write(pieces).await == Ended::Unread {
            hangup.now();
        }
    });
    let body = futures_util::stream::unfold(taken, |mut taken| async move {
        let piece = taken.recv().await?;
        Some((Ok::<_, Infallible>(piece), taken))
    });
    let fields = [(CONTENT_TYPE, "text/event-stream"), (HeaderName::from_static("x-accel-buffering"), "no")];
    Ok((fields, HttpBody::from_stream(body)).into_response())
}

/// Ticks first after `period`; missed ticks are not made up for.
fn every(period: Duration) -> Interval {
    let mut interval = interval_at(Instant::now() + period, period);
    interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    interval
}

/// Authenticates the client of a stream.
async fn admit(app: &AppState, credential: Option<String>, now: Timestamp) -> Result<(Caller, String), ApiError> {
    let credential = credential.ok_or(Code::Unauthorized)?;
    let caller = identify(app, &credential, now).await?;
    app.limits.requests.take(&caller.limit_key(), now).map_err(app.rate_limited(RateLimit::Requests))?;
    Ok((caller, credential))
}

async fn find_domain(app: &AppState, caller: &Caller, name: String) -> Result<DomainRowId, ApiError> {
    let account = caller.id();
    let found =
        app.db.read(move |connection| domains::find_by_name_or_id(connection, account, &name.to_lowercase(), &name));
    let domain = found.await?.ok_or_else(ApiError::not_found)?;
    caller.require_domain(Some(domain.id))?;
    Ok(domain.id)
}

/// Writes events until the client disconnects or falls behind, its credential is revoked, or the server stops.
struct Writer {
    app: AppState,
    first: Option<Bytes>,
    stream: Stream,
    domain: Option<DomainRowId>,
    credential: String,
    /// Memory of the event written last, of the budget for large payloads.
    permit: Option<Reservation>,
    heartbeat: Interval,
    recheck: Interval,
}

enum Frame {
    /// Complete.
    Whole(Bytes),
    /// The first lines, and the payload of a message, which may be large.
    Payload(String, Payload),
}

impl Frame {
    fn pieces(self) -> Box<dyn Iterator<Item = Bytes> + Send> {
        match self {
            // Copied, so that a waiting piece does not keep all of a large frame in memory.
            Self::Whole(frame) if frame.len() > PIECE => {
                let pieces: Vec<Bytes> = frame.chunks(PIECE).map(Bytes::copy_from_slice).collect();
                Box::new(pieces.into_iter())
            }
            Self::Whole(frame) => Box::new(std::iter::once(frame)),
            Self::Payload(first, payload) => {
                let payload = payload.pieces();
                Box::new(std::iter::once(first.into()).chain(payload).chain([Bytes::from_static(b"\n\n")]))
            }
        }
    }
}

/// Reason for the end of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ended {
    /// Between two frames, or because the client disconnected.
    Orderly,
    /// The client did not read a frame.
    Unread,
}

impl Writer {
    /// Writes until the end. A stream also ends while its client reads nothing: it takes one of the account's streams,
    /// and perhaps memory of the budget.
    async fn write(mut self, pieces: mpsc::Sender<Bytes>) -> Ended {
        loop {
            let frame = tokio::select! {
                frame = self.next() => frame,
                () = pieces.closed() => None,
            };
            let Some(frame) = frame else { return Ended::Orderly };
            for piece in frame.pieces() {
                let large = self.permit.is_some();
                let place = tokio::select! {
                    place = pieces.reserve() => place,
                    () = self.until_ended() => return Ended::Unread,
                    () = sleep(PIECE_TIME), if large => return Ended::Unread,
                };
                let Ok(place) = place else { return Ended::Orderly };
                // Checked for each piece: nothing goes out once a revocation is answered.
                if !self.is_allowed().await {
                    return Ended::Unread;
                }
                place.send(piece);
            }
        }
    }

    /// Waits until the stream has to end.
    async fn until_ended(&mut self) {
        loop {
            tokio::select! {
                () = self.app.closing.cancelled() => return,
                () = self.stream.lagged() => return,
                _ = self.recheck.tick() => if !self.is_allowed().await { return },
            }
        }
    }

    async fn is_allowed(&self) -> bool {
        identify(&self.app, &self.credential, self.app.clock.now()).await.is_ok()
    }

    async fn next(&mut self) -> Option<Frame> {
        if let Some(first) = self.first.take() {
            return Some(Frame::Whole(first));
        }
        self.permit = None;
        loop {
            tokio::select! {
                () = self.app.closing.cancelled() => return None,
                _ = self.recheck.tick() => if !self.is_allowed().await { return None },
                event = self.stream.next() => {
                    let event = event?;
                    let wanted = self.domain.is_none_or(|domain| event.domain == Some(domain));
                    if wanted && let Some(frame) = self.frame(&event).await {
                        return Some(frame);
                    }
                }
                _ = self.heartbeat.tick() => return Some(Frame::Whole(Bytes::from_static(b": heartbeat\n\n"))),
            }
        }
    }

    /// Renders an event; `None` if its message is no longer stored.
    async fn frame(&mut self, event: &Arc<Event>) -> Option<Frame> {
        match &event.body {
            Body::Json { event_type, json } => {
                Some(Frame::Whole(format!("id: {}\nevent: {event_type}\ndata: {json}\n\n", event.id).into()))
            }
            Body::Received(message) => match self.app.webhooks.received(*message, &event.id).await {
                Ok(found) => {
                    let (payload, permit) = found?;
                    self.permit = permit;
                    Some(Frame::Payload(format!("id: {}\nevent: email.received\ndata: ", event.id), payload))
                }
                Err(error) => {
                    tracing::warn!(%error, "an event was left out of a stream");
                    None
                }
            },
        }
    }
}
