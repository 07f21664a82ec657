//! JSON request bodies (contract 1.1): parsed whatever the content type, `{}` if empty, limited in size, memory and
//! time. Their structure is checked by `json`.

use std::time::Duration;

use axum::BoxError;
use axum::body::Body as HttpBody;
use axum::extract::{FromRequest, Request};
use axum::http::header::CONTENT_LENGTH;
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use ring::digest::{SHA256, digest};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::time::{Instant, timeout_at};

use super::AppState;
use super::client::origin_of;
use super::error::{ApiError, Code};
use super::json::Object;
pub(crate) use super::json::{AllowEmpty, Lenient, Members, Texts};
use super::memory::RequestMemory;

/// The largest JSON body, in octets (contract 1.9).
pub(crate) const MAX_BYTES: usize = 1_048_576;
/// The largest JSON body that may contain files.
pub(crate) const MAX_LARGE_BYTES: usize = 36_700_160;
/// The largest JSON body of a request without a valid credential.
const MAX_ANONYMOUS_BYTES: usize = 16_384;
/// Larger bodies are parsed on a blocking thread.
const PARSE_HERE_MAX: usize = 64 * 1024;
/// Memory is reserved in steps of this size while a body of unknown length arrives.
const STEP: usize = 256 * 1024;

/// Minimum speed at which a client has to send a body.
#[derive(Clone, Copy, Debug)]
struct MinimumSpeed {
    /// No minimum applies for this long.
    grace: Duration,
    /// Extra time per octet received.
    per_octet: Duration,
    /// Longest pause between two pieces.
    max_pause: Duration,
    /// Longest time in all; for the largest body this is 1 Mbit/s.
    max_total: Duration,
}

/// For authenticated clients: 1 KiB/s after the grace.
const AUTHENTICATED: MinimumSpeed = MinimumSpeed {
    grace: Duration::from_secs(30),
    per_octet: Duration::from_nanos(976_562),
    max_pause: Duration::from_secs(30),
    max_total: Duration::from_secs(300),
};
/// For bodies over 1 MiB: 64 KiB/s.
const LARGE_PER_OCTET: Duration = Duration::from_nanos(15_258);
/// For clients without a valid credential: 2 KiB/s.
const ANONYMOUS: MinimumSpeed = MinimumSpeed {
    grace: Duration::from_secs(10),
    per_octet: Duration::from_nanos(488_281),
    max_pause: Duration::from_secs(10),
    max_total: Duration::from_secs(30),
};

/// A JSON object of up to 1 MiB.
pub(crate) struct Body(Object);

/// A JSON object of up to 35 MiB.
pub(crate) struct LargeBody {
    object: Object,
    size: usize,
    hash: Vec<u8>,
}

/// Reads an optional string.
///
/// # Errors
/// 400 `bad_request`.
pub(crate) fn text(given: Lenient<String>, field: &'static str) -> Result<Option<String>, ApiError> {
    given.optional(|| ApiError::field(Code::BadRequest, field, format!("{field} must be a string")))
}

/// Reads a required string.
///
/// # Errors
/// 400 `bad_request`.
pub(crate) fn required(given: Lenient<String>, field: &'static str) -> Result<String, ApiError> {
    text(given, field)?.ok_or_else(|| missing(field))
}

/// Returns the error of a required field that has no narrower code.
pub(crate) fn missing(field: &'static str) -> ApiError {
    ApiError::field(Code::BadRequest, field, format!("{field} is required"))
}

impl Body {
    /// Deserializes the body's fields; unknown fields are ignored, null counts as absent.
    ///
    /// # Errors
    /// 400 `bad_request` naming the field of a wrong type.
    pub(crate) fn fields<T: DeserializeOwned>(self) -> Result<T, ApiError> {
        self.0.fields()
    }

    /// Returns true if the body has the field, null or not.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.0.has(name)
    }
}

impl LargeBody {
    /// As [`Body::fields`].
    ///
    /// # Errors
    /// 400 `bad_request` naming the field of a wrong type.
    pub(crate) async fn fields<T: DeserializeOwned + Send + 'static>(self) -> Result<T, ApiError> {
        let Self { object, size, .. } = self;
        run_off_thread_if_large(size, move || object.fields()).await
    }

    /// Returns the SHA-256 of the body as sent, which identifies a repeated request.
    pub(crate) fn hash(&self) -> &[u8] {
        &self.hash
    }
}

