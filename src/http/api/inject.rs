//! `POST /v1/route`: processes a message by a route as if it had arrived by mail (contract 4.5).

use std::time::Instant;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::event_bus::mail_log::{self, Line, Via};
use crate::http::AppState;
use crate::http::auth::Caller;
use crate::http::body::{LargeBody, Lenient, required, text};
use crate::http::client::ClientAddress;
use crate::http::error::{ApiError, Code};
use crate::http::memory::RequestMemory;
use crate::id::{DomainRowId, RouteId};
use crate::inbound::ReceiveError;
use crate::inbound::inject::Injection;
use crate::inbound::receive::log_received;
use crate::inbound::route::{Pattern, is_regex};
use crate::mail::address::Mailbox;
use crate::mail::mailbox_list::{NamedMailbox, parse_one};
use crate::store::webhooks::routes;
use crate::store::webhooks::routes::{Action, RouteRow};

/// Replaces the `*` of a match if no address is given.
const STAR: &str = "route";
/// Contract 1.9.
const MAX_SUBJECT_CHARS: usize = 998;
/// Text and HTML together, in octets (contract 1.9).
const MAX_TEXT_BYTES: usize = 26_214_400;

/// `POST /v1/route`
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct InjectFields {
    /// Any address, `a@b` or `Name <a@b>`.
    #[serde(default)]
    #[schema(value_type = String, example = "ada@example.com")]
    from: Lenient<String>,
    /// The route to use; this or `address`.
    #[serde(default)]
    #[schema(value_type = Option<String>, example = "rte_9c31aB7KmPq2XwZe")]
    route_id: Lenient<String>,
    /// The recipient; without a `routeId` it selects the active route with the most specific match.
    #[serde(default)]
    #[schema(value_type = Option<String>, example = "support@acme.dev")]
    address: Lenient<String>,
    #[serde(default)]
    #[schema(value_type = Option<String>)]
    subject: Lenient<String>,
    #[serde(default)]
    #[schema(value_type = Option<String>)]
    text: Lenient<String>,
    #[serde(default)]
    #[schema(value_type = Option<String>)]
    html: Lenient<String>,
}

/// Result of `POST /v1/route`.
#[derive(Serialize, ToSchema)]
pub(crate) struct InjectedView {
    /// Names no stored message if the action is `drop`.
    #[schema(example = "msg_2Hk9QpVn4tLdA1B2")]
    id: String,
    /// False for `store` and `drop`.
    routed: bool,
    #[schema(example = "webhook")]
    action: &'static str,
}

impl From<ReceiveError> for ApiError {
    fn from(error: ReceiveError) -> Self {
        match error {
            ReceiveError::AccountFull => ApiError::new(Code::LimitReached, "storage_bytes: this account is full"),
            ReceiveError::StorageFull(_) | ReceiveError::Busy | ReceiveError::Storage(_) => Code::Unavailable.into(),
            ReceiveError::MailLoop | ReceiveError::NotAReport => Code::Internal.into(),
        }
    }
}

fn bad(field: &'static str, message: &'static str) -> ApiError {
    ApiError::field(Code::BadRequest, field, message)
}

