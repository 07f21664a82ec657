//! Downloads by signed link (contract 7.1): an attachment, which is a slice of the raw object and is decoded while it
//! is sent, or an uploaded file.

use std::io::{Cursor, Read, Seek, SeekFrom};

use crate::store::Connection;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::header::{
    ACCEPT_RANGES, CACHE_CONTROL, CONTENT_DISPOSITION, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_SECURITY_POLICY,
    CONTENT_TYPE, HeaderName, IF_RANGE, RANGE,
};
use axum::http::{Extensions, HeaderMap, HeaderValue, Method, StatusCode};
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use serde::Deserialize;
use url::form_urlencoded;
use utoipa::IntoParams;

use super::AppState;
use super::client::ClientAddress;
use super::connections::note_credential;
use super::error::{ApiError, Code};
use super::extract::{Path, Query};
use crate::event_bus::mail_log::Via;
use crate::id::{MessageId, UploadId};
use crate::mail::mime::{Decoder, Encoding, Part};
use crate::net::egress::Fetched;
use crate::secrets::signed_links::{LinkError, LinkTarget};
use crate::store;
use crate::store::blobs::objects::{Object, Objects};
use crate::store::messages;
use crate::store::messages::mail_data;
use crate::store::messages::mail_data::StoredMailData;
use crate::store::messages::{attachments, uploads};

const PIECE: usize = 64 * 1024;
const RESOURCE_POLICY: HeaderName = HeaderName::from_static("cross-origin-resource-policy");

/// Signed query of a link.
#[derive(Deserialize, IntoParams)]
pub(crate) struct Signed {
    /// Expiry of the link, in Unix seconds.
    #[serde(default)]
    #[param(required = true)]
    exp: String,
    /// Lower-case hex HMAC-SHA256.
    #[serde(default)]
    #[param(required = true)]
    sig: String,
}

/// Octets `from` to `to`, exclusive, of the decoded file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Span {
    from: u64,
    to: u64,
}

/// `GET /att/:mid/:idx`
pub(crate) async fn download(
    State(app): State<AppState>,
    Path((mid, idx)): Path<(String, String)>,
    Query(signed): Query<Signed>,
    client: ClientAddress,
    method: Method,
    headers: HeaderMap,
    extensions: Extensions,
) -> Result<Response, ApiError> {
    let opened = open_link(&app, &mid, &idx, &signed.exp, &signed.sig).await;
    let (raw, part) = opened.inspect_err(|error| {
        if matches!(error.code(), Code::BadSignature) {
            error.log_credential(Via::Link, client.address);
        }
    })?;
    note_credential(&extensions, None);
    let whole = Span { from: 0, to: part.size };
    // RFC 9110 §14.2: for GET only; §13.1.5: If-Range matches no validator, because none is ever sent.
    let range = headers.get(RANGE).filter(|_| method == Method::GET && !headers.contains_key(IF_RANGE));
    let span = match range.and_then(|range| range.to_str().ok()).map(|range| parse_range(range, part.size)) {
        None | Some(RequestedRange::Ignored) => None,
        Some(RequestedRange::Satisfiable(span)) => Some(span),
        Some(RequestedRange::Unsatisfiable) => return Ok(unsatisfiable(part.size)),
    };
    check(&app, &raw, span.is_none() && method == Method::GET).await?;
    let mut response = if method == Method::HEAD {
        Response::new(Body::empty())
    } else {
        Response::new(body(app.objects.clone(), raw, part.clone(), span.unwrap_or(whole)))
    };
    if span.is_some() {
        *response.status_mut() = StatusCode::PARTIAL_CONTENT;
    }
    describe(response.headers_mut(), &part, span.unwrap_or(whole), span.is_some());
    Ok(response)
}

/// Returns true if a URL is a link of this server, valid or not.
pub(crate) fn is_own_link(app: &AppState, url: &str) -> bool {
    own_link_path(app, url).is_some()
}

/// Returns the part after `/att/` of a link of this server.
fn own_link_path<'u>(app: &AppState, url: &'u str) -> Option<&'u str> {
    url.strip_prefix(app.config.public_url.trim_end_matches('/'))?.strip_prefix("/att/")
}

/// A file behind a link of this server; not read yet.
pub(crate) struct OwnFile {
    raw: StoredMailData,
    part: Part,
}

impl OwnFile {
    /// Returns the decoded size, in octets.
    pub(crate) const fn size(&self) -> u64 {
        self.part.size
    }

