//! One message for each of up to 50 recipients (contract 8.2).

use std::ops::ControlFlow;
use std::time::Instant;

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::attachments::{self, AttachmentFields};
use super::content::ContentFields;
use super::fields::{self, Mailboxes, SendTime};
use super::in_reply_to;
use super::log::Accepted;
use crate::http::AppState;
use crate::http::auth::Caller;
use crate::http::body::{LargeBody, Lenient, Texts};
use crate::http::client::ClientAddress;
use crate::http::error::{ApiError, Code};
use crate::http::idempotency;
use crate::http::memory::RequestMemory;
use crate::mail::mailbox_list::NamedMailbox;
use crate::outbound::message::compose::Attachment;
use crate::outbound::submit::batch::Batch;
use crate::outbound::submit::submission::{Submission, SubmissionContent};
use crate::outbound::submit::{SubmitError, Submitted};
use crate::store::messages::MessageStatus;

const MAX_ENTRIES: usize = 50;

/// One recipient of a batch.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct BatchEntry {
    /// One mailbox.
    #[serde(default)]
    #[schema(value_type = String, required = true, example = "ada@example.com")]
    to: Lenient<String>,
    /// Merged over the shared data.
    #[serde(default)]
    #[schema(value_type = Option<Object>)]
    template_data: Lenient<Texts>,
    /// Merged over the shared headers.
    #[serde(default)]
    #[schema(value_type = Option<Object>)]
    headers: Lenient<Texts>,
}

/// `POST /v1/send/batch`
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct BatchFields {
    #[serde(default)]
    #[schema(value_type = String, required = true, example = "Acme <hello@acme.dev>")]
    from: Lenient<String>,
    /// 1 to 50 entries.
    #[serde(default)]
    #[schema(value_type = Vec<BatchEntry>, required = true)]
    recipients: Lenient<Vec<BatchEntry>>,
    #[serde(default)]
    #[schema(value_type = Option<String>, example = "Hi {{name}}")]
    subject: Lenient<String>,
    #[serde(default)]
    #[schema(value_type = Option<String>)]
    html: Lenient<String>,
    #[serde(default)]
    #[schema(value_type = Option<String>, example = "Hello {{name}}")]
    text: Lenient<String>,
    #[serde(default)]
    #[schema(value_type = Option<String>)]
    template_id: Lenient<String>,
    #[serde(default)]
    #[schema(value_type = Option<Object>)]
    template_data: Lenient<Texts>,
    #[serde(default)]
    #[schema(value_type = Option<Object>)]
    headers: Lenient<Texts>,
    #[serde(default)]
    #[schema(value_type = Option<Mailboxes>)]
    reply_to: Lenient<Mailboxes>,
    #[serde(default)]
    #[schema(value_type = Option<String>)]
    in_reply_to: Lenient<String>,
    #[serde(default)]
    #[schema(value_type = Option<Vec<AttachmentFields>>)]
    attachments: Lenient<Vec<AttachmentFields>>,
    #[serde(default)]
    #[schema(value_type = Option<SendTime>)]
    scheduled_at: Lenient<SendTime>,
    /// Without effect.
    #[serde(default)]
    #[schema(value_type = Option<bool>)]
    track_opens: Lenient<bool>,
    /// Without effect.
    #[serde(default)]
    #[schema(value_type = Option<bool>)]
    track_clicks: Lenient<bool>,
}

/// Result of one entry.
#[derive(Serialize, ToSchema)]
struct BatchResultView {
    /// The bare address.
    #[schema(example = "ada@example.com")]
    to: String,
    /// The message's id, or the scheduled send's; not of a failed entry.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, example = "msg_2Hk9QpVn4tLdA1B2")]
    id: Option<String>,
    /// `sent` (which means queued), `scheduled` or `failed`.
    #[schema(example = "sent")]
    status: &'static str,
    /// Only of a failed entry.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    error: Option<String>,
    /// Only of a failed entry.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    code: Option<&'static str>,
}

