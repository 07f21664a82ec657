//! Sign-up, login and logout, passwords, e-mail verification (contract 2.2–2.6).

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::login_attempt::LoginAttempt;
use crate::accounts::google::{GoogleError, Grant};
use crate::accounts::{GoogleUser, Proof, Refusal, SignedIn, Verification, email_of};
use crate::event_bus::mail_log::{self, Via};
use crate::fair_semaphore::QueueFull;
use crate::http::AppState;
use crate::http::auth::Caller;
use crate::http::body::{AllowEmpty, Body, Lenient, OK, OkView, missing, required, text};
use crate::http::client::ClientAddress;
use crate::http::error::{ApiError, Code};
use crate::http::extract::Query;
use crate::http::pages::{confirmation_page, result_page};
use crate::mail::address::Mailbox;
use crate::metrics::RateLimit;
use crate::secrets::passwords;
use crate::secrets::passwords::HashError;
use crate::store::accounts::Account;
use crate::store::accounts::sessions;

/// The caller's account (contract 2.5).
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct User {
    #[schema(example = "usr_7fA2kQpVn4tLdA1B")]
    id: String,
    #[schema(example = "ada@acme.dev")]
    email: String,
    /// True for the owner of the installation.
    is_admin: bool,
    email_verified: bool,
    avatar_url: Option<String>,
}

impl User {
    fn new(account: &Account) -> Self {
        Self {
            id: account.public_id.to_string(),
            email: account.email.clone(),
            is_admin: account.is_admin,
            email_verified: account.email_verified,
            avatar_url: account.avatar_url.clone(),
        }
    }
}

/// A new session.
#[derive(Serialize, ToSchema)]
pub(crate) struct Session {
    /// A JWT; valid for seven days, until logout, or until the password changes.
    token: String,
    user: User,
}

impl From<SignedIn> for Session {
    fn from(signed_in: SignedIn) -> Self {
        Self { user: User::new(&signed_in.account), token: signed_in.token }
    }
}

impl From<Refusal> for ApiError {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::SignupClosed => Code::SignupClosed.into(),
            Refusal::SetupToken => Code::SetupToken.into(),
            Refusal::AccountExists => Code::AccountExists.into(),
            Refusal::BadLogin => Code::BadLogin.into(),
            Refusal::WrongPassword => Code::WrongPassword.into(),
            Refusal::PasswordMissing => missing("currentPassword"),
            Refusal::BadLink => Code::BadLink.into(),
            Refusal::Store(error) => error.into(),
            Refusal::Hash(HashError::QueueFull(_)) => Self::rate_limited(QueueFull::RETRY_AFTER_SECS),
            Refusal::Hash(error @ HashError::Failed) => {
                tracing::error!(%error, "a request failed");
                Code::Internal.into()
            }
        }
    }
}

/// `POST /api/auth/signup`
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct SignUp {
    /// One address, up to 254 characters; trimmed and lower-cased.
    #[serde(default)]
    #[schema(value_type = String, example = "ada@acme.dev")]
    email: Lenient<String>,
    /// At least 10 characters, at most 1,024 bytes, not the e-mail or its local part.
    #[serde(default)]
    #[schema(value_type = String, example = "correct horse battery")]
    password: Lenient<String>,
    /// Proves that the first account's owner runs the server; not needed on this machine in dev mode.
    #[serde(default)]
    #[schema(value_type = Option<String>)]
    setup_token: Lenient<String>,
}

/// Reads one e-mail address, normalized.
pub(super) fn email(field: Lenient<String>) -> Result<String, ApiError> {
    let bad = || ApiError::at(Code::BadAddress, "email");
    email_of(&field.required(bad)?).ok_or_else(bad)
}

pub(super) fn new_password(field: Lenient<String>, name: &'static str, email: &str) -> Result<String, ApiError> {
    let password = field.required(|| ApiError::field(Code::WeakPassword, name, "a password is required"))?;
    passwords::check(&password, email).map_err(|weak| ApiError::field(Code::WeakPassword, name, weak.to_string()))?;
    Ok(password)
}

fn proof(setup_token: Lenient<String>, client: &ClientAddress) -> Result<Proof, ApiError> {
    Ok(Proof { token: text(setup_token, "setupToken")?, over_loopback: client.over_loopback })
}

/// `POST /api/auth/signup`
pub(crate) async fn sign_up(
    State(app): State<AppState>,
    client: ClientAddress,
    _: SignUpLimit,
    body: Body,
) -> Result<(StatusCode, Json<Session>), ApiError> {
    let fields: SignUp = body.fields()?;
    let email = email(fields.email)?;
    let password = new_password(fields.password, "password", &email)?;
    let proof = proof(fields.setup_token, &client)?;
    let signed_in = app.accounts.sign_up(email, password, proof, client.session(), app.clock.now()).await;
    log_setup_token(&signed_in, &client);
    Ok((StatusCode::CREATED, Json(signed_in?.into())))
}

