//! Suppressed recipients and blocked senders (contract 8.4).

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::clock::Timestamp;
use crate::http::AppState;
use crate::http::auth::Caller;
use crate::http::body::{Body, Lenient, OK, OkView, text};
use crate::http::error::{ApiError, Code};
use crate::http::extract::{Path, Query, integer};
use crate::limits::Kind;
use crate::mail::address::Mailbox;
use crate::store::sending::suppressions;
use crate::store::sending::suppressions::{Suppression, SuppressionReason};
use crate::store::webhooks::blocked_senders;
use crate::store::webhooks::blocked_senders::BlockedSender;

const MAX_LIMIT: i64 = 1_000;
const MAX_NOTE_CHARS: usize = 500;

/// `GET /api/contacts/suppressions`
#[derive(Deserialize, IntoParams)]
pub(crate) struct ListQuery {
    /// Only entries with a smaller `created_at`, in milliseconds.
    #[param(value_type = Option<i64>)]
    before: Option<String>,
    /// 1 to 1,000, which is the default; clamped.
    #[param(value_type = Option<i64>)]
    limit: Option<String>,
}

/// An address that nothing is sent to.
#[derive(Serialize, ToSchema)]
struct SuppressionView {
    #[schema(example = "x@example.com")]
    email: String,
    /// `manual`, `unsubscribe`, `bounce` or `complaint`.
    #[schema(example = "manual")]
    reason: &'static str,
    note: Option<String>,
    created_at: Timestamp,
}

impl From<Suppression> for SuppressionView {
    fn from(row: Suppression) -> Self {
        Self { email: row.email, reason: row.reason.as_str(), note: row.note, created_at: row.created_at }
    }
}

/// `GET /api/contacts/suppressions`
#[derive(Serialize, ToSchema)]
pub(crate) struct SuppressionList {
    /// Newest first.
    suppressions: Vec<SuppressionView>,
}

/// `POST /api/contacts/suppressions`
#[derive(Deserialize, ToSchema)]
pub(crate) struct SuppressionFields {
    #[serde(default)]
    #[schema(value_type = String, required = true, example = "x@example.com")]
    email: Lenient<String>,
    /// `manual` (also in place of an unknown word), `unsubscribe`, `bounce` or `complaint`.
    #[serde(default)]
    #[schema(value_type = Option<String>)]
    reason: Lenient<String>,
    /// At most 500 characters.
    #[serde(default)]
    #[schema(value_type = Option<String>)]
    note: Lenient<String>,
}

/// `POST /api/contacts/suppressions`
#[derive(Serialize, ToSchema)]
pub(crate) struct SuppressionAdded {
    /// Always true.
    ok: bool,
    suppression: SuppressionView,
}

/// A sender whose mail is stored as spam and calls no webhook.
#[derive(Serialize, ToSchema)]
pub(crate) struct BlockedView {
    #[schema(example = "x@example.com")]
    email: String,
    created_at: Timestamp,
}

impl From<BlockedSender> for BlockedView {
    fn from(row: BlockedSender) -> Self {
        Self { email: row.email, created_at: row.created_at }
    }
}

/// `POST /api/blocked-senders`
#[derive(Deserialize, ToSchema)]
pub(crate) struct BlockedFields {
    #[serde(default)]
    #[schema(value_type = String, required = true, example = "x@example.com")]
    email: Lenient<String>,
}

/// Reads the address of a field, in canonical form.
fn address(given: Lenient<String>) -> Result<String, ApiError> {
    let bad = || ApiError::at(Code::BadAddress, "email");
    let text = given.required(bad)?;
    normalized(&text).ok_or_else(bad)
}

/// Returns the stored form of an address.
fn normalized(text: &str) -> Option<String> {
    Mailbox::parse_received(text.trim()).ok().map(|mailbox| mailbox.canonical())
}

