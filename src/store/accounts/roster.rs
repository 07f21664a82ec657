//! Accounts as the operator lists them, and their removal in bounded steps.

use rusqlite::{Connection, params};

use super::Account;
use crate::clock::Timestamp;
use crate::id::{AccountRowId, DispatchRowId, MailDataRowId, MessageRowId, UploadRowId, ZeroRetentionRowId};
use crate::store::Result;
use crate::store::jobs::{self, JobSubject};
use crate::store::messages::mail_data;

/// An account in the list of all.
#[derive(Clone, Debug)]
pub(crate) struct AccountEntry {
    pub(crate) account: Account,
    /// Names of its domains, verified or not, at most a hundred.
    pub(crate) domains: Vec<String>,
    /// Bytes that it has stored.
    pub(crate) stored_bytes: u64,
    /// `None`: never signed in, or before the server recorded it.
    pub(crate) signed_in_at: Option<Timestamp>,
    pub(crate) created_at: Timestamp,
}

/// Numbers of what goes with an account.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Holdings {
    pub(crate) domains: u64,
    pub(crate) messages: u64,
}

/// Lists up to `limit` accounts after a row id, oldest first.
pub(crate) fn list(connection: &Connection, after: AccountRowId, limit: u32) -> Result<Vec<AccountEntry>> {
    let statement = format!(
        "SELECT {}, account.signed_in_at, account.created_at FROM account WHERE id > ?1 ORDER BY id LIMIT ?2",
        super::COLUMNS
    );
    let rows: Vec<(Account, Option<i64>, i64)> = connection
        .prepare_cached(&statement)?
        .query_map(params![after, limit], |row| Ok((super::read(row)?, row.get(6)?, row.get(7)?)))?
        .collect::<rusqlite::Result<_>>()?;
    let mut entries = Vec::with_capacity(rows.len());
    for (account, signed_in_at, created_at) in rows {
        entries.push(AccountEntry {
            domains: domain_names(connection, account.id)?,
            stored_bytes: super::limits::stored_bytes(connection, account.id)?.0,
            signed_in_at: signed_in_at.map(Timestamp::from_millis),
            created_at: Timestamp::from_millis(created_at),
            account,
        });
    }
    Ok(entries)
}

fn domain_names(connection: &Connection, account: AccountRowId) -> Result<Vec<String>> {
    let names = connection
        .prepare_cached("SELECT name FROM domain WHERE account_id = ?1 ORDER BY name LIMIT 100")?
        .query_map([account], |row| row.get(0))?
        .collect::<rusqlite::Result<_>>()?;
    Ok(names)
}

/// Counts what goes with an account.
pub(crate) fn holdings(connection: &Connection, account: AccountRowId) -> Result<Holdings> {
    let holdings = connection
        .prepare_cached(
            "SELECT (SELECT count(*) FROM domain WHERE account_id = ?1),
                    (SELECT count(*) FROM message WHERE account_id = ?1)",
        )?
        .query_row([account], |row| Ok(Holdings { domains: row.get(0)?, messages: row.get(1)? }))?;
    Ok(holdings)
}

/// Counts the accounts that administer the installation.
pub(crate) fn count_admins(connection: &Connection) -> Result<u64> {
    Ok(connection
        .prepare_cached("SELECT count(*) FROM account WHERE is_admin = 1")?
        .query_row([], |row| row.get(0))?)
}

/// Makes an account administer the installation, or no longer.
pub(crate) fn set_admin(connection: &Connection, account: AccountRowId, is_admin: bool) -> Result<()> {
    connection
        .prepare_cached("UPDATE account SET is_admin = ?2 WHERE id = ?1")?
        .execute(params![account, is_admin])?;
    Ok(())
}

/// Removes everything that lets an account be used: sessions, keys, links, domains with their routes.
pub(crate) fn close(connection: &Connection, account: AccountRowId) -> Result<()> {
    super::delete_password(connection, account)?;
    connection.prepare_cached("UPDATE account SET google_subject = NULL WHERE id = ?1")?.execute([account])?;
    super::sessions::delete_of_account(connection, account)?;
    super::links::delete_of_account(connection, account)?;
    for table in ["api_key", "email_verification", "route", "domain"] {
        connection.prepare_cached(&format!("DELETE FROM {table} WHERE account_id = ?1"))?.execute([account])?;
    }
    Ok(())
}