/// Runs `work` on a blocking thread if the body is large enough to delay other requests.
async fn run_off_thread_if_large<T: Send + 'static>(
    size: usize,
    work: impl FnOnce() -> Result<T, ApiError> + Send + 'static,
) -> Result<T, ApiError> {
    if size <= PARSE_HERE_MAX {
        return work();
    }
    tokio::task::spawn_blocking(work).await.unwrap_or(Err(Code::Internal.into()))
}

impl FromRequest<AppState> for Body {
    type Rejection = ApiError;

    async fn from_request(request: Request, app: &AppState) -> Result<Self, ApiError> {
        let memory = RequestMemory::of(request.extensions(), app);
        let bytes = read(request, app, MAX_BYTES, 1).await?;
        let object = Object::parse(bytes)?;
        // Bodies of anonymous requests are small; only their text is held.
        if memory.is_authenticated() {
            memory.hold(object.cost()).await?;
        }
        Ok(Self(object))
    }
}

impl FromRequest<AppState> for LargeBody {
    type Rejection = ApiError;

    async fn from_request(request: Request, app: &AppState) -> Result<Self, ApiError> {
        let memory = RequestMemory::of(request.extensions(), app);
        // Held twice: the fields are kept next to the text.
        let bytes = read(request, app, MAX_LARGE_BYTES, 2).await?;
        let size = bytes.len();
        let parse = move || {
            let hash = digest(&SHA256, &bytes).as_ref().to_vec();
            Ok(Self { object: Object::parse(bytes)?, size, hash })
        };
        let body = run_off_thread_if_large(size, parse).await?;
        memory.hold(size.saturating_add(body.object.cost())).await?;
        Ok(body)
    }
}

/// Reads the body's bytes, up to `max`, and reserves `times` their size of the memory budget.
///
/// # Errors
/// 413 over the limit; 400 if it was cut off or came too slowly; 503 if there is no memory for it.
pub(crate) async fn read(
    request: Request<HttpBody>,
    app: &AppState,
    max: usize,
    times: usize,
) -> Result<Vec<u8>, ApiError> {
    let memory = RequestMemory::of(request.extensions(), app);
    if memory.is_authenticated() {
        read_within(request, &memory, max, times, AUTHENTICATED).await
    } else {
        read_anonymous(request, app, &memory, max.min(MAX_ANONYMOUS_BYTES)).await
    }
}

/// Reads the body unless newer ones of the same client take its place.
async fn read_anonymous(
    request: Request<HttpBody>,
    app: &AppState,
    memory: &RequestMemory,
    max: usize,
) -> Result<Vec<u8>, ApiError> {
    // Every connection has a peer.
    let origin = origin_of(app, &request).ok_or(Code::Internal)?;
    let permit = app.connections.read_anonymous(origin.address, origin.claimed);
    tokio::select! {
        read = read_within(request, memory, max, 1, ANONYMOUS) => read,
        () = permit.displaced() => {
            Err(ApiError::new(Code::Unavailable, "there are too many requests of your address; try again"))
        }
    }
}

/// Reads the body of a request that needs no credential and may exceed the limit for anonymous requests.
///
/// # Errors
/// As [`read`].
pub(crate) async fn read_page(request: Request<HttpBody>, app: &AppState, max: usize) -> Result<Vec<u8>, ApiError> {
    let memory = RequestMemory::of(request.extensions(), app);
    read_anonymous(request, app, &memory, max).await
}

async fn read_within(
    request: Request<HttpBody>,
    memory: &RequestMemory,
    max: usize,
    times: usize,
    speed: MinimumSpeed,
) -> Result<Vec<u8>, ApiError> {
    let declared = request.headers().get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
    let declared: usize = declared.unwrap_or(0);
    let too_large = || ApiError::new(Code::BodyTooLarge, format!("the body of this request has at most {max} bytes"));
    if declared > max {
        return Err(too_large());
    }
    let broken = |error: BoxError| {
        if error.is::<LengthLimitError>() { too_large() } else { ApiError::new(Code::BadJson, "the body broke off") }
    };
    let mut body = Limited::new(request.into_body(), max);
    let mut bytes = Vec::with_capacity(declared);
    // Reserve a large declared length at once: requests that hold part of their bodies would wait for each other.
    let mut held = if declared > STEP && memory.is_authenticated() { declared } else { 0 };
    memory.hold(held.saturating_mul(times)).await?;
    let speed = if declared > MAX_BYTES {
        MinimumSpeed { per_octet: speed.per_octet.min(LARGE_PER_OCTET), ..speed }
    } else {
        speed
    };
    let mut started_at = Instant::now();
    loop {
        let octets = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        let allowed = speed.max_total.min(speed.grace.saturating_add(speed.per_octet.saturating_mul(octets)));
        let deadline = (started_at + allowed).min(Instant::now() + speed.max_pause);
        let Ok(frame) = timeout_at(deadline, body.frame()).await else {
            return Err(ApiError::new(Code::BadJson, "the body did not arrive in time"));
        };
        let Some(frame) = frame else { return Ok(bytes) };
        // Copy and drop each piece as it comes: collected first, they would double the memory.
        let Ok(piece) = frame.map_err(broken)?.into_data() else { continue };
        let needed = bytes.len() + piece.len();
        if needed > held {
            held = needed.max(declared.min(needed + STEP));
            let started = Instant::now();
            memory.hold(held.saturating_mul(times)).await?;
            // The client is not charged for the wait for memory.
            started_at += started.elapsed();
        }
        bytes.extend_from_slice(&piece);
    }
}