/// Logs a sign-up that was refused for its setup token.
fn log_setup_token(result: &Result<SignedIn, Refusal>, client: &ClientAddress) {
    if matches!(result, Err(Refusal::SetupToken)) {
        ApiError::from(Code::SetupToken).log_credential(Via::Login, client.address);
    }
}

/// Counts a sign-up of the client address before the body is read (contract 1.7).
pub(crate) struct SignUpLimit;

impl axum::extract::FromRequestParts<AppState> for SignUpLimit {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut axum::http::request::Parts, app: &AppState) -> Result<Self, ApiError> {
        let client = ClientAddress::from_request_parts(parts, app).await?;
        let now = app.clock.now();
        let limited = app.rate_limited(RateLimit::SignUp);
        app.limits.signups_per_client.take(&client.narrow_key(), now).map_err(&limited)?;
        if client.claimed.is_some() {
            app.limits.signups_per_proxy.take(&client.key(), now).map_err(&limited)?;
        }
        Ok(Self)
    }
}

/// `POST /api/auth/login`
#[derive(Deserialize, ToSchema)]
pub(crate) struct LogIn {
    #[serde(default)]
    #[schema(value_type = String, example = "ada@acme.dev")]
    email: AllowEmpty,
    #[serde(default)]
    #[schema(value_type = String, example = "correct horse battery")]
    password: AllowEmpty,
    /// Instead of both: the token of a link printed by `mailkite user` or `mailkite dev`, which signs in once.
    #[serde(default)]
    #[schema(value_type = Option<String>)]
    ticket: AllowEmpty,
}

/// `POST /api/auth/login`: by e-mail and password, or by a ticket.
pub(crate) async fn log_in(
    State(app): State<AppState>,
    client: ClientAddress,
    body: Body,
) -> Result<Json<Session>, ApiError> {
    let fields: LogIn = body.fields()?;
    // With an e-mail, an empty ticket counts as absent.
    let has_email = matches!(fields.email.0, Lenient::Given(_));
    if let Lenient::Given(ticket) = fields.ticket.0
        && !(ticket.is_empty() && has_email)
    {
        let attempt = LoginAttempt::begin(&app, &client, "").await?;
        let result = app.accounts.log_in_with_ticket(&ticket, client.session(), app.clock.now()).await;
        attempt.end(&result);
        return Ok(Json(result?.into()));
    }
    let email = required(fields.email.0, "email")?;
    // A malformed address is looked up as given, and not found.
    let email =
        Mailbox::parse(email.trim()).map_or_else(|_| email.trim().to_lowercase(), |mailbox| mailbox.canonical());
    let password = required(fields.password.0, "password")?;
    let attempt = LoginAttempt::begin(&app, &client, &email).await?;
    let result = app.accounts.log_in(email, password, client.session(), app.clock.now()).await;
    attempt.end(&result);
    Ok(Json(result?.into()))
}

/// `POST /api/auth/google`
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct GoogleSignIn {
    /// Authorization code that Google gave the browser.
    #[serde(default)]
    #[schema(value_type = String)]
    code: Lenient<String>,
    /// The redirect URI with which the code was requested; by default the configured one.
    #[serde(default)]
    #[schema(value_type = Option<String>)]
    redirect_uri: Lenient<String>,
    /// Required if the code was requested with a `code_challenge`: 43 to 128 characters.
    #[serde(default)]
    #[schema(value_type = Option<String>)]
    code_verifier: Lenient<String>,
    /// As in `POST /api/auth/signup`.
    #[serde(default)]
    #[schema(value_type = Option<String>)]
    setup_token: Lenient<String>,
}

/// `POST /api/auth/google`: creates an account if there is none.
pub(crate) async fn google(
    State(app): State<AppState>,
    client: ClientAddress,
    body: Body,
) -> Result<Json<Session>, ApiError> {
    let fields: GoogleSignIn = body.fields()?;
    let code = required(fields.code, "code")?;
    if code.is_empty() {
        return Err(missing("code"));
    }
    let redirect_uri = text(fields.redirect_uri, "redirectUri")?;
    let code_verifier = text(fields.code_verifier, "codeVerifier")?;
    let proof = proof(fields.setup_token, &client)?;
    let attempt = LoginAttempt::begin_at(&app, &client, Vec::new()).await?;
    let grant = Grant { code: &code, redirect_uri: redirect_uri.as_deref(), code_verifier: code_verifier.as_deref() };
    let identity = match app.google.sign_in(grant, app.clock.now()).await {
        Ok(identity) => identity,
        Err(GoogleError::NotConfigured) => {
            attempt.forgive();
            return Err(Code::GoogleNotConfigured.into());
        }
        Err(GoogleError::Rejected(reason)) => {
            tracing::debug!(%reason, "a Google sign-in was rejected");
            let error = ApiError::from(Code::GoogleRejected);
            error.log_credential(Via::Login, client.address);
            return Err(error);
        }
        Err(GoogleError::Unreachable(reason)) => {
            tracing::warn!(%reason, "Google was not reached");
            return Err(Code::GoogleUnreachable.into());
        }
    };
    attempt.forgive();
    let user = GoogleUser { subject: identity.subject, email: identity.email, picture: identity.picture };
    let signed_in = app.accounts.sign_in_with_google(user, proof, client.session(), app.clock.now()).await;
    log_setup_token(&signed_in, &client);
    Ok(Json(signed_in?.into()))
}