/// Lists up to `limit` messages of an account, with their mail data.
pub(crate) fn list_messages(
    connection: &Connection,
    account: AccountRowId,
    limit: u32,
) -> Result<Vec<(MessageRowId, Option<MailDataRowId>)>> {
    let rows = connection
        .prepare_cached("SELECT id, mail_data_id FROM message WHERE account_id = ?1 ORDER BY received_at LIMIT ?2")?
        .query_map(params![account, limit], |row| Ok((row.get(0)?, row.get(1)?)))?
        .collect::<rusqlite::Result<_>>()?;
    Ok(rows)
}

/// Mail on its way that no message row stands for, with its mail data.
#[derive(Clone, Debug, Default)]
pub(crate) struct InTransit {
    dispatches: Vec<(DispatchRowId, Option<MailDataRowId>)>,
    zero_retention: Vec<(ZeroRetentionRowId, MailDataRowId)>,
}

impl InTransit {
    pub(crate) const fn is_empty(&self) -> bool {
        self.dispatches.is_empty() && self.zero_retention.is_empty()
    }
}

/// Lists up to `limit` forwarded and as many zero-retention mails of an account that are on their way.
pub(crate) fn list_in_transit(connection: &Connection, account: AccountRowId, limit: u32) -> Result<InTransit> {
    let dispatches = connection
        .prepare_cached("SELECT id, mail_data_id FROM dispatch WHERE account_id = ?1 LIMIT ?2")?
        .query_map(params![account, limit], |row| Ok((row.get(0)?, row.get(1)?)))?
        .collect::<rusqlite::Result<_>>()?;
    let zero_retention = connection
        .prepare_cached("SELECT id, mail_data_id FROM zero_retention_delivery WHERE account_id = ?1 LIMIT ?2")?
        .query_map(params![account, limit], |row| Ok((row.get(0)?, row.get(1)?)))?
        .collect::<rusqlite::Result<_>>()?;
    Ok(InTransit { dispatches, zero_retention })
}

/// Removes such mail with its jobs; returns the files to remove after the commit.
pub(crate) fn delete_in_transit(connection: &Connection, mails: &InTransit) -> Result<Vec<String>> {
    let mut files = Vec::new();
    for (dispatch, mail_data) in &mails.dispatches {
        jobs::delete_by_subject(connection, JobSubject::Dispatch(*dispatch))?;
        connection.prepare_cached("DELETE FROM dispatch WHERE id = ?1")?.execute([dispatch])?;
        if let Some(mail_data) = mail_data {
            files.extend(mail_data::release(connection, *mail_data)?);
        }
    }
    for (mail, mail_data) in &mails.zero_retention {
        jobs::delete_by_subject(connection, JobSubject::ZeroRetention(*mail))?;
        connection.prepare_cached("DELETE FROM zero_retention_delivery WHERE id = ?1")?.execute([mail])?;
        files.extend(mail_data::release(connection, *mail_data)?);
    }
    Ok(files)
}

/// Lists up to `limit` uploads of an account, with their objects.
pub(crate) fn list_uploads(
    connection: &Connection,
    account: AccountRowId,
    limit: u32,
) -> Result<Vec<(UploadRowId, String)>> {
    let rows = connection
        .prepare_cached("SELECT id, file FROM upload WHERE account_id = ?1 LIMIT ?2")?
        .query_map(params![account, limit], |row| Ok((row.get(0)?, row.get(1)?)))?
        .collect::<rusqlite::Result<_>>()?;
    Ok(rows)
}

/// Removes up to `limit` deliveries of an account that belong to no message, with their jobs.
pub(crate) fn delete_deliveries(connection: &Connection, account: AccountRowId, limit: u32) -> Result<usize> {
    let deliveries: Vec<crate::id::DeliveryRowId> = connection
        .prepare_cached("SELECT id FROM delivery WHERE account_id = ?1 LIMIT ?2")?
        .query_map(params![account, limit], |row| row.get(0))?
        .collect::<rusqlite::Result<_>>()?;
    for delivery in &deliveries {
        jobs::delete_by_subject(connection, JobSubject::Webhook(*delivery))?;
        connection.prepare_cached("DELETE FROM delivery WHERE id = ?1")?.execute([delivery])?;
    }
    Ok(deliveries.len())
}

/// Removes the row of an account whose content is gone.
pub(crate) fn delete(connection: &Connection, account: AccountRowId) -> Result<()> {
    connection.prepare_cached("DELETE FROM account WHERE id = ?1")?.execute([account])?;
    Ok(())
}

/// Removes the jobs of the deliveries of a message.
pub(crate) fn delete_jobs_of_message(connection: &Connection, message: MessageRowId) -> Result<()> {
    connection
        .prepare_cached(
            "DELETE FROM job WHERE kind = 'webhook'
               AND subject_id IN (SELECT id FROM delivery WHERE message_id = ?1)",
        )?
        .execute([message])?;
    Ok(())
}
