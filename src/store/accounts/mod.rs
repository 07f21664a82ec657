//! Accounts: identities and their credentials.

pub(crate) mod dkim_keys;
pub(crate) mod dns_checks;
pub(crate) mod domains;
pub(crate) mod idempotency;
pub(crate) mod keys;
pub(crate) mod limits;
pub(crate) mod links;
pub(crate) mod notices;
pub(crate) mod roster;
pub(crate) mod sessions;
pub(crate) mod stats;
pub(crate) mod verifications;

use rusqlite::{Connection, OptionalExtension, Row, params};

use super::Result;
use crate::clock::Timestamp;
use crate::id::{AccountId, AccountRowId};

/// Sealing purpose of `webhook_secret_sealed`.
pub(crate) const WEBHOOK_SECRET_PURPOSE: &str = "account-webhook-secret";

/// An account as stored.
#[derive(Clone, Debug)]
pub struct Account {
    /// Row id.
    pub id: AccountRowId,
    /// Public id.
    pub public_id: AccountId,
    /// Lower-cased.
    pub(crate) email: String,
    /// True for the owner of the installation.
    pub(crate) is_admin: bool,
    pub(crate) email_verified: bool,
    /// Picture from Google, if any.
    pub(crate) avatar_url: Option<String>,
}

/// Data of a new account.
#[derive(Clone, Debug, Default)]
pub struct NewAccount {
    /// Lower-cased address.
    pub email: String,
    /// True for the owner of the installation.
    pub is_admin: bool,
    /// True if its address is verified.
    pub email_verified: bool,
    /// Argon2id hash; none for an account without a password.
    pub password_hash: Option<String>,
    /// Subject of its Google identity.
    pub google_subject: Option<String>,
    /// URL of a picture.
    pub avatar_url: Option<String>,
}

/// Current and previous signing secret of an account's tracking webhooks, sealed.
#[derive(Clone, Debug, Default)]
pub(crate) struct WebhookSecret {
    pub(crate) sealed: Option<Vec<u8>>,
    /// Secret before the last rotation.
    pub(crate) previous_sealed: Option<Vec<u8>>,
    /// End of the time in which the previous secret signs too.
    pub(crate) previous_until: Option<Timestamp>,
}

pub(super) const COLUMNS: &str = "account.id, account.public_id, account.email, account.is_admin,
     account.email_verified, account.avatar_url";

pub(super) fn read(row: &Row<'_>) -> rusqlite::Result<Account> {
    Ok(Account {
        id: row.get(0)?,
        public_id: row.get(1)?,
        email: row.get(2)?,
        is_admin: row.get(3)?,
        email_verified: row.get(4)?,
        avatar_url: row.get(5)?,
    })
}

/// Stores a new account.
///
/// # Errors
/// [`super::Error::Conflict`] when the address or the Google subject is in use.
pub fn insert(connection: &Connection, new: NewAccount, now: Timestamp) -> Result<Account> {
    let public_id = AccountId::new(now);
    connection
        .prepare_cached(
            "INSERT INTO account (public_id, email, is_admin, email_verified, password_hash, google_subject,
                                  avatar_url, created_at)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
        )?
        .execute(params![
            public_id,
            new.email,
            new.is_admin,
            new.email_verified,
            new.password_hash,
            new.google_subject,
            new.avatar_url,
            now.as_millis()
        ])?;
    Ok(Account {
        id: crate::id::RowId::new(connection.last_insert_rowid()),
        public_id,
        email: new.email,
        is_admin: new.is_admin,
        email_verified: new.email_verified,
        avatar_url: new.avatar_url,
    })
}

fn find(connection: &Connection, condition: &str, value: impl rusqlite::ToSql) -> Result<Option<Account>> {
    let statement = format!("SELECT {COLUMNS} FROM account WHERE {condition} ORDER BY id LIMIT 1");
    Ok(connection.prepare_cached(&statement)?.query_row([value], read).optional()?)
}

/// Finds an account by row id.
pub(crate) fn find_by_row(connection: &Connection, id: AccountRowId) -> Result<Option<Account>> {
    find(connection, "id = ?1", id)
}

