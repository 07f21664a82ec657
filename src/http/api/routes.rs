//! Handlers of routes (contract 4.4); for their replay see `replay`.

use std::sync::Arc;

use crate::store::Connection;
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::account::RotatedSecret;
use super::route_fields::{Match, ack_mode, action, destination, on_auth_fail};
use crate::accounts::SECRET_ROTATION_OVERLAP;
use crate::clock::Timestamp;
use crate::http::AppState;
use crate::http::auth::Caller;
use crate::http::body::{Body, Lenient, OK, OkView};
use crate::http::error::{ApiError, Code};
use crate::http::extract::Path;
use crate::id::RouteId;
use crate::inbound::route::Pattern;
use crate::limits::Kind;
use crate::mail::address::Mailbox;
use crate::secrets;
use crate::store;
use crate::store::sending::destinations;
use crate::store::webhooks::former_webhooks;
use crate::store::webhooks::routes;
use crate::store::webhooks::routes::AckMode;
use crate::store::webhooks::routes::{Action, Change, NewRoute, RouteRow, SECRET_PURPOSE};

/// A route (contract 4.3).
#[derive(Serialize, ToSchema)]
pub(crate) struct RouteView {
    #[schema(example = "rte_9c31aB7KmPq2XwZe")]
    id: String,
    user_id: String,
    #[schema(example = "support@acme.dev")]
    match_pattern: String,
    /// `webhook`, `forward`, `store` or `drop`.
    #[schema(example = "webhook")]
    action: &'static str,
    /// URL or address; null for `store` and `drop`.
    #[schema(example = "https://app.acme.dev/hook")]
    destination: Option<String>,
    /// `lenient`, `ack` or `control`; null unless the action is `webhook`.
    #[schema(example = "lenient")]
    ack_mode: Option<&'static str>,
    active: bool,
    /// True for the route of `PUT /api/domains/:id/webhook`.
    is_domain_webhook: bool,
    agent_prompt: Option<String>,
    agent_forward_to: Option<String>,
    agent_context: Option<String>,
    /// Status of the latest attempt.
    last_status: Option<String>,
    /// HTTP or SMTP code of the latest attempt.
    last_status_code: Option<u16>,
    /// Handling of mail from unauthenticated authors: `refuse` or `rewrite`; null unless the action is `forward`.
    on_auth_fail: Option<&'static str>,
    /// True once the destination confirmed; null unless the action is `forward`.
    destination_proven: Option<bool>,
    /// Time at which the confirmation link was last mailed; null if never.
    destination_asked_at: Option<Timestamp>,
    /// Time at which the destination declined; null if it did not.
    destination_declined_at: Option<Timestamp>,
    /// Earliest time of the next attempt while the endpoint pauses after failures; null unless the action is `webhook`.
    paused_until: Option<Timestamp>,
    created_at: Timestamp,
    updated_at: Timestamp,
}

impl RouteView {
    /// Creates the view of a route, with the state of its destination.
    pub(super) fn new(app: &AppState, connection: &Connection, row: RouteRow, user_id: &str) -> store::Result<Self> {
        let url = row.destination.as_deref().filter(|_| row.action == Action::Webhook);
        let paused_until = url.and_then(|url| app.webhooks.paused_until(url, row.account_id, app.clock.now()));
        let (mut destination_proven, mut request) = (None, None);
        if let Some(Ok(to)) = row.destination.as_deref().map(Mailbox::parse)
            && row.action == Action::Forward
        {
            destination_proven = Some(app.config.dev || destinations::is_confirmed(connection, row.account_id, &to)?);
            request = destinations::find_asked(connection, row.account_id, &to)?;
        }
        Ok(Self {
            destination_asked_at: request.map(|request| request.at),
            destination_declined_at: request.and_then(|request| request.declined_at),
            paused_until,
            on_auth_fail: (row.action == Action::Forward).then(|| row.on_auth_fail.as_str()),
            destination_proven,
            id: row.public_id.to_string(),
            user_id: user_id.to_owned(),
            match_pattern: row.match_pattern,
            action: row.action.as_str(),
            destination: row.destination,
            ack_mode: row.ack_mode.map(AckMode::as_str),
            active: row.active,
            is_domain_webhook: row.is_domain_webhook,
            agent_prompt: None,
            agent_forward_to: None,
            agent_context: None,
            last_status: row.last_status,
            last_status_code: row.last_status_code,
            created_at: row.created_at,
            updated_at: row.updated_at,
        })
    }
}

