//! Uploaded files (contract 7.2): as JSON with a URL or base64, or as the raw body.

use axum::Json;
use axum::body::Bytes;
use axum::extract::{FromRequest as _, Request, State};
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::attachment_url;
use super::attachment_url::{Base64File, FileFault, FileTotal, MAX_BYTES};
use crate::content::uploads::RETENTION_DAYS;
use crate::http::AppState;
use crate::http::auth::Caller;
use crate::http::body::{self, LargeBody, Lenient};
use crate::http::error::{ApiError, Code};
use crate::http::extract::Query;
use crate::http::memory::RequestMemory;
use crate::net::egress::Fetched;

const MAX_NAME_CHARS: usize = 255;
const DEFAULT_NAME: &str = "file";
const DEFAULT_TYPE: &str = "application/octet-stream";
const DEFAULT_DAYS: u32 = 7;

/// The query of the raw form.
#[derive(Deserialize, IntoParams)]
#[serde(rename_all = "camelCase")]
#[into_params(rename_all = "camelCase")]
pub(crate) struct UploadQuery {
    /// Makes the body the file itself, whatever its content type.
    filename: Option<String>,
    /// 7 (default), 30, 90 or 365.
    #[param(value_type = Option<u32>)]
    retention_days: Option<String>,
}

/// The JSON form: exactly one of `url` and `content`.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct UploadFields {
    /// URL of the file: https, 25 MiB at most.
    #[serde(default)]
    #[schema(value_type = Option<String>)]
    url: Lenient<String>,
    /// The file in base64; "" with a `filename` is a file without content.
    #[schema(value_type = Option<String>)]
    content: Option<Base64File>,
    #[serde(default)]
    #[schema(value_type = Option<String>, example = "po.pdf")]
    filename: Lenient<String>,
    #[serde(default)]
    #[schema(value_type = Option<String>, example = "application/pdf")]
    content_type: Lenient<String>,
    /// 7 (default), 30, 90 or 365.
    #[serde(default)]
    #[schema(value_type = Option<u32>)]
    retention_days: Lenient<u32>,
}

/// An uploaded file.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct UploadView {
    #[schema(example = "upl_5TgB6yHn7UjM8iKo")]
    id: String,
    /// A signed link; anyone who has it can read the file until it expires.
    url: String,
    #[schema(example = "po.pdf")]
    filename: String,
    #[schema(example = "application/pdf")]
    content_type: String,
    /// Bytes.
    size: u64,
    /// RFC 3339.
    #[schema(example = "2026-08-04T00:00:00.000Z")]
    expires_at: String,
}

struct File {
    bytes: Bytes,
    filename: Option<String>,
    content_type: Option<String>,
    days: u32,
}

/// `POST /v1/attachments`
pub(crate) async fn create(
    State(app): State<AppState>,
    caller: Caller,
    Query(query): Query<UploadQuery>,
    memory: RequestMemory,
    request: Request,
) -> Result<(StatusCode, Json<UploadView>), ApiError> {
    let kind = request.headers().get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).map(str::to_owned);
    let essence = kind.as_deref().and_then(|kind| kind.split(';').next()).map(str::trim);
    let is_json = essence.is_some_and(|kind| kind.eq_ignore_ascii_case("application/json"));
    let file = if is_json && query.filename.is_none() {
        from_json(&app, memory, LargeBody::from_request(request, &app).await?).await?
    } else {
        from_body(&app, query, kind, request).await?
    };
    let name = file.filename.as_deref().unwrap_or(DEFAULT_NAME);
    let content_type = file.content_type.as_deref().unwrap_or(DEFAULT_TYPE);
    let upload = app.uploads.keep(caller.id(), name, content_type, file.bytes, file.days, app.clock.now()).await?;
    let view = UploadView {
        id: upload.public_id.to_string(),
        url: upload.url,
        filename: upload.filename,
        content_type: upload.content_type,
        size: upload.size,
        expires_at: upload.expires_at.iso(),
    };
    Ok((StatusCode::CREATED, Json(view)))
}

async fn from_body(
    app: &AppState,
    query: UploadQuery,
    kind: Option<String>,
    request: Request,
) -> Result<File, ApiError> {
    let bytes = body::read(request, app, MAX_BYTES, 1).await?;
    // An empty file is allowed, but a name and type have to show that there is one.
    if bytes.is_empty() && (query.filename.is_none() || kind.is_none()) {
        return Err(ApiError::new(
            Code::BadAttachment,
            "the body is empty; a file without content has a name and a type",
        ));
    }
    let days = match query.retention_days.as_deref() {
        None | Some("") => DEFAULT_DAYS,
        Some(text) => text.parse().map_err(|_| bad_days()).and_then(permitted)?,
    };
    Ok(File { bytes: bytes.into(), filename: query.filename, content_type: kind, days })
}

async fn from_json(app: &AppState, memory: RequestMemory, body: LargeBody) -> Result<File, ApiError> {
    let fields: UploadFields = body.fields().await?;
    let bad = |field, message| ApiError::field(Code::BadAttachment, field, message);
    let url = fields.url.optional(|| ApiError::at(Code::BadUrl, "url"))?;
    let filename = body::text(fields.filename, "filename")?;
    let is_file = |content: &Base64File| !content.is_empty() || (url.is_none() && filename.is_some());
    let content = fields.content.filter(is_file);
    let content_type = body::text(fields.content_type, "contentType")?;
    if filename.as_ref().is_some_and(|name| name.chars().count() > MAX_NAME_CHARS) {
        return Err(ApiError::field(Code::BadRequest, "filename", "a file name has at most 255 characters"));
    }
    let days = fields.retention_days.optional(bad_days)?.map_or(Ok(DEFAULT_DAYS), permitted)?;
    let fetched = match (url, content) {
        (Some(_), Some(_)) => return Err(bad("content", "give either url or content, not both")),
        (None, None) => return Err(bad("content", "url or content is required")),
        (None, Some(Base64File(decoded))) => {
            let bytes = decoded.map_err(|error| fault(error, "content"))?;
            Fetched { bytes, content_type: None, filename: None }
        }
        (Some(url), None) => {
            let total = FileTotal::new(memory, 0);
            let located = attachment_url::locate(app, url, &total).await.map_err(|error| fault(error, "url"))?;
            attachment_url::load(app, located, &total).await.map_err(|error| fault(error, "url"))?
        }
    };
    Ok(File {
        bytes: fetched.bytes.into(),
        filename: filename.or(fetched.filename),
        content_type: content_type.or(fetched.content_type),
        days,
    })
}

fn bad_days() -> ApiError {
    ApiError::field(Code::BadRetention, "retentionDays", "retentionDays must be 7, 30, 90 or 365")
}

fn permitted(days: u32) -> Result<u32, ApiError> {
    if RETENTION_DAYS.contains(&days) { Ok(days) } else { Err(bad_days()) }
}

/// Maps the fault of a file in `field`.
fn fault(fault: FileFault, field: &'static str) -> ApiError {
    match fault {
        FileFault::Base64 => ApiError::field(Code::BadAttachment, field, "content is no base64"),
        FileFault::Url => ApiError::at(Code::BadUrl, field),
        FileFault::TooLarge => ApiError::at(Code::AttachmentTooLarge, field),
        FileFault::NoMemory(error) => error,
        FileFault::Fetch(why) => ApiError::field(Code::AttachmentFetchFailed, field, why),
    }
}