/// `POST /api/auth/logout`
pub(crate) async fn log_out(State(app): State<AppState>, caller: Caller) -> Result<Json<OkView>, ApiError> {
    let jti = caller.session_id()?.to_owned();
    app.db.write_removal(move |tx| sessions::delete(tx, &jti)).await?;
    Ok(OK)
}

/// `POST /api/auth/password`
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ChangePassword {
    /// Required if the account has a password.
    #[serde(default)]
    #[schema(value_type = Option<String>)]
    current_password: AllowEmpty,
    #[serde(default)]
    #[schema(value_type = String, example = "correct horse battery")]
    new_password: Lenient<String>,
}

/// A changed password.
#[derive(Serialize, ToSchema)]
pub(crate) struct PasswordChanged {
    #[schema(example = true)]
    ok: bool,
    /// Token of a new session; every earlier session has ended.
    token: String,
}

/// `POST /api/auth/password`
pub(crate) async fn change_password(
    State(app): State<AppState>,
    caller: Caller,
    client: ClientAddress,
    body: Body,
) -> Result<Json<PasswordChanged>, ApiError> {
    let fields: ChangePassword = body.fields()?;
    let current = text(fields.current_password.0, "currentPassword")?;
    if current.is_none() && app.accounts.has_password(caller.id()).await? {
        return Err(missing("currentPassword"));
    }
    let new = new_password(fields.new_password, "newPassword", &caller.account.email)?;
    let attempt = LoginAttempt::begin(&app, &client, &caller.account.email).await?;
    let (client, now) = (client.session(), app.clock.now());
    let result = app.accounts.change_password(caller.account, current, new, client, now).await;
    attempt.end(&result);
    Ok(Json(PasswordChanged { ok: true, token: result?.token }))
}

/// `POST /api/auth/verify/send`
#[derive(Serialize, ToSchema)]
pub(crate) struct VerificationStatus {
    /// `verified`, or `sent`: a link that is valid for 24 hours.
    #[schema(example = "sent")]
    status: &'static str,
}

/// `POST /api/auth/verify/send`
pub(crate) async fn send_verification(
    State(app): State<AppState>,
    caller: Caller,
) -> Result<Json<VerificationStatus>, ApiError> {
    let now = app.clock.now();
    if !caller.account.email_verified {
        let limited = app.rate_limited(RateLimit::VerificationMail);
        app.limits.verifications.take(&caller.id().to_string(), now).map_err(limited)?;
    }
    let status = match app.accounts.send_verification(caller.account, now).await? {
        Verification::Verified => "verified",
        Verification::Sent => "sent",
    };
    Ok(Json(VerificationStatus { status }))
}

#[derive(Deserialize, IntoParams)]
pub(crate) struct VerifyQuery {
    /// As mailed.
    #[serde(default)]
    #[param(value_type = String, required = true)]
    token: String,
}

/// `GET /api/auth/verify`: shows a page that asks for confirmation and changes nothing.
pub(crate) async fn verify_page(
    State(app): State<AppState>,
    client: ClientAddress,
    Query(query): Query<VerifyQuery>,
) -> Result<Response, ApiError> {
    let Some(account) = app.accounts.find_by_link(&query.token, app.clock.now()).await? else {
        return Ok(unknown_link(&client));
    };
    let text = format!(
        "Somebody made an account with {} on {}. If it was you, confirm that the address is yours. If it was not, \
         close this page: whoever made the account knows its password.",
        account.email, app.config.hostname
    );
    Ok(confirmation_page("Confirm your address", &text, "Confirm"))
}

/// `POST /api/auth/verify`: verifies the address; posted by that page.
pub(crate) async fn verify(
    State(app): State<AppState>,
    client: ClientAddress,
    Query(query): Query<VerifyQuery>,
) -> Result<Response, ApiError> {
    if !app.accounts.verify_email(&query.token, app.clock.now()).await? {
        return Ok(unknown_link(&client));
    }
    Ok(result_page(StatusCode::OK, "Your address is confirmed", "You can close this page."))
}

fn unknown_link(client: &ClientAddress) -> Response {
    mail_log::authentication_failed(Via::Link, client.address, "unknown_link", "400");
    let text = "It is older than a day, or was not copied whole. Sign in and ask for a new one.";
    result_page(StatusCode::BAD_REQUEST, "This link is not valid", text)
}