/// `POST /v1/send/batch`
#[derive(Serialize, ToSchema)]
pub(crate) struct BatchView {
    /// In the order of the request.
    results: Vec<BatchResultView>,
    sent: usize,
    scheduled: usize,
    failed: usize,
}

/// Error of one entry.
enum EntryError {
    /// Fails this entry.
    Entry(Failure),
    /// Fails the whole call.
    Call(ApiError),
}

/// The answer about a failed entry.
struct Failure {
    code: Code,
    message: String,
}

impl From<ApiError> for EntryError {
    fn from(error: ApiError) -> Self {
        Self::Entry(Failure { code: error.code(), message: error.message.into_owned() })
    }
}

impl From<SubmitError> for EntryError {
    fn from(error: SubmitError) -> Self {
        let (code, message) = match error {
            SubmitError::Store(error) => return Self::Call(error.into()),
            SubmitError::Sender(_) | SubmitError::SenderField(_) => return ApiError::from(error).into(),
            SubmitError::Suppressed => (Code::RecipientSuppressed, "the recipient is suppressed"),
            SubmitError::Compose(_) | SubmitError::Sign(_) | SubmitError::Interrupted => {
                tracing::error!(%error, "a message of a batch could not be composed");
                (Code::SendFailed, "the message could not be composed")
            }
        };
        Self::Entry(Failure { code, message: message.to_owned() })
    }
}

/// Content and headers shared by all entries.
struct SharedContent<'r> {
    content: ContentFields,
    attachments: Vec<Attachment>,
    headers: Vec<(String, String)>,
    memory: &'r RequestMemory,
    /// Octets of the memory budget held for it.
    held: usize,
}

/// `POST /v1/send/batch`
pub(crate) async fn send_batch(
    State(app): State<AppState>,
    caller: Caller,
    client: ClientAddress,
    headers: HeaderMap,
    memory: RequestMemory,
    body: LargeBody,
) -> Result<Response, ApiError> {
    let (now, began) = (app.clock.now(), Instant::now());
    let running = match idempotency::begin(&app, &caller, &headers, "/v1/send/batch", body.hash(), now).await? {
        ControlFlow::Continue(running) => running,
        ControlFlow::Break(replayed) => return Ok(replayed),
    };
    let given: BatchFields = body.fields().await?;
    let from = fields::sender(given.from)?;
    let bad = |message: &'static str| ApiError::field(Code::BadRequest, "recipients", message);
    let entries = given.recipients.optional(|| bad("recipients must be a list of objects with to"))?;
    let entries = entries.filter(|entries| !entries.is_empty()).ok_or(Code::NoRecipients)?;
    if entries.len() > MAX_ENTRIES {
        return Err(ApiError::at(Code::TooManyRecipients, "recipients"));
    }
    let mut content = ContentFields::read(given.subject, given.html, given.text, given.template_id)?;
    content.data = fields::template_data(given.template_data)?;
    let mut headers = fields::headers(given.headers)?;
    // RFC 5322 §3.6.4: a Message-ID belongs to one message; an entry may have its own.
    headers.retain(|(name, _)| !name.eq_ignore_ascii_case("Message-ID"));
    let reply_to = fields::mailboxes(given.reply_to, "replyTo")?;
    let in_reply_to = in_reply_to(&app, &caller, given.in_reply_to).await?;
    let scheduled_at = fields::scheduled_at(given.scheduled_at, now)?;
    fields::check_flag(given.track_opens, "trackOpens")?;
    fields::check_flag(given.track_clicks, "trackClicks")?;
    let wanted = attachments::check(&app, given.attachments)?;
    let (submitter, own_headers) = (caller.submitter(), headers.clone());
    let submission = Submission { reply_to, in_reply_to, headers, scheduled_at, ..Submission::new(submitter, from) };
    let from = submission.from.mailbox.to_string();
    let mut batch = app.outbound.begin_batch(submission, now).await?;
    let content = content.with_template(&app, &caller).await?;
    // The entries stay in memory with the files and the message being written.
    let reserved = memory.held().await / 2;
    let attachments = attachments::load(&app, &memory, wanted, reserved).await?;
    let held = memory.held().await;
    let shared = SharedContent { content, attachments, headers: own_headers, memory: &memory, held };
    let (mut results, mut accepted) = (Vec::with_capacity(entries.len()), Vec::new());
    for entry in entries {
        let mailbox = entry.mailbox();
        let to = mailbox.as_ref().map_or_else(|_| entry.written(), |one| one.mailbox.to_string());
        let added = match mailbox {
            Ok(mailbox) => shared.add_entry(&mut batch, entry, mailbox).await,
            Err(error) => Err(error.into()),
        };
        results.push(match added {
            Ok(submitted) => {
                let result = BatchResultView::accepted(to.clone(), &submitted);
                accepted.push((Accepted { from: from.clone(), to }, submitted));
                result
            }
            Err(EntryError::Entry(failure)) => BatchResultView::failed(to, failure),
            Err(EntryError::Call(error)) => return Err(error),
        });
    }
    let (status, view) = (StatusCode::OK, BatchView::new(results));
    batch.commit(running.as_ref().map(|running| running.remember(status, &view))).await?;
    accepted.iter().for_each(|(accepted, submitted)| accepted.log(&client, submitted, status, began));
    Ok((status, Json(view)).into_response())
}

