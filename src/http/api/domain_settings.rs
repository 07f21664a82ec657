//! Settings of a domain other than its webhook: the tracking webhook, the webhook's sending events, and the retention
//! of messages (contract 3.7, 3.8).

use axum::Json;
use axum::extract::State;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use super::domains::{DomainView, Events, find_own_domain, view};
use super::route_fields::webhook_url;
use crate::http::AppState;
use crate::http::auth::Caller;
use crate::http::body::{Body, Lenient, OK, OkView};
use crate::http::error::{ApiError, Code};
use crate::http::extract::Path;
use crate::store::accounts::domains;

/// Sending events that can be opted in (contract 3.7).
const EVENTS: [&str; 5] = ["email.sent", "email.bounced", "email.complained", "email.opened", "email.clicked"];

/// `PUT /api/domains/:id/tracking-webhook`
#[derive(Deserialize, ToSchema)]
pub(crate) struct TrackingFields {
    /// URL for sending events.
    #[serde(default)]
    #[schema(value_type = String, example = "https://app.acme.dev/events")]
    url: Lenient<String>,
}

/// The tracking webhook of a domain.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct TrackingView {
    domain: DomainView,
    tracking_webhook_url: String,
    /// The account's webhook secret; null for a scoped key.
    signing_secret: Option<String>,
}

/// `PUT /api/domains/:id/tracking-webhook`
pub(crate) async fn put_tracking(
    State(app): State<AppState>,
    caller: Caller,
    Path(id): Path<String>,
    body: Body,
) -> Result<Json<TrackingView>, ApiError> {
    let row = find_own_domain(&app, &caller, &id).await?;
    let fields: TrackingFields = body.fields()?;
    let url = webhook_url(&app, fields.url, "url")?;
    let (id, stored) = (row.public_id, url.clone());
    app.db.write(move |tx| domains::set_tracking_webhook(tx, &id, Some(&stored))).await?;
    let signing_secret = match caller.scope() {
        Some(_) => None,
        None => Some(app.accounts.webhook_secret(caller.id()).await?),
    };
    let domain = view(&app, &caller, row.id).await?;
    Ok(Json(TrackingView { domain, tracking_webhook_url: url, signing_secret }))
}

/// `DELETE /api/domains/:id/tracking-webhook`
pub(crate) async fn delete_tracking(
    State(app): State<AppState>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<Json<OkView>, ApiError> {
    let row = find_own_domain(&app, &caller, &id).await?;
    app.db.write_removal(move |tx| domains::set_tracking_webhook(tx, &row.public_id, None)).await?;
    Ok(OK)
}

/// `PUT /api/domains/:id/webhook-events`
#[derive(Deserialize, ToSchema)]
pub(crate) struct EventsFields {
    /// `"all"`, or a list of `email.sent`, `email.bounced`, `email.complained`, `email.opened`, `email.clicked`.
    #[serde(default)]
    #[schema(value_type = Events)]
    events: Option<Value>,
}

/// Sending events of the domain's webhook.
#[derive(Serialize, ToSchema)]
pub(crate) struct EventsView {
    domain: DomainView,
    events: Events,
}

fn events(given: Option<Value>) -> Result<Events, ApiError> {
    let bad = || ApiError::at(Code::BadEvents, "events");
    let given: Events = serde_json::from_value(given.unwrap_or_default()).map_err(|_| bad())?;
    match given {
        Events::All(word) if word == "all" => Ok(Events::All(word)),
        Events::Some(names) if !names.is_empty() && names.iter().all(|name| EVENTS.contains(&name.as_str())) => {
            let mut unique: Vec<String> = Vec::new();
            for name in names {
                if !unique.contains(&name) {
                    unique.push(name);
                }
            }
            Ok(Events::Some(unique))
        }
        Events::All(_) | Events::Some(_) => Err(bad()),
    }
}

/// `PUT /api/domains/:id/webhook-events`
pub(crate) async fn put_events(
    State(app): State<AppState>,
    caller: Caller,
    Path(id): Path<String>,
    body: Body,
) -> Result<Json<EventsView>, ApiError> {
    let row = find_own_domain(&app, &caller, &id).await?;
    let fields: EventsFields = body.fields()?;
    let events = events(fields.events)?;
    let json = serde_json::to_string(&events).unwrap_or_default();
    app.db.write(move |tx| domains::set_webhook_events(tx, &row.public_id, Some(&json))).await?;
    let domain = view(&app, &caller, row.id).await?;
    Ok(Json(EventsView { domain, events }))
}

/// `DELETE /api/domains/:id/webhook-events`
pub(crate) async fn delete_events(
    State(app): State<AppState>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<Json<OkView>, ApiError> {
    let row = find_own_domain(&app, &caller, &id).await?;
    app.db.write_removal(move |tx| domains::set_webhook_events(tx, &row.public_id, None)).await?;
    Ok(OK)
}

/// `PUT /api/domains/:id/retention`
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct RetentionFields {
    /// True to store nothing of the domain's mail.
    #[serde(default)]
    #[schema(value_type = Option<bool>)]
    zero_retention: Lenient<bool>,
    /// 1 to 3650; null is the server's default.
    #[serde(default)]
    #[schema(value_type = Option<u32>)]
    retention_days: Lenient<u32>,
}

/// Retention of a domain's messages.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct RetentionView {
    domain: DomainView,
    zero_retention: bool,
    retention_days: Option<u32>,
}

/// `PUT /api/domains/:id/retention`
pub(crate) async fn put_retention(
    State(app): State<AppState>,
    caller: Caller,
    Path(id): Path<String>,
    body: Body,
) -> Result<Json<RetentionView>, ApiError> {
    let row = find_own_domain(&app, &caller, &id).await?;
    // Null is a value here: it restores the server's default.
    let gives_days = body.has("retentionDays");
    let fields: RetentionFields = body.fields()?;
    let bad = |field, message| ApiError::field(Code::BadRetention, field, message);
    let zero = fields.zero_retention.optional(|| bad("zeroRetention", "zeroRetention must be true or false"))?;
    let wrong_days = || bad("retentionDays", "retentionDays must be 1 to 3650, or null for the default");
    let days = fields.retention_days.optional(wrong_days)?;
    if days.is_some_and(|days| !(1..=3650).contains(&days)) {
        return Err(wrong_days());
    }
    if zero.is_none() && !gives_days {
        return Err(bad("zeroRetention", "zeroRetention or retentionDays is required"));
    }
    let id = row.public_id;
    let updated = app.db.write(move |tx| {
        // Read again in the transaction, so that concurrent requests for different fields both take effect.
        let Some(row) = domains::find(tx, &id)? else { return Ok(false) };
        let days = if gives_days { days } else { row.retention_days };
        domains::set_retention(tx, &id, zero.unwrap_or(row.zero_retention), days)?;
        Ok(true)
    });
    if !updated.await? {
        return Err(ApiError::not_found());
    }
    let domain = view(&app, &caller, row.id).await?;
    let (zero_retention, retention_days) = (domain.zero_retention, domain.retention_days);
    Ok(Json(RetentionView { domain, zero_retention, retention_days }))
}
