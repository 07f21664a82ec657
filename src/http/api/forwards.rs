//! Pages on which an address confirms or declines forwarded mail (contract 4.6). Opening a link changes nothing:
//! programs follow links in mail.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use serde::Deserialize;
use utoipa::IntoParams;

use crate::http::AppState;
use crate::http::error::ApiError;
use crate::http::extract::Query;
use crate::http::pages::{confirmation_page, result_page};
use crate::store::sending::destinations::Answer;

#[derive(Deserialize, IntoParams)]
pub(crate) struct TokenQuery {
    /// As mailed.
    #[serde(default)]
    #[param(value_type = String, required = true)]
    token: String,
}

/// `GET /api/forwards/confirm`
pub(crate) async fn show_confirm(
    State(app): State<AppState>,
    Query(query): Query<TokenQuery>,
) -> Result<Response, ApiError> {
    let text = "Somebody wants to forward mail to your address. It starts only if you confirm.";
    show(&app, &query.token, || confirmation_page("Do you want this mail?", text, "Yes, forward it to me")).await
}

/// `GET /api/forwards/decline`
pub(crate) async fn show_decline(
    State(app): State<AppState>,
    Query(query): Query<TokenQuery>,
) -> Result<Response, ApiError> {
    let text = "Nothing is forwarded to you then, and you are not asked again for a long time.";
    show(&app, &query.token, || confirmation_page("Do you not want this mail?", text, "No, and do not ask again"))
        .await
}

/// `POST /api/forwards/confirm`
pub(crate) async fn confirm(
    State(app): State<AppState>,
    Query(query): Query<TokenQuery>,
) -> Result<Response, ApiError> {
    answer(&app, &query.token, Answer::Confirmed, "Mail is forwarded to you").await
}

/// `POST /api/forwards/decline`
pub(crate) async fn decline(
    State(app): State<AppState>,
    Query(query): Query<TokenQuery>,
) -> Result<Response, ApiError> {
    answer(&app, &query.token, Answer::Declined, "Nothing is forwarded to you").await
}

async fn show(app: &AppState, token: &str, page: impl Fn() -> Response) -> Result<Response, ApiError> {
    let valid = app.accounts.is_destination_token(token, app.clock.now()).await?;
    Ok(if valid { page() } else { not_valid() })
}

async fn answer(app: &AppState, token: &str, answer: Answer, title: &str) -> Result<Response, ApiError> {
    let valid = app.accounts.answer_destination(token, answer, app.clock.now()).await?;
    Ok(if valid { result_page(StatusCode::OK, title, "You can close this page.") } else { not_valid() })
}

fn not_valid() -> Response {
    let text = "It is older than a week, a later mail replaced it, or it was not copied whole.";
    result_page(StatusCode::BAD_REQUEST, "This link is not valid", text)
}
