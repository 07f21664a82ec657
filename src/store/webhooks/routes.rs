//! Routes of accounts (contract 4).

use rusqlite::{Connection, OptionalExtension, Row, params};

use crate::clock::Timestamp;
use crate::id::{AccountRowId, DomainRowId, RouteId};
use crate::store::Result;
use crate::store::stored_enum::stored_enum;

/// Sealing purpose of `secret_sealed`.
pub const SECRET_PURPOSE: &str = "route-secret";

stored_enum! {
    /// Action of a route on a message.
    pub enum Action in "route action" {
        /// Post it to a URL.
        Webhook = "webhook",
        /// Forward it to one address.
        Forward = "forward",
        /// Store it.
        Store = "store",
        /// Accept and discard it.
        Drop = "drop",
    }
}

stored_enum! {
    /// Handling of mail with an unauthenticated author by a forward route (contract 4.6).
    #[derive(Default)]
    pub(crate) enum OnAuthFail in "route policy" {
        /// Store it, and forward nothing.
        #[default]
        Refuse = "refuse",
        /// Forward it with a From address of the recipient's domain.
        Rewrite = "rewrite",
    }
}

stored_enum! {
    /// The proof of delivery that a webhook has to give (contract 9.4).
    #[derive(Default)]
    pub enum AckMode in "acknowledgement mode" {
        /// Any 2xx.
        #[default]
        Lenient = "lenient",
        /// 2xx with an explicit `ok`.
        Ack = "ack",
        /// Any 2xx; the body carries instructions.
        Control = "control",
    }
}

/// A route as stored.
#[derive(Clone, Debug)]
pub struct RouteRow {
    /// Public id.
    pub(crate) public_id: RouteId,
    /// Account that owns it.
    pub(crate) account_id: AccountRowId,
    /// Domain of its match; none for a regex.
    pub(crate) domain_id: Option<DomainRowId>,
    /// The match as written (contract 4.1).
    pub(crate) match_pattern: String,
    pub(crate) action: Action,
    /// URL or address, by action.
    pub(crate) destination: Option<String>,
    /// Only webhooks have one.
    pub(crate) ack_mode: Option<AckMode>,
    pub(crate) active: bool,
    /// The signing secret, sealed; only webhooks have one.
    pub(crate) secret_sealed: Option<Vec<u8>>,
    /// The secret before the last rotation, sealed.
    pub(crate) previous_secret_sealed: Option<Vec<u8>>,
    /// End of the time in which the previous secret signs too.
    pub(crate) previous_valid_until: Option<Timestamp>,
    /// True for the webhook managed by `PUT webhook` (contract 4.2).
    pub(crate) is_domain_webhook: bool,
    /// Result of the latest run.
    pub(crate) last_status: Option<String>,
    /// HTTP or SMTP code of that result.
    pub(crate) last_status_code: Option<u16>,
    pub(crate) created_at: Timestamp,
    /// Time of the last change.
    pub(crate) updated_at: Timestamp,
    /// Handling of mail with an unauthenticated author; only for forward routes.
    pub(crate) on_auth_fail: OnAuthFail,
}

/// Data of a new route.
#[derive(Clone, Debug)]
pub struct NewRoute {
    /// Account that owns it.
    pub account_id: AccountRowId,
    /// Domain of its match; none for a regex.
    pub domain_id: Option<DomainRowId>,
    /// The match (contract 4.1).
    pub match_pattern: String,
    /// Action on a message.
    pub action: Action,
    /// URL or address.
    pub destination: Option<String>,
    /// Acknowledgement mode of a webhook.
    pub ack_mode: Option<AckMode>,
    /// True for the webhook managed by `PUT webhook`.
    pub is_domain_webhook: bool,
    /// The signing secret of a webhook, sealed.
    pub secret_sealed: Option<Vec<u8>>,
}

const COLUMNS: &str = "public_id, account_id, domain_id, match_pattern, action, destination, ack_mode, active,
     secret_sealed, previous_secret_sealed, previous_valid_until, is_domain_webhook, last_status, last_status_code,
     created_at, updated_at, on_auth_fail";

