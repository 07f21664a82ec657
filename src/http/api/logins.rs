//! Sessions of an account: list and end them (ours).

use axum::Json;
use axum::extract::State;
use serde::Serialize;
use utoipa::ToSchema;

use crate::clock::Timestamp;
use crate::http::AppState;
use crate::http::auth::Caller;
use crate::http::body::{OK, OkView};
use crate::http::error::ApiError;
use crate::http::extract::Path;
use crate::store::accounts::sessions;

/// The sessions of an account.
#[derive(Serialize, ToSchema)]
pub(crate) struct Logins {
    /// Newest first, at most a hundred.
    sessions: Vec<LoginView>,
}

/// A session; its id is not a credential.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct LoginView {
    id: String,
    created_at: Timestamp,
    expires_at: Timestamp,
    user_agent: Option<String>,
    /// Client address of the sign-in.
    ip: String,
    /// True for the session of this request.
    current: bool,
}

/// `GET /api/auth/sessions`
pub(crate) async fn list(State(app): State<AppState>, caller: Caller) -> Result<Json<Logins>, ApiError> {
    let own = caller.session_id()?.to_owned();
    let (account, now) = (caller.id(), app.clock.now());
    let rows = app.db.read(move |connection| sessions::list(connection, account, now)).await?;
    let view = |row: sessions::SessionRow| LoginView {
        current: row.jti == own,
        id: row.jti,
        created_at: row.created_at,
        expires_at: row.expires_at,
        user_agent: Some(row.user_agent).filter(|agent| !agent.is_empty()),
        ip: row.client_address,
    };
    Ok(Json(Logins { sessions: rows.into_iter().map(view).collect() }))
}

/// `DELETE /api/auth/sessions/:id`
pub(crate) async fn end(
    State(app): State<AppState>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<Json<OkView>, ApiError> {
    let account = caller.id();
    let ended = app.db.write_removal(move |tx| sessions::delete_own(tx, account, &id)).await?;
    if ended { Ok(OK) } else { Err(ApiError::not_found()) }
}