impl BatchEntry {
    fn mailbox(&self) -> Result<NamedMailbox, ApiError> {
        match &self.to {
            Lenient::Given(text) => fields::mailbox(text, "to"),
            Lenient::Absent | Lenient::Wrong => Err(ApiError::at(Code::BadAddress, "to")),
        }
    }

    /// Returns the recipient as given, for the answer about a malformed one.
    fn written(&self) -> String {
        match &self.to {
            Lenient::Given(text) => text.clone(),
            Lenient::Absent | Lenient::Wrong => String::new(),
        }
    }
}

impl SharedContent<'_> {
    /// Adds the message of an entry to the batch.
    async fn add_entry(
        &self,
        batch: &mut Batch,
        entry: BatchEntry,
        to: NamedMailbox,
    ) -> Result<Submitted, EntryError> {
        let own = fields::template_data(entry.template_data)?;
        let mut headers = self.headers.clone();
        for (name, value) in fields::headers(entry.headers)? {
            headers.retain(|(known, _)| !known.eq_ignore_ascii_case(&name));
            headers.push((name, value));
        }
        fields::check_header_count(headers.len())?;
        let loading = async {
            let texts = self.content.length(own.as_ref())?;
            self.memory.hold(self.held.saturating_add(3 * texts)).await?;
            let filled = self.content.fill(own.as_ref())?;
            Ok::<_, EntryError>(SubmissionContent { attachments: self.attachments.clone(), ..filled })
        };
        batch.add(to, headers, loading).await
    }
}

impl BatchView {
    fn new(results: Vec<BatchResultView>) -> Self {
        let count = |status: MessageStatus| results.iter().filter(|result| result.status == status.as_str()).count();
        Self {
            sent: count(MessageStatus::Sent),
            scheduled: count(MessageStatus::Scheduled),
            failed: count(MessageStatus::Failed),
            results,
        }
    }
}

impl BatchResultView {
    fn accepted(to: String, submitted: &Submitted) -> Self {
        let (id, status) = match &submitted.scheduled {
            Some((id, _)) => (id.to_string(), MessageStatus::Scheduled),
            None => (submitted.id.to_string(), MessageStatus::Sent),
        };
        Self { to, id: Some(id), status: status.as_str(), error: None, code: None }
    }

    fn failed(to: String, failure: Failure) -> Self {
        Self {
            to,
            id: None,
            status: MessageStatus::Failed.as_str(),
            error: Some(failure.message),
            code: Some(failure.code.as_str()),
        }
    }
}
