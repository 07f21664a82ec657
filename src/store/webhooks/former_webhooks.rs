//! Former ids of each domain's webhook. A delivery belongs to the domain, whichever row holds its webhook: it is
//! attempted with the domain's present webhook (contract 3.6, 6.2).

use rusqlite::{Connection, OptionalExtension, params};

use super::routes::{self, RouteRow};
use crate::clock::Timestamp;
use crate::id::{DomainRowId, RouteId};
use crate::store::Result;

/// Ids kept for each domain, the newest.
const MOST: u32 = 20;

/// Records the id of a domain's webhook that is being removed.
pub(crate) fn note(connection: &Connection, route: &RouteId, domain: DomainRowId, now: Timestamp) -> Result<()> {
    connection
        .prepare_cached(
            "INSERT OR REPLACE INTO former_webhook (route_id, domain_id, removed_at) VALUES (?1, ?2, ?3)",
        )?
        .execute(params![route, domain, now.as_millis()])?;
    connection
        .prepare_cached(
            "DELETE FROM former_webhook WHERE route_id IN
               (SELECT route_id FROM former_webhook WHERE domain_id = ?1
                ORDER BY removed_at DESC, route_id DESC LIMIT -1 OFFSET ?2)",
        )?
        .execute(params![domain, MOST])?;
    Ok(())
}

/// Takes the last id of a domain's webhook, for reuse by its new webhook.
pub(crate) fn take(connection: &Connection, domain: DomainRowId) -> Result<Option<RouteId>> {
    let taken = connection
        .prepare_cached(
            "DELETE FROM former_webhook WHERE route_id =
               (SELECT route_id FROM former_webhook WHERE domain_id = ?1
                ORDER BY removed_at DESC, route_id DESC LIMIT 1)
             RETURNING route_id",
        )?
        .query_row([domain], |row| row.get(0))
        .optional()?;
    Ok(taken)
}

/// Finds the route of a delivery: the one it was made for, or, if that was a domain's webhook, the domain's present
/// webhook.
pub(crate) fn find_route(connection: &Connection, id: &RouteId) -> Result<Option<RouteRow>> {
    if let Some(route) = routes::find(connection, id)? {
        return Ok(Some(route));
    }
    let domain = connection
        .prepare_cached("SELECT domain_id FROM former_webhook WHERE route_id = ?1")?
        .query_row([id], |row| row.get(0))
        .optional()?;
    domain.map_or(Ok(None), |domain| routes::find_domain_webhook(connection, domain))
}