/// `{"ok":true}`
#[derive(Serialize, utoipa::ToSchema)]
pub(crate) struct OkView {
    /// Always true.
    #[schema(example = true)]
    ok: bool,
}

/// `{"ok":true}`
pub(crate) const OK: axum::Json<OkView> = axum::Json(OkView { ok: true });

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests may panic")]

    use crate::id::RowId;
    use axum::body::Bytes;
    use futures_util::stream::{self, StreamExt as _};

    use super::*;
    use crate::memory_budget::{Consumer, MemoryBudget};

    type Chunk = Result<Bytes, std::io::Error>;

    async fn read(body: HttpBody, max: usize, grace: Duration, memory: &RequestMemory) -> Result<Vec<u8>, ApiError> {
        let (max_pause, max_total) = (Duration::from_secs(60), Duration::from_secs(60));
        let speed = MinimumSpeed { grace, per_octet: Duration::ZERO, max_pause, max_total };
        read_within(Request::new(body), memory, max, 1, speed).await
    }

    #[tokio::test]
    async fn a_body_that_does_not_end_is_given_up_and_one_without_end_is_cut() {
        let first = || stream::iter([Chunk::Ok(Bytes::from_static(b"{"))]);
        let memory = RequestMemory::new(MemoryBudget::new(192 << 20, 0));
        let read = async |body, max, millis| {
            read(body, max, Duration::from_millis(millis), &memory).await.unwrap_err().code()
        };
        let slow = HttpBody::from_stream(first().chain(stream::pending()));
        assert_eq!(read(slow, 9, 20).await, Code::BadJson);
        let endless = HttpBody::from_stream(stream::repeat_with(|| Chunk::Ok(Bytes::from_static(b"  "))));
        assert_eq!(read(endless, 9, 60_000).await, Code::BodyTooLarge);
        let broken = HttpBody::from_stream(first().chain(stream::iter([Chunk::Err(std::io::Error::other("gone"))])));
        assert_eq!(read(broken, 9, 60_000).await, Code::BadJson);
    }

    #[tokio::test]
    async fn a_body_that_comes_fast_enough_is_waited_for_and_one_octet_buys_little_time() {
        let memory = RequestMemory::new(MemoryBudget::new(192 << 20, 0));
        let pieces = |every: u64| {
            let piece = move |_| async move {
                tokio::time::sleep(Duration::from_millis(every)).await;
                Chunk::Ok(Bytes::from_static(&[b' '; 100]))
            };
            HttpBody::from_stream(stream::iter(0..20).then(piece))
        };
        // A second for each piece, and ten milliseconds.
        let (max_pause, max_total) = (Duration::from_secs(60), Duration::from_secs(60));
        let speed = |per_octet| MinimumSpeed { grace: Duration::from_millis(400), per_octet, max_pause, max_total };
        let fast = speed(Duration::from_millis(10));
        let whole = read_within(Request::new(pieces(30)), &memory, 4096, 1, fast).await.unwrap();
        assert_eq!(whole.len(), 2000);
        let slow = speed(Duration::from_micros(1));
        let late = read_within(Request::new(pieces(100)), &memory, 4096, 1, slow).await.unwrap_err();
        assert_eq!(late.message, "the body did not arrive in time");
    }

    #[tokio::test]
    async fn what_was_read_is_held_of_the_budget_until_the_request_ends() {
        let budget = MemoryBudget::new(192 << 20, 0);
        let memory = RequestMemory::new(budget.clone());
        memory.set_authenticated(Some(RowId::new(1)));
        let body = HttpBody::from(vec![b' '; 3 << 20]);
        read(body, 4 << 20, Duration::from_secs(60), &memory).await.unwrap();
        assert!(budget.held() >= 3 << 20 && !budget.is_used_up(Consumer::Api));
        drop(memory);
        assert_eq!(budget.held(), 0);
    }
}
