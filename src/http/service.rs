//! Health, readiness and metrics (contract 2.1).

use axum::Json;
use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde_json::json;
use utoipa::ToSchema;

use super::AppState;
use super::auth::bearer;
use super::error::ApiError;
use crate::process::data_dir::DataDir;
use crate::secrets::token_hash;

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

/// Renders metrics of waiting attempts, password hashes and key generations.
fn render_waiting(app: &AppState) -> String {
    let (passwords, keys) = (app.accounts.passwords.queue_stats(), app.domains.keys.figures());
    let costly = format!(
        "# HELP mailkite_costly_work_waiting Requests that wait for a password hash or an RSA key.\n\
         # TYPE mailkite_costly_work_waiting gauge\nmailkite_costly_work_waiting {}\n\
         # HELP mailkite_costly_work_refused_total Such requests that were refused because too many waited.\n\
         # TYPE mailkite_costly_work_refused_total counter\nmailkite_costly_work_refused_total {}\n",
        passwords.0 + keys.0,
        passwords.1 + keys.1,
    );
    app.webhooks.jobs.figures().render() + &costly
}

/// Serves the metrics on their own listener.
pub(crate) async fn metrics(State(app): State<AppState>) -> Response {
    app.metrics.set_objects(app.objects.damaged_count(), app.objects.kept_orphans());
    (
        [(CONTENT_TYPE, "text/plain; version=0.0.4")],
        app.metrics.render(app.db.commits())
            + &app.db.render()
            + &app.account_limits.render()
            + &app.memory.render()
            + &app.connections.render()
            + &render_waiting(&app),
    )
        .into_response()
}

/// Serves the metrics on the main listener to clients with the token; for others the path does not exist.
pub(crate) async fn metrics_with_token(state: State<AppState>, headers: HeaderMap) -> Response {
    let genuine = match (bearer(&headers), &state.config.metrics.token) {
        // Hashes are compared, so the timing reveals nothing of the token.
        (Some(given), Some(token)) => token_hash(given) == token_hash(token),
        _ => false,
    };
    if genuine { metrics(state).await } else { ApiError::not_found().into_response() }
}
