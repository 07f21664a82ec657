//! Deliveries and their attempts (contract 6).

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use crate::clock::Timestamp;
use crate::http::AppState;
use crate::http::auth::Caller;
use crate::http::body::{Body, Lenient};
use crate::http::error::{ApiError, Code};
use crate::http::extract::Path;
use crate::http::listener::Hangup;
use crate::http::memory::RequestMemory;
use crate::http::streamed::{self, StreamedJson};
use crate::id::DeliveryId;
use crate::memory_budget::Reservation;
use crate::store::messages;
use crate::store::webhooks::attempts;
use crate::store::webhooks::attempts::Attempt;
use crate::store::webhooks::deliveries;
use crate::store::webhooks::deliveries::DeliveryRow;
use crate::store::webhooks::deliveries::DeliveryStatus;
use crate::webhook::attempt::deliver::Webhooks;
use crate::webhook::attempt::payload::Payload;
use crate::webhook::manual::replay::{BulkError, BulkResult, Item, Scope};
use crate::webhook::manual::retry_now::{Manual, Refused};

/// Payload octets up to which an answer is built in one piece.
const AT_ONCE: usize = 1 << 20;

/// A delivery as contract 6.1 shows it.
#[derive(Serialize, ToSchema)]
pub(crate) struct DeliveryView {
    #[schema(value_type = String, example = "dlv_4WnR8sYc1GhT6uJm")]
    id: DeliveryId,
    message_id: Option<String>,
    event_id: String,
    event_type: String,
    route_id: Option<String>,
    url: String,
    status: &'static str,
    attempts: u32,
    last_status_code: Option<u16>,
    last_error: Option<String>,
    next_attempt_at: Option<Timestamp>,
    /// Earliest time of the next attempt while its endpoint pauses, after five failures in a row.
    paused_until: Option<Timestamp>,
    created_at: Timestamp,
    updated_at: Timestamp,
}

impl DeliveryView {
    /// Creates the view of a delivery of a message.
    pub(crate) fn new(row: DeliveryRow, message_id: Option<String>, webhooks: &Webhooks, now: Timestamp) -> Self {
        let waits = row.status == DeliveryStatus::Pending;
        let paused_until = webhooks.paused_until(&row.url, row.account_id, now).filter(|_| waits);
        Self {
            next_attempt_at: row.next_attempt_at.max(paused_until),
            paused_until,
            id: row.public_id,
            message_id,
            event_id: row.event_id,
            event_type: row.event_type,
            route_id: row.route_id.map(|route| route.to_string()),
            url: row.url,
            status: row.status.as_str(),
            attempts: row.attempts,
            last_status_code: row.last_status_code,
            last_error: row.last_error,
            created_at: row.created_at,
            updated_at: row.updated_at,
        }
    }
}

/// An attempt as contract 6.3 shows it.
#[derive(Serialize, ToSchema)]
pub(crate) struct AttemptView<'a> {
    id: String,
    #[schema(value_type = String)]
    delivery_id: &'a DeliveryId,
    attempt: u32,
    manual: bool,
    request_url: String,
    #[schema(value_type = HashMap<String, String>)]
    request_headers: Value,
    request_body: Option<&'a str>,
    status_code: Option<u16>,
    #[schema(value_type = HashMap<String, String>)]
    response_headers: Value,
    response_body: Option<String>,
    response_truncated: bool,
    error: Option<String>,
    duration_ms: u64,
    created_at: Timestamp,
}

impl<'a> AttemptView<'a> {
    fn new(row: Attempt, delivery: &'a DeliveryId, request_body: Option<&'a str>) -> Self {
        let object = |json: Option<&str>| {
            json.and_then(|json| serde_json::from_str(json).ok())
                .unwrap_or_else(|| Value::Object(serde_json::Map::new()))
        };
        Self {
            id: row.public_id.to_string(),
            delivery_id: delivery,
            attempt: row.attempt,
            manual: row.manual,
            request_url: row.request_url,
            request_headers: object(Some(&row.request_headers)),
            request_body,
            status_code: row.status_code,
            response_headers: object(row.response_headers.as_deref()),
            response_body: row.response_body.map(|body| String::from_utf8_lossy(&body).into_owned()),
            response_truncated: row.response_truncated,
            error: row.error,
            duration_ms: row.duration_ms,
            created_at: row.created_at,
        }
    }
}