fn read(row: &Row<'_>) -> rusqlite::Result<RouteRow> {
    Ok(RouteRow {
        public_id: row.get("public_id")?,
        account_id: row.get("account_id")?,
        domain_id: row.get("domain_id")?,
        match_pattern: row.get("match_pattern")?,
        action: row.get("action")?,
        destination: row.get("destination")?,
        ack_mode: row.get("ack_mode")?,
        active: row.get("active")?,
        secret_sealed: row.get("secret_sealed")?,
        previous_secret_sealed: row.get("previous_secret_sealed")?,
        previous_valid_until: row.get::<_, Option<i64>>("previous_valid_until")?.map(Timestamp::from_millis),
        is_domain_webhook: row.get("is_domain_webhook")?,
        last_status: row.get("last_status")?,
        last_status_code: row.get("last_status_code")?,
        created_at: Timestamp::from_millis(row.get("created_at")?),
        updated_at: Timestamp::from_millis(row.get("updated_at")?),
        on_auth_fail: row.get::<_, Option<OnAuthFail>>("on_auth_fail")?.unwrap_or_default(),
    })
}

/// Stores a new, active route.
///
/// # Errors
/// [`crate::store::Error::Conflict`] when the domain has a webhook already.
pub fn insert(connection: &Connection, new: &NewRoute, now: Timestamp) -> Result<RouteId> {
    insert_as(connection, RouteId::new(now), new, now)
}

/// Does the same as [`insert`], with a given id.
///
/// # Errors
/// Those of [`insert`].
pub(crate) fn insert_as(
    connection: &Connection,
    public_id: RouteId,
    new: &NewRoute,
    now: Timestamp,
) -> Result<RouteId> {
    connection
        .prepare_cached(
            "INSERT INTO route (public_id, account_id, domain_id, match_pattern, action, destination, ack_mode,
                                is_domain_webhook, secret_sealed, created_at, updated_at)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?10)",
        )?
        .execute(params![
            public_id,
            new.account_id,
            new.domain_id,
            new.match_pattern,
            new.action,
            new.destination,
            new.ack_mode,
            new.is_domain_webhook,
            new.secret_sealed,
            now.as_millis()
        ])?;
    Ok(public_id)
}

/// Lists the active routes of an account, oldest first.
pub(crate) fn list_active(connection: &Connection, account: AccountRowId) -> Result<Vec<RouteRow>> {
    let statement = format!("SELECT {COLUMNS} FROM route WHERE account_id = ?1 AND active = 1 ORDER BY id");
    let rows = connection.prepare_cached(&statement)?.query_map([account], read)?.collect::<rusqlite::Result<_>>()?;
    Ok(rows)
}

/// Lists the routes of an account, oldest first; with `domain`, those whose match is on it.
pub(crate) fn list(
    connection: &Connection,
    account: AccountRowId,
    domain: Option<DomainRowId>,
) -> Result<Vec<RouteRow>> {
    let statement =
        format!("SELECT {COLUMNS} FROM route WHERE account_id = ?1 AND (?2 IS NULL OR domain_id = ?2) ORDER BY id");
    let rows = connection
        .prepare_cached(&statement)?
        .query_map(params![account, domain], read)?
        .collect::<rusqlite::Result<_>>()?;
    Ok(rows)
}

/// Finds a route of the account with this match (in any case), action and destination.
pub(crate) fn find_same(
    connection: &Connection,
    account: AccountRowId,
    match_pattern: &str,
    action: Action,
    destination: Option<&str>,
) -> Result<Option<RouteRow>> {
    let statement = format!(
        "SELECT {COLUMNS} FROM route
         WHERE account_id = ?1 AND lower(match_pattern) = lower(?2) AND action = ?3 AND destination IS ?4
         ORDER BY id LIMIT 1"
    );
    Ok(connection
        .prepare_cached(&statement)?
        .query_row(params![account, match_pattern, action, destination], read)
        .optional()?)
}

/// New values of a route.
#[derive(Clone, Debug)]
pub(crate) struct Change {
    /// Domain of its match; none for a regex.
    pub(crate) domain_id: Option<DomainRowId>,
    pub(crate) match_pattern: String,
    /// URL or address.
    pub(crate) destination: Option<String>,
    /// Acknowledgement mode of a webhook.
    pub(crate) ack_mode: Option<AckMode>,
    pub(crate) active: bool,
    /// True for the webhook managed by `PUT webhook`.
    pub(crate) is_domain_webhook: bool,
}