/// `GET /api/contacts/suppressions`
pub(crate) async fn list(
    State(app): State<AppState>,
    caller: Caller,
    Query(query): Query<ListQuery>,
) -> Result<Json<SuppressionList>, ApiError> {
    let before = integer("before", query.before.as_deref())?;
    let limit = integer("limit", query.limit.as_deref())?.unwrap_or(MAX_LIMIT).clamp(1, MAX_LIMIT);
    let limit = u32::try_from(limit).unwrap_or(1);
    let rows = app.db.read(move |connection| suppressions::list(connection, caller.id(), before, limit)).await?;
    Ok(Json(SuppressionList { suppressions: rows.into_iter().map(Into::into).collect() }))
}

/// `POST /api/contacts/suppressions`
pub(crate) async fn add(
    State(app): State<AppState>,
    caller: Caller,
    body: Body,
) -> Result<(StatusCode, Json<SuppressionAdded>), ApiError> {
    let fields: SuppressionFields = body.fields()?;
    let email = address(fields.email)?;
    let reason = match &fields.reason {
        Lenient::Given(word) => SuppressionReason::from_word(word).unwrap_or(SuppressionReason::Manual),
        Lenient::Absent | Lenient::Wrong => SuppressionReason::Manual,
    };
    let note = text(fields.note, "note")?;
    if note.as_ref().is_some_and(|note| note.chars().count() > MAX_NOTE_CHARS) {
        return Err(ApiError::field(Code::BadRequest, "note", "a note has at most 500 characters"));
    }
    let now = app.clock.now();
    let limits = Arc::clone(&app.account_limits);
    let put = app.db.write(move |tx| {
        if suppressions::find_suppressed(tx, caller.id(), std::slice::from_ref(&email))?.is_empty() {
            limits.admit(tx, caller.id(), Kind::Suppressions)?;
        }
        suppressions::put(tx, caller.id(), &email, reason, note.as_deref(), now)
    });
    let (row, new) = put.await?;
    let status = if new { StatusCode::CREATED } else { StatusCode::OK };
    Ok((status, Json(SuppressionAdded { ok: true, suppression: row.into() })))
}

/// `DELETE /api/contacts/suppressions/:email`
pub(crate) async fn remove(
    State(app): State<AppState>,
    caller: Caller,
    Path(email): Path<String>,
) -> Result<Json<OkView>, ApiError> {
    let email = normalized(&email).unwrap_or(email);
    app.db.write_removal(move |tx| suppressions::delete(tx, caller.id(), &email)).await?;
    Ok(OK)
}

/// `GET /api/blocked-senders`
pub(crate) async fn list_blocked(
    State(app): State<AppState>,
    caller: Caller,
) -> Result<Json<Vec<BlockedView>>, ApiError> {
    let rows = app.db.read(move |connection| blocked_senders::list(connection, caller.id())).await?;
    Ok(Json(rows.into_iter().map(Into::into).collect()))
}

/// `POST /api/blocked-senders`
pub(crate) async fn block(
    State(app): State<AppState>,
    caller: Caller,
    body: Body,
) -> Result<(StatusCode, Json<BlockedView>), ApiError> {
    let fields: BlockedFields = body.fields()?;
    let email = address(fields.email)?;
    let (now, limits) = (app.clock.now(), Arc::clone(&app.account_limits));
    let put = app.db.write(move |tx| {
        let known = blocked_senders::find(tx, caller.id(), &email)?;
        let new = known.is_none();
        if new {
            limits.admit(tx, caller.id(), Kind::BlockedSenders)?;
            blocked_senders::insert(tx, caller.id(), &email, now)?;
        }
        Ok((known.unwrap_or(BlockedSender { email, created_at: now }), new))
    });
    let (row, new) = put.await?;
    Ok((if new { StatusCode::CREATED } else { StatusCode::OK }, Json(row.into())))
}

/// `DELETE /api/blocked-senders/:email`
pub(crate) async fn unblock(
    State(app): State<AppState>,
    caller: Caller,
    Path(email): Path<String>,
) -> Result<Json<OkView>, ApiError> {
    let email = normalized(&email).unwrap_or(email);
    app.db.write_removal(move |tx| blocked_senders::delete(tx, caller.id(), &email)).await?;
    Ok(OK)
}
