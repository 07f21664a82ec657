//! One message for each of up to 50 recipients (contract 8.2).

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::attachments::{self, AttachmentFields};
use super::content::{ContentFields, SharedFields};
use super::fields::{self, Mailboxes, SendTime};
use super::{authorize_sender, check_sender_field, in_reply_to, serialize_answer};
use crate::clock::Timestamp;
use crate::http::AppState;
use crate::http::auth::Caller;
use crate::http::body::{LargeBody, Lenient, Texts};
use crate::http::error::{ApiError, Code};
use crate::http::idempotency::{self, BeginOutcome};
use crate::http::memory::RequestMemory;
use crate::mail::mailbox_list::NamedMailbox;
use crate::outbound::message::compose::Attachment;
use crate::outbound::submit::SignedMessage;
use crate::outbound::submit::draft::{Submission, SubmissionError};
use crate::outbound::submit::sender::Sender;
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
struct Failure {
    code: Code,
    message: String,
}

impl From<ApiError> for Failure {
    fn from(error: ApiError) -> Self {
        Self { code: error.code(), message: error.message.into_owned() }
    }
}

/// Data shared by all entries.
struct Batch {
    shared: SharedFields,
    attachments: Vec<Attachment>,
    sender: Sender,
    suppressed: Vec<String>,
    /// Octets of the memory budget held for the shared data.
    held: usize,
    now: Timestamp,
}

