//! The caller's account: profile, usage, API keys and webhook secret (contract 2.7–2.10).

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use jiff::ToSpan as _;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::domains::find_domain;
use crate::clock::Timestamp;
use crate::http::AppState;
use crate::http::auth::Caller;
use crate::http::body::{Body, Lenient, OK, OkView, required, text};
use crate::http::error::{ApiError, Code};
use crate::http::extract::Path;
use crate::id::KeyId;
use crate::limits::{Kind, Stored};
use crate::secrets::{self, token_hash};
use crate::store::accounts::{domains, keys};
use crate::store::messages;

/// Name of a self-hosted account's plan.
const PLAN: &str = "self-hosted";
const MAX_NAME_CHARS: usize = 100;
/// Characters of a key that lists show.
const PREFIX_CHARS: usize = 12;

/// `GET /v1/me`
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Me {
    #[schema(example = "usr_7fA2kQpVn4tLdA1B")]
    id: String,
    #[schema(example = "ada@acme.dev")]
    email: String,
    email_verified: bool,
    #[schema(example = "self-hosted")]
    plan: &'static str,
    /// Names of the domains that mail can be sent from.
    sending_domains: Vec<String>,
    is_admin: bool,
    storage: StorageView,
}

/// Storage used by the account (contract 2.11).
#[derive(Serialize, ToSchema)]
pub(crate) struct StorageView {
    /// Bytes of messages, files, templates and captures.
    #[schema(example = 73_400_320)]
    used: u64,
    /// Limit in bytes; null is no limit.
    #[schema(example = 2_147_483_648_u64)]
    limit: Option<u64>,
}

impl From<Stored> for StorageView {
    fn from(stored: Stored) -> Self {
        Self { used: stored.used, limit: stored.most }
    }
}

/// `GET /v1/me`
pub(crate) async fn me(State(app): State<AppState>, caller: Caller) -> Result<Json<Me>, ApiError> {
    let (id, scope) = (caller.id(), caller.scope());
    let limits = Arc::clone(&app.account_limits);
    let found = app
        .db
        .read(move |connection| Ok((domains::list_sending(connection, id, scope)?, limits.stored(connection, id)?)));
    let (sending_domains, stored) = found.await?;
    Ok(Json(Me {
        id: caller.account.public_id.to_string(),
        email: caller.account.email,
        email_verified: caller.account.email_verified,
        plan: PLAN,
        sending_domains,
        is_admin: caller.account.is_admin,
        storage: stored.into(),
    }))
}

/// `GET /api/billing/usage`
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Usage {
    #[schema(example = "self-hosted")]
    plan: &'static str,
    /// Always null: nothing is metered.
    included: Option<u64>,
    /// Outbound messages of the account in the current calendar month, UTC.
    used: u64,
    overage: bool,
    period_start: Timestamp,
    /// Exclusive.
    period_end: Timestamp,
    storage: StorageView,
}

/// `GET /api/billing/usage`
pub(crate) async fn usage(State(app): State<AppState>, caller: Caller) -> Result<Json<Usage>, ApiError> {
    let (start, end) = month_of(app.clock.now());
    let id = caller.id();
    let limits = Arc::clone(&app.account_limits);
    let found = app.db.read(move |connection| {
        Ok((messages::count_outbound(connection, id, start, end)?, limits.stored(connection, id)?))
    });
    let (used, stored) = found.await?;
    Ok(Json(Usage {
        plan: PLAN,
        included: None,
        used,
        overage: false,
        period_start: start,
        period_end: end,
        storage: stored.into(),
    }))
}

/// Returns the begin and end of the calendar month, in UTC.
fn month_of(now: Timestamp) -> (Timestamp, Timestamp) {
    let utc = now.zoned();
    let start = utc.first_of_month().and_then(|day| day.start_of_day()).unwrap_or(utc);
    let end = start.checked_add(1.month()).unwrap_or_else(|_| start.clone());
    let millis = |at: &jiff::Zoned| Timestamp::from_millis(at.timestamp().as_millisecond());
    (millis(&start), millis(&end))
}

/// An API key.
#[derive(Serialize, ToSchema)]
pub(crate) struct Key {
    #[schema(example = "mk_live_a1B2c3D4e5F6g7H8i9J0k1L2m3N4o5P6q7R8s9T0")]
    key: String,
}

/// `GET /api/keys`: creates the key if there is none.
pub(crate) async fn key(State(app): State<AppState>, caller: Caller) -> Result<Json<Key>, ApiError> {
    Ok(Json(Key { key: app.accounts.api_key(caller.id(), app.clock.now()).await? }))
}

/// `POST /api/keys/rotate`
pub(crate) async fn rotate_key(State(app): State<AppState>, caller: Caller) -> Result<Json<Key>, ApiError> {
    Ok(Json(Key { key: app.accounts.rotate_api_key(caller.id(), app.clock.now()).await? }))
}

/// A key that is limited to one domain (contract 2.8).
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ScopedKey {
    #[schema(example = "key_1QaZ2wSx3EdC4rFv")]
    id: String,
    #[schema(example = "blog")]
    name: String,
    #[schema(example = "dom_2VbXqTpN8rKwM3Ys")]
    domain_id: String,
    #[schema(example = "acme.dev")]
    domain: String,
    /// First characters of the key.
    #[schema(example = "mk_live_a1B2")]
    prefix: String,
    created_at: Timestamp,
    last_used_at: Option<Timestamp>,
    /// The key; shown only in this answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    key: Option<String>,
}

