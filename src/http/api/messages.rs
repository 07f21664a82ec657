//! Messages: list, detail, raw (contract 5).

use std::sync::Arc;

use crate::store::Connection;
use axum::extract::State;
use axum::http::header::{CONTENT_DISPOSITION, CONTENT_LENGTH, CONTENT_TYPE};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::{IntoParams, ToSchema};

use super::deliveries::DeliveryView;
use crate::clock::Timestamp;
use crate::content::{self, StoredContent};
use crate::http::AppState;
use crate::http::auth::Caller;
use crate::http::body::{OK, OkView};
use crate::http::error::{ApiError, Code};
use crate::http::extract::{Path, Query, integer};
use crate::http::listener::Hangup;
use crate::http::memory;
use crate::http::streamed::{self, LARGE, StreamedJson};
use crate::id::{MessageId, MessageRowId};
use crate::mail::mime::{Disposition, Part};
use crate::retention::delete_message;
use crate::secrets::signed_links::Links;
use crate::store;
use crate::store::accounts::domains;
use crate::store::messages::MessageStatus;
use crate::store::messages::SpamVerdict;
use crate::store::messages::attachments;
use crate::store::messages::{self, Direction, Filter, MessageRow};
use crate::store::sending::outbound_details;
use crate::store::sending::outbound_details::Submission;
use crate::store::sending::recipients;
use crate::store::sending::recipients::RecipientRow;
use crate::store::webhooks::deliveries;
use crate::store::webhooks::deliveries::DeliveryCounts;
use crate::webhook::attempt::request::LINK_SECS;

const DEFAULT_LIMIT: i64 = 100;
const MAX_LIMIT: i64 = 200;

/// `GET /api/messages`. Numbers are text so that a malformed one gets the contract's error.
#[derive(Deserialize, IntoParams)]
pub(crate) struct ListQuery {
    /// Only messages with a smaller `received_at`, in milliseconds.
    #[param(value_type = Option<i64>)]
    before: Option<String>,
    /// Only messages with a greater `received_at`, in milliseconds.
    #[param(value_type = Option<i64>)]
    after: Option<String>,
    /// 1 to 200, by default 100; clamped.
    #[param(value_type = Option<i64>)]
    limit: Option<String>,
    /// Substring of sender, recipient or subject; case-insensitive.
    search: Option<String>,
    /// Id or name of a domain.
    domain: Option<String>,
    /// `inbound` or `outbound`.
    direction: Option<String>,
    /// A message's `status`.
    status: Option<String>,
}

/// An address with its display name, if there is one.
#[derive(Deserialize, Serialize, ToSchema)]
struct Party {
    address: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    name: Option<String>,
}

/// A message in a list (contract 5.3).
#[derive(Serialize, ToSchema)]
pub(crate) struct MessageView {
    #[schema(value_type = String, example = "msg_2Hk9QpVn4tLdA1B2")]
    id: MessageId,
    user_id: String,
    route_id: Option<String>,
    direction: &'static str,
    from_addr: String,
    mail_from: String,
    to_addr: String,
    from: Party,
    to: Vec<Party>,
    subject: Option<String>,
    spf: Option<String>,
    dkim: Option<String>,
    dmarc: Option<String>,
    spam: Option<&'static str>,
    thread_id: Option<String>,
    received_at: Timestamp,
    size_bytes: u64,
    track_id: Option<String>,
    enc_key_fp: Option<String>,
    send_status: &'static str,
    status: &'static str,
    scheduled_id: Option<String>,
    scheduled_at: Option<Timestamp>,
    /// As given in the send request.
    #[schema(value_type = Option<Object>)]
    metadata: Option<Value>,
    delivery_count: u64,
    attempts: Option<u32>,
    last_status_code: Option<u16>,
    delivered_count: u64,
    failed_count: u64,
    pending_count: u64,
}

/// A single message (contract 5.4).
#[derive(Serialize, ToSchema)]
struct DetailView {
    #[serde(flatten)]
    row: MessageView,
    mailbox_id: Option<String>,
    text_body: Option<String>,
    html_body: Option<String>,
    headers_json: Option<String>,
    local_validate: Option<bool>,
    actor_user_id: Option<String>,
    actor_team_id: Option<String>,
    message_id_header: Option<String>,
    raw_available: bool,
    /// The stored content is missing or damaged, so bodies and headers are null.
    content_damaged: bool,
}