/// A new route with its secret.
#[derive(Serialize, ToSchema)]
pub(crate) struct CreatedRoute {
    #[serde(flatten)]
    row: RouteView,
    /// Null unless the action is `webhook`.
    #[schema(example = "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=")]
    signing_secret: Option<String>,
}

/// `GET /api/routes`
pub(crate) async fn list(State(app): State<AppState>, caller: Caller) -> Result<Json<Vec<RouteView>>, ApiError> {
    let (account, scope) = (caller.id(), caller.scope());
    let (state, user) = (app.clone(), caller.account.public_id.to_string());
    let views = app.db.read(move |connection| {
        let rows = routes::list(connection, account, scope)?;
        rows.into_iter().map(|row| RouteView::new(&state, connection, row, &user)).collect()
    });
    Ok(Json(views.await?))
}

/// `POST /api/routes`
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct NewRouteFields {
    /// An address, a pattern with one `*` in its local part, or `/regex/`.
    #[serde(default, rename = "match")]
    #[schema(value_type = String, example = "support@acme.dev")]
    match_pattern: Lenient<String>,
    /// `webhook` (default), `forward`, `store` or `drop`.
    #[serde(default)]
    #[schema(value_type = Option<String>, example = "webhook")]
    action: Lenient<String>,
    /// A webhook's URL or a forward's address; absent, null or "" for `store` and `drop`.
    #[serde(default)]
    #[schema(value_type = Option<String>, example = "https://app.acme.dev/hook")]
    destination: Lenient<String>,
    /// `lenient` (default), `ack` or `control`; webhooks only.
    #[serde(default)]
    #[schema(value_type = Option<String>, example = "lenient")]
    ack_mode: Lenient<String>,
    /// `refuse` (default) or `rewrite`; forwards only.
    #[serde(default)]
    #[schema(value_type = Option<String>, example = "refuse")]
    on_auth_fail: Lenient<String>,
}

/// Mails the confirmation request to a forward route's destination, unless that was done (contract 4.6).
async fn ask_destination(app: &AppState, caller: &Caller, route: &RouteRow) -> Result<(), ApiError> {
    let to = route.destination.as_deref().map(Mailbox::parse);
    let Some(Ok(to)) = to.filter(|_| route.action == Action::Forward) else { return Ok(()) };
    let pattern = Pattern::parse(&route.match_pattern).ok();
    let source = pattern.as_ref().and_then(Pattern::domain).unwrap_or("its domains");
    Ok(app.accounts.ask_destination(caller.account.clone(), to, source, app.clock.now()).await?)
}

/// `POST /api/routes`
pub(crate) async fn create(
    State(app): State<AppState>,
    caller: Caller,
    body: Body,
) -> Result<(StatusCode, Json<CreatedRoute>), ApiError> {
    let fields: NewRouteFields = body.fields()?;
    let text = fields.match_pattern.required(|| ApiError::at(Code::MatchRequired, "match"))?;
    let matched = Match::parse(&text)?;
    let _guard = matched.check(&app, caller.id(), None).await?;
    let action = action(fields.action)?;
    let destination = destination(&app, action, fields.destination)?;
    let mode = ack_mode(fields.ack_mode)?;
    let policy = on_auth_fail(fields.on_auth_fail)?.filter(|_| action == Action::Forward);
    let is_webhook = action == Action::Webhook;
    let secret = is_webhook.then(secrets::new_webhook_secret);
    let sealed = secret.as_ref().map(|secret| app.secrets.seal(SECRET_PURPOSE, secret.as_bytes()));
    let (now, user) = (app.clock.now(), caller.account.public_id.to_string());
    let limits = Arc::clone(&app.account_limits);
    let owner = caller.clone();
    let created = app.db.try_write(move |tx| {
        let domain_id = matched.domain(tx, &caller)?;
        if routes::find_same(tx, caller.id(), &matched.text, action, destination.as_deref())?.is_some() {
            return Err(Code::RouteExists.into());
        }
        limits.admit(tx, caller.id(), Kind::Routes)?;
        if domain_id.is_none() {
            limits.admit(tx, caller.id(), Kind::RegexRoutes)?;
        }
        let new = NewRoute {
            account_id: caller.id(),
            domain_id,
            match_pattern: matched.text,
            action,
            destination,
            ack_mode: is_webhook.then(|| mode.unwrap_or_default()),
            is_domain_webhook: false,
            secret_sealed: sealed,
        };
        let id = routes::insert(tx, &new, now)?;
        if let Some(policy) = policy {
            routes::set_on_auth_fail(tx, &id, policy)?;
        }
        routes::find(tx, &id)?.ok_or_else(ApiError::not_found)
    });
    let row = created.await?;
    ask_destination(&app, &owner, &row).await?;
    let row = view(&app, row, user).await?;
    Ok((StatusCode::CREATED, Json(CreatedRoute { row, signing_secret: secret })))
}

