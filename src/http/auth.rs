//! Who is asking: the credential of a request, what it may do, and how often (contract 1.5, 1.12).

use axum::extract::FromRequestParts;
use axum::http::HeaderMap;
use axum::http::header::AUTHORIZATION;
use axum::http::request::Parts;
use std::time::Duration;

use super::AppState;
use super::client::ClientAddress;
use super::connections::note_credential;
use super::error::{ApiError, Code};
use crate::clock::Timestamp;
use crate::limits::Kind;
use crate::secrets::token_hash;
use crate::store::accounts::Account;
use crate::store::accounts::keys;
use crate::store::accounts::keys::KeyHolder;

/// Uses of a key within this time count as one, so that reading does not turn into writing.
const USE_STEP: Duration = Duration::from_secs(60);
const KEY_PREFIX: &str = "mk_";

/// The account that asks, and what it asked with.
#[derive(Clone, Debug)]
pub(crate) struct Caller {
    /// The account.
    pub(crate) account: Account,
    /// Its proof.
    pub(crate) credential: Credential,
}

/// What came with a request.
#[derive(Clone, Debug)]
pub(crate) enum Credential {
    /// The token of this session.
    Session(String),
    /// The account's own key.
    AccountKey(i64),
    /// A key that is limited to one domain.
    ScopedKey {
        /// Row id of the key.
        key: i64,
        /// Row id of the domain.
        domain: i64,
    },
}

impl Caller {
    /// Row id of the account.
    pub(crate) const fn id(&self) -> i64 {
        self.account.id
    }

    /// The domain that the credential is limited to, if it is.
    pub(crate) const fn scope(&self) -> Option<i64> {
        match self.credential {
            Credential::ScopedKey { domain, .. } => Some(domain),
            Credential::Session(_) | Credential::AccountKey(_) => None,
        }
    }

    /// Refuses scoped keys: class "account".
    ///
    /// # Errors
    /// 403 `key_scope`.
    pub(crate) fn require_account(&self) -> Result<(), ApiError> {
        if self.scope().is_some() { Err(Code::KeyScope.into()) } else { Ok(()) }
    }

    /// Refuses an account whose e-mail is not proven.
    ///
    /// # Errors
    /// 403 `email_not_verified`.
    pub(crate) fn require_verified(&self) -> Result<(), ApiError> {
        if self.account.email_verified { Ok(()) } else { Err(Code::EmailNotVerified.into()) }
    }

    /// The session's name; refuses keys: class "session".
    ///
    /// # Errors
    /// 403 `session_required`.
    pub(crate) fn require_session(&self) -> Result<&str, ApiError> {
        match &self.credential {
            Credential::Session(jti) => Ok(jti),
            Credential::AccountKey(_) | Credential::ScopedKey { .. } => Err(Code::SessionRequired.into()),
        }
    }

    /// Refuses a scoped key that is limited to another domain than `domain`, which may be none.
    ///
    /// # Errors
    /// 403 `key_scope`.
    pub(crate) fn require_domain(&self, domain: Option<i64>) -> Result<(), ApiError> {
        match self.scope() {
            Some(own) if domain != Some(own) => Err(Code::KeyScope.into()),
            _ => Ok(()),
        }
    }

    pub(super) fn limit_key(&self) -> String {
        match &self.credential {
            Credential::Session(jti) => format!("s{jti}"),
            Credential::AccountKey(key) | Credential::ScopedKey { key, .. } => format!("k{key}"),
        }
    }
}

impl FromRequestParts<AppState> for Caller {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, app: &AppState) -> Result<Self, ApiError> {
        let now = app.clock.now();
        let client = ClientAddress::from_request_parts(parts, app).await?;
        match authenticate(parts, app, now).await {
            Ok(caller) => {
                note_credential(&parts.extensions, Some(caller.id()));
                app.limits.requests.take(&caller.limit_key(), now).map_err(ApiError::rate_limited)?;
                app.account_limits.take_request(caller.id(), now).map_err(|wait| {
                    app.account_limits.count_refused(Kind::Requests, 1);
                    ApiError::rate_limited(wait)
                })?;
                Ok(caller)
            }
            Err(error) if error.code().status() == 401 => {
                app.limits.failures.take(&client.key(), now).map_err(ApiError::rate_limited)?;
                Err(error)
            }
            Err(error) => Err(error),
        }
    }
}

async fn authenticate(parts: &Parts, app: &AppState, now: Timestamp) -> Result<Caller, ApiError> {
    identify(app, bearer(&parts.headers).ok_or(Code::Unauthorized)?, now).await
}

/// The credential that a request carries.
pub(super) fn bearer(headers: &HeaderMap) -> Option<&str> {
    let (scheme, token) = headers.get(AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    Some(token.trim()).filter(|token| scheme.eq_ignore_ascii_case("bearer") && !token.is_empty())
}

/// Whose credential this is.
///
/// # Errors
/// 401, or storage failed.
pub(super) async fn identify(app: &AppState, token: &str, now: Timestamp) -> Result<Caller, ApiError> {
    if token.starts_with(KEY_PREFIX) {
        let hash = token_hash(token);
        let holder = app.db.read(move |connection| keys::find_by_hash(connection, &hash)).await?;
        let holder = holder.ok_or(Code::BadKey)?;
        note_use(app, &holder, now);
        let credential = match holder.domain {
            Some(domain) => Credential::ScopedKey { key: holder.key, domain },
            None => Credential::AccountKey(holder.key),
        };
        return Ok(Caller { account: holder.account, credential });
    }
    if token.split('.').count() != 3 {
        return Err(Code::Unauthorized.into());
    }
    let (account, jti) = app.accounts.find_session(token, now).await?.ok_or(Code::SessionExpired)?;
    Ok(Caller { account, credential: Credential::Session(jti) })
}

/// Notes the use of a key, off the request's path.
fn note_use(app: &AppState, holder: &KeyHolder, now: Timestamp) {
    let known = holder.last_used_at.is_some_and(|last| last <= now && now.since(last) < USE_STEP);
    if known {
        return;
    }
    let (db, key) = (app.db.clone(), holder.key);
    tokio::spawn(async move {
        if let Err(error) = db.write_nosync(move |tx| keys::note_use(tx, key, now)).await {
            tracing::debug!(%error, "the use of a key was not noted");
        }
    });
}
