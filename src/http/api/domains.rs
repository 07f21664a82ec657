//! Domains: list, add, verify, remove (contract 3). For their webhook see `domain_webhook`, for other settings
//! `domain_settings`.

use crate::id::{AccountRowId, DomainRowId};
use crate::store::Connection;
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::clock::Timestamp;
use crate::domain::keys::KeyError;
use crate::domain::records::Status;
use crate::domain::{DomainError, Seen, name};
use crate::fair_semaphore::QueueFull;
use crate::http::AppState;
use crate::http::auth::Caller;
use crate::http::body::{Body, Lenient, OK, OkView};
use crate::http::error::{ApiError, Code};
use crate::http::extract::Path;
use crate::mail::address::Domain;
use crate::store;
use crate::store::accounts::dkim_keys::KeyState;
use crate::store::accounts::domains;
use crate::store::accounts::domains::DomainStatus;
use crate::store::accounts::domains::{DomainRow, Flags};
use crate::store::webhooks::routes;
use crate::store::webhooks::routes::AckMode;

/// A domain (contract 3.1).
#[derive(Serialize, ToSchema)]
pub(crate) struct DomainView {
    #[schema(example = "dom_2VbXqTpN8rKwM3Ys")]
    id: String,
    user_id: String,
    /// A-labels, lower case.
    #[schema(example = "acme.dev")]
    domain: String,
    /// `pending` or `verified`.
    #[schema(example = "verified")]
    status: &'static str,
    mx_verified: bool,
    spf_verified: bool,
    dkim_verified: bool,
    dmarc_verified: bool,
    #[serde(rename = "webhookUrl")]
    #[schema(example = "https://app.acme.dev/hook")]
    webhook_url: Option<String>,
    #[serde(rename = "webhookAckMode")]
    webhook_ack_mode: Option<&'static str>,
    #[serde(rename = "trackingWebhookUrl")]
    tracking_webhook_url: Option<String>,
    /// `"all"`, or an array of the opted-in sending events.
    #[serde(rename = "webhookEvents")]
    webhook_events: Events,
    pub(super) zero_retention: bool,
    /// Null is the server's default.
    pub(super) retention_days: Option<u32>,
    created_at: Timestamp,
    checked_at: Option<Timestamp>,
    verified_at: Option<Timestamp>,
}

/// The opted-in sending events.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(untagged)]
pub(crate) enum Events {
    /// `"all"`
    All(String),
    /// Some of them.
    Some(Vec<String>),
}

impl DomainView {
    /// Creates the view of a domain, with its webhook.
    pub(crate) fn new(connection: &Connection, row: &DomainRow, user_id: &str) -> store::Result<Self> {
        let webhook = routes::find_domain_webhook(connection, row.id)?;
        let events = row.webhook_events.as_deref().and_then(|json| serde_json::from_str(json).ok());
        let (url, mode) = webhook.map_or((None, None), |route| (route.destination, route.ack_mode));
        Ok(Self {
            id: row.public_id.to_string(),
            user_id: user_id.to_owned(),
            domain: row.name.clone(),
            status: status(row),
            mx_verified: row.flags.mx,
            spf_verified: row.flags.spf,
            dkim_verified: row.flags.dkim,
            dmarc_verified: row.flags.dmarc,
            webhook_url: url,
            webhook_ack_mode: mode.map(AckMode::as_str),
            tracking_webhook_url: row.tracking_webhook_url.clone(),
            webhook_events: events.unwrap_or(Events::Some(Vec::new())),
            zero_retention: row.zero_retention,
            retention_days: row.retention_days,
            created_at: row.created_at,
            checked_at: row.checked_at,
            verified_at: row.verified_at,
        })
    }
}

const fn status(row: &DomainRow) -> &'static str {
    if row.verified { DomainStatus::Verified.as_str() } else { DomainStatus::Pending.as_str() }
}

