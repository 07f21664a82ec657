//! Sending one message (contract 8.1): fields, permission to send, template, attachments, submission.

mod attachments;
mod batch;
mod content;
mod fields;
mod log;
mod scheduled;
mod template_test;

use std::ops::ControlFlow;
use std::time::Instant;

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::clock::Timestamp;
use crate::http::AppState;
use crate::http::auth::Caller;
use crate::http::body::{LargeBody, Lenient, Members, Texts};
use crate::http::client::ClientAddress;
use crate::http::error::{ApiError, Code};
use crate::http::idempotency;
use crate::http::memory::RequestMemory;
use crate::id::MessageId;
use crate::outbound::message::compose::thread_header;
use crate::outbound::submit::sender::SenderError;
use crate::outbound::submit::submission::{Submission, SubmissionContent};
use crate::outbound::submit::{SubmitError, Submitted};
use crate::store::messages;
use crate::store::messages::MessageStatus;
use attachments::AttachmentFields;
use content::ContentFields;
use fields::{Mailboxes, SendTime};

pub(crate) use batch::{BatchFields, BatchView, send_batch};
pub(crate) use scheduled::{CanceledView, cancel};
pub(crate) use template_test::{TestFields, send_test};

/// `POST /v1/send`
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct SendFields {
    /// One mailbox, `a@b` or `Name <a@b>`, of a domain that is verified for sending.
    #[serde(default)]
    #[schema(value_type = String, required = true, example = "Acme <hello@acme.dev>")]
    from: Lenient<String>,
    /// At least one mailbox.
    #[serde(default)]
    #[schema(value_type = Mailboxes, required = true)]
    to: Lenient<Mailboxes>,
    #[serde(default)]
    #[schema(value_type = Option<Mailboxes>)]
    cc: Lenient<Mailboxes>,
    /// Recipients that no header field names.
    #[serde(default)]
    #[schema(value_type = Option<Mailboxes>)]
    bcc: Lenient<Mailboxes>,
    /// Required unless a template gives one.
    #[serde(default)]
    #[schema(value_type = Option<String>, example = "Your receipt")]
    subject: Lenient<String>,
    /// This or `text`, unless a template gives one.
    #[serde(default)]
    #[schema(value_type = Option<String>)]
    html: Lenient<String>,
    #[serde(default)]
    #[schema(value_type = Option<String>, example = "Thank you!")]
    text: Lenient<String>,
    /// One or more mailboxes.
    #[serde(default)]
    #[schema(value_type = Option<Mailboxes>)]
    reply_to: Lenient<Mailboxes>,
    /// Id of a stored message, or a Message-ID.
    #[serde(default)]
    #[schema(value_type = Option<String>)]
    in_reply_to: Lenient<String>,
    /// Custom header fields, at most 50; numbers, as written, and booleans count as text. Fields of the MIME structure
    /// (MIME-Version, Content-*) are dropped; Date and Message-ID are used if they are valid.
    #[serde(default)]
    #[schema(value_type = Option<Object>)]
    headers: Lenient<Texts>,
    /// At most 25 MiB together.
    #[serde(default)]
    #[schema(value_type = Option<Vec<AttachmentFields>>)]
    attachments: Lenient<Vec<AttachmentFields>>,
    #[serde(default)]
    #[schema(value_type = Option<String>, example = "base_welcome")]
    template_id: Lenient<String>,
    /// Values of the merge tags.
    #[serde(default)]
    #[schema(value_type = Option<Object>)]
    template_data: Lenient<Texts>,
    #[serde(default)]
    #[schema(value_type = Option<SendTime>)]
    scheduled_at: Lenient<SendTime>,
    /// Stored with the message and shown on reads, never mailed.
    #[serde(default)]
    #[schema(value_type = Option<Object>)]
    metadata: Lenient<Members>,
    /// Without effect.
    #[serde(default)]
    #[schema(value_type = Option<bool>)]
    track_opens: Lenient<bool>,
    /// Without effect.
    #[serde(default)]
    #[schema(value_type = Option<bool>)]
    track_clicks: Lenient<bool>,
}

/// An accepted message.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct SentView {
    /// Id of the message, or of the scheduled send.
    #[schema(example = "msg_2Hk9QpVn4tLdA1B2")]
    id: String,
    /// `queued` or `scheduled`.
    #[schema(example = "queued")]
    status: &'static str,
    /// Only for scheduled sends.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    scheduled_at: Option<Timestamp>,
    /// Only for scheduled sends.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    message_id: Option<String>,
    /// Suppressed recipients, if there are any.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    suppressed: Vec<String>,
}

impl From<&Submitted> for SentView {
    fn from(submitted: &Submitted) -> Self {
        let suppressed = submitted.suppressed.clone();
        match &submitted.scheduled {
            None => Self {
                id: submitted.id.to_string(),
                status: MessageStatus::Queued.as_str(),
                scheduled_at: None,
                message_id: None,
                suppressed,
            },
            Some((scheduled, at)) => Self {
                id: scheduled.to_string(),
                status: MessageStatus::Scheduled.as_str(),
                scheduled_at: Some(*at),
                message_id: Some(submitted.id.to_string()),
                suppressed,
            },
        }
    }
}