/// `POST /v1/route`
pub(crate) async fn inject(
    State(app): State<AppState>,
    caller: Caller,
    client: ClientAddress,
    memory: RequestMemory,
    body: LargeBody,
) -> Result<(StatusCode, Json<InjectedView>), ApiError> {
    let began = Instant::now();
    let fields: InjectFields = body.fields().await?;
    let from = required(fields.from, "from")?;
    let NamedMailbox { name: from_name, mailbox: from } =
        parse_one(&from).map_err(|_| bad("from", "from must be one address"))?;
    if from.has_invisible_characters() {
        return Err(bad("from", "from: the address holds characters that nobody sees"));
    }
    let (route_id, address) = (text(fields.route_id, "routeId")?, text(fields.address, "address")?);
    if route_id.is_none() && address.is_none() {
        return Err(bad("routeId", "routeId or address is required"));
    }
    let address = address.map(|text| Mailbox::parse_received(text.trim())).transpose();
    let address = address.map_err(|_| bad("address", "address must be one address"))?;
    if address.as_ref().is_some_and(Mailbox::has_invisible_characters) {
        return Err(bad("address", "address: it holds characters that nobody sees"));
    }
    let subject = text(fields.subject, "subject")?;
    if let Some(subject) = &subject
        && (subject.chars().count() > MAX_SUBJECT_CHARS || subject.chars().any(char::is_control))
    {
        return Err(bad("subject", "a subject has at most 998 characters, on one line"));
    }
    let (plain, html) = (text(fields.text, "text")?, text(fields.html, "html")?);
    let texts = [&plain, &html].into_iter().flatten().map(String::len).sum::<usize>();
    if texts > MAX_TEXT_BYTES {
        return Err(ApiError::new(Code::BodyTooLarge, "html and text of a message have at most 25 MiB together"));
    }
    // The message in quoted-printable is in memory together with them.
    memory.hold_exactly(4 * texts).await?;
    let given = match &address {
        Some(address) => Some(own_domain(&app, &caller, address).await?),
        None => None,
    };
    let route = find_route(&app, &caller, route_id, address.as_ref()).await?;
    let (to, domain) = match address.zip(given) {
        Some(given) => given,
        None => {
            // A regex has no example; it is not compiled to find that out.
            let pattern = Some(&route.match_pattern).filter(|text| !is_regex(text));
            let example =
                pattern.and_then(|text| Pattern::parse(text).ok()).and_then(|pattern| pattern.example(STAR));
            let example = example.ok_or_else(|| bad("address", "a regex route needs an address as well"))?;
            let to =
                Mailbox::parse_received(&example).map_err(|_| bad("address", "the match is no address; give one"))?;
            let domain = own_domain(&app, &caller, &to).await?;
            (to, domain)
        }
    };
    let action = route.action;
    // Forwarding follows the rules of sending (contract 4.5).
    let sender = match action {
        Action::Forward => Some(app.outbound.sender(&caller.submitter(), from.domain(), app.clock.now()).await?),
        Action::Webhook | Action::Store | Action::Drop => None,
    };
    let injection = Injection { from, from_name, to, subject, text: plain, html };
    let log = mail_log::is_enabled()
        .then(|| (injection.from.to_string(), injection.to.to_string(), route.public_id.to_string()));
    let received = app.inbound.inject(injection, sender, route, domain).await;
    if let Some((from, to, route)) = log {
        let line = Line {
            peer: Some(client.address),
            via: Some(Via::Inject),
            from: Some(&from),
            to: Some(&to),
            route: Some(&route),
            duration: Some(began.elapsed()),
            ..Line::default()
        };
        log_received(line, Some("202"), &received);
    }
    let accepted = received?;
    let routed = matches!(action, Action::Webhook | Action::Forward);
    Ok((StatusCode::ACCEPTED, Json(InjectedView { id: accepted.id, routed, action: action.as_str() })))
}

/// Finds the active route that the request selects.
///
/// # Errors
/// 404 if there is none, 403 beyond a scoped key's domain.
async fn find_route(
    app: &AppState,
    caller: &Caller,
    id: Option<String>,
    address: Option<&Mailbox>,
) -> Result<RouteRow, ApiError> {
    let account = caller.id();
    let address = address.map(Mailbox::canonical_for_routes);
    let directory = app.inbound.directory();
    let found = match (id.as_deref().map(RouteId::parse), address) {
        (Some(None), _) | (None, None) => None,
        (Some(Some(id)), address) => {
            let found = app.db.read(move |connection| routes::find(connection, &id)).await?;
            let found = found.filter(|row| row.active && row.account_id == account);
            match (found, address) {
                (Some(row), Some(address)) => {
                    let covers = !directory.matching_of(vec![row.clone()], &address).await?.is_empty();
                    Some(row).filter(|_| covers)
                }
                (found, _) => found,
            }
        }
        (None, Some(address)) => {
            let (matching, _) = directory.matching(account, &address).await?;
            let reached = matching.iter().filter(|route| caller.require_domain(route.row.domain_id).is_ok());
            // `min_by_key` returns the first of equals, which is the oldest.
            reached.min_by_key(|route| breadth(&route.row.match_pattern)).map(|route| RouteRow::clone(&route.row))
        }
    };
    let route = found.ok_or_else(ApiError::not_found)?;
    caller.require_domain(route.domain_id)?;
    Ok(route)
}

/// Ranks a match by what it covers: one address, some of a domain's, all of them.
fn breadth(pattern: &str) -> u8 {
    match pattern.split_once('*') {
        _ if is_regex(pattern) => 2,
        None => 0,
        Some(("", rest)) if rest.starts_with('@') => 3,
        Some(_) => 1,
    }
}

/// Finds the domain of a recipient: only those on the account's verified domains reach a route (contract 4.1).
async fn own_domain(app: &AppState, caller: &Caller, address: &Mailbox) -> Result<DomainRowId, ApiError> {
    let name = address.domain().as_str().to_owned();
    let account = caller.id();
    let found = app
        .db
        .read(move |connection| crate::store::accounts::domains::find_of_account(connection, account, &name))
        .await?;
    let domain = found.filter(|domain| domain.verified).ok_or_else(ApiError::not_found)?;
    caller.require_domain(Some(domain.id)).map(|()| domain.id)
}