    /// Reads the whole file.
    ///
    /// # Errors
    /// The file cannot be read.
    pub(crate) async fn read(self, app: &AppState) -> Result<Fetched, ApiError> {
        let (objects, Self { raw, part }) = (app.objects.clone(), self);
        check(app, &raw, true).await?;
        let read = tokio::task::spawn_blocking(move || {
            let mut bytes = Vec::with_capacity(usize::try_from(part.size).unwrap_or(0));
            let mut pieces = Pieces::open(&objects, raw, &part, Span { from: 0, to: part.size })?;
            while let Some(piece) = pieces.next()? {
                bytes.extend_from_slice(&piece);
            }
            Ok::<_, store::Error>(Fetched { bytes, content_type: part.content_type, filename: part.filename })
        });
        Ok(read.await.unwrap_or(Err(store::Error::Stopped))?)
    }
}

/// Finds the file behind a link of this server; `None` if `url` is no such link.
///
/// # Errors
/// The link is not valid, or its file is gone.
pub(crate) async fn find_own_link(app: &AppState, url: &str) -> Option<Result<OwnFile, ApiError>> {
    let rest = own_link_path(app, url)?;
    let (path, query) = rest.split_once('?').unwrap_or((rest, ""));
    let (mid, idx) = path.split_once('/').unwrap_or((path, ""));
    let value = |name: &str| {
        let found = form_urlencoded::parse(query.as_bytes()).find(|(key, _)| key == name);
        found.map(|(_, value)| value.into_owned()).unwrap_or_default()
    };
    let found = open_link(app, mid, idx, &value("exp"), &value("sig")).await;
    Some(found.map(|(raw, part)| OwnFile { raw, part }))
}

/// Finds the object and the part behind a link.
async fn open_link(
    app: &AppState,
    mid: &str,
    idx: &str,
    exp: &str,
    sig: &str,
) -> Result<(StoredMailData, Part), ApiError> {
    let target = app.links.verify(mid, idx, exp, sig, app.clock.now()).map_err(|error| match error {
        LinkError::BadSignature => ApiError::from(Code::BadSignature),
        LinkError::Expired => ApiError::from(Code::LinkExpired),
    })?;
    let found = app.db.read(move |connection| match target {
        LinkTarget::Attachment(id, index) => attachment(connection, &id, index),
        LinkTarget::Upload(id) => upload(connection, &id),
    });
    found.await?.ok_or_else(ApiError::not_found)
}

fn attachment(connection: &Connection, id: &MessageId, index: u32) -> store::Result<Option<(StoredMailData, Part)>> {
    let Some(message) = messages::find(connection, id)? else { return Ok(None) };
    let (Some(raw), Some(part)) = (message.mail_data_id, attachments::find(connection, message.id, index)?) else {
        return Ok(None);
    };
    Ok(mail_data::find(connection, raw)?.map(|raw| (raw, part)))
}

/// Finds an uploaded file, which is the whole of its object.
fn upload(connection: &Connection, id: &UploadId) -> store::Result<Option<(StoredMailData, Part)>> {
    let Some(upload) = uploads::find(connection, id)? else { return Ok(None) };
    let part = Part {
        filename: Some(upload.filename),
        content_type: Some(upload.content_type),
        charset: None,
        content_id: None,
        disposition: None,
        size: upload.size,
        offset: 0,
        length: upload.size,
        encoding: Encoding::Identity,
        inner_offset: None,
    };
    let object = Object { name: upload.file, size: upload.size, checksum: upload.checksum };
    Ok(Some((StoredMailData::File(object), part)))
}

fn describe(headers: &mut HeaderMap, part: &Part, span: Span, partial: bool) {
    let fixed = [
        (CONTENT_SECURITY_POLICY, "sandbox; default-src 'none'"),
        (CACHE_CONTROL, "no-store"),
        (RESOURCE_POLICY, "cross-origin"),
        (ACCEPT_RANGES, "bytes"),
    ];
    headers.extend(fixed.map(|(name, value)| (name, HeaderValue::from_static(value))));
    headers.insert(CONTENT_LENGTH, HeaderValue::from(span.to - span.from));
    headers.insert(CONTENT_TYPE, content_type(part));
    let mut add = |name: HeaderName, text: String| {
        headers.extend(HeaderValue::from_str(&text).ok().map(|value| (name, value)));
    };
    add(CONTENT_DISPOSITION, disposition(part.filename.as_deref().unwrap_or("attachment")));
    if partial {
        add(CONTENT_RANGE, format!("bytes {}-{}/{}", span.from, span.to.saturating_sub(1), part.size));
    }
}

