//! Health, readiness and metrics (contract 2.1).

use axum::Json;
use axum::extract::State;
use axum::http::header::{AUTHORIZATION, CONTENT_TYPE};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use serde_json::json;

use super::App;
use super::error::ApiError;
use crate::secrets::token_hash;

/// As soon as the process serves HTTP.
pub async fn health() -> Response {
    Json(json!({"ok": true})).into_response()
}

/// Whether mail can be taken and webhooks be made.
pub async fn ready(State(app): State<App>) -> Response {
    let readable = app.db.read(crate::store::search::indexed_to).await.is_ok();
    let storage = readable && app.db.is_healthy();
    if storage {
        return Json(json!({"ok": true, "checks": {"storage": true, "smtp": true, "queue": true}})).into_response();
    }
    let body = json!({
        "ok": false, "checks": {"storage": false, "smtp": true, "queue": false}, "error": "not ready", "code": "not_ready",
    });
    (StatusCode::SERVICE_UNAVAILABLE, [("retry-after", "5")], Json(body)).into_response()
}

/// The counters, on their own listener.
pub async fn metrics(State(app): State<App>) -> Response {
    ([(CONTENT_TYPE, "text/plain; version=0.0.4")], app.metrics.render(app.db.commits())).into_response()
}

/// The counters on the main listener, for who knows the token; for everyone else the path does not exist.
pub async fn metrics_with_token(state: State<App>, headers: HeaderMap) -> Response {
    let given =
        headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok()).and_then(|v| v.strip_prefix("Bearer "));
    let genuine = match (given, &state.config.metrics.token) {
        // Hashes are compared, so the time taken says nothing of the token.
        (Some(given), Some(token)) => token_hash(given) == token_hash(token),
        _ => false,
    };
    if genuine { metrics(state).await } else { ApiError::not_found().into_response() }
}