/// A DNS record that the domain needs (contract 3.3).
#[derive(Serialize, ToSchema)]
pub(crate) struct RecordView {
    /// `MX` or `TXT`.
    #[serde(rename = "type")]
    #[schema(example = "MX")]
    record_type: &'static str,
    /// Fully qualified, without final dot.
    #[schema(example = "acme.dev")]
    name: String,
    #[schema(example = "mail.acme.dev")]
    value: String,
    /// Only of the MX record.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    priority: Option<u16>,
    /// True if everything works without the record.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    optional: Option<bool>,
    status: Status,
    /// Values that the last check found.
    found: Vec<String>,
    /// Only of a DKIM key that does not sign: `next` ones sign once their record is found, those of `retiring` ones are
    /// still needed, those of `retired` ones may be removed.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    rotation: Option<KeyState>,
    /// Only of a `retiring` key: the earliest time at which its record may be removed.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    removable_at: Option<Timestamp>,
}

impl From<Seen> for RecordView {
    fn from(seen: Seen) -> Self {
        Self {
            record_type: seen.record.record_type,
            name: seen.record.name,
            value: seen.record.value,
            priority: seen.record.priority,
            optional: seen.record.optional.then_some(true),
            status: seen.finding.status,
            found: seen.finding.found,
            rotation: seen.rotation.map(|rotation| rotation.state),
            removable_at: seen.rotation.and_then(|rotation| rotation.removable_at),
        }
    }
}

/// A domain with the DNS records that it needs.
#[derive(Serialize, ToSchema)]
pub(crate) struct DomainWithRecords {
    domain: DomainView,
    dns: Vec<RecordView>,
}

impl From<DomainError> for ApiError {
    fn from(error: DomainError) -> Self {
        match error {
            DomainError::Exists => Code::DomainExists.into(),
            DomainError::Taken => Code::DomainTaken.into(),
            DomainError::Rotating => Code::RotationInProgress.into(),
            DomainError::Gone => Self::not_found(),
            DomainError::Store(error) => error.into(),
            DomainError::Keys(KeyError::Busy(_)) => Self::rate_limited(QueueFull::RETRY_AFTER_SECS),
            DomainError::Keys(error @ KeyError::Failed(_)) => {
                tracing::error!(%error, "a request failed");
                Code::Internal.into()
            }
        }
    }
}

/// Finds a domain of an account by its id or, in any spelling, its name.
pub(crate) fn find_domain(
    connection: &Connection,
    account: AccountRowId,
    id: &str,
) -> store::Result<Option<DomainRow>> {
    let name = Domain::parse(id).map(|domain| domain.as_str().to_owned()).unwrap_or_default();
    domains::find_by_name_or_id(connection, account, &name, id)
}

/// Finds the caller's domain by its id or name.
///
/// # Errors
/// 404 if it is unknown or another account's, 403 beyond a scoped key's domain.
pub(crate) async fn find_own_domain(app: &AppState, caller: &Caller, id: &str) -> Result<DomainRow, ApiError> {
    let (account, id) = (caller.id(), id.to_owned());
    let found = app.db.read(move |connection| find_domain(connection, account, &id));
    let domain = found.await?.ok_or_else(ApiError::not_found)?;
    caller.require_domain(Some(domain.id))?;
    Ok(domain)
}

/// Looks up the domain of a path.
///
/// # Errors
/// As [`find_own_domain`].
pub(crate) async fn exists(app: AppState, caller: Caller, id: String) -> Result<(), ApiError> {
    find_own_domain(&app, &caller, &id).await.map(drop)
}

/// Returns the current view of a domain.
///
/// # Errors
/// 404 if it was removed meanwhile.
pub(crate) async fn view(app: &AppState, caller: &Caller, id: DomainRowId) -> Result<DomainView, ApiError> {
    let user = caller.account.public_id.to_string();
    let view = app.db.read(move |connection| match domains::find_by_row(connection, id)? {
        Some(row) => DomainView::new(connection, &row, &user).map(Some),
        None => Ok(None),
    });
    view.await?.ok_or_else(ApiError::not_found)
}

