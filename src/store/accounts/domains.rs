//! Domains of accounts.

use rusqlite::{Connection, OptionalExtension, Row, params};

use crate::clock::Timestamp;
use crate::id::{AccountRowId, DomainId, DomainRowId};
use crate::mail::address::Domain;
use crate::store::Result;
use crate::store::stored_enum::stored_enum;

stored_enum! {
    /// State of a domain (contract 3.2).
    pub(crate) enum DomainStatus in "domain status" {
        Pending = "pending",
        Verified = "verified",
    }
}

/// A domain as stored.
#[derive(Clone, Debug)]
pub struct DomainRow {
    /// Row id.
    pub id: DomainRowId,
    /// Public id.
    pub public_id: DomainId,
    /// Account that owns it.
    pub account_id: AccountRowId,
    /// A-label, lower case.
    pub name: String,
    /// True if mail for it is accepted.
    pub verified: bool,
    /// Ownership and sending rights proven by its DNS records.
    pub flags: Flags,
    /// True if none of its mail is stored (contract 3.8).
    pub zero_retention: bool,
    /// Retention of its messages; none is the installation's default.
    pub retention_days: Option<u32>,
    /// Webhook for its sending events.
    pub tracking_webhook_url: Option<String>,
    /// JSON of the sending events that its own webhook gets: `"all"` or an array.
    pub webhook_events: Option<String>,
    /// When it was added.
    pub created_at: Timestamp,
    /// Time of the last check of its DNS records.
    pub checked_at: Option<Timestamp>,
    /// Time of its verification.
    pub verified_at: Option<Timestamp>,
}

/// Facts that a domain's DNS records prove (contract 3.2).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flags {
    /// Its MX points here.
    pub(crate) mx: bool,
    /// Its SPF record permits this server.
    pub(crate) spf: bool,
    /// Its DKIM keys are published.
    pub(crate) dkim: bool,
    /// It publishes a DMARC policy.
    pub(crate) dmarc: bool,
}

const COLUMNS: &str = "id, public_id, account_id, name, status, mx_verified, spf_verified, dkim_verified,
     dmarc_verified, zero_retention, retention_days, tracking_webhook_url, webhook_events, created_at, checked_at,
     verified_at";

fn read(row: &Row<'_>) -> rusqlite::Result<DomainRow> {
    Ok(DomainRow {
        id: row.get("id")?,
        public_id: row.get("public_id")?,
        account_id: row.get("account_id")?,
        name: row.get("name")?,
        verified: row.get::<_, DomainStatus>("status")? == DomainStatus::Verified,
        flags: Flags {
            mx: row.get("mx_verified")?,
            spf: row.get("spf_verified")?,
            dkim: row.get("dkim_verified")?,
            dmarc: row.get("dmarc_verified")?,
        },
        zero_retention: row.get("zero_retention")?,
        retention_days: row.get("retention_days")?,
        tracking_webhook_url: row.get("tracking_webhook_url")?,
        webhook_events: row.get("webhook_events")?,
        created_at: Timestamp::from_millis(row.get("created_at")?),
        checked_at: row.get::<_, Option<i64>>("checked_at")?.map(Timestamp::from_millis),
        verified_at: row.get::<_, Option<i64>>("verified_at")?.map(Timestamp::from_millis),
    })
}

/// Stores a new domain with all flags set to `verified`.
///
/// # Errors
/// [`crate::store::Error::Conflict`] when the account has it already, or with `verified` when another account holds it.
pub fn insert(
    connection: &Connection,
    account: AccountRowId,
    name: &str,
    verified: bool,
    now: Timestamp,
) -> Result<DomainRow> {
    let public_id = DomainId::new(now);
    connection
        .prepare_cached(
            "INSERT INTO domain (public_id, account_id, name, status, mx_verified, spf_verified, dkim_verified,
                                 dmarc_verified, created_at, verified_at)
             VALUES (?1, ?2, ?3, ?4, ?5, ?5, ?5, ?5, ?6, CASE WHEN ?5 THEN ?6 END)",
        )?
        .execute(params![
            public_id,
            account,
            name,
            if verified { DomainStatus::Verified } else { DomainStatus::Pending },
            verified,
            now.as_millis()
        ])?;
    find_by_row(connection, crate::id::RowId::new(connection.last_insert_rowid()))?
        .ok_or(crate::store::Error::Corrupt("domain"))
}