/// Delivery status of one recipient.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct RecipientView {
    address: String,
    status: &'static str,
    smtp_code: Option<u16>,
    diagnostic: Option<String>,
    updated_at: Timestamp,
}

impl From<RecipientRow> for RecipientView {
    fn from(row: RecipientRow) -> Self {
        Self {
            address: row.address,
            status: row.status.as_str(),
            smtp_code: row.smtp_code,
            diagnostic: row.diagnostic,
            updated_at: row.updated_at,
        }
    }
}

/// `GET /api/messages/:id`
#[derive(Serialize, ToSchema)]
pub(crate) struct Detail {
    message: DetailView,
    deliveries: Vec<DeliveryView>,
    attachments: Vec<AttachmentView>,
    /// Empty for inbound messages.
    recipients: Vec<RecipientView>,
}

/// An attachment (contract 5.4).
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct AttachmentView {
    id: String,
    filename: Option<String>,
    content_type: Option<String>,
    size: u64,
    url: Option<String>,
    content_id: Option<String>,
    disposition: Option<&'static str>,
}

impl MessageView {
    /// Creates the view of a message; `outbound` holds the details of an outbound one.
    pub(crate) fn new(row: &MessageRow, outbound: Option<Submission>, counts: DeliveryCounts, user_id: &str) -> Self {
        let outbound = outbound.unwrap_or_default();
        let listed = outbound.header_to.and_then(|json| serde_json::from_str(&json).ok());
        let to = listed.unwrap_or_else(|| vec![Party { address: row.to_addr.clone(), name: row.to_name.clone() }]);
        Self {
            id: row.public_id.clone(),
            user_id: user_id.to_owned(),
            route_id: row.route_id.clone(),
            direction: row.direction.as_str(),
            from_addr: row.from_addr.clone(),
            mail_from: row.mail_from.clone(),
            to_addr: row.to_addr.clone(),
            from: Party { address: row.from_addr.clone(), name: row.from_name.clone() },
            to,
            subject: row.subject.clone(),
            spf: row.spf.clone(),
            dkim: row.dkim.clone(),
            dmarc: row.dmarc.clone(),
            spam: row.spam.map(SpamVerdict::as_str),
            thread_id: row.thread_id.clone(),
            received_at: row.received_at,
            size_bytes: row.size,
            track_id: None,
            enc_key_fp: None,
            send_status: match row.direction {
                Direction::Outbound => row.status.as_str(),
                Direction::Inbound => MessageStatus::Sent.as_str(),
            },
            status: row.status.as_str(),
            scheduled_id: outbound.scheduled_id.map(|id| id.to_string()),
            scheduled_at: outbound.scheduled_at,
            metadata: outbound.metadata.and_then(|json| serde_json::from_str(&json).ok()),
            delivery_count: counts.delivered + counts.failed + counts.pending,
            attempts: counts.latest_attempts,
            last_status_code: counts.latest_status_code,
            delivered_count: counts.delivered,
            failed_count: counts.failed,
            pending_count: counts.pending,
        }
    }
}

/// `GET /api/messages`
pub(crate) async fn list(
    State(app): State<AppState>,
    caller: Caller,
    Query(query): Query<ListQuery>,
) -> Result<Json<Vec<MessageView>>, ApiError> {
    let limit = integer("limit", query.limit.as_deref())?.unwrap_or(DEFAULT_LIMIT).clamp(1, MAX_LIMIT);
    let mut filter = Filter {
        account: caller.id(),
        before: integer("before", query.before.as_deref())?,
        after: integer("after", query.after.as_deref())?,
        limit: u32::try_from(limit).unwrap_or(1),
        search: query.search.filter(|needle| !needle.is_empty()),
        domain: caller.scope(),
        direction: None,
        status: None,
    };
    if let Some(word) = query.direction.as_deref() {
        let bad = || ApiError::field(Code::BadQuery, "direction", "direction must be inbound or outbound");
        filter.direction = Some(Direction::from_word(word).ok_or_else(bad)?);
    }
    if let Some(word) = query.status.as_deref() {
        let bad = || ApiError::field(Code::BadQuery, "status", "no message has this status");
        filter.status = Some(MessageStatus::from_word(word).ok_or_else(bad)?);
    }
    let views = app.db.read_background(move |connection| {
        if let Some(name) = &query.domain {
            let found = domains::find_by_name_or_id(connection, caller.id(), name, name)?;
            let within = found.filter(|domain| caller.require_domain(Some(domain.id)).is_ok());
            let Some(domain) = within else { return Ok(Vec::new()) };
            filter.domain = Some(domain.id);
        }
        let user = caller.account.public_id.to_string();
        let rows = messages::list(connection, &filter)?;
        let ids: Vec<MessageRowId> = rows.iter().map(|row| row.id).collect();
        let counts = deliveries::counts_by_message(connection, &ids)?;
        let view = |(row, counts): (&MessageRow, DeliveryCounts)| {
            Ok(MessageView::new(row, details(connection, row)?, counts, &user))
        };
        rows.iter().zip(counts).map(view).collect()
    });
    Ok(Json(views.await?))
}