/// Result of one attempt, or the reason why there was none (contract 6.3).
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ResultView {
    /// The requested id.
    #[schema(example = "msg_2Hk9QpVn4tLdA1B2")]
    id: String,
    /// The delivery that was attempted.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    delivery_id: Option<String>,
    ok: bool,
    /// The endpoint's HTTP status.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    status: Option<u16>,
    /// Reason why there is no status: `not_found`, `no_delivery`, `message_expired`, `content_damaged`, `route_gone`,
    /// `attempt_in_progress` or `delivery_failed`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    reason: Option<&'static str>,
}

/// The results of several attempts, in the order of the request.
#[derive(Serialize, ToSchema)]
pub(crate) struct Results {
    results: Vec<ResultView>,
}

impl Results {
    /// Creates the view of the results of a bulk call.
    pub(crate) fn new(results: Vec<BulkResult>) -> Self {
        let view = |one: BulkResult| ResultView {
            id: one.id,
            delivery_id: one.delivery.map(|delivery| delivery.to_string()),
            ok: one.outcome.as_ref().is_ok_and(|answer| answer.ok),
            status: one.outcome.as_ref().ok().map(|answer| answer.status),
            reason: one.outcome.err(),
        };
        Self { results: results.into_iter().map(view).collect() }
    }
}

impl From<BulkError> for ApiError {
    fn from(error: BulkError) -> Self {
        match error {
            BulkError::Count => Self::new(Code::BadRequest, error.to_string()),
            BulkError::Store(error) => error.into(),
        }
    }
}

/// The endpoint's answer to one attempt.
#[derive(Serialize, ToSchema)]
pub(crate) struct AnswerView {
    /// Success by the route's ack mode.
    ok: bool,
    /// The endpoint's HTTP status.
    #[schema(example = 200)]
    status: u16,
}

impl From<Manual> for AnswerView {
    fn from(answer: Manual) -> Self {
        Self { ok: answer.ok, status: answer.status }
    }
}

impl From<Refused> for ApiError {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::MessageExpired => Code::MessageExpired.into(),
            Refused::MessageDamaged => Code::ContentDamaged.into(),
            Refused::RouteGone => Code::RouteGone.into(),
            Refused::AttemptInProgress => Code::AttemptInProgress.into(),
            Refused::DeliveryFailed(error) => {
                Self::new(Code::DeliveryFailed, format!("the webhook endpoint gave no HTTP answer: {error}"))
            }
            Refused::Store(error) => error.into(),
        }
    }
}