/// `POST /v1/send/batch`
pub(crate) async fn send_batch(
    State(app): State<AppState>,
    caller: Caller,
    headers: HeaderMap,
    memory: RequestMemory,
    body: LargeBody,
) -> Result<Response, ApiError> {
    let now = app.clock.now();
    let begun = idempotency::begin(&app, &caller, &headers, "/v1/send/batch", body.hash(), now).await?;
    let running = match begun {
        Some(BeginOutcome::Replayed(answer)) => return Ok(idempotency::replay(answer)),
        Some(BeginOutcome::First(running)) => Some(running),
        None => None,
    };
    let given: BatchFields = body.fields().await?;
    let from = fields::sender(given.from)?;
    let bad = |message: &'static str| ApiError::field(Code::BadRequest, "recipients", message);
    let entries = given.recipients.optional(|| bad("recipients must be a list of objects with to"))?;
    let entries = entries.filter(|entries| !entries.is_empty()).ok_or(Code::NoRecipients)?;
    if entries.len() > MAX_ENTRIES {
        return Err(ApiError::at(Code::TooManyRecipients, "recipients"));
    }
    let mut content = ContentFields {
        subject: fields::text(given.subject, "subject")?,
        html: fields::text(given.html, "html")?,
        text: fields::text(given.text, "text")?,
        template_id: fields::name(given.template_id, "templateId")?,
        data: None,
    };
    content.check()?;
    content.data = fields::template_data(given.template_data)?;
    let mut own_headers = fields::headers(given.headers)?;
    // RFC 5322 §3.6.4: a Message-ID belongs to one message; an entry may have its own.
    own_headers.retain(|(name, _)| !name.eq_ignore_ascii_case("Message-ID"));
    let reply_to = fields::mailboxes(given.reply_to, "replyTo")?;
    let in_reply_to = in_reply_to(&app, &caller, given.in_reply_to).await?;
    let scheduled_at = fields::scheduled_at(given.scheduled_at, now)?;
    fields::check_flag(given.track_opens, "trackOpens")?;
    fields::check_flag(given.track_clicks, "trackClicks")?;
    let wanted = attachments::check(&app, given.attachments)?;
    let sender = authorize_sender(&app, &caller, &from, now).await?;
    check_sender_field(&app, &caller, &own_headers, now).await?;
    let content = content.with_template(&app, &caller).await?;
    // The entries stay in memory with the files and the message being written.
    let beside = memory.held().await / 2;
    let attachments = attachments::load(&app, &memory, wanted, beside).await?;
    let shared = SharedFields { from, content, reply_to, in_reply_to, headers: own_headers, scheduled_at };
    let mailboxes: Vec<_> = entries.iter().map(BatchEntry::mailbox).collect();
    let addresses = mailboxes.iter().flatten().map(|one| one.mailbox.to_string()).collect();
    let suppressed = app.outbound.suppressed(sender.account, addresses).await?;
    let held = memory.held().await;
    let batch = Batch { shared, attachments, sender, suppressed, held, now };
    let mut persisted = Vec::with_capacity(entries.len());
    let mut results = Vec::with_capacity(entries.len());
    for (entry, mailbox) in entries.into_iter().zip(mailboxes) {
        let to = mailbox.as_ref().map_or_else(|_| entry.written(), |one| one.mailbox.to_string());
        let composed = match mailbox {
            Ok(mailbox) => batch.compose(&app, &caller, &memory, entry, mailbox).await,
            Err(error) => Err(error.into()),
        };
        results.push(BatchResultView::new(to, &composed));
        // One after another: fifty messages with large files would not fit in memory.
        if let Ok(signed) = composed {
            persisted.push(app.outbound.persist(signed, now).await?);
        }
    }
    let count = |status: MessageStatus| results.iter().filter(|result| result.status == status.as_str()).count();
    let (sent, scheduled) = (count(MessageStatus::Sent), count(MessageStatus::Scheduled));
    let view = BatchView { sent, scheduled, failed: count(MessageStatus::Failed), results };
    let (body, remember) = serialize_answer(StatusCode::OK, &view, running.as_ref());
    app.outbound.submit_persisted(persisted, remember, now).await?;
    Ok(idempotency::respond(StatusCode::OK, body))
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

impl Batch {
    async fn compose(
        &self,
        app: &AppState,
        caller: &Caller,
        memory: &RequestMemory,
        entry: BatchEntry,
        to: NamedMailbox,
    ) -> Result<SignedMessage, Failure> {
        let own = fields::template_data(entry.template_data)?;
        let mut headers = self.shared.headers.clone();
        for (name, value) in fields::headers(entry.headers)? {
            headers.retain(|(known, _)| !known.eq_ignore_ascii_case(&name));
            headers.push((name, value));
        }
        fields::check_header_count(headers.len())?;
        check_sender_field(app, caller, &headers, self.now).await?;
        let texts = self.shared.content.length(own.as_ref())?;
        memory.hold(self.held.saturating_add(3 * texts)).await?;
        let filled = self.shared.content.fill(own.as_ref())?;
        let content = self.shared.message(vec![to], Vec::new(), filled, headers, self.attachments.clone());
        let draft = Submission {
            content,
            bcc: Vec::new(),
            suppressed: self.suppressed.clone(),
            metadata: None,
            scheduled_at: self.shared.scheduled_at,
        };
        app.outbound.compose(&self.sender, draft, self.now).await.map_err(|error| match error {
            SubmissionError::Suppressed => {
                Failure { code: Code::RecipientSuppressed, message: "the recipient is suppressed".to_owned() }
            }
            SubmissionError::Compose(_) | SubmissionError::Sign(_) | SubmissionError::CutOff => {
                tracing::error!(%error, "a message of a batch could not be composed");
                Failure { code: Code::SendFailed, message: "the message could not be composed".to_owned() }
            }
        })
    }
}

impl BatchResultView {
    fn new(to: String, composed: &Result<SignedMessage, Failure>) -> Self {
        match composed {
            Ok(signed) => Self {
                to,
                id: Some(match &signed.scheduled {
                    Some((id, _)) => id.to_string(),
                    None => signed.id.to_string(),
                }),
                status: match signed.scheduled {
                    Some(_) => MessageStatus::Scheduled.as_str(),
                    None => MessageStatus::Sent.as_str(),
                },
                error: None,
                code: None,
            },
            Err(failure) => Self {
                to,
                id: None,
                status: MessageStatus::Failed.as_str(),
                error: Some(failure.message.clone()),
                code: Some(failure.code.as_str()),
            },
        }
    }
}
