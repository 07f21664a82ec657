//! Who is asking: the credential of a request (contract 1.5).

use axum::extract::FromRequestParts;
use axum::http::header::AUTHORIZATION;
use axum::http::request::Parts;

use super::App;
use super::error::ApiError;
use crate::secrets::token_hash;
use crate::store::accounts;

/// The account whose API key came with the request.
pub struct Caller(pub accounts::Account);

impl FromRequestParts<App> for Caller {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, ApiError> {
        let missing = || ApiError::unauthorized("unauthorized", "missing or invalid credential");
        let header = parts.headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok()).ok_or_else(missing)?;
        let (scheme, token) = header.split_once(' ').ok_or_else(missing)?;
        let token = token.trim();
        if !scheme.eq_ignore_ascii_case("bearer") || token.is_empty() {
            return Err(missing());
        }
        let hash = token_hash(token);
        let found = app.db.read(move |connection| accounts::find_by_key_hash(connection, &hash)).await?;
        found.map(Self).ok_or_else(|| ApiError::unauthorized("bad_key", "unknown or revoked key"))
    }
}
