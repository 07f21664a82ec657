//! All deliveries of an account in one list (ours).

use std::collections::HashMap;

use axum::Json;
use axum::extract::State;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::deliveries::DeliveryView;
use crate::clock::Timestamp;
use crate::http::AppState;
use crate::http::auth::Caller;
use crate::http::error::{ApiError, Code};
use crate::http::extract::{Query, integer};
use crate::id::{DeliveryId, DomainRowId};
use crate::store::accounts::domains;
use crate::store::webhooks::deliveries;
use crate::store::webhooks::deliveries::DeliveryStatus;
use crate::store::webhooks::delivery_list;
use crate::store::webhooks::delivery_list::{Filter, Listed};
use crate::webhook::attempt::deliver::Webhooks;

const DEFAULT_LIMIT: i64 = 100;
const MAX_LIMIT: i64 = 200;

/// `GET /api/deliveries`
#[derive(Deserialize, IntoParams)]
#[serde(rename_all = "camelCase")]
#[into_params(rename_all = "camelCase")]
pub(crate) struct ListQuery {
    /// `pending`, `delivered` or `failed`.
    status: Option<String>,
    /// Id or name of a domain.
    domain: Option<String>,
    /// Only deliveries of this route.
    route_id: Option<String>,
    /// Only of events at or after this time, in milliseconds.
    #[param(value_type = Option<i64>)]
    since: Option<String>,
    /// Only of events before this time, in milliseconds.
    #[param(value_type = Option<i64>)]
    until: Option<String>,
    /// `nextCursor` of the previous page.
    before: Option<String>,
    /// 1 to 200, by default 100; clamped.
    #[param(value_type = Option<i64>)]
    limit: Option<String>,
}

/// A page of deliveries.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct DeliveryPage {
    deliveries: Vec<ListedView>,
    /// `before` of the next page; null at the end. Earlier pages may be short, or empty.
    next_cursor: Option<String>,
}

/// A delivery with its message.
#[derive(Serialize, ToSchema)]
struct ListedView {
    #[serde(flatten)]
    delivery: DeliveryView,
    /// These four are null once the message is no longer stored.
    subject: Option<String>,
    from_addr: Option<String>,
    to_addr: Option<String>,
    received_at: Option<Timestamp>,
    /// Name of the domain; null if it was removed.
    domain: Option<String>,
}

/// `GET /api/deliveries`
pub(crate) async fn list(
    State(app): State<AppState>,
    caller: Caller,
    Query(query): Query<ListQuery>,
) -> Result<Json<DeliveryPage>, ApiError> {
    let limit = integer("limit", query.limit.as_deref())?.unwrap_or(DEFAULT_LIMIT).clamp(1, MAX_LIMIT);
    let status = match query.status.as_deref().filter(|status| !status.is_empty()) {
        None => None,
        Some(given) => {
            let unknown = || ApiError::field(Code::BadQuery, "status", "status is pending, delivered or failed");
            Some(DeliveryStatus::from_word(given).ok_or_else(unknown)?)
        }
    };
    let mut filter = Filter {
        status,
        domain: caller.scope(),
        route: query.route_id.filter(|route| !route.is_empty()),
        since: integer("since", query.since.as_deref())?.map(Timestamp::from_millis),
        until: integer("until", query.until.as_deref())?.map(Timestamp::from_millis),
        before: None,
        limit: usize::try_from(limit).unwrap_or(1),
    };
    let account = caller.id();
    let cursor = query.before.filter(|cursor| !cursor.is_empty());
    let wanted = query.domain.filter(|domain| !domain.is_empty());
    let found = app.db.read(move |connection| {
        if let Some(name) = wanted {
            let found = domains::find_by_name_or_id(connection, account, &name, &name)?;
            let within = found.filter(|domain| caller.require_domain(Some(domain.id)).is_ok());
            let Some(domain) = within else { return Ok(Some((Vec::new(), None, HashMap::new()))) };
            filter.domain = Some(domain.id);
        }
        if let Some(cursor) = cursor {
            let row = match DeliveryId::parse(&cursor) {
                Some(id) => deliveries::find_in_scope(connection, &id, account, None)?,
                None => None,
            };
            let Some(row) = row else { return Ok(None) };
            filter.before = Some(row);
        }
        let (page, next) = delivery_list::list(connection, account, &filter)?;
        let names = domains::list(connection, account, None)?.into_iter().map(|row| (row.id, row.name)).collect();
        Ok(Some((page, next, names)))
    });
    let unknown = || ApiError::field(Code::BadQuery, "before", "before is no nextCursor of this list");
    let (page, next_cursor, names) = found.await?.ok_or_else(unknown)?;
    let now = app.clock.now();
    let deliveries = page.into_iter().map(|listed| view(listed, &names, &app.webhooks, now)).collect();
    Ok(Json(DeliveryPage { deliveries, next_cursor }))
}

fn view(listed: Listed, names: &HashMap<DomainRowId, String>, webhooks: &Webhooks, now: Timestamp) -> ListedView {
    let Listed { delivery, message } = listed;
    let Some(message) = message else {
        let delivery = DeliveryView::new(delivery, None, webhooks, now);
        return ListedView {
            delivery,
            subject: None,
            from_addr: None,
            to_addr: None,
            received_at: None,
            domain: None,
        };
    };
    ListedView {
        delivery: DeliveryView::new(delivery, Some(message.public_id), webhooks, now),
        subject: message.subject,
        from_addr: Some(message.from_addr),
        to_addr: Some(message.to_addr),
        received_at: Some(message.received_at),
        domain: message.domain.and_then(|domain| names.get(&domain).cloned()),
    }
}
