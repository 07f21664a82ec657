//! Preview of the routes that an address reaches (ours), from the table that received mail uses.

use axum::Json;
use axum::extract::State;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::routes::RouteView;
use crate::http::AppState;
use crate::http::auth::Caller;
use crate::http::error::{ApiError, Code};
use crate::http::extract::Query;
use crate::mail::address::Mailbox;
use crate::store::accounts::domains;
use crate::store::webhooks::routes;
use crate::store::webhooks::routes::Action;

/// `GET /api/routes/match`
#[derive(Deserialize, IntoParams)]
pub(crate) struct MatchQuery {
    /// A recipient's address.
    #[param(required = true)]
    address: Option<String>,
}

/// Routes that mail to an address would reach.
#[derive(Serialize, ToSchema)]
pub(crate) struct MatchView {
    /// The address in the form that routes compare.
    address: String,
    /// True for addresses of the account's verified domains; others reach no route.
    known: bool,
    /// Active routes, oldest first.
    matches: Vec<RouteView>,
    /// True if one of them drops the mail, so that the others have no effect.
    drop: bool,
}

/// `GET /api/routes/match`
pub(crate) async fn find(
    State(app): State<AppState>,
    caller: Caller,
    Query(query): Query<MatchQuery>,
) -> Result<Json<MatchView>, ApiError> {
    let bad = || ApiError::field(Code::BadQuery, "address", "address must be one e-mail address");
    let mailbox = Mailbox::parse_received(query.address.as_deref().unwrap_or_default().trim()).map_err(|_| bad())?;
    let (account, address) = (caller.id(), mailbox.canonical_for_routes());
    let name = mailbox.domain().as_str().to_lowercase();
    let found = app.db.read(move |connection| {
        let domain = domains::find_by_name_or_id(connection, account, &name, "")?.filter(|domain| domain.verified);
        Ok(domain)
    });
    let domain = found.await?;
    caller.require_domain(domain.as_ref().map(|domain| domain.id))?;
    let known = domain.is_some();
    let scope = caller.scope();
    let (mut matching, _) = match known {
        true => app.inbound.directory().matching(account, &address).await?,
        false => (Vec::new(), 0),
    };
    // Routes without a domain are invisible to scoped keys.
    matching.retain(|route| scope.is_none() || route.row.domain_id == scope);
    let drop = matching.iter().any(|route| route.row.action == Action::Drop);
    let (state, user) = (app.clone(), caller.account.public_id.to_string());
    let views = app.db.read(move |connection| {
        let rows = matching.iter().map(|route| routes::RouteRow::clone(&route.row));
        rows.map(|row| RouteView::new(&state, connection, row, &user)).collect::<crate::store::Result<_>>()
    });
    let matches = views.await?;
    Ok(Json(MatchView { address, known, matches, drop }))
}