/// Finds the details of an outbound message.
pub(crate) fn details(connection: &Connection, row: &MessageRow) -> store::Result<Option<Submission>> {
    match row.direction {
        Direction::Outbound => outbound_details::find(connection, row.id),
        Direction::Inbound => Ok(None),
    }
}

/// Finds a message that the caller may see.
///
/// # Errors
/// 404 if it is unknown or another account's, 403 beyond a scoped key's domain.
pub(crate) fn find_message(connection: &Connection, caller: &Caller, id: &MessageId) -> Result<MessageRow, ApiError> {
    let found = messages::find(connection, id)?.filter(|row| row.account_id == caller.id());
    let row = found.ok_or_else(ApiError::not_found)?;
    caller.require_domain(row.domain_id)?;
    Ok(row)
}

/// `GET /api/messages/:id`
pub(crate) async fn detail(
    State(app): State<AppState>,
    caller: Caller,
    Path(id): Path<String>,
    Extension(hangup): Extension<Hangup>,
) -> Result<Response, ApiError> {
    let id = MessageId::parse(&id).ok_or_else(ApiError::not_found)?;
    let (reader, message_id) = (caller.clone(), id.clone());
    let row = app.db.try_read(move |connection| find_message(connection, &reader, &message_id)).await?;
    let size = usize::try_from(row.size).unwrap_or(usize::MAX);
    let mut share = None;
    if size > LARGE {
        // The mail and its texts, which may be twice as long in UTF-8.
        share = Some(memory::reserve(&app, row.account_id, size.saturating_mul(3)).await?);
    }
    let (objects, links) = (app.objects.clone(), app.links.clone());
    let (webhooks, now) = (Arc::clone(&app.webhooks), app.clock.now());
    let found = app.db.try_read(move |connection| {
        let row = find_message(connection, &caller, &id)?;
        let (source, content_damaged) = match content::load(connection, &objects, &row) {
            Err(store::Error::Damaged { .. }) => (None, true),
            loaded => (loaded?, false),
        };
        let deliveries = deliveries::list_by_message(connection, row.id)?;
        let parts = attachments::list(connection, row.id)?;
        let user = caller.account.public_id.as_str();
        let message = message_detail(connection, &row, source.as_ref(), content_damaged, user)?;
        let id = id.to_string();
        Ok::<_, ApiError>(Detail {
            message,
            deliveries: deliveries
                .into_iter()
                .map(|one| DeliveryView::new(one, Some(id.clone()), &webhooks, now))
                .collect(),
            attachments: (0_u32..)
                .zip(parts)
                .map(|(index, part)| attachment_view(&row, index, part, Some(&links)))
                .collect(),
            recipients: recipients_of(connection, &row)?,
        })
    });
    let mut detail = found.await?;
    let Some(mut share) = share else { return Ok(Json(detail).into_response()) };
    let DetailView { text_body, html_body, .. } = &mut detail.message;
    share.shrink_to([&*text_body, &*html_body].into_iter().flatten().map(String::len).sum());
    let mut texts = Vec::new();
    for body in [text_body, html_body].into_iter().flatten() {
        let marker = streamed::marker();
        let text = std::mem::replace(body, marker.clone());
        texts.push((marker, text.len(), streamed::pieces_of(text)));
    }
    let mut json = StreamedJson::default();
    json.push_document(&detail, texts);
    Ok(json.answer(Some(share), &hangup))
}

