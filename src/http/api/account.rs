//! The caller's own account (contract 2.7).

use axum::Json;
use axum::extract::State;
use serde_json::{Value, json};

use crate::http::App;
use crate::http::auth::Caller;
use crate::http::error::ApiError;
use crate::store::domains;

/// `GET /v1/me`
pub async fn me(State(app): State<App>, Caller(account): Caller) -> Result<Json<Value>, ApiError> {
    let id = account.id;
    let sending = app.db.read(move |connection| domains::list_sending(connection, id)).await?;
    Ok(Json(json!({
        "id": account.public_id, "email": account.email, "emailVerified": account.email_verified,
        "plan": "self-hosted", "sendingDomains": sending, "isAdmin": account.is_admin,
    })))
}
