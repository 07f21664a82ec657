//! Fields of a route (contract 4.4, 9.1), which the domain webhook and the tracking webhook share in part.

use crate::store::Connection;

use crate::http::AppState;
use crate::http::auth::Caller;
use crate::http::body::Lenient;
use crate::http::error::{ApiError, Code};
use crate::id::{AccountRowId, DomainRowId, RouteId};
use crate::inbound::directory::{RegexError, RegexTurn};
use crate::inbound::route::{Pattern, is_regex};
use crate::mail::address::{Domain, Mailbox};
use crate::net::egress::{Policy, Target};
use crate::store::accounts::domains;
use crate::store::webhooks::routes::{AckMode, Action, OnAuthFail};

fn bad_match(message: String) -> ApiError {
    ApiError::field(Code::BadMatch, "match", message)
}

/// A match in its stored form: lower-case, the domain as A-labels; a regex as written.
pub(super) struct Match {
    pub(super) text: String,
    /// None for a regex.
    domain: Option<String>,
}

impl Match {
    pub(super) fn parse(text: &str) -> Result<Self, ApiError> {
        let bad = bad_match;
        let trimmed = text.trim();
        if trimmed.is_empty() {
            return Err(ApiError::at(Code::MatchRequired, "match"));
        }
        let text = match trimmed.rsplit_once('@') {
            Some((local, domain)) if !trimmed.starts_with('/') => {
                let domain = Domain::parse(domain).map_err(|_| bad(format!("{domain:?} is no domain name")))?;
                // The pattern has to be an address with any text in place of its star.
                let probe = format!("{}@{domain}", local.replacen('*', "x", 1));
                let probe = Mailbox::parse_received(&probe).map_err(|error| bad(error.to_string()))?;
                if probe.has_invisible_characters() {
                    return Err(bad("the address holds characters that nobody sees".to_owned()));
                }
                format!("{}@{domain}", local.to_lowercase())
            }
            _ => trimmed.to_owned(),
        };
        let domain = match is_regex(&text) {
            true => None,
            false => Pattern::parse(&text).map_err(|error| bad(error.to_string()))?.domain().map(str::to_owned),
        };
        Ok(Self { text, domain })
    }

    /// Checks a regex together with the account's others, except that of the route `except`. Hold the returned guard
    /// until the route is stored, so that no other regex of the account is stored meanwhile.
    pub(super) async fn check(
        &self,
        app: &AppState,
        account: AccountRowId,
        except: Option<RouteId>,
    ) -> Result<Option<RegexTurn>, ApiError> {
        if !is_regex(&self.text) {
            return Ok(None);
        }
        match app.inbound.directory().check_regex(account, &self.text, except).await {
            Ok(turn) => Ok(Some(turn)),
            Err(RegexError::Match(error)) => Err(bad_match(error.to_string())),
            Err(RegexError::Store(error)) => Err(error.into()),
        }
    }

    /// Returns the domain of the match, if the caller may have a route there; `None` for a regex.
    pub(super) fn domain(&self, connection: &Connection, caller: &Caller) -> Result<Option<DomainRowId>, ApiError> {
        let Some(name) = self.domain.as_deref() else {
            caller.require_domain(None)?;
            return Ok(None);
        };
        let domain = domains::find_of_account(connection, caller.id(), name)?.ok_or(Code::DomainNotOwned)?;
        caller.require_domain(Some(domain.id))?;
        if domain.verified { Ok(Some(domain.id)) } else { Err(Code::DomainNotVerified.into()) }
    }
}

pub(super) fn action(given: Lenient<String>) -> Result<Action, ApiError> {
    let bad = || ApiError::field(Code::BadRequest, "action", "action must be webhook, forward, store or drop");
    match given.optional(bad)?.as_deref() {
        None => Ok(Action::Webhook),
        Some("agent") => Err(ApiError::at(Code::AgentNotSupported, "action")),
        Some(word) => Action::from_word(word).ok_or_else(bad),
    }
}

/// Reads the destination that an action requires.
pub(super) fn destination(
    app: &AppState,
    action: Action,
    given: Lenient<String>,
) -> Result<Option<String>, ApiError> {
    match action {
        Action::Webhook => webhook_url(app, given, "destination").map(Some),
        Action::Forward => {
            let bad = || ApiError::at(Code::BadAddress, "destination");
            let text = given.required(bad)?;
            Mailbox::parse(text.trim()).map(|mailbox| Some(mailbox.to_string())).map_err(|_| bad())
        }
        Action::Store | Action::Drop => {
            let unwanted = || {
                let message = format!("a route with the action {} has no destination", action.as_str());
                ApiError::field(Code::BadRequest, "destination", message)
            };
            match given.optional(unwanted)?.as_deref() {
                None | Some("") => Ok(None),
                Some(_) => Err(unwanted()),
            }
        }
    }
}

/// Begins like the sentence of `bad_url` (contract 1.6).
const PLAIN_LOCALHOST: &str =
    "a valid https url is required; http to this host needs the setting webhook.allow_localhost";

/// Reads a URL that webhooks may be posted to (contract 9.1).
pub(crate) fn webhook_url(app: &AppState, given: Lenient<String>, field: &'static str) -> Result<String, ApiError> {
    let url = given.required(|| ApiError::at(Code::BadUrl, field))?;
    let url = url.trim();
    match Target::parse(url, &app.webhooks.policy) {
        Ok(_) => Ok(url.to_owned()),
        Err(_) if is_plain_localhost(app, url) => Err(ApiError::field(Code::BadUrl, field, PLAIN_LOCALHOST)),
        Err(_) => Err(ApiError::at(Code::BadUrl, field)),
    }
}

/// Returns true if only the operator's setting forbids a URL (contract 9.1).
fn is_plain_localhost(app: &AppState, url: &str) -> bool {
    let policy = Policy { allow_localhost: true, ..app.webhooks.policy.clone() };
    !app.webhooks.policy.allow_localhost && Target::parse(url, &policy).is_ok()
}

/// Reads an acknowledgement mode.
pub(crate) fn ack_mode(given: Lenient<String>) -> Result<Option<AckMode>, ApiError> {
    let bad = || ApiError::field(Code::BadRequest, "ackMode", "ackMode must be lenient, ack or control");
    given.optional(bad)?.map(|word| AckMode::from_word(&word).ok_or_else(bad)).transpose()
}

/// Reads the handling of mail from unauthenticated authors.
pub(super) fn on_auth_fail(given: Lenient<String>) -> Result<Option<OnAuthFail>, ApiError> {
    let bad = || ApiError::field(Code::BadRequest, "onAuthFail", "onAuthFail must be refuse or rewrite");
    given.optional(bad)?.map(|word| OnAuthFail::from_word(&word).ok_or_else(bad)).transpose()
}
