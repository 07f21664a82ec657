//! A request's JSON body (contract 1.1): parsed whatever the content type says, `{}` when it is empty, bounded in size,
//! depth and time.

use std::time::Duration;

use axum::BoxError;
use axum::body::{Body as HttpBody, Bytes};
use axum::extract::{FromRequest, Request};
use axum::http::header::CONTENT_LENGTH;
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use ring::digest::{SHA256, digest};
use serde::de::{DeserializeOwned, Deserializer};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::App;
use super::error::{ApiError, Code};
use crate::memory;

/// The largest JSON body (contract 1.9) …
pub const MAX_BYTES: usize = 1_048_576;
/// … and where files may be in it.
pub const MAX_LARGE_BYTES: usize = 36_700_160;
/// A body of this size is parsed on the spot.
const PARSE_HERE_MAX: usize = 64 * 1024;
/// How deep a body may be nested (contract 1.6).
const MAX_DEPTH: usize = 64;
/// How long a client may take to send a body; at the largest this is 1 Mbit/s.
const DEADLINE: Duration = Duration::from_secs(300);

/// A JSON object of up to 1 MiB.
pub struct Body(Map<String, Value>);

/// A JSON object of up to 35 MiB.
pub struct LargeBody {
    object: Map<String, Value>,
    /// SHA-256 of its bytes.
    hash: Vec<u8>,
}

/// A field whose type is judged in its turn, after the fields before it (contract 1.7), perhaps with a code of its own:
/// its value, if it has the right type.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Loose<T> {
    /// Not given, or null.
    #[default]
    Absent,
    /// Of the right type.
    Given(T),
    /// Of another type.
    Wrong,
}

impl<'de, T: DeserializeOwned> Deserialize<'de> for Loose<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = Value::deserialize(deserializer)?;
        if value.is_null() {
            return Ok(Self::Absent);
        }
        Ok(serde_json::from_value(value).map_or(Self::Wrong, Self::Given))
    }
}

impl<T> Loose<T> {
    /// The value; neither absent nor wrong.
    ///
    /// # Errors
    /// `error`, when it is one of them.
    pub fn required(self, error: impl FnOnce() -> ApiError) -> Result<T, ApiError> {
        match self {
            Self::Given(value) => Ok(value),
            Self::Absent | Self::Wrong => Err(error()),
        }
    }

    /// The value, if there is one.
    ///
    /// # Errors
    /// `error`, when it has another type.
    pub fn optional(self, error: impl FnOnce() -> ApiError) -> Result<Option<T>, ApiError> {
        match self {
            Self::Given(value) => Ok(Some(value)),
            Self::Absent => Ok(None),
            Self::Wrong => Err(error()),
        }
    }
}

/// A text that may be left out; of another type it is a bad request.
///
/// # Errors
/// 400 `bad_request`.
pub fn text(given: Loose<String>, field: &'static str) -> Result<Option<String>, ApiError> {
    given.optional(|| ApiError::field(Code::BadRequest, field, format!("{field} must be a string")))
}

/// A text that has to be there.
///
/// # Errors
/// 400 `bad_request`.
pub fn required(given: Loose<String>, field: &'static str) -> Result<String, ApiError> {
    text(given, field)?.ok_or_else(|| missing(field))
}

/// What a field lacks that has to be there and has no narrower code.
pub fn missing(field: &'static str) -> ApiError {
    ApiError::field(Code::BadRequest, field, format!("{field} is required"))
}

impl Body {
    /// The body's fields; unknown ones are ignored, null counts as absent.
    ///
    /// # Errors
    /// 400 `bad_request` that names the field of a wrong type.
    pub fn fields<T: DeserializeOwned>(self) -> Result<T, ApiError> {
        fields(self.0)
    }

    /// Whether the body has a field, null or not.
    pub fn has(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }
}

impl LargeBody {
    /// As [`Body::fields`].
    ///
    /// # Errors
    /// 400 `bad_request` that names the field of a wrong type.
    pub fn fields<T: DeserializeOwned>(self) -> Result<T, ApiError> {
        fields(self.object)
    }

    /// SHA-256 of the body as sent, by which a repeated request is known.
    pub fn hash(&self) -> &[u8] {
        &self.hash
    }
}

fn fields<T: DeserializeOwned>(object: Map<String, Value>) -> Result<T, ApiError> {
    serde_path_to_error::deserialize(Value::Object(object)).map_err(|error| {
        let field = error.path().iter().next().map(ToString::to_string).unwrap_or_default();
        let message = format!("{field}: {}", error.inner());
        ApiError::field(Code::BadRequest, field, message)
    })
}

impl FromRequest<App> for Body {
    type Rejection = ApiError;

    async fn from_request(request: Request, _: &App) -> Result<Self, ApiError> {
        parse(&read(request, MAX_BYTES).await?).map(Self)
    }
}

impl FromRequest<App> for LargeBody {
    type Rejection = ApiError;

    async fn from_request(request: Request, _: &App) -> Result<Self, ApiError> {
        let bytes = read(request, MAX_LARGE_BYTES).await?;
        let size = bytes.len();
        let read = move || {
            let hash = digest(&SHA256, &bytes).as_ref().to_vec();
            parse(&bytes).map(|object| Self { object, hash })
        };
        // A large body takes long enough to parse that other requests would notice.
        if size <= PARSE_HERE_MAX {
            read()
        } else {
            tokio::task::spawn_blocking(read).await.unwrap_or(Err(Code::Internal.into()))
        }
    }
}