async fn with_records(app: &AppState, caller: &Caller, row: DomainRow) -> Result<DomainWithRecords, ApiError> {
    app.domains.ensure_keys(row.id, app.clock.now()).await?;
    let (domains, user) = (app.domains.clone(), caller.account.public_id.to_string());
    let view = app.db.read(move |connection| {
        let dns = domains.records(connection, &row)?.into_iter().map(RecordView::from).collect();
        Ok(DomainWithRecords { domain: DomainView::new(connection, &row, &user)?, dns })
    });
    Ok(view.await?)
}

/// `GET /api/domains`
pub(crate) async fn list(State(app): State<AppState>, caller: Caller) -> Result<Json<Vec<DomainView>>, ApiError> {
    let views = app.db.read(move |connection| {
        let user = caller.account.public_id.as_str();
        let rows = domains::list(connection, caller.id(), caller.scope())?;
        rows.iter().map(|row| DomainView::new(connection, row, user)).collect::<store::Result<_>>()
    });
    Ok(Json(views.await?))
}

/// `POST /api/domains`
#[derive(Deserialize, ToSchema)]
pub(crate) struct NewDomain {
    /// Two or more labels; non-ASCII names are stored as A-labels.
    #[serde(default)]
    #[schema(value_type = String, example = "acme.dev")]
    domain: Lenient<String>,
}

/// `POST /api/domains`
pub(crate) async fn add(
    State(app): State<AppState>,
    caller: Caller,
    body: Body,
) -> Result<(StatusCode, Json<DomainWithRecords>), ApiError> {
    let fields: NewDomain = body.fields()?;
    let text = fields.domain.required(|| ApiError::at(Code::BadDomain, "domain"))?;
    let name = name::parse(&text, &app.config.hostname)
        .map_err(|error| ApiError::field(Code::BadDomain, "domain", error.to_string()))?;
    let row = app.domains.add(caller.id(), name, app.clock.now()).await?;
    Ok((StatusCode::CREATED, Json(with_records(&app, &caller, row).await?)))
}

/// `GET /api/domains/:id`
pub(crate) async fn detail(
    State(app): State<AppState>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<Json<DomainWithRecords>, ApiError> {
    let row = find_own_domain(&app, &caller, &id).await?;
    Ok(Json(with_records(&app, &caller, row).await?))
}

/// `DELETE /api/domains/:id`
pub(crate) async fn delete(
    State(app): State<AppState>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<Json<OkView>, ApiError> {
    let row = find_own_domain(&app, &caller, &id).await?;
    let routes = app.domains.remove(&row).await?;
    app.webhooks.end_routes(routes, app.clock.now()).await?;
    Ok(OK)
}

/// The results of one check.
#[derive(Serialize, ToSchema)]
pub(crate) struct DnsChecks {
    mx: bool,
    spf: bool,
    dkim: bool,
    dmarc: bool,
}

impl From<Flags> for DnsChecks {
    fn from(flags: Flags) -> Self {
        Self { mx: flags.mx, spf: flags.spf, dkim: flags.dkim, dmarc: flags.dmarc }
    }
}

/// `POST /api/domains/:id/verify`
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct VerifiedView {
    /// `pending` or `verified`.
    #[schema(example = "verified")]
    status: &'static str,
    /// Results of this check; where DNS gave no answer, those of the check before.
    checks: DnsChecks,
    checked_at: Timestamp,
}

/// `POST /api/domains/:id/verify`
pub(crate) async fn verify(
    State(app): State<AppState>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<Json<VerifiedView>, ApiError> {
    let row = find_own_domain(&app, &caller, &id).await?;
    let now = app.clock.now();
    let verified = app.domains.verify(row, now).await?;
    Ok(Json(VerifiedView {
        status: status(&verified.domain),
        checks: verified.checks.into(),
        checked_at: verified.domain.checked_at.unwrap_or(now),
    }))
}

/// `POST /api/domains/:id/dkim/rotate`
pub(crate) async fn rotate_dkim(
    State(app): State<AppState>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<Json<DomainWithRecords>, ApiError> {
    let row = find_own_domain(&app, &caller, &id).await?;
    app.domains.rotate(&row, app.clock.now()).await?;
    Ok(Json(with_records(&app, &caller, row).await?))
}