async fn view(app: &AppState, row: RouteRow, user: String) -> Result<RouteView, ApiError> {
    let state = app.clone();
    Ok(app.db.read(move |connection| RouteView::new(&state, connection, row, &user)).await?)
}

/// Finds a route that the caller may use.
///
/// # Errors
/// 404 if it is unknown or another account's, 403 beyond a scoped key's domain.
fn find_route(connection: &Connection, caller: &Caller, id: &RouteId) -> Result<RouteRow, ApiError> {
    let found = routes::find(connection, id)?.filter(|row| row.account_id == caller.id());
    let row = found.ok_or_else(ApiError::not_found)?;
    caller.require_domain(row.domain_id)?;
    Ok(row)
}

/// As [`find_route`], by the id in a path.
///
/// # Errors
/// 404 or 403, as there.
pub(crate) async fn find_own_route(app: &AppState, caller: &Caller, id: &str) -> Result<RouteRow, ApiError> {
    let id = RouteId::parse(id).ok_or_else(ApiError::not_found)?;
    let caller = caller.clone();
    app.db.try_read(move |connection| find_route(connection, &caller, &id)).await
}

async fn find_own_webhook_route(app: &AppState, caller: &Caller, id: &str) -> Result<RouteRow, ApiError> {
    let route = find_own_route(app, caller, id).await?;
    if route.action == Action::Webhook { Ok(route) } else { Err(Code::RouteAction.into()) }
}

/// `PATCH /api/routes/:id`
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct RouteChange {
    #[serde(default)]
    #[schema(value_type = Option<bool>)]
    active: Lenient<bool>,
    #[serde(default)]
    #[schema(value_type = Option<String>, example = "https://app.acme.dev/hook")]
    destination: Lenient<String>,
    #[serde(default)]
    #[schema(value_type = Option<String>, example = "lenient")]
    ack_mode: Lenient<String>,
    #[serde(default, rename = "match")]
    #[schema(value_type = Option<String>, example = "support@acme.dev")]
    match_pattern: Lenient<String>,
    #[serde(default)]
    #[schema(value_type = Option<String>, example = "refuse")]
    on_auth_fail: Lenient<String>,
}