fn message_detail(
    connection: &Connection,
    row: &MessageRow,
    source: Option<&StoredContent>,
    content_damaged: bool,
    user_id: &str,
) -> store::Result<DetailView> {
    let readable = source.map(StoredContent::readable).transpose()?.unwrap_or_default();
    let counts = deliveries::counts(connection, row.id)?;
    Ok(DetailView {
        row: MessageView::new(row, details(connection, row)?, counts, user_id),
        mailbox_id: None,
        text_body: readable.text,
        html_body: readable.html,
        headers_json: source.map(|source| source.headers_json(&row.trace)).transpose()?,
        local_validate: None,
        actor_user_id: None,
        actor_team_id: None,
        message_id_header: row.message_id_header.clone(),
        raw_available: row.mail_data_id.is_some() && !content_damaged,
        content_damaged,
    })
}

/// A message as it leaves this server: its detail without deliveries and links.
#[derive(Serialize)]
pub(crate) struct ExportedDetail {
    message: DetailView,
    attachments: Vec<AttachmentView>,
    recipients: Vec<RecipientView>,
}

impl ExportedDetail {
    /// Loads the rows of a message; without a source its bodies and headers are null.
    pub(crate) fn load(
        connection: &Connection,
        row: &MessageRow,
        source: Option<&StoredContent>,
        user_id: &str,
    ) -> store::Result<Self> {
        let parts = attachments::list(connection, row.id)?;
        Ok(Self {
            message: message_detail(connection, row, source, false, user_id)?,
            attachments: (0_u32..).zip(parts).map(|(index, part)| attachment_view(row, index, part, None)).collect(),
            recipients: recipients_of(connection, row)?,
        })
    }
}

/// Lists the recipients of an outbound message with their status.
fn recipients_of(connection: &Connection, row: &MessageRow) -> store::Result<Vec<RecipientView>> {
    if row.direction == Direction::Inbound {
        return Ok(Vec::new());
    }
    Ok(recipients::list_by_message(connection, row.id)?.into_iter().map(RecipientView::from).collect())
}

fn attachment_view(row: &MessageRow, index: u32, part: Part, links: Option<&Links>) -> AttachmentView {
    let expires = row.received_at.as_secs() + LINK_SECS;
    AttachmentView {
        id: format!("{}:{index}", row.public_id),
        filename: part.filename,
        content_type: part.content_type,
        size: part.size,
        url: links
            .filter(|_| row.mail_data_id.is_some())
            .map(|links| links.url(row.public_id.suffix(), index, expires)),
        content_id: part.content_id,
        disposition: part.disposition.map(Disposition::as_str),
    }
}

/// `GET /api/messages/:id/raw`
pub(crate) async fn raw(
    State(app): State<AppState>,
    caller: Caller,
    Path(id): Path<String>,
    Extension(hangup): Extension<Hangup>,
) -> Result<Response, ApiError> {
    let id = MessageId::parse(&id).ok_or_else(ApiError::not_found)?;
    let objects = app.objects.clone();
    let file_name = format!("attachment; filename=\"{id}.eml\"");
    let row = app.db.try_read(move |connection| find_message(connection, &caller, &id)).await?;
    if row.mail_data_id.is_none() {
        return Err(Code::RawExpired.into());
    }
    let share = memory::reserve(&app, row.account_id, usize::try_from(row.size).unwrap_or(usize::MAX)).await?;
    let found = app.db.read(move |connection| content::load(connection, &objects, &row));
    match found.await? {
        Some(StoredContent::Raw(bytes)) => {
            let headers = [(CONTENT_TYPE, "message/rfc822"), (CONTENT_DISPOSITION, file_name.as_str())];
            let length = [(CONTENT_LENGTH, bytes.len())];
            let mut whole = StreamedJson::default();
            whole.push_bytes(bytes.into());
            Ok((headers, length, whole.body(Some(share), &hangup)).into_response())
        }
        Some(StoredContent::Archived(_)) | None => Err(Code::RawExpired.into()),
    }
}

/// `DELETE /api/messages/:id`
pub(crate) async fn delete(
    State(app): State<AppState>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<Json<OkView>, ApiError> {
    let id = MessageId::parse(&id).ok_or_else(ApiError::not_found)?;
    let row = app.db.try_read(move |connection| find_message(connection, &caller, &id)).await?;
    if row.status.is_waiting() {
        return Err(Code::MessageInQueue.into());
    }
    delete_message(&app.db, &app.objects, row.id, app.clock.now()).await?;
    app.webhooks.first_attempt_cache.clear();
    Ok(OK)
}