/// Finds a domain by row id.
pub(crate) fn find_by_row(connection: &Connection, id: DomainRowId) -> Result<Option<DomainRow>> {
    let statement = format!("SELECT {COLUMNS} FROM domain WHERE id = ?1");
    Ok(connection.prepare_cached(&statement)?.query_row([id], read).optional()?)
}

/// Finds a domain by its public id.
pub(crate) fn find(connection: &Connection, id: &DomainId) -> Result<Option<DomainRow>> {
    let statement = format!("SELECT {COLUMNS} FROM domain WHERE public_id = ?1");
    Ok(connection.prepare_cached(&statement)?.query_row([id], read).optional()?)
}

/// Lists the domains of an account, oldest first; with `only`, that one.
pub(crate) fn list(
    connection: &Connection,
    account: AccountRowId,
    only: Option<DomainRowId>,
) -> Result<Vec<DomainRow>> {
    let statement =
        format!("SELECT {COLUMNS} FROM domain WHERE account_id = ?1 AND (?2 IS NULL OR id = ?2) ORDER BY id");
    let rows = connection
        .prepare_cached(&statement)?
        .query_map(params![account, only], read)?
        .collect::<rusqlite::Result<_>>()?;
    Ok(rows)
}

/// Returns true if another account than `account` holds exactly this name as verified.
pub(crate) fn is_held_by_another(connection: &Connection, account: AccountRowId, name: &str) -> Result<bool> {
    Ok(connection
        .prepare_cached("SELECT 1 FROM domain WHERE name = ?1 AND status = 'verified' AND account_id <> ?2")?
        .exists(params![name, account])?)
}

/// Lists domains with something proven whose last check was before `before`, longest ago first.
pub(crate) fn list_due(connection: &Connection, before: Timestamp, limit: u32) -> Result<Vec<DomainRow>> {
    let statement = format!(
        "SELECT {COLUMNS} FROM domain
         WHERE (checked_at IS NULL OR checked_at < ?1)
           AND (mx_verified OR spf_verified OR dkim_verified OR dmarc_verified
                OR EXISTS (SELECT 1 FROM dkim_key WHERE domain_id = domain.id AND state IN ('next', 'retiring')))
         ORDER BY checked_at LIMIT ?2"
    );
    let rows = connection
        .prepare_cached(&statement)?
        .query_map(params![before.as_millis(), limit], read)?
        .collect::<rusqlite::Result<_>>()?;
    Ok(rows)
}

/// Stores the result of a domain's check.
///
/// # Errors
/// [`crate::store::Error::Conflict`] when it would be verified and another account holds it.
pub(crate) fn set_checked(
    connection: &Connection,
    id: DomainRowId,
    flags: Flags,
    verified: bool,
    now: Timestamp,
) -> Result<()> {
    connection
        .prepare_cached(
            "UPDATE domain SET mx_verified = ?2, spf_verified = ?3, dkim_verified = ?4, dmarc_verified = ?5,
                               checked_at = ?6, status = CASE WHEN ?7 THEN 'verified' ELSE 'pending' END,
                               verified_at = CASE WHEN ?7 THEN coalesce(verified_at, ?6) END
             WHERE id = ?1",
        )?
        .execute(params![id, flags.mx, flags.spf, flags.dkim, flags.dmarc, now.as_millis(), verified])?;
    Ok(())
}

/// Clears the flags that all other accounts proved for this name, and for pending names below it: it now belongs to
/// `account`.
pub(crate) fn clear_flags_of_others(connection: &Connection, account: AccountRowId, name: &str) -> Result<()> {
    connection
        .prepare_cached(
            "UPDATE domain SET mx_verified = 0, spf_verified = 0, dkim_verified = 0, dmarc_verified = 0
             WHERE account_id <> ?1 AND status = 'pending'
               AND (name = ?2 OR substr(name, -1 - length(?2)) = '.' || ?2)",
        )?
        .execute(params![account, name])?;
    Ok(())
}

/// Sets or removes the webhook for sending events.
pub(crate) fn set_tracking_webhook(connection: &Connection, id: &DomainId, url: Option<&str>) -> Result<()> {
    connection
        .prepare_cached("UPDATE domain SET tracking_webhook_url = ?2 WHERE public_id = ?1")?
        .execute(params![id, url])?;
    Ok(())
}

/// Sets or removes the sending events that the domain's own webhook gets, as JSON.
pub(crate) fn set_webhook_events(connection: &Connection, id: &DomainId, events: Option<&str>) -> Result<()> {
    connection
        .prepare_cached("UPDATE domain SET webhook_events = ?2 WHERE public_id = ?1")?
        .execute(params![id, events])?;
    Ok(())
}