/// `PATCH /api/routes/:id`
pub(crate) async fn change(
    State(app): State<AppState>,
    caller: Caller,
    Path(id): Path<String>,
    body: Body,
) -> Result<Json<RouteView>, ApiError> {
    let old = find_own_route(&app, &caller, &id).await?;
    let fields: RouteChange = body.fields()?;
    let active =
        fields.active.optional(|| ApiError::field(Code::BadRequest, "active", "active must be true or false"))?;
    let new_destination = match fields.destination {
        Lenient::Absent => None,
        given => Some(destination(&app, old.action, given)?),
    };
    let mode = ack_mode(fields.ack_mode)?.filter(|_| old.action == Action::Webhook);
    let text = fields.match_pattern.optional(|| ApiError::at(Code::BadMatch, "match"))?;
    let matched = text.as_deref().map(Match::parse).transpose()?;
    let _guard = match &matched {
        Some(matched) => matched.check(&app, caller.id(), Some(old.public_id.clone())).await?,
        None => None,
    };
    let policy = on_auth_fail(fields.on_auth_fail)?.filter(|_| old.action == Action::Forward);
    let (owner, changes_destination) = (caller.clone(), new_destination.is_some());
    let (now, user) = (app.clock.now(), caller.account.public_id.to_string());
    let limits = Arc::clone(&app.account_limits);
    let changed = app.db.try_write(move |tx| {
        // Read again: a concurrent request may have changed or removed it.
        let row = find_route(tx, &caller, &old.public_id)?;
        let mut change = Change {
            domain_id: row.domain_id,
            match_pattern: row.match_pattern.clone(),
            destination: new_destination.unwrap_or(row.destination),
            ack_mode: mode.or(row.ack_mode),
            active: active.unwrap_or(row.active),
            is_domain_webhook: row.is_domain_webhook,
        };
        if let Some(matched) = matched.filter(|matched| matched.text != row.match_pattern) {
            if row.is_domain_webhook {
                return Err(Code::DomainWebhookRoute.into());
            }
            change.domain_id = matched.domain(tx, &caller)?;
            change.match_pattern = matched.text;
            if change.domain_id.is_none() && row.domain_id.is_some() {
                limits.admit(tx, caller.id(), Kind::RegexRoutes)?;
            }
        }
        let same =
            routes::find_same(tx, caller.id(), &change.match_pattern, row.action, change.destination.as_deref())?;
        if same.is_some_and(|same| same.public_id != row.public_id) {
            return Err(Code::RouteExists.into());
        }
        routes::update(tx, &row.public_id, &change, now)?;
        if let Some(policy) = policy {
            routes::set_on_auth_fail(tx, &row.public_id, policy)?;
        }
        routes::find(tx, &row.public_id)?.ok_or_else(ApiError::not_found)
    });
    let row = changed.await?;
    if !row.active {
        app.webhooks.end_routes(vec![row.public_id.clone()], now).await?;
    }
    if changes_destination {
        ask_destination(&app, &owner, &row).await?;
    }
    Ok(Json(view(&app, row, user).await?))
}

/// `DELETE /api/routes/:id`
pub(crate) async fn delete(
    State(app): State<AppState>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<Json<OkView>, ApiError> {
    let route = find_own_route(&app, &caller, &id).await?;
    remove(&app, route.public_id).await?;
    Ok(OK)
}

/// Removes a route and ends its pending deliveries.
pub(crate) async fn remove(app: &AppState, id: RouteId) -> Result<(), ApiError> {
    let (gone, now) = (id.clone(), app.clock.now());
    let removed = app.db.write_removal(move |tx| {
        let webhook = routes::find(tx, &gone)?.filter(|route| route.is_domain_webhook);
        if let Some(domain) = webhook.and_then(|route| route.domain_id) {
            former_webhooks::note(tx, &gone, domain, now)?;
        }
        routes::delete(tx, &gone)
    });
    removed.await?;
    app.webhooks.end_routes(vec![id], now).await?;
    Ok(())
}

/// `POST /api/routes/:id/secret/rotate`
pub(crate) async fn rotate_secret(
    State(app): State<AppState>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<Json<RotatedSecret>, ApiError> {
    let route = find_own_webhook_route(&app, &caller, &id).await?;
    rotate(&app, route.public_id).await.map(Json)
}

/// Gives a webhook route a new secret; for a day both sign.
pub(crate) async fn rotate(app: &AppState, id: RouteId) -> Result<RotatedSecret, ApiError> {
    let (secret, now) = (secrets::new_webhook_secret(), app.clock.now());
    let (sealed, until) = (app.secrets.seal(SECRET_PURPOSE, secret.as_bytes()), now.plus(SECRET_ROTATION_OVERLAP));
    app.db.write(move |tx| routes::rotate_secret(tx, &id, &sealed, until, now)).await?;
    Ok(RotatedSecret { secret, previous_valid_until: until })
}