/// `GET /api/keys/scoped`
pub(crate) async fn scoped_keys(
    State(app): State<AppState>,
    caller: Caller,
) -> Result<Json<Vec<ScopedKey>>, ApiError> {
    let id = caller.id();
    let rows = app.db.read(move |connection| keys::list_scoped(connection, id)).await?;
    let view = |row: keys::ScopedKey| {
        let key = app.secrets.open_text(keys::PURPOSE, &row.key_sealed).unwrap_or_default();
        ScopedKey {
            id: row.public_id.to_string(),
            name: row.name,
            domain_id: row.domain_id.to_string(),
            domain: row.domain_name,
            prefix: key.chars().take(PREFIX_CHARS).collect(),
            created_at: row.created_at,
            last_used_at: row.last_used_at,
            key: None,
        }
    };
    Ok(Json(rows.into_iter().map(view).collect()))
}

/// `POST /api/keys/scoped`
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct NewScopedKey {
    /// Id or name of a domain of the account.
    #[serde(default)]
    #[schema(value_type = String, example = "acme.dev")]
    domain_id: Lenient<String>,
    /// At most 100 characters; by default the domain's name.
    #[serde(default)]
    #[schema(value_type = Option<String>, example = "blog")]
    name: Lenient<String>,
}

/// `POST /api/keys/scoped`
pub(crate) async fn new_scoped_key(
    State(app): State<AppState>,
    caller: Caller,
    body: Body,
) -> Result<(StatusCode, Json<ScopedKey>), ApiError> {
    let fields: NewScopedKey = body.fields()?;
    let domain = required(fields.domain_id, "domainId")?;
    let name = text(fields.name, "name")?.map(|name| name.trim().to_owned()).unwrap_or_default();
    if name.chars().count() > MAX_NAME_CHARS || name.chars().any(char::is_control) {
        return Err(ApiError::field(Code::BadRequest, "name", "a name has at most 100 characters, on one line"));
    }
    let (account, now, key) = (caller.id(), app.clock.now(), secrets::new_api_key());
    let (hash, sealed) = (token_hash(&key), app.secrets.seal(keys::PURPOSE, key.as_bytes()));
    let limits = Arc::clone(&app.account_limits);
    let created = app.db.write(move |tx| {
        let Some(domain) = find_domain(tx, account, &domain)? else {
            return Ok(None);
        };
        limits.admit(tx, account, Kind::ScopedKeys)?;
        let name = if name.is_empty() { domain.name.clone() } else { name };
        // The domain's name, which is the default, may be longer.
        let name: String = name.chars().take(MAX_NAME_CHARS).collect();
        let id = keys::insert_scoped(tx, account, domain.id, &name, &hash, &sealed, now)?;
        Ok(Some((id, name, domain)))
    });
    let (id, name, domain) = created.await?.ok_or(Code::DomainNotOwned)?;
    let view = ScopedKey {
        id: id.to_string(),
        name,
        domain_id: domain.public_id.to_string(),
        domain: domain.name,
        prefix: key.chars().take(PREFIX_CHARS).collect(),
        created_at: now,
        last_used_at: None,
        key: Some(key),
    };
    Ok((StatusCode::CREATED, Json(view)))
}

/// `DELETE /api/keys/scoped/:id`
pub(crate) async fn delete_scoped_key(
    State(app): State<AppState>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<Json<OkView>, ApiError> {
    let (account, id) = (caller.id(), find_scoped_key(&app, &caller, &id).await?);
    app.db.write_removal(move |tx| keys::delete_scoped(tx, account, &id)).await?;
    Ok(OK)
}

/// Looks up the scoped key of a path.
///
/// # Errors
/// 404.
pub(crate) async fn scoped_key_exists(app: AppState, caller: Caller, id: String) -> Result<(), ApiError> {
    find_scoped_key(&app, &caller, &id).await.map(drop)
}

async fn find_scoped_key(app: &AppState, caller: &Caller, id: &str) -> Result<KeyId, ApiError> {
    let (account, id) = (caller.id(), KeyId::parse(id).ok_or_else(ApiError::not_found)?);
    let wanted = id.clone();
    let found = app.db.read(move |connection| keys::has_scoped(connection, account, &wanted)).await?;
    if found { Ok(id) } else { Err(ApiError::not_found()) }
}

/// A webhook signing secret.
#[derive(Serialize, ToSchema)]
pub(crate) struct Secret {
    #[schema(example = "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=")]
    pub(crate) secret: String,
}

/// A new webhook signing secret.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct RotatedSecret {
    /// The new secret.
    #[schema(example = "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=")]
    pub(crate) secret: String,
    /// Until then the old secret signs, too.
    pub(crate) previous_valid_until: Timestamp,
}

/// `GET /api/webhooks/secret`
pub(crate) async fn webhook_secret(State(app): State<AppState>, caller: Caller) -> Result<Json<Secret>, ApiError> {
    Ok(Json(Secret { secret: app.accounts.webhook_secret(caller.id()).await? }))
}

/// `POST /api/webhooks/secret/rotate`
pub(crate) async fn rotate_webhook_secret(
    State(app): State<AppState>,
    caller: Caller,
) -> Result<Json<RotatedSecret>, ApiError> {
    let (secret, previous_valid_until) = app.accounts.rotate_webhook_secret(caller.id(), app.clock.now()).await?;
    Ok(Json(RotatedSecret { secret, previous_valid_until }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_month_begins_and_ends_in_utc() {
        let (start, end) = month_of(Timestamp::from_millis(1_798_761_599_999));
        assert_eq!(
            (start.iso().as_str(), end.iso().as_str()),
            ("2026-12-01T00:00:00.000Z", "2027-01-01T00:00:00.000Z")
        );
    }
}