/// Sets the retention of a domain's messages.
pub(crate) fn set_retention(connection: &Connection, id: &DomainId, zero: bool, days: Option<u32>) -> Result<()> {
    connection
        .prepare_cached("UPDATE domain SET zero_retention = ?2, retention_days = ?3 WHERE public_id = ?1")?
        .execute(params![id, zero, days])?;
    Ok(())
}

/// Resets the settings of an account's domains to their defaults: no tracking webhook, default retention.
pub(crate) fn reset_settings(connection: &Connection, account: AccountRowId) -> Result<()> {
    connection
        .prepare_cached(
            "UPDATE domain SET tracking_webhook_url = NULL, webhook_events = NULL, zero_retention = 0,
                               retention_days = NULL
             WHERE account_id = ?1",
        )?
        .execute([account])?;
    Ok(())
}

/// Removes a domain with its keys, checks, scoped keys and routes; regex routes and messages stay.
pub(crate) fn delete(connection: &Connection, id: &DomainId) -> Result<()> {
    connection.prepare_cached("DELETE FROM domain WHERE public_id = ?1")?.execute([id])?;
    Ok(())
}

/// Finds the domain of this name that mail is accepted for, else a pending one, else none.
pub(crate) fn find_by_name(connection: &Connection, name: &str) -> Result<Option<DomainRow>> {
    let statement =
        format!("SELECT {COLUMNS} FROM domain WHERE name = ?1 ORDER BY status = 'verified' DESC, id LIMIT 1");
    Ok(connection.prepare_cached(&statement)?.query_row([name], read).optional()?)
}

/// Finds the row id of the domain of this name that mail is accepted for.
pub(crate) fn find_verified(connection: &Connection, name: &str) -> Result<Option<AccountRowId>> {
    let found = connection
        .prepare_cached("SELECT id FROM domain WHERE name = ?1 AND status = 'verified'")?
        .query_row([name], |row| row.get(0))
        .optional()?;
    Ok(found)
}

/// Finds an account's own domain of this name.
pub fn find_of_account(connection: &Connection, account: AccountRowId, name: &str) -> Result<Option<DomainRow>> {
    let statement = format!("SELECT {COLUMNS} FROM domain WHERE account_id = ?1 AND name = ?2");
    Ok(connection.prepare_cached(&statement)?.query_row(params![account, name], read).optional()?)
}

/// Finds an account's own domain by its name, in any spelling, or public id.
pub(crate) fn find_by_name_or_id(
    connection: &Connection,
    account: AccountRowId,
    name: &str,
    id: &str,
) -> Result<Option<DomainRow>> {
    let statement = format!("SELECT {COLUMNS} FROM domain WHERE account_id = ?1 AND (name = ?2 OR public_id = ?3)");
    let domain = Domain::parse(name);
    let name = domain.as_ref().map_or(name, Domain::as_str);
    Ok(connection.prepare_cached(&statement)?.query_row(params![account, name, id], read).optional()?)
}

/// Returns true if nothing of a domain's mail may be stored (contract 3.8).
pub(crate) fn is_zero_retention(connection: &Connection, domain: DomainRowId) -> Result<bool> {
    let found =
        connection.prepare_cached("SELECT 1 FROM domain WHERE id = ?1 AND zero_retention = 1")?.exists([domain])?;
    Ok(found)
}

/// Lists the names of all domains that are verified for receiving or by SPF, while there is a route that forwards.
pub(crate) fn list_beside_forwards(connection: &Connection) -> Result<Vec<String>> {
    let rows = connection
        .prepare_cached(
            "SELECT DISTINCT name FROM domain WHERE (status = 'verified' OR spf_verified = 1)
               AND EXISTS (SELECT 1 FROM route WHERE action = 'forward') ORDER BY name",
        )?
        .query_map([], |row| row.get(0))?
        .collect::<rusqlite::Result<_>>()?;
    Ok(rows)
}

/// Lists the names of an account's domains that mail can be sent from (contract 3.2), oldest first; with `only`, of
/// that one.
pub(crate) fn list_sending(
    connection: &Connection,
    account: AccountRowId,
    only: Option<DomainRowId>,
) -> Result<Vec<String>> {
    let rows = connection
        .prepare_cached(
            "SELECT name FROM domain
             WHERE account_id = ?1 AND spf_verified = 1 AND dkim_verified = 1 AND (?2 IS NULL OR id = ?2) ORDER BY id",
        )?
        .query_map(params![account, only], |row| row.get(0))?
        .collect::<rusqlite::Result<_>>()?;
    Ok(rows)
}
