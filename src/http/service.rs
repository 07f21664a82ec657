//! Health and readiness (contract 2.1).

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde_json::json;
use utoipa::ToSchema;

use super::AppState;
use crate::process::data_dir::DataDir;

/// `GET /api/health`
#[derive(Serialize, ToSchema)]
pub(crate) struct Health {
    #[schema(example = true)]
    ok: bool,
}

/// Succeeds as soon as the process serves HTTP.
pub(crate) async fn health() -> Json<Health> {
    Json(Health { ok: true })
}

/// Parts that mail and webhooks need.
#[derive(Serialize, ToSchema)]
pub(crate) struct ReadyChecks {
    /// The database can be read, there is room, and commits become durable within seconds.
    storage: bool,
    /// An SMTP listener accepts connections.
    smtp: bool,
    /// The job engine for webhooks and mail is running.
    queue: bool,
}

/// `GET /api/ready`
#[derive(Serialize, ToSchema)]
pub(crate) struct Ready {
    ok: bool,
    checks: ReadyChecks,
}

/// Checks that mail can be accepted and webhooks be sent; every check is made anew.
pub(crate) async fn ready(State(app): State<AppState>) -> Response {
    let readable = app.db.read(crate::store::search::indexed_to).await.is_ok();
    let roomy = !app.inbound.is_full() && DataDir::has_room(&app.config.data_dir);
    let checks = ReadyChecks {
        storage: readable && roomy && app.db.is_committing().await,
        smtp: app.metrics.has_open_listener(),
        queue: app.webhooks.jobs.are_attempted(),
    };
    if checks.storage && checks.smtp && checks.queue {
        return Json(Ready { ok: true, checks }).into_response();
    }
    let body = json!({"ok": false, "checks": checks, "error": "not ready", "code": "not_ready"});
    (StatusCode::SERVICE_UNAVAILABLE, [("retry-after", "5")], Json(body)).into_response()
}