fn content_type(part: &Part) -> HeaderValue {
    let stored = part.content_type.as_deref().map(|kind| match &part.charset {
        Some(charset)
            if kind.starts_with("text/")
                && charset.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.:".contains(&b)) =>
        {
            format!("{kind}; charset={charset}")
        }
        _ => kind.to_owned(),
    });
    let value = stored.and_then(|kind| HeaderValue::from_str(&kind).ok());
    value.unwrap_or(HeaderValue::from_static("application/octet-stream"))
}

/// Renders Content-Disposition (RFC 6266 §4.1) with an ASCII fallback and the name as ext-value (RFC 8187).
fn disposition(name: &str) -> String {
    let plain: String = name
        .chars()
        .map(|c| if c.is_ascii_graphic() && !matches!(c, '"' | '\\' | '%') || c == ' ' { c } else { '_' })
        .collect();
    let mut extended = String::new();
    for byte in name.bytes() {
        if byte.is_ascii_alphanumeric() || b"!#$&+-.^_`|~".contains(&byte) {
            extended.push(char::from(byte));
        } else {
            extended.push_str(&format!("%{byte:02X}"));
        }
    }
    format!("attachment; filename=\"{plain}\"; filename*=UTF-8''{extended}")
}

/// A parsed Range field (RFC 9110 §14.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum RequestedRange {
    /// One range.
    Satisfiable(Span),
    /// A field to ignore: another unit, malformed, or several ranges.
    Ignored,
    /// A range beyond the end.
    Unsatisfiable,
}

fn parse_range(field: &str, size: u64) -> RequestedRange {
    // RFC 9110 §14.1: range units are case-insensitive.
    let spec =
        field.split_once('=').filter(|(unit, _)| unit.eq_ignore_ascii_case("bytes")).map(|(_, spec)| spec.trim());
    let Some((first, last)) = spec.and_then(|spec| spec.split_once('-')) else { return RequestedRange::Ignored };
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let number = |text: &str| text.parse().unwrap_or(u64::MAX);
    let (from, to) = match (first, last) {
        ("", suffix) if digits(suffix) => (size.saturating_sub(number(suffix)), size),
        (first, "") if digits(first) => (number(first), size),
        (first, last) if digits(first) && digits(last) && number(first) <= number(last) => {
            (number(first), number(last).saturating_add(1).min(size))
        }
        _ => return RequestedRange::Ignored,
    };
    if from >= to { RequestedRange::Unsatisfiable } else { RequestedRange::Satisfiable(Span { from, to }) }
}

fn unsatisfiable(size: u64) -> Response {
    let error = ApiError::from(Code::BadRange);
    let mut response = error.into_response();
    response.headers_mut().extend(HeaderValue::from_str(&format!("bytes */{size}")).ok().map(|v| (CONTENT_RANGE, v)));
    response
}

/// Streams the decoded octets of a span. Each piece is read only when the connection has room for it, so a slow client
/// occupies no thread.
fn body(objects: Objects, raw: StoredMailData, part: Part, span: Span) -> Body {
    let download = Download::Opening(objects, raw, Box::new(part), span);
    Body::from_stream(stream::unfold(Some(download), async |reading| {
        let read = tokio::task::spawn_blocking(move || reading?.step());
        match read.await.unwrap_or(Some(Err(store::Error::Stopped))) {
            None => None,
            Some(Ok((piece, pieces))) => Some((Ok(piece), Some(Download::Open(pieces)))),
            Some(Err(error)) => {
                tracing::error!(%error, "an attachment broke off");
                Some((Err(std::io::Error::other("the attachment cannot be read")), None))
            }
        }
    }))
}

/// A file being sent.
enum Download {
    Opening(Objects, StoredMailData, Box<Part>, Span),
    Open(Box<Pieces>),
}

impl Download {
    /// Reads the next piece; blocks.
    fn step(self) -> Option<store::Result<(Bytes, Box<Pieces>)>> {
        let opened = match self {
            Self::Opening(objects, raw, part, span) => Pieces::open(&objects, raw, &part, span).map(Box::new),
            Self::Open(pieces) => Ok(pieces),
        };
        let next = opened.and_then(|mut pieces| Ok(pieces.next()?.map(|piece| (piece, pieces))));
        next.transpose()
    }
}

