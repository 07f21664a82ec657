//! Attachments of a message to send: base64 in the request, or fetched from a URL (contract 7.2, 8.1).

use std::time::Duration;

use bytes::Bytes;
use futures_util::future::try_join_all;
use serde::Deserialize;
use utoipa::ToSchema;

use crate::content::uploads::given_name;
use crate::http::AppState;
use crate::http::api::attachment_url;
use crate::http::api::attachment_url::{Base64File, FileFault, FileTotal, Located, MAX_BYTES};
use crate::http::body::Lenient;
use crate::http::error::{ApiError, Code};
use crate::http::memory::RequestMemory;
use crate::outbound::message::compose::Attachment;

const MAX_NAME_CHARS: usize = 255;
/// For all files of one message; the answer comes within 15 s (contract 8.1).
const FETCH_DEADLINE: Duration = Duration::from_secs(10);
const MAX_ENTRIES: usize = 100;

/// One attachment: exactly one of `url` and `content`.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct AttachmentFields {
    #[serde(default)]
    #[schema(value_type = String, required = true, example = "po.pdf")]
    filename: Lenient<String>,
    /// URL of the file: https, or a link of this server.
    #[serde(default)]
    #[schema(value_type = Option<String>)]
    url: Lenient<String>,
    /// The file in base64; "" is a file without content, unless there is a `url`.
    #[schema(value_type = Option<String>)]
    content: Option<Base64File>,
    #[serde(default)]
    #[schema(value_type = Option<String>, example = "application/pdf")]
    content_type: Lenient<String>,
}

/// An attachment with valid fields.
pub(crate) struct PendingAttachment {
    filename: String,
    content_type: Option<String>,
    source: AttachmentSource,
}

enum AttachmentSource {
    Url(String),
    Bytes(Bytes),
}

fn bad(message: impl Into<String>) -> ApiError {
    ApiError::field(Code::BadAttachment, "attachments", message.into())
}

/// Maps the fault of a file.
fn fault(fault: FileFault, filename: &str) -> ApiError {
    match fault {
        FileFault::Base64 => bad(format!("{filename}: content is no base64")),
        FileFault::Url => bad(format!("{filename}: a valid https url is required")),
        FileFault::TooLarge => too_large(),
        FileFault::NoMemory(error) => error,
        FileFault::Fetch(why) => {
            ApiError::field(Code::AttachmentFetchFailed, "attachments", format!("{filename}: {why}"))
        }
    }
}

/// Checks the attachments of a request; nothing is fetched yet.
pub(crate) fn check(
    app: &AppState,
    given: Lenient<Vec<AttachmentFields>>,
) -> Result<Vec<PendingAttachment>, ApiError> {
    let entries = given
        .optional(|| bad("attachments must be a list of objects with filename and url or content"))?
        .unwrap_or_default();
    if entries.len() > MAX_ENTRIES {
        return Err(bad(format!("a message has at most {MAX_ENTRIES} attachments")));
    }
    let mut size = 0;
    let mut wanted = Vec::with_capacity(entries.len());
    for entry in entries {
        let filename = entry.filename.required(|| bad("an attachment needs a filename"))?;
        let content_type =
            entry.content_type.optional(|| bad(format!("{filename}: contentType must be a string")))?;
        let url = entry.url.optional(|| bad(format!("{filename}: url must be a string")))?;
        if filename.trim().is_empty() || filename.chars().count() > MAX_NAME_CHARS {
            return Err(bad(format!("a file name has 1 to {MAX_NAME_CHARS} characters")));
        }
        let header = [Some(&filename), content_type.as_ref()];
        if header.into_iter().flatten().any(|text| text.chars().any(char::is_control)) {
            let message = "a file's name and type must not hold control characters";
            return Err(ApiError::field(Code::BadHeader, "attachments", message));
        }
        // Forms send both fields, the one that was not filled in empty.
        let content = entry.content.filter(|content| url.is_none() || !content.is_empty());
        let source = match (url, content) {
            (Some(url), None) => {
                attachment_url::check_url(app, &url).map_err(|error| fault(error, &filename))?;
                AttachmentSource::Url(url)
            }
            (None, Some(Base64File(decoded))) => {
                let bytes = decoded.map_err(|error| fault(error, &filename))?;
                size += bytes.len();
                AttachmentSource::Bytes(bytes.into())
            }
            (Some(_), Some(_)) | (None, None) => {
                return Err(bad(format!("{filename}: give exactly one of url and content")));
            }
        };
        if size > MAX_BYTES {
            return Err(too_large());
        }
        wanted.push(PendingAttachment { filename: given_name(&filename), content_type, source });
    }
    Ok(wanted)
}

fn too_large() -> ApiError {
    let message = "the attachments of a message have at most 25 MiB together";
    ApiError::field(Code::AttachmentTooLarge, "attachments", message)
}

/// Loads attachments with a URL concurrently. Known sizes are added up before anything is read.
/// Afterwards the request holds memory to write the message, whose other texts have `texts` octets.
pub(crate) async fn load(
    app: &AppState,
    memory: &RequestMemory,
    wanted: Vec<PendingAttachment>,
    texts: usize,
) -> Result<Vec<Attachment>, ApiError> {
    let given = |one: &PendingAttachment| match &one.source {
        AttachmentSource::Bytes(bytes) => bytes.len(),
        AttachmentSource::Url(_) => 0,
    };
    let total = FileTotal::new(memory.clone(), wanted.iter().map(given).sum());
    let loading = async {
        let mut located = Vec::with_capacity(wanted.len());
        for one in wanted {
            located.push(one.locate(app, &total).await?);
        }
        try_join_all(located.into_iter().map(|one| one.load(app, &total))).await
    };
    let late = |_| {
        let message = "the attachments could not be fetched in 10 s";
        ApiError::field(Code::AttachmentFetchFailed, "attachments", message)
    };
    let loaded = tokio::time::timeout(FETCH_DEADLINE, loading).await.map_err(late)??;
    let files = loaded.iter().map(|one| one.content.len()).sum::<usize>();
    if files > MAX_BYTES {
        return Err(too_large());
    }
    // Each text is in memory together with its quoted-printable form.
    memory.hold_exactly(attachment_url::encoded_memory(files) + 3 * texts).await?;
    Ok(loaded)
}

/// An attachment whose file is located.
struct FoundAttachment {
    filename: String,
    content_type: Option<String>,
    source: FoundSource,
}

enum FoundSource {
    Bytes(Bytes),
    File(Located),
}

impl PendingAttachment {
    async fn locate(self, app: &AppState, total: &FileTotal) -> Result<FoundAttachment, ApiError> {
        let Self { filename, content_type, source } = self;
        let source = match source {
            AttachmentSource::Bytes(content) => FoundSource::Bytes(content),
            AttachmentSource::Url(url) => {
                let located = attachment_url::locate(app, url, total).await;
                FoundSource::File(located.map_err(|error| fault(error, &filename))?)
            }
        };
        Ok(FoundAttachment { filename, content_type, source })
    }
}

impl FoundAttachment {
    async fn load(self, app: &AppState, total: &FileTotal) -> Result<Attachment, ApiError> {
        let Self { filename, content_type, source } = self;
        let located = match source {
            FoundSource::Bytes(content) => return Ok(Attachment { filename, content_type, content }),
            FoundSource::File(located) => located,
        };
        let fetched = attachment_url::load(app, located, total).await.map_err(|error| fault(error, &filename))?;
        let content_type = content_type.or(fetched.content_type);
        Ok(Attachment { filename, content_type, content: fetched.bytes.into() })
    }
}