/// `POST /api/deliveries/:id/retry`
pub(crate) async fn retry(
    State(app): State<AppState>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<Json<AnswerView>, ApiError> {
    let id = DeliveryId::parse(&id).ok_or_else(ApiError::not_found)?;
    let found = app.db.try_read(move |connection| {
        let Some(delivery) = deliveries::find(connection, &id)?.filter(|row| row.account_id == caller.id()) else {
            return Err(ApiError::not_found());
        };
        let message = delivery.message.map(|message| messages::find_by_row(connection, message)).transpose()?;
        let domain = message.flatten().and_then(|message| message.domain_id);
        caller.require_domain(domain)?;
        Ok(delivery.id)
    });
    let delivery = found.await?;
    Ok(Json(app.webhooks.retry(delivery, app.clock.now()).await?.into()))
}

/// `POST /api/deliveries/retry`
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct BulkRetry {
    #[serde(default)]
    #[schema(value_type = Option<Vec<String>>)]
    delivery_ids: Lenient<Vec<String>>,
    /// A message selects its latest delivery to each route.
    #[serde(default)]
    #[schema(value_type = Option<Vec<String>>)]
    message_ids: Lenient<Vec<String>>,
    /// A thread selects all its messages.
    #[serde(default)]
    #[schema(value_type = Option<Vec<String>>)]
    thread_ids: Lenient<Vec<String>>,
}

/// `POST /api/deliveries/retry`
pub(crate) async fn retry_many(
    State(app): State<AppState>,
    caller: Caller,
    body: Body,
) -> Result<Json<Results>, ApiError> {
    let fields: BulkRetry = body.fields()?;
    let deliveries = ids(fields.delivery_ids, "deliveryIds")?.into_iter().map(Item::Delivery);
    let messages = ids(fields.message_ids, "messageIds")?.into_iter().map(Item::Message);
    let threads = ids(fields.thread_ids, "threadIds")?.into_iter().map(Item::Thread);
    let scope = Scope { account: caller.id(), domain: caller.scope() };
    let items = deliveries.chain(messages).chain(threads).collect();
    let results = app.webhooks.retry_many(scope, items, app.clock.now()).await?;
    Ok(Json(Results::new(results)))
}

/// Reads an optional list of ids.
///
/// # Errors
/// 400 `bad_request` for anything else.
pub(crate) fn ids(given: Lenient<Vec<String>>, field: &'static str) -> Result<Vec<String>, ApiError> {
    let bad = || ApiError::field(Code::BadRequest, field, format!("{field} must be a list of strings"));
    Ok(given.optional(bad)?.unwrap_or_default())
}

/// `GET /api/deliveries/:id/attempts`
pub(crate) async fn attempts(
    State(app): State<AppState>,
    caller: Caller,
    Path(id): Path<String>,
    Extension(hangup): Extension<Hangup>,
    memory: RequestMemory,
) -> Result<Response, ApiError> {
    let id = DeliveryId::parse(&id).ok_or_else(ApiError::not_found)?;
    let found = app.db.try_read(move |connection| {
        let Some(delivery) = deliveries::find(connection, &id)?.filter(|row| row.account_id == caller.id()) else {
            return Err(ApiError::not_found());
        };
        let named = delivery.message.map(|message| messages::find_name(connection, message)).transpose()?.flatten();
        caller.require_domain(named.and_then(|(_, domain)| domain))?;
        let rows = attempts::list(connection, delivery.id)?;
        Ok::<_, ApiError>((delivery, rows))
    });
    let (delivery, rows) = found.await?;
    // Each answer is in memory together with its JSON, in which an octet may take six.
    let answered = rows.iter().filter_map(|row| row.response_body.as_ref()).map(Vec::len).sum::<usize>();
    memory.hold(answered.saturating_mul(4)).await?;
    // The payload is not stored with the attempts: rebuilding it yields the same bytes.
    let body = app.webhooks.request_body(&delivery).await.unwrap_or_else(|error| {
        tracing::warn!(%error, delivery = %delivery.public_id, "what was posted cannot be shown");
        None
    });
    Ok(render_attempts(rows, delivery.public_id, body, &hangup))
}

/// Renders a delivery's attempts. Each contains the whole payload, which may be as large as a mail, and there may be
/// many: then the payload is rendered anew for each while it is sent.
fn render_attempts(
    rows: Vec<Attempt>,
    delivery: DeliveryId,
    body: Option<(Payload, Option<Reservation>)>,
    hangup: &Hangup,
) -> Response {
    let held = body.as_ref().map_or(0, |(payload, _)| payload.memory_size());
    if held.saturating_mul(rows.len()) <= AT_ONCE {
        let body = body.map(|(payload, _)| payload.into_bytes());
        let body = body.as_deref().and_then(|body| str::from_utf8(body).ok());
        let views: Vec<_> = rows.into_iter().map(|row| AttemptView::new(row, &delivery, body)).collect();
        return Json(views).into_response();
    }
    let (payload, share) = body.unzip();
    let mut json = StreamedJson::default();
    json.push(b"[");
    for (number, row) in rows.into_iter().enumerate() {
        if number > 0 {
            json.push(b",");
        }
        let marker = streamed::marker();
        let view = AttemptView::new(row, &delivery, payload.as_ref().map(|_| marker.as_str()));
        let text = payload.as_ref().map(|payload| -> streamed::Text { Box::new(payload.pieces()) });
        json.push_document(&view, text.map(|text| (marker.clone(), held, text)).into_iter().collect());
    }
    json.push(b"]");
    json.answer(share.flatten(), hangup)
}
