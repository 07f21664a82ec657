//! Transmissions of an outbound message: remote host and SMTP dialog of the last attempt per destination (ours).

use crate::store::Connection;
use axum::Json;
use axum::extract::State;
use serde::Serialize;
use utoipa::ToSchema;

use super::messages::{RecipientView, find_message};
use crate::clock::Timestamp;
use crate::http::AppState;
use crate::http::auth::Caller;
use crate::http::error::ApiError;
use crate::http::extract::Path;
use crate::id::{MessageId, RouteId};
use crate::store;
use crate::store::jobs::lane_pauses;
use crate::store::sending::dispatches;
use crate::store::sending::dispatches::DispatchRow;
use crate::store::sending::recipients;

/// Transmission of a message to one destination.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct TransmissionView {
    /// Envelope recipients, in the message's order.
    recipients: Vec<RecipientView>,
    /// The route that forwards it; null if it was submitted.
    #[schema(value_type = Option<String>)]
    route_id: Option<RouteId>,
    /// Attempts made.
    attempts: u32,
    /// Time of the last attempt.
    attempted_at: Option<Timestamp>,
    /// The remote host that decided the result; null if none was reached.
    host: Option<String>,
    /// TLS version, cipher suite, and the way the host's name was verified; null for plain text.
    tls: Option<String>,
    /// The SMTP dialog, without credentials and mail data.
    transcript: Option<String>,
    /// True once no recipient is waiting.
    settled: bool,
    /// Time of the next try while the destination's hosts accept nothing; else null.
    paused_until: Option<Timestamp>,
    /// Their reply, or that they did not answer; null unless paused.
    pause_reason: Option<String>,
}

/// `GET /api/messages/:id/transmissions`
pub(crate) async fn list(
    State(app): State<AppState>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<Json<Vec<TransmissionView>>, ApiError> {
    let id = MessageId::parse(&id).ok_or_else(ApiError::not_found)?;
    let now = app.clock.now();
    let found = app.db.try_read(move |connection| {
        let row = find_message(connection, &caller, &id)?;
        let all = dispatches::list_by_message(connection, row.id)?;
        Ok::<_, ApiError>(all.into_iter().map(|one| view(connection, one, now)).collect::<store::Result<_>>()?)
    });
    found.await.map(Json)
}

fn view(connection: &Connection, dispatch: DispatchRow, now: Timestamp) -> store::Result<TransmissionView> {
    let recipients = recipients::list(connection, dispatch.id)?;
    let (paused_until, pause_reason) =
        lane_pauses::of_dispatch(connection, dispatch.id, now)?.map(|pause| (pause.until, pause.reason)).unzip();
    Ok(TransmissionView {
        recipients: recipients.into_iter().map(RecipientView::from).collect(),
        route_id: dispatch.route_id,
        attempts: dispatch.attempts,
        attempted_at: dispatch.attempted_at,
        host: dispatch.host,
        tls: dispatch.tls,
        transcript: dispatch.transcript,
        settled: dispatch.mail_data_id.is_none(),
        paused_until,
        pause_reason,
    })
}
