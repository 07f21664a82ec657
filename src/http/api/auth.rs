//! Signing up, in and out; passwords; the proof of an e-mail address (contract 2.2–2.6).

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::accounts::{GoogleUser, Proof, Refusal, SignedIn, Verification};
use crate::clock::Timestamp;
use crate::google::GoogleError;
use crate::hex;
use crate::http::App;
use crate::http::auth::Caller;
use crate::http::body::{Body, DONE, Done, Loose};
use crate::http::client::Client;
use crate::http::error::{ApiError, Code};
use crate::http::extract::Query;
use crate::http::pages::page;
use crate::mail::address::Mailbox;
use crate::passwords;
use crate::secrets::token_hash;
use crate::store::accounts::Account;
use crate::store::sessions;

/// The longest e-mail of an account.
const MAX_EMAIL: usize = 254;

/// An account, as itself sees it (contract 2.5).
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct User {
    #[schema(example = "usr_7fA2kQpVn4tLdA1B")]
    id: String,
    #[schema(example = "ada@acme.dev")]
    email: String,
    /// Whether the account owns the installation.
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
pub struct Session {
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
            Refusal::PasswordMissing => {
                ApiError::field(Code::BadRequest, "currentPassword", "currentPassword is required")
            }
            Refusal::Store(error) => error.into(),
            Refusal::Hash(error) => {
                tracing::error!(%error, "a request failed");
                Code::Internal.into()
            }
        }
    }
}

/// `POST /api/auth/signup`
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct SignUp {
    /// One address, up to 254 characters; trimmed and lower-cased.
    #[serde(default)]
    #[schema(value_type = String, example = "ada@acme.dev")]
    email: Loose<String>,
    /// At least 10 characters, at most 1,024 bytes, not the e-mail or its local part.
    #[serde(default)]
    #[schema(value_type = String, example = "correct horse battery")]
    password: Loose<String>,
    /// Proves that who signs up first runs the server; not needed over loopback.
    setup_token: Option<String>,
}

/// One address, normalised.
fn email(field: Loose<String>) -> Result<String, ApiError> {
    let bad = || ApiError::at(Code::BadAddress, "email");
    let email = field.required(bad)?.trim().to_lowercase();
    let plain = email.len() <= MAX_EMAIL && Mailbox::parse(&email).is_ok() && !email.contains("@[");
    if plain { Ok(email) } else { Err(bad()) }
}

fn new_password(field: Loose<String>, name: &'static str, email: &str) -> Result<String, ApiError> {
    let password = field.required(|| ApiError::field(Code::WeakPassword, name, "a password is required"))?;
    passwords::check(&password, email).map_err(|weak| ApiError::field(Code::WeakPassword, name, weak.to_string()))?;
    Ok(password)
}

/// Makes an account.
pub async fn sign_up(
    State(app): State<App>,
    client: Client,
    _: SignUpLimit,
    body: Body,
) -> Result<(StatusCode, Json<Session>), ApiError> {
    let fields: SignUp = body.fields()?;
    let email = email(fields.email)?;
    let password = new_password(fields.password, "password", &email)?;
    let proof = Proof { token: fields.setup_token, over_loopback: client.over_loopback };
    let signed_in = app.accounts.sign_up(email, password, proof, client.session(), app.clock.now()).await?;
    Ok((StatusCode::CREATED, Json(signed_in.into())))
}

/// Counts a sign-up of the client address before its body is read (contract 1.7).
pub struct SignUpLimit;

impl axum::extract::FromRequestParts<App> for SignUpLimit {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut axum::http::request::Parts, app: &App) -> Result<Self, ApiError> {
        let client = Client::from_request_parts(parts, app).await?;
        app.limits.signups.take(&client.key(), app.clock.now()).map_err(ApiError::rate_limited)?;
        Ok(Self)
    }
}

/// `POST /api/auth/login`
#[derive(Deserialize, ToSchema)]
pub struct LogIn {
    #[schema(required = true, nullable = false, example = "ada@acme.dev")]
    email: Option<String>,
    #[schema(required = true, nullable = false, example = "correct horse battery")]
    password: Option<String>,
    /// Instead of both: a ticket that `mailkite dev` printed, good for one sign-in.
    ticket: Option<String>,
}

/// Signs in by e-mail and password, or by a ticket.
pub async fn log_in(State(app): State<App>, client: Client, body: Body) -> Result<Json<Session>, ApiError> {
    let fields: LogIn = body.fields()?;
    if let Some(ticket) = fields.ticket {
        let now = app.clock.now();
        let attempt = Attempt::begin(&app, &client, "", now)?;
        let result = app.accounts.log_in_with_ticket(&ticket, client.session(), now).await;
        attempt.end(&app, &result);
        return Ok(Json(result?.into()));
    }
    let missing = |field| ApiError::field(Code::BadRequest, field, format!("{field} is required"));
    let email = fields.email.ok_or_else(|| missing("email"))?.trim().to_lowercase();
    let password = fields.password.ok_or_else(|| missing("password"))?;
    let now = app.clock.now();
    let attempt = Attempt::begin(&app, &client, &email, now)?;
    let result = app.accounts.log_in(email, password, client.session(), now).await;
    attempt.end(&app, &result);
    Ok(Json(result?.into()))
}

/// A try at a password (contract 2.3). It counts as a failure before the password is looked at, so that guesses made
/// at once are not free; what turns out to be none is taken back.
struct Attempt {
    pair: String,
    address: String,
}