impl From<SenderError> for ApiError {
    fn from(error: SenderError) -> Self {
        match error {
            SenderError::EmailNotVerified => Code::EmailNotVerified.into(),
            SenderError::DomainNotOwned => Code::DomainNotOwned.into(),
            SenderError::KeyScope => Code::KeyScope.into(),
            SenderError::FromDomain => Code::FromDomain.into(),
            SenderError::NoKeys(_) => Code::Internal.into(),
            SenderError::Store(error) => error.into(),
        }
    }
}

impl From<SubmitError> for ApiError {
    fn from(error: SubmitError) -> Self {
        match error {
            SubmitError::Sender(error) => error.into(),
            SubmitError::SenderField(_) => Self::field(Code::BadHeader, "headers", error.to_string()),
            SubmitError::Suppressed => Code::RecipientSuppressed.into(),
            SubmitError::Compose(_) | SubmitError::Sign(_) | SubmitError::Interrupted => {
                tracing::error!(%error, "a message could not be composed");
                Code::Internal.into()
            }
            SubmitError::Store(error) => error.into(),
        }
    }
}

/// Returns `inReplyTo` as a header value; the id of a stored message becomes its Message-ID.
async fn in_reply_to(app: &AppState, caller: &Caller, given: Lenient<String>) -> Result<Option<String>, ApiError> {
    let Some(given) = fields::text(given, "inReplyTo")?.filter(|text| !text.trim().is_empty()) else {
        return Ok(None);
    };
    if let Some(id) = MessageId::parse(&given) {
        let (account, scope) = (caller.id(), caller.scope());
        let found = app.db.read(move |connection| match messages::find_in_scope(connection, &id, account, scope)? {
            Some(row) => messages::find_by_row(connection, row),
            None => Ok(None),
        });
        let unknown = || ApiError::field(Code::BadRequest, "inReplyTo", "there is no such message");
        return Ok(found.await?.ok_or_else(unknown)?.message_id_header);
    }
    if given.chars().any(char::is_control) {
        return Err(ApiError::field(Code::BadHeader, "inReplyTo", "inReplyTo must not hold control characters"));
    }
    let bad = |_| ApiError::field(Code::BadRequest, "inReplyTo", "inReplyTo must be a message id");
    thread_header(&given).map(Some).map_err(bad)
}

/// `POST /v1/send`
pub(crate) async fn send(
    State(app): State<AppState>,
    caller: Caller,
    client: ClientAddress,
    headers: HeaderMap,
    memory: RequestMemory,
    body: LargeBody,
) -> Result<Response, ApiError> {
    let (now, began) = (app.clock.now(), Instant::now());
    let running = match idempotency::begin(&app, &caller, &headers, "/v1/send", body.hash(), now).await? {
        ControlFlow::Continue(running) => running,
        ControlFlow::Break(replayed) => return Ok(replayed),
    };
    let given: SendFields = body.fields().await?;
    let from = fields::sender(given.from)?;
    let [to, cc, bcc] = fields::recipients(given.to, given.cc, given.bcc)?;
    let mut content = ContentFields::read(given.subject, given.html, given.text, given.template_id)?;
    let reply_to = fields::mailboxes(given.reply_to, "replyTo")?;
    let in_reply_to = in_reply_to(&app, &caller, given.in_reply_to).await?;
    let headers = fields::headers(given.headers)?;
    content.data = fields::template_data(given.template_data)?;
    let scheduled_at = fields::scheduled_at(given.scheduled_at, now)?;
    let metadata = fields::metadata(given.metadata)?;
    fields::check_flag(given.track_opens, "trackOpens")?;
    fields::check_flag(given.track_clicks, "trackClicks")?;
    let wanted = attachments::check(&app, given.attachments)?;
    let submitter = caller.submitter();
    let submission =
        Submission { submitter, from, to, cc, bcc, reply_to, in_reply_to, headers, metadata, scheduled_at };
    let logged = log::Accepted::of(&submission);
    let loading = async {
        let mut content = content.with_template(&app, &caller).await?;
        let texts = content.length(None)?;
        memory.hold(2 * texts).await?;
        let filled = content.fill(None)?;
        // They may be large, and the message has its own copies.
        (content.html, content.text) = (None, None);
        let attachments = attachments::load(&app, &memory, wanted, texts + content.data_size()).await?;
        Ok::<_, ApiError>(SubmissionContent { attachments, ..filled })
    };
    let status = StatusCode::ACCEPTED;
    let answer = |submitted: &Submitted| Some(running.as_ref()?.remember(status, &SentView::from(submitted)));
    let submitted = app.outbound.submit(submission, loading, answer, now).await?;
    if let Some(accepted) = logged {
        accepted.log(&client, &submitted, status, began);
    }
    Ok((status, Json(SentView::from(&submitted))).into_response())
}
