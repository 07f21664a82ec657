//! Replay of stored messages to a webhook route: list candidates, post them (contract 6.4).

use axum::Json;
use axum::extract::State;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::deliveries::{Results, ids};
use super::messages::MessageView;
use super::routes::find_own_route;
use crate::clock::Timestamp;
use crate::http::AppState;
use crate::http::auth::Caller;
use crate::http::body::{Body, Lenient};
use crate::http::error::{ApiError, Code};
use crate::http::extract::{Path, Query, integer};
use crate::inbound::route::Pattern;
use crate::store;
use crate::store::messages::replay_candidates;
use crate::store::webhooks::deliveries;
use crate::store::webhooks::routes::Action;
use crate::webhook::manual::replay::{BULK_MAX, Scope};

const DEFAULT_LIMIT: i64 = 50;
const MAX_LIMIT: i64 = 100;

/// `GET /api/routes/:id/candidates`
#[derive(Deserialize, IntoParams)]
pub(crate) struct CandidatesQuery {
    /// Only messages with a smaller `received_at`, in milliseconds.
    #[param(value_type = Option<i64>)]
    before: Option<String>,
    /// 1 to 100, by default 50; clamped.
    #[param(value_type = Option<i64>)]
    limit: Option<String>,
}

/// A message that the route covers.
#[derive(Serialize, ToSchema)]
pub(crate) struct CandidateView {
    #[serde(flatten)]
    row: MessageView,
    /// True if it was delivered to this route.
    delivered_here: bool,
}

/// A page of the messages that a route covers.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct CandidatesView {
    messages: Vec<CandidateView>,
    /// `before` of the next page; null at the end. A page may be short although it is set.
    next_before: Option<Timestamp>,
}

/// `GET /api/routes/:id/candidates`
pub(crate) async fn candidates(
    State(app): State<AppState>,
    caller: Caller,
    Path(id): Path<String>,
    Query(query): Query<CandidatesQuery>,
) -> Result<Json<CandidatesView>, ApiError> {
    let route = find_own_route(&app, &caller, &id).await?;
    let before = integer("before", query.before.as_deref())?.map(Timestamp::from_millis);
    let limit = integer("limit", query.limit.as_deref())?.unwrap_or(DEFAULT_LIMIT).clamp(1, MAX_LIMIT);
    if route.action != Action::Webhook {
        return Err(Code::RouteAction.into());
    }
    let criteria = replay_candidates::Query {
        account: caller.id(),
        domain: route.domain_id,
        route: route.public_id,
        before,
        limit: usize::try_from(limit).unwrap_or(1),
    };
    let user = caller.account.public_id.to_string();
    let view = app.db.read(move |connection| {
        // A stored match that this version cannot parse covers nothing.
        let pattern = Pattern::parse(&route.match_pattern).ok();
        let covers = |address: &str| pattern.as_ref().is_some_and(|pattern| pattern.matches(address));
        let step = replay_candidates::list(connection, &criteria, covers)?;
        let view = |one: replay_candidates::Candidate| {
            let counts = deliveries::counts(connection, one.message.id)?;
            Ok(CandidateView {
                row: MessageView::new(&one.message, None, counts, &user),
                delivered_here: one.delivered_here,
            })
        };
        let messages = step.found.into_iter().map(view).collect::<store::Result<_>>()?;
        Ok(CandidatesView { messages, next_before: step.next_before })
    });
    Ok(Json(view.await?))
}

/// `POST /api/routes/:id/deliver`
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Replay {
    /// 1 to 50 ids of stored inbound messages.
    #[serde(default)]
    #[schema(value_type = Vec<String>, required = true)]
    message_ids: Lenient<Vec<String>>,
}

/// `POST /api/routes/:id/deliver`
pub(crate) async fn deliver(
    State(app): State<AppState>,
    caller: Caller,
    Path(id): Path<String>,
    body: Body,
) -> Result<Json<Results>, ApiError> {
    let route = find_own_route(&app, &caller, &id).await?;
    let fields: Replay = body.fields()?;
    let ids = ids(fields.message_ids, "messageIds")?;
    if ids.is_empty() || ids.len() > BULK_MAX {
        return Err(ApiError::field(Code::BadRequest, "messageIds", "messageIds must hold 1 to 50 ids"));
    }
    if route.action != Action::Webhook {
        return Err(Code::RouteAction.into());
    }
    let scope = Scope { account: caller.id(), domain: caller.scope() };
    let results = app.webhooks.deliver_route(scope, route.public_id, ids, app.clock.now()).await?;
    Ok(Json(Results::new(results)))
}