/// Finds the account that owns the installation.
pub fn find_owner(connection: &Connection) -> Result<Option<Account>> {
    find(connection, "is_admin = ?1", 1)
}

/// Returns true if an account is the first that this installation still has.
pub(crate) fn is_first(connection: &Connection, account: AccountRowId) -> Result<bool> {
    let first: Option<AccountRowId> =
        connection.prepare_cached("SELECT min(id) FROM account")?.query_row([], |row| row.get(0))?;
    Ok(first == Some(account))
}

/// Finds the account with this lower-cased address.
pub fn find_by_email(connection: &Connection, email: &str) -> Result<Option<Account>> {
    find(connection, "email = ?1", email)
}

/// Finds the account that signs in with this Google subject.
pub(crate) fn find_by_google_subject(connection: &Connection, subject: &str) -> Result<Option<Account>> {
    find(connection, "google_subject = ?1", subject)
}

/// Returns true if there is any account.
pub(crate) fn any(connection: &Connection) -> Result<bool> {
    Ok(connection.prepare_cached("SELECT EXISTS (SELECT 1 FROM account)")?.query_row([], |row| row.get(0))?)
}

/// Returns an account's password hash, if it has a password.
pub(crate) fn find_password_hash(connection: &Connection, account: AccountRowId) -> Result<Option<String>> {
    let found = connection
        .prepare_cached("SELECT password_hash FROM account WHERE id = ?1")?
        .query_row([account], |row| row.get(0))
        .optional()?;
    Ok(found.flatten())
}

/// Replaces an account's password.
pub fn set_password_hash(connection: &Connection, account: AccountRowId, hash: &str) -> Result<()> {
    connection
        .prepare_cached("UPDATE account SET password_hash = ?2 WHERE id = ?1")?
        .execute(params![account, hash])?;
    Ok(())
}

/// Removes an account's password.
pub(crate) fn delete_password(connection: &Connection, account: AccountRowId) -> Result<()> {
    connection.prepare_cached("UPDATE account SET password_hash = NULL WHERE id = ?1")?.execute([account])?;
    Ok(())
}

/// Links an account to a Google identity.
///
/// # Errors
/// [`super::Error::Conflict`] when another account is linked to the subject.
pub(crate) fn set_google(
    connection: &Connection,
    account: AccountRowId,
    subject: &str,
    avatar_url: Option<&str>,
) -> Result<()> {
    connection
        .prepare_cached(
            "UPDATE account SET google_subject = ?2, avatar_url = coalesce(?3, avatar_url) WHERE id = ?1",
        )?
        .execute(params![account, subject, avatar_url])?;
    Ok(())
}

/// Marks an account's address as verified.
pub(crate) fn set_email_verified(connection: &Connection, account: AccountRowId) -> Result<()> {
    connection.prepare_cached("UPDATE account SET email_verified = 1 WHERE id = ?1")?.execute([account])?;
    Ok(())
}

/// Returns the secret that signs an account's tracking webhooks.
pub(crate) fn find_webhook_secret(connection: &Connection, account: AccountRowId) -> Result<WebhookSecret> {
    let found = connection
        .prepare_cached(
            "SELECT webhook_secret_sealed, previous_webhook_secret_sealed, previous_webhook_secret_until
             FROM account WHERE id = ?1",
        )?
        .query_row([account], |row| {
            Ok(WebhookSecret {
                sealed: row.get(0)?,
                previous_sealed: row.get(1)?,
                previous_until: row.get::<_, Option<i64>>(2)?.map(Timestamp::from_millis),
            })
        })
        .optional()?;
    Ok(found.unwrap_or_default())
}

/// Replaces that secret; with `until`, the previous one signs too until then.
pub(crate) fn set_webhook_secret(
    connection: &Connection,
    account: AccountRowId,
    sealed: &[u8],
    until: Option<Timestamp>,
) -> Result<()> {
    connection
        .prepare_cached(
            "UPDATE account SET previous_webhook_secret_sealed = CASE WHEN ?3 IS NOT NULL THEN webhook_secret_sealed END,
                                previous_webhook_secret_until = ?3, webhook_secret_sealed = ?2
             WHERE id = ?1",
        )?
        .execute(params![account, sealed, until.map(Timestamp::as_millis)])?;
    Ok(())
}
