//! A forgotten password: the mail with a link, and the new password by that link (contract 2.6).

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use serde::Deserialize;
use utoipa::ToSchema;

use super::auth::{email, new_password};
use super::login_attempt::LoginAttempt;
use crate::accounts::Refusal;
use crate::http::AppState;
use crate::http::body::{Body, Lenient, OK, OkView, required};
use crate::http::client::ClientAddress;
use crate::http::error::ApiError;
use crate::metrics::RateLimit;

/// `POST /api/auth/password/forgot`
#[derive(Deserialize, ToSchema)]
pub(crate) struct ForgottenPassword {
    #[serde(default)]
    #[schema(value_type = String, example = "ada@acme.dev")]
    email: Lenient<String>,
}

/// `POST /api/auth/password/forgot`: the answer and its time are the same for every address, since the account is
/// looked up after it.
pub(crate) async fn forgot(
    State(app): State<AppState>,
    client: ClientAddress,
    body: Body,
) -> Result<Json<OkView>, ApiError> {
    let fields: ForgottenPassword = body.fields()?;
    let email = email(fields.email)?;
    let now = app.clock.now();
    app.limits
        .password_links_per_client
        .take(&client.narrow_key(), now)
        .map_err(app.rate_limited(RateLimit::SignIn))?;
    if client.claimed.is_some() {
        app.limits.password_links_per_proxy.take(&client.key(), now).map_err(app.rate_limited(RateLimit::SignIn))?;
    }
    let turn = Arc::clone(&app.limits.password_links_at_once).acquire_owned().await;
    let accounts = Arc::clone(&app.accounts);
    tokio::spawn(async move {
        if let Err(error) = accounts.mail_password_link(email, now).await {
            tracing::warn!(%error, "a mail with a link for a new password was not queued");
        }
        drop(turn);
    });
    Ok(OK)
}

/// `POST /api/auth/password/reset`
#[derive(Deserialize, ToSchema)]
pub(crate) struct NewPassword {
    /// The last part of the mailed link.
    #[serde(default)]
    #[schema(value_type = String)]
    token: Lenient<String>,
    /// As in `POST /api/auth/signup`.
    #[serde(default)]
    #[schema(value_type = String, example = "correct horse battery")]
    password: Lenient<String>,
}

/// `POST /api/auth/password/reset`
pub(crate) async fn reset(
    State(app): State<AppState>,
    client: ClientAddress,
    body: Body,
) -> Result<Json<OkView>, ApiError> {
    let fields: NewPassword = body.fields()?;
    let token = required(fields.token, "token")?;
    let attempt = LoginAttempt::begin_at(&app, &client, Vec::new()).await?;
    let now = app.clock.now();
    let Some(account) = app.accounts.find_by_password_link(&token, now).await? else {
        attempt.end(&Err::<(), _>(Refusal::BadLink));
        return Err(Refusal::BadLink.into());
    };
    let password = match new_password(fields.password, "password", &account.email) {
        Ok(password) => password,
        Err(weak) => {
            attempt.forgive();
            return Err(weak);
        }
    };
    let reset = app.accounts.reset_password(&token, password, &client.session().turn, now).await;
    attempt.end(&reset);
    reset?;
    tracing::info!(account = %account.public_id, "a password was set by a mailed link");
    Ok(OK)
}