impl Attempt {
    fn begin(app: &App, client: &Client, email: &str, now: Timestamp) -> Result<Self, ApiError> {
        let address = client.key();
        // What is given as an e-mail may be long; its hash is not.
        let pair = format!("{address} {}", hex::encode(&token_hash(email)));
        app.limits.logins_of_pair.take(&pair, now).map_err(ApiError::rate_limited)?;
        if let Err(wait) = app.limits.logins_of_address.take(&address, now) {
            app.limits.logins_of_pair.give_back(&pair);
            return Err(ApiError::rate_limited(wait));
        }
        Ok(Self { pair, address })
    }

    fn end(self, app: &App, result: &Result<SignedIn, Refusal>) {
        match result {
            Err(Refusal::BadLogin | Refusal::WrongPassword) => return,
            Ok(_) => app.limits.logins_of_pair.clear(&self.pair),
            Err(_) => app.limits.logins_of_pair.give_back(&self.pair),
        }
        app.limits.logins_of_address.give_back(&self.address);
    }
}

/// `POST /api/auth/google`
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct GoogleSignIn {
    /// The authorization code that Google gave the browser.
    #[schema(required = true, nullable = false)]
    code: Option<String>,
    /// As the code was asked for with; by default that of the configuration.
    redirect_uri: Option<String>,
    /// As in `POST /api/auth/signup`.
    setup_token: Option<String>,
}

/// Signs in with Google; makes an account if there is none.
pub async fn google(State(app): State<App>, client: Client, body: Body) -> Result<Json<Session>, ApiError> {
    let fields: GoogleSignIn = body.fields()?;
    let code = fields.code.filter(|code| !code.is_empty());
    let code = code.ok_or_else(|| ApiError::field(Code::BadRequest, "code", "code is required"))?;
    let (now, address) = (app.clock.now(), client.key());
    app.limits.logins_of_address.check(&address, now).map_err(ApiError::rate_limited)?;
    let identity = app.google.sign_in(&code, fields.redirect_uri.as_deref(), now).await.map_err(|error| {
        if error != GoogleError::NotConfigured {
            app.limits.logins_of_address.count(&address, now);
        }
        match error {
            GoogleError::NotConfigured => ApiError::from(Code::GoogleNotConfigured),
            GoogleError::Rejected(reason) => {
                tracing::info!(%reason, "a Google sign-in was rejected");
                ApiError::from(Code::GoogleRejected)
            }
            GoogleError::Unreachable(reason) => {
                tracing::warn!(%reason, "Google was not reached");
                ApiError::from(Code::GoogleUnreachable)
            }
        }
    })?;
    let user = GoogleUser { subject: identity.subject, email: identity.email, picture: identity.picture };
    let proof = Proof { token: fields.setup_token, over_loopback: client.over_loopback };
    Ok(Json(app.accounts.sign_in_with_google(user, proof, client.session(), now).await?.into()))
}

/// Ends this session.
pub async fn log_out(State(app): State<App>, caller: Caller) -> Result<Json<Done>, ApiError> {
    let jti = caller.needs_session()?.to_owned();
    app.db.write(move |tx| sessions::delete(tx, &jti)).await?;
    Ok(DONE)
}

/// `POST /api/auth/password`
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ChangePassword {
    /// Required if the account has a password.
    current_password: Option<String>,
    #[serde(default)]
    #[schema(value_type = String, example = "correct horse battery")]
    new_password: Loose<String>,
}

/// A changed password.
#[derive(Serialize, ToSchema)]
pub struct PasswordChanged {
    #[schema(example = true)]
    ok: bool,
    /// The token of a new session; every earlier one has ended.
    token: String,
}

/// Changes the password.
pub async fn change_password(
    State(app): State<App>,
    caller: Caller,
    client: Client,
    body: Body,
) -> Result<Json<PasswordChanged>, ApiError> {
    caller.needs_session()?;
    let fields: ChangePassword = body.fields()?;
    let new = new_password(fields.new_password, "newPassword", &caller.account.email)?;
    let now = app.clock.now();
    let attempt = Attempt::begin(&app, &client, &caller.account.email, now)?;
    let changed = app.accounts.change_password(caller.account, fields.current_password, new, client.session(), now);
    let result = changed.await;
    attempt.end(&app, &result);
    Ok(Json(PasswordChanged { ok: true, token: result?.token }))
}

/// What became of a wish for a verification mail.
#[derive(Serialize, ToSchema)]
pub struct VerificationStatus {
    /// `verified`, or `sent`: a link that is valid for 24 hours.
    #[schema(example = "sent")]
    status: &'static str,
}

/// Mails a link that proves the account's e-mail.
pub async fn send_verification(State(app): State<App>, caller: Caller) -> Result<Json<VerificationStatus>, ApiError> {
    caller.needs_account()?;
    let now = app.clock.now();
    if !caller.account.email_verified {
        app.limits.verifications.take(&caller.id().to_string(), now).map_err(ApiError::rate_limited)?;
    }
    let status = match app.accounts.send_verification(caller.account, now).await? {
        Verification::Verified => "verified",
        Verification::Sent => "sent",
    };
    Ok(Json(VerificationStatus { status }))
}

/// The token of a verification link.
#[derive(Deserialize, IntoParams)]
pub struct VerifyQuery {
    /// As mailed.
    #[serde(default)]
    #[param(value_type = String, required = true)]
    token: String,
}

/// The page behind a verification link.
pub async fn verify(State(app): State<App>, Query(query): Query<VerifyQuery>) -> Result<Response, ApiError> {
    let verified = app.accounts.verify_email(&query.token, app.clock.now()).await?;
    let (status, name) =
        if verified { (StatusCode::OK, "verified.html") } else { (StatusCode::BAD_REQUEST, "not-verified.html") };
    Ok(page(status, name, &[]))
}
