//! Authentication: identifies the caller by the request's credential and limits the request rate (contract 1.5, 1.12).

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
use crate::event_bus::mail_log::Via;
use crate::id::{AccountRowId, DomainRowId, KeyRowId};
use crate::limits::Kind;
use crate::metrics::{RateLimit, Service};
use crate::outbound::submit::sender::Submitter;
use crate::secrets::token_hash;
use crate::store::accounts::Account;
use crate::store::accounts::keys;
use crate::store::accounts::keys::KeyHolder;

/// Uses of a key within this time are recorded once, so that reads do not become writes.
const USE_INTERVAL: Duration = Duration::from_secs(60);
const KEY_PREFIX: &str = "mk_";

/// The authenticated account and the credential it used.
#[derive(Clone, Debug)]
pub(crate) struct Caller {
    pub(crate) account: Account,
    pub(crate) credential: Credential,
}

/// Credential of a request.
#[derive(Clone, Debug)]
pub(crate) enum Credential {
    /// Session token; holds the session's id (`jti`).
    Session(String),
    AccountKey(KeyRowId),
    /// A key limited to one domain.
    ScopedKey {
        key: KeyRowId,
        domain: DomainRowId,
    },
}

impl Caller {
    /// Returns the row id of the account.
    pub(crate) const fn id(&self) -> AccountRowId {
        self.account.id
    }

    /// Returns the row id of the domain that a scoped key is limited to.
    pub(crate) const fn scope(&self) -> Option<DomainRowId> {
        match self.credential {
            Credential::ScopedKey { domain, .. } => Some(domain),
            Credential::Session(_) | Credential::AccountKey(_) => None,
        }
    }

    /// Returns the caller as one who sends mail.
    pub(crate) fn submitter(&self) -> Submitter {
        Submitter { account: self.account.clone(), scope: self.scope() }
    }

    /// Returns the session's id (`jti`), which every caller of an endpoint of class `Session` has.
    ///
    /// # Errors
    /// 403 `session_required` for a key.
    pub(crate) fn session_id(&self) -> Result<&str, ApiError> {
        match &self.credential {
            Credential::Session(jti) => Ok(jti),
            Credential::AccountKey(_) | Credential::ScopedKey { .. } => Err(Code::SessionRequired.into()),
        }
    }

    /// Refuses a scoped key of another domain than `domain`; `None` is outside every key's domain.
    ///
    /// # Errors
    /// 403 `key_scope`.
    pub(crate) fn require_domain(&self, domain: Option<DomainRowId>) -> Result<(), ApiError> {
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

/// Takes the caller that the router authenticated; endpoints of class `Public` have none.
impl FromRequestParts<AppState> for Caller {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &AppState) -> Result<Self, ApiError> {
        parts.extensions.remove::<Self>().ok_or_else(|| {
            tracing::error!(path = parts.uri.path(), "the handler of a public endpoint asks for a caller");
            Code::Internal.into()
        })
    }
}

/// Identifies the caller and counts the request against the rate limits (contract 1.12).
///
/// # Errors
/// 401; 429 beyond a rate limit or after too many failures.
pub(super) async fn authenticate(parts: &mut Parts, app: &AppState) -> Result<Caller, ApiError> {
    let now = app.clock.now();
    let client = ClientAddress::from_request_parts(parts, app).await?;
    let identified = match bearer(&parts.headers) {
        Some(token) => identify(app, token, now).await,
        None => Err(Code::Unauthorized.into()),
    };
    match identified {
        Ok(caller) => {
            note_credential(&parts.extensions, Some(caller.id()));
            app.limits.requests.take(&caller.limit_key(), now).map_err(app.rate_limited(RateLimit::Requests))?;
            app.account_limits.take_request(caller.id(), now).map_err(|wait| {
                app.account_limits.count_refused(Kind::Requests, 1);
                app.rate_limited(RateLimit::AccountRequests)(wait)
            })?;
            Ok(caller)
        }
        Err(error) if error.code().status() == 401 => {
            app.limits.failures.take(&client.key(), now).map_err(app.rate_limited(RateLimit::Unauthorized))?;
            // A request without a credential tries none.
            if bearer(&parts.headers).is_some() {
                app.metrics.credentials_failed.add(Service::Http);
                error.log_credential(Via::Api, client.address);
            }
            Err(error)
        }
        Err(error) => Err(error),
    }
}

/// Returns the bearer token of a request.
pub(super) fn bearer(headers: &HeaderMap) -> Option<&str> {
    let (scheme, token) = headers.get(AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    Some(token.trim()).filter(|token| scheme.eq_ignore_ascii_case("bearer") && !token.is_empty())
}

/// Finds the account and the kind of a credential.
///
/// # Errors
/// 401.
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

/// Records the use of a key without delaying the request.
fn note_use(app: &AppState, holder: &KeyHolder, now: Timestamp) {
    let known = holder.last_used_at.is_some_and(|last| last <= now && now.since(last) < USE_INTERVAL);
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
