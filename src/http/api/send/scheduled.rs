//! Cancellation of a scheduled send (contract 8.3).

use axum::Json;
use axum::extract::State;
use serde::Serialize;
use utoipa::ToSchema;

use crate::http::AppState;
use crate::http::auth::Caller;
use crate::http::error::{ApiError, Code};
use crate::http::extract::Path;
use crate::id::ScheduledId;
use crate::outbound::submit::scheduled::CancelError;
use crate::store::messages::MessageStatus;

/// `DELETE /v1/scheduled/:id`
#[derive(Serialize, ToSchema)]
pub(crate) struct CanceledView {
    /// Always true.
    ok: bool,
    #[schema(example = "ssnd_2Hk9QpVn4tLdA1B2")]
    id: String,
    /// `canceled`
    #[schema(example = "canceled")]
    status: &'static str,
}

impl From<CancelError> for ApiError {
    fn from(error: CancelError) -> Self {
        match error {
            CancelError::NotFound => Self::not_found(),
            CancelError::KeyScope => Code::KeyScope.into(),
            CancelError::AlreadySent => Code::AlreadySent.into(),
            CancelError::Store(error) => error.into(),
        }
    }
}

/// `DELETE /v1/scheduled/:id`
pub(crate) async fn cancel(
    State(app): State<AppState>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<Json<CanceledView>, ApiError> {
    let id = ScheduledId::parse(&id).ok_or_else(ApiError::not_found)?;
    app.outbound.cancel(caller.id(), caller.scope(), id.clone(), app.clock.now()).await?;
    Ok(Json(CanceledView { ok: true, id: id.to_string(), status: MessageStatus::Canceled.as_str() }))
}