/// Updates a route; its action, id and secret stay.
///
/// # Errors
/// [`crate::store::Error::Conflict`] when the domain has another webhook already.
pub(crate) fn update(connection: &Connection, id: &RouteId, change: &Change, now: Timestamp) -> Result<()> {
    connection
        .prepare_cached(
            "UPDATE route SET domain_id = ?2, match_pattern = ?3, destination = ?4, ack_mode = ?5, active = ?6,
                              is_domain_webhook = ?7, updated_at = ?8
             WHERE public_id = ?1",
        )?
        .execute(params![
            id,
            change.domain_id,
            change.match_pattern,
            change.destination,
            change.ack_mode,
            change.active,
            change.is_domain_webhook,
            now.as_millis()
        ])?;
    Ok(())
}

/// Removes a route.
pub(crate) fn delete(connection: &Connection, id: &RouteId) -> Result<()> {
    connection.prepare_cached("DELETE FROM route WHERE public_id = ?1")?.execute([id])?;
    Ok(())
}

/// Finds a route by its public id.
pub fn find(connection: &Connection, id: &RouteId) -> Result<Option<RouteRow>> {
    let statement = format!("SELECT {COLUMNS} FROM route WHERE public_id = ?1");
    Ok(connection.prepare_cached(&statement)?.query_row([id], read).optional()?)
}

/// Finds the webhook of a domain for all its addresses.
pub(crate) fn find_domain_webhook(connection: &Connection, domain: DomainRowId) -> Result<Option<RouteRow>> {
    let statement = format!("SELECT {COLUMNS} FROM route WHERE domain_id = ?1 AND is_domain_webhook = 1");
    Ok(connection.prepare_cached(&statement)?.query_row([domain], read).optional()?)
}

/// Replaces the URL of a webhook; its secret and id stay.
pub fn set_destination(connection: &Connection, id: &RouteId, destination: &str, now: Timestamp) -> Result<()> {
    connection
        .prepare_cached("UPDATE route SET destination = ?2, updated_at = ?3 WHERE public_id = ?1")?
        .execute(params![id, destination, now.as_millis()])?;
    Ok(())
}

/// Replaces a webhook's secret; the previous one signs too until `previous_valid_until` (contract 9.3).
pub fn rotate_secret(
    connection: &Connection,
    id: &RouteId,
    sealed: &[u8],
    until: Timestamp,
    now: Timestamp,
) -> Result<()> {
    connection
        .prepare_cached(
            "UPDATE route SET previous_secret_sealed = secret_sealed, previous_valid_until = ?3,
                              secret_sealed = ?2, updated_at = ?4
             WHERE public_id = ?1",
        )?
        .execute(params![id, sealed, until.as_millis(), now.as_millis()])?;
    Ok(())
}

/// Sets the handling of mail with an unauthenticated author.
pub(crate) fn set_on_auth_fail(connection: &Connection, id: &RouteId, policy: OnAuthFail) -> Result<()> {
    connection
        .prepare_cached("UPDATE route SET on_auth_fail = ?2 WHERE public_id = ?1")?
        .execute(params![id, policy])?;
    Ok(())
}

/// Activates or deactivates a route.
pub fn set_active(connection: &Connection, id: &RouteId, active: bool, now: Timestamp) -> Result<()> {
    connection
        .prepare_cached("UPDATE route SET active = ?2, updated_at = ?3 WHERE public_id = ?1")?
        .execute(params![id, active, now.as_millis()])?;
    Ok(())
}

/// Deactivates all routes of an account; its mail is stored meanwhile.
pub(crate) fn pause_all(connection: &Connection, account: AccountRowId, now: Timestamp) -> Result<()> {
    connection
        .prepare_cached("UPDATE route SET active = 0, updated_at = ?2 WHERE account_id = ?1 AND active = 1")?
        .execute(params![account, now.as_millis()])?;
    Ok(())
}

/// Records the result of the latest run; writes nothing if it is unchanged.
pub(crate) fn note_outcome(connection: &Connection, id: &RouteId, status: &str, code: Option<u16>) -> Result<()> {
    connection
        .prepare_cached(
            "UPDATE route SET last_status = ?2, last_status_code = ?3
             WHERE public_id = ?1 AND (last_status IS NOT ?2 OR last_status_code IS NOT ?3)",
        )?
        .execute(params![id, status, code])?;
    Ok(())
}