/// The body's bytes, up to `max`.
///
/// # Errors
/// 413 over the limit; 400 when it broke off or took too long.
pub async fn read(request: Request<HttpBody>, max: usize) -> Result<Bytes, ApiError> {
    read_within(request, max, DEADLINE).await
}

async fn read_within(request: Request<HttpBody>, max: usize, deadline: Duration) -> Result<Bytes, ApiError> {
    let declared = request.headers().get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
    let declared: usize = declared.unwrap_or(0);
    let too_large = || ApiError::new(Code::BodyTooLarge, format!("the body of this request has at most {max} bytes"));
    if declared > max {
        return Err(too_large());
    }
    let mut body = Limited::new(request.into_body(), max);
    // Each piece is let go as it comes: gathered first, they would stand beside the whole.
    let gathered = async {
        let mut bytes = Vec::with_capacity(memory::returned(declared));
        while let Some(frame) = body.frame().await {
            if let Ok(piece) = frame?.into_data() {
                bytes.extend_from_slice(&piece);
            }
        }
        Ok::<_, BoxError>(bytes)
    };
    match tokio::time::timeout(deadline, gathered).await {
        Ok(Ok(bytes)) => Ok(bytes.into()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(too_large()),
        Ok(Err(_)) => Err(ApiError::new(Code::BadJson, "the body broke off")),
        Err(_) => Err(ApiError::new(Code::BadJson, "the body did not arrive in time")),
    }
}

fn parse(bytes: &[u8]) -> Result<Map<String, Value>, ApiError> {
    if bytes.iter().all(u8::is_ascii_whitespace) {
        return Ok(Map::new());
    }
    if is_deeper_than(bytes, MAX_DEPTH) {
        return Err(ApiError::new(Code::BadJson, "the body is nested too deep"));
    }
    match serde_json::from_slice(bytes) {
        Ok(Value::Object(object)) => Ok(object),
        Ok(_) => Err(Code::BadJson.into()),
        Err(error) => Err(ApiError::new(Code::BadJson, format!("the body is no JSON: {error}"))),
    }
}

/// Whether brackets outside of strings nest deeper than `max`; looked at before anything is built of them.
fn is_deeper_than(bytes: &[u8], max: usize) -> bool {
    let (mut depth, mut in_string, mut escaped) = (0_usize, false, false);
    for byte in bytes {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_string => escaped = true,
            b'"' => in_string = !in_string,
            b'{' | b'[' if !in_string => {
                depth += 1;
                if depth > max {
                    return true;
                }
            }
            b'}' | b']' if !in_string => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    false
}

/// `{"ok":true}`
#[derive(Serialize, utoipa::ToSchema)]
pub struct Done {
    /// Always true.
    #[schema(example = true)]
    ok: bool,
}

/// The answer of what has nothing more to say.
pub const DONE: axum::Json<Done> = axum::Json(Done { ok: true });

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests may panic")]

    use super::*;

    #[derive(Debug, Deserialize, PartialEq)]
    struct Fields {
        name: Option<String>,
        #[serde(default)]
        url: Loose<String>,
    }

    fn fields_of(text: &str) -> Result<Fields, ApiError> {
        Body(parse(text.as_bytes())?).fields()
    }

    #[test]
    fn an_empty_body_and_null_are_absent_fields() {
        let absent = Fields { name: None, url: Loose::Absent };
        for text in ["", "  \r\n", "{}", r#"{"name":null,"url":null,"other":[1]}"#] {
            assert_eq!(fields_of(text).unwrap(), absent, "{text}");
        }
    }

    #[test]
    fn a_wrong_type_names_its_field_and_a_loose_one_waits_for_its_own_error() {
        let error = fields_of(r#"{"name":5}"#).unwrap_err();
        assert_eq!((error.code(), error.field.as_deref()), (Code::BadRequest, Some("name")));
        assert_eq!(fields_of(r#"{"url":5}"#).unwrap().url, Loose::Wrong);
    }

    #[tokio::test]
    async fn a_body_that_does_not_end_is_given_up_and_one_without_end_is_cut() {
        use futures_util::stream::{self, StreamExt as _};
        type Chunk = Result<Bytes, std::io::Error>;
        let first = || stream::iter([Chunk::Ok(Bytes::from_static(b"{"))]);
        let read = async |body, max, millis| {
            read_within(Request::new(body), max, Duration::from_millis(millis)).await.unwrap_err().code()
        };
        let slow = HttpBody::from_stream(first().chain(stream::pending()));
        assert_eq!(read(slow, 9, 20).await, Code::BadJson);
        let endless = HttpBody::from_stream(stream::repeat_with(|| Chunk::Ok(Bytes::from_static(b"  "))));
        assert_eq!(read(endless, 9, 60_000).await, Code::BodyTooLarge);
        let broken = HttpBody::from_stream(first().chain(stream::iter([Chunk::Err(std::io::Error::other("gone"))])));
        assert_eq!(read(broken, 9, 60_000).await, Code::BadJson);
    }

    #[test]
    fn what_is_no_object_or_too_deep_is_refused() {
        for text in ["[]", "5", "{", "\"x\"", "{}x", "\u{feff}{}"] {
            assert_eq!(fields_of(text).unwrap_err().code(), Code::BadJson, "{text}");
        }
        let nested = |depth: usize| format!("{{\"a\":{}{}}}", "[".repeat(depth), "]".repeat(depth));
        assert!(fields_of(&nested(63)).is_ok());
        assert_eq!(fields_of(&nested(64)).unwrap_err().code(), Code::BadJson);
        assert!(fields_of(&format!("{{\"a\":\"{}\\\"{}\"}}", "[".repeat(99), "{".repeat(99))).is_ok());
    }
}