/// The decoded octets of a span, piece by piece.
struct Pieces {
    source: std::io::Take<Box<dyn ReadSeek>>,
    /// `None` at the end.
    decoder: Option<Decoder>,
    span: Span,
    /// Decoded octets read, including those before the span.
    passed: u64,
}

impl Pieces {
    fn open(objects: &Objects, raw: StoredMailData, part: &Part, span: Span) -> store::Result<Self> {
        let mut source: Box<dyn ReadSeek> = match raw {
            StoredMailData::Inline(bytes) => Box::new(Cursor::new(bytes)),
            StoredMailData::File(object) => Box::new(objects.open_object(&object)?),
        };
        source.seek(SeekFrom::Start(part.offset)).map_err(read_error)?;
        let (source, decoder) = (source.take(part.length), Some(Decoder::new(part.encoding)));
        let before = part.inner_offset.unwrap_or(0);
        let span = Span { from: span.from.saturating_add(before), to: span.to.saturating_add(before) };
        Ok(Self { source, decoder, span, passed: 0 })
    }

    fn next(&mut self) -> store::Result<Option<Bytes>> {
        let mut encoded = vec![0; PIECE];
        while self.passed < self.span.to
            && let Some(active) = &mut self.decoder
        {
            let count = self.source.read(&mut encoded).map_err(read_error)?;
            let mut decoded = Vec::with_capacity(PIECE);
            if count > 0 {
                active.feed(encoded.get(..count).unwrap_or_default(), &mut decoded);
            } else if let Some(last) = self.decoder.take() {
                last.finish(&mut decoded);
            }
            let within = |at: u64| usize::try_from(at.saturating_sub(self.passed)).unwrap_or(usize::MAX);
            let (start, end) = (within(self.span.from), within(self.span.to).min(decoded.len()));
            self.passed += decoded.len() as u64;
            if start < end {
                decoded.truncate(end);
                return Ok(Some(Bytes::from(decoded).slice(start..)));
            }
        }
        // The response has a Content-Length: an error makes the client notice that the file is incomplete.
        if self.passed < self.span.to { Err(store::Error::Corrupt("attachment")) } else { Ok(None) }
    }
}

fn read_error(error: std::io::Error) -> store::Error {
    store::Error::io("reading an attachment", error)
}

/// Refuses a missing or damaged object while a status can still be sent. For a range only the object's length is
/// compared: otherwise each range of a large file would read all of it.
async fn check(app: &AppState, raw: &StoredMailData, whole: bool) -> Result<(), ApiError> {
    let StoredMailData::File(object) = raw else { return Ok(()) };
    let (objects, object) = (app.objects.clone(), object.clone());
    let checked = tokio::task::spawn_blocking(move || match whole {
        true => objects.check(&object),
        false => objects.open_object(&object).map(drop),
    });
    checked.await.unwrap_or(Err(store::Error::Stopped)).map_err(ApiError::from)
}

trait ReadSeek: Read + Seek + Send {}
impl<T: Read + Seek + Send> ReadSeek for T {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_range_is_honoured_and_everything_else_gets_the_whole() {
        let span = |from, to| RequestedRange::Satisfiable(Span { from, to });
        assert_eq!(parse_range("bytes=0-3", 10), span(0, 4));
        assert_eq!(parse_range("Bytes=0-3", 10), span(0, 4));
        assert_eq!(parse_range("bytes=8-99", 10), span(8, 10));
        assert_eq!(parse_range("bytes=4-", 10), span(4, 10));
        assert_eq!(parse_range("bytes=-3", 10), span(7, 10));
        assert_eq!(parse_range("bytes=10-", 10), RequestedRange::Unsatisfiable);
        assert_eq!(parse_range("bytes=-0", 10), RequestedRange::Unsatisfiable);
        for whole in ["bytes=0-1,3-4", "items=0-3", "bytes=5-2", "bytes=a-b", "bytes="] {
            assert_eq!(parse_range(whole, 10), RequestedRange::Ignored, "{whole}");
        }
    }

    #[test]
    fn a_name_is_quoted_so_that_it_stays_one_name() {
        assert_eq!(
            disposition("a\"b\u{e4}.pdf"),
            "attachment; filename=\"a_b_.pdf\"; filename*=UTF-8''a%22b%C3%A4.pdf"
        );
    }
}
