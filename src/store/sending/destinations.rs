//! Addresses that accounts forward mail to, with the consent of their owners (contract 4.6).

use std::time::Duration;

use rusqlite::{Connection, OptionalExtension, params};

use crate::clock::Timestamp;
use crate::id::AccountRowId;
use crate::mail::address::Mailbox;
use crate::store::Result;

/// Validity of a confirmation link.
pub(crate) const LINK_LIFETIME: Duration = Duration::from_secs(7 * DAY);
const DAY: u64 = 86_400;
/// Maximum number of links mailed for one account a day.
const MAX_ASKED_BY_ACCOUNT: u32 = 10;
/// Within this time an address is mailed once for one account …
const ASK_AGAIN: Duration = Duration::from_secs(7 * DAY);
/// … and this many times for all accounts.
const MAX_ASKED_OF_MAILBOX: u32 = 3;
/// Time for which an address that declined is not mailed again, for any account.
const DECLINED_FOR: Duration = Duration::from_secs(90 * DAY);

/// Returns true if mail of an account may be forwarded to an address: it is the owner's account, the address is on one
/// of its own domains, or it was confirmed.
pub(crate) fn is_confirmed(connection: &Connection, account: AccountRowId, address: &Mailbox) -> Result<bool> {
    let confirmed = connection
        .prepare_cached(
            "SELECT EXISTS (SELECT 1 FROM account WHERE id = ?1 AND is_admin = 1)
                 OR EXISTS (SELECT 1 FROM domain WHERE account_id = ?1 AND name = ?2 AND status = 'verified')
                 OR EXISTS (SELECT 1 FROM forward_destination
                            WHERE account_id = ?1 AND address = ?3 AND confirmed_at IS NOT NULL)",
        )?
        .query_row(params![account, address.domain().as_str(), address.canonical()], |row| row.get(0))?;
    Ok(confirmed)
}

/// Returns true if a link may be mailed to an address now, records it as mailed, and invalidates earlier links to it.
pub(crate) fn ask(
    connection: &Connection,
    account: AccountRowId,
    address: &Mailbox,
    token_hash: &[u8],
    now: Timestamp,
) -> Result<bool> {
    let mailbox = address.without_subaddress();
    let count = |sql: &str, since: Duration, value: &dyn rusqlite::ToSql| -> Result<u32> {
        Ok(connection
            .prepare_cached(sql)?
            .query_row(params![value, now.minus(since).as_millis()], |row| row.get(0))?)
    };
    let by_account = "SELECT count(*) FROM forward_destination WHERE account_id = ?1 AND mailed_at > ?2";
    let of_mailbox = "SELECT count(*) FROM forward_destination WHERE mailbox = ?1 AND mailed_at > ?2";
    let declined = "SELECT count(*) FROM forward_destination WHERE mailbox = ?1 AND declined_at > ?2";
    if count(by_account, Duration::from_secs(DAY), &account)? >= MAX_ASKED_BY_ACCOUNT
        || count(of_mailbox, ASK_AGAIN, &mailbox)? >= MAX_ASKED_OF_MAILBOX
        || count(declined, DECLINED_FOR, &mailbox)? > 0
    {
        return Ok(false);
    }
    let asked = connection
        .prepare_cached(
            "INSERT INTO forward_destination (account_id, address, mailbox, token_hash, mailed_at)
             SELECT ?1, ?2, ?3, ?4, ?5 WHERE NOT EXISTS
               (SELECT 1 FROM forward_destination WHERE account_id = ?1 AND mailbox = ?3 AND mailed_at > ?6)
             ON CONFLICT (account_id, address) DO UPDATE
               SET token_hash = excluded.token_hash, mailed_at = excluded.mailed_at, declined_at = NULL",
        )?
        .execute(params![
            account,
            address.canonical(),
            mailbox,
            token_hash,
            now.as_millis(),
            now.minus(ASK_AGAIN).as_millis()
        ])?;
    Ok(asked > 0)
}

/// State of a confirmation request mailed to an address.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PendingConfirmation {
    /// Time of the last mail.
    pub(crate) at: Timestamp,
    /// Time at which its owner declined, if ever.
    pub(crate) declined_at: Option<Timestamp>,
}

/// Finds an account's confirmation request to an address.
pub(crate) fn find_asked(
    connection: &Connection,
    account: AccountRowId,
    address: &Mailbox,
) -> Result<Option<PendingConfirmation>> {
    let found = connection
        .prepare_cached(
            "SELECT mailed_at, declined_at FROM forward_destination WHERE account_id = ?1 AND address = ?2",
        )?
        .query_row(params![account, address.canonical()], |row| {
            Ok(PendingConfirmation {
                at: Timestamp::from_millis(row.get(0)?),
                declined_at: row.get::<_, Option<i64>>(1)?.map(Timestamp::from_millis),
            })
        })
        .optional()?;
    Ok(found)
}

/// Returns true if a link with this hash is valid.
pub(crate) fn is_valid(connection: &Connection, token_hash: &[u8], now: Timestamp) -> Result<bool> {
    let found = connection
        .prepare_cached("SELECT 1 FROM forward_destination WHERE token_hash = ?1 AND mailed_at > ?2")?
        .query_row(params![token_hash, now.minus(LINK_LIFETIME).as_millis()], |_| Ok(()))
        .optional()?;
    Ok(found.is_some())
}

/// Decision of a link's recipient.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// The account may forward to the address.
    Confirmed,
    /// It may not, and the address is not mailed again for [`DECLINED_FOR`].
    Declined,
}

/// Records an answer; returns false if the link is not valid.
pub(crate) fn answer(connection: &Connection, token_hash: &[u8], answer: Answer, now: Timestamp) -> Result<bool> {
    let statement = match answer {
        Answer::Confirmed => {
            "UPDATE forward_destination SET confirmed_at = coalesce(confirmed_at, ?3), declined_at = NULL
             WHERE token_hash = ?1 AND mailed_at > ?2"
        }
        Answer::Declined => {
            "UPDATE forward_destination SET confirmed_at = NULL, declined_at = ?3
             WHERE token_hash = ?1 AND mailed_at > ?2"
        }
    };
    let changed = connection.prepare_cached(statement)?.execute(params![
        token_hash,
        now.minus(LINK_LIFETIME).as_millis(),
        now.as_millis()
    ])?;
    Ok(changed > 0)
}

/// Removes expired requests; returns the number removed.
pub(crate) fn delete_expired(connection: &Connection, now: Timestamp) -> Result<usize> {
    let gone = connection
        .prepare_cached(
            "DELETE FROM forward_destination WHERE confirmed_at IS NULL AND coalesce(declined_at, mailed_at) <= ?1",
        )?
        .execute([now.minus(DECLINED_FOR).as_millis()])?;
    Ok(gone)
}
