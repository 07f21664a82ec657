//! Lists of an account's messages: newest first, filtered, with a cursor that neither skips nor repeats (contract 1.8,
//! 5.3).
//!
//! Each list names the index that gives its order. A search walks the account's blocks of text
//! ([`crate::store::search`]) or, where a filter leaves few rows, those rows.

use std::collections::BTreeMap;

use rusqlite::{CachedStatement, Connection, params};

use super::{Direction, LIST_COLUMNS, MessageRow, MessageStatus, read};
use crate::id::{AccountRowId, DomainRowId};
use crate::store::Result;
use crate::store::search;
use crate::store::search::{Collect, Entry, Needle};

/// Up to this many rows are read directly instead of being searched in the blocks of text.
const FEW: u32 = 4_000;

/// Filter of a list of an account's messages.
#[derive(Clone, Debug)]
pub(crate) struct Filter {
    /// The account.
    pub(crate) account: AccountRowId,
    /// Only those received before this millisecond.
    pub(crate) before: Option<i64>,
    /// Only those received after this millisecond.
    pub(crate) after: Option<i64>,
    /// Maximum number of messages.
    pub(crate) limit: u32,
    /// Substring of sender, recipient or subject, case-insensitive.
    pub(crate) search: Option<String>,
    /// Only those of this domain.
    pub(crate) domain: Option<DomainRowId>,
    /// Only those of this direction.
    pub(crate) direction: Option<Direction>,
    /// Only those in this state.
    pub(crate) status: Option<MessageStatus>,
}

impl Filter {
    /// Returns the range of milliseconds, both ends excluded.
    fn range(&self) -> (i64, i64) {
        (self.after.unwrap_or(i64::MIN), self.before.unwrap_or(i64::MAX))
    }

    fn admits(&self, row: &MessageRow) -> bool {
        let direction = self.direction.is_none_or(|direction| direction == row.direction);
        direction && self.status.is_none_or(|status| status == row.status)
    }
}

/// Index that a list follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Order {
    All,
    /// Everything except the rows in the index of outbound messages, which are not read.
    Inbound,
    Outbound,
    /// Outbound messages in a rare state.
    Unsent,
    Domain,
    Dropped,
}

impl Order {
    /// Returns the FROM and WHERE with the index; `?1` is the account, `?5` the domain.
    fn source(self) -> &'static str {
        match self {
            Self::All => "message INDEXED BY message_by_time WHERE account_id = ?1",
            Self::Inbound => {
                "message INDEXED BY message_by_time WHERE account_id = ?1 AND NOT EXISTS (
                   SELECT 1 FROM message AS sent INDEXED BY message_outbound
                   WHERE sent.direction = 'outbound' AND sent.account_id = ?1
                     AND sent.received_at = message.received_at)"
            }
            Self::Outbound => "message INDEXED BY message_outbound WHERE account_id = ?1 AND direction = 'outbound'",
            Self::Unsent => {
                "message INDEXED BY message_unsent
                 WHERE account_id = ?1 AND direction = 'outbound' AND status <> 'sent' AND status = ?6"
            }
            Self::Domain => "message INDEXED BY message_by_domain WHERE domain_id = ?5 AND account_id = ?1",
            Self::Dropped => "message INDEXED BY message_dropped WHERE account_id = ?1 AND status = 'dropped'",
        }
    }

    fn statement(self) -> String {
        format!(
            "SELECT {LIST_COLUMNS} FROM {} AND received_at > ?2 AND received_at < ?3
               AND (?5 IS NULL OR domain_id = ?5) AND (?6 IS NULL OR status = ?6)
               AND (?7 IS NULL OR (direction = 'outbound') = ?7)
             ORDER BY received_at DESC LIMIT ?4",
            self.source()
        )
    }

    /// Chooses the index that leaves the fewest rows; true if these are few.
    fn choose(connection: &Connection, filter: &Filter) -> Result<(Self, bool)> {
        let is_dropped = filter.status == Some(MessageStatus::Dropped);
        let unsent = filter.status.is_some_and(|status| {
            !matches!(status, MessageStatus::Received | MessageStatus::Dropped | MessageStatus::Sent)
        });
        if unsent && filter.search.is_none() {
            return Ok((Self::Unsent, false));
        }
        let domain = match filter.domain {
            None => None,
            Some(_) if filter.search.is_none() && !is_dropped => return Ok((Self::Domain, false)),
            Some(domain) => Some(Self::few_of_domain(connection, domain, filter)?),
        };
        Ok(match (domain, is_dropped) {
            (Some(true), _) => (Self::Domain, true),
            (_, true) => (Self::Dropped, filter.search.is_some() && Self::few_dropped(connection, filter)?),
            (Some(false), false) => (Self::Domain, false),
            (None, false) => (Self::of_account(filter), false),
        })
    }

    /// Chooses among the indexes of a whole account, regardless of dropped or unsent messages.
    fn of_account(filter: &Filter) -> Self {
        let sent = filter.status == Some(MessageStatus::Sent);
        let received = filter.status == Some(MessageStatus::Received);
        match filter.direction {
            Some(Direction::Outbound) => Self::Outbound,
            _ if sent => Self::Outbound,
            Some(Direction::Inbound) => Self::Inbound,
            None if received => Self::Inbound,
            None => Self::All,
        }
    }

    fn few_of_domain(connection: &Connection, domain: DomainRowId, filter: &Filter) -> Result<bool> {
        let (after, before) = filter.range();
        let statement = "SELECT count(*) < ?4 FROM (
               SELECT 1 FROM message INDEXED BY message_by_domain
               WHERE domain_id = ?1 AND received_at > ?2 AND received_at < ?3 LIMIT ?4)";
        let few =
            connection.prepare_cached(statement)?.query_row(params![domain, after, before, FEW], |row| row.get(0))?;
        Ok(few)
    }

    fn few_dropped(connection: &Connection, filter: &Filter) -> Result<bool> {
        let (after, before) = filter.range();
        let statement = "SELECT count(*) < ?4 FROM (
               SELECT 1 FROM message INDEXED BY message_dropped
               WHERE account_id = ?1 AND status = 'dropped' AND received_at > ?2 AND received_at < ?3 LIMIT ?4)";
        let few = connection
            .prepare_cached(statement)?
            .query_row(params![filter.account, after, before, FEW], |row| row.get(0))?;
        Ok(few)
    }
}

/// Lists an account's messages, newest first, without [`MessageRow::trace`] and [`MessageRow::body`].
pub(crate) fn list(connection: &Connection, filter: &Filter) -> Result<Vec<MessageRow>> {
    let (order, is_few) = Order::choose(connection, filter)?;
    match filter.search.as_deref().filter(|text| !text.is_empty()).map(Needle::new) {
        None => scan(connection, filter, order, |_| true),
        Some(needle) if is_few => scan(connection, filter, order, |row| holds(row, &needle)),
        Some(needle) => {
            // All statements see one state of the database: between two of them, messages move into blocks.
            let snapshot = if connection.is_autocommit() { Some(connection.unchecked_transaction()?) } else { None };
            let found = find(connection, filter, &needle)?;
            drop(snapshot);
            Ok(found)
        }
    }
}

fn holds(row: &MessageRow, needle: &Needle) -> bool {
    let subject = row.subject.as_deref().unwrap_or_default();
    [row.from_addr.as_str(), &row.to_addr, subject].into_iter().any(|text| needle.is_in(text))
}

/// Reads rows in order until a page of matching ones is full.
fn scan(
    connection: &Connection,
    filter: &Filter,
    order: Order,
    keep: impl Fn(&MessageRow) -> bool,
) -> Result<Vec<MessageRow>> {
    let (after, before) = filter.range();
    let mut statement = connection.prepare_cached(&order.statement())?;
    // The limit is applied in this loop, so that it counts matching rows.
    let outbound = filter.direction.map(|direction| direction == Direction::Outbound);
    let mut rows =
        statement.query(params![filter.account, after, before, -1, filter.domain, filter.status, outbound])?;
    let mut page = Vec::new();
    while page.len() < filter.limit as usize
        && let Some(row) = rows.next()?
    {
        let row = read(row)?;
        if keep(&row) {
            page.push(row);
        }
    }
    Ok(page)
}

/// The newest matching rows found so far.
struct Page<'a> {
    filter: &'a Filter,
    row: CachedStatement<'a>,
    found: BTreeMap<i64, MessageRow>,
}

impl Page<'_> {
    fn add(&mut self, row: MessageRow) {
        self.found.insert(row.received_at.as_millis(), row);
        if self.found.len() > self.filter.limit as usize {
            self.found.pop_first();
        }
    }
}

impl Collect for Page<'_> {
    fn wants(&self, received_at: i64) -> bool {
        let is_full = self.found.len() >= self.filter.limit as usize;
        !is_full || self.found.first_key_value().is_some_and(|(oldest, _)| received_at > *oldest)
    }

    fn take(&mut self, entry: Entry) -> Result<()> {
        if self.filter.domain.is_some_and(|domain| entry.domain != Some(domain)) {
            return Ok(());
        }
        let mut rows = self.row.query(params![self.filter.account, entry.received_at])?;
        let row = rows.next()?.map(read).transpose()?;
        drop(rows);
        if let Some(row) = row.filter(|row| self.filter.admits(row)) {
            self.add(row);
        }
        Ok(())
    }
}

/// Rows that are in no block yet; `?4` is the domain.
const TAIL: &str = "message NOT INDEXED
     WHERE id > (SELECT indexed_to FROM search_state)
       AND account_id = ?1 AND received_at > ?2 AND received_at < ?3 AND (?4 IS NULL OR domain_id = ?4)";

/// Searches the rows that are in no block yet, then the blocks.
fn find(connection: &Connection, filter: &Filter, needle: &Needle) -> Result<Vec<MessageRow>> {
    let row = format!("SELECT {LIST_COLUMNS} FROM message WHERE account_id = ?1 AND received_at = ?2");
    let mut page = Page { filter, row: connection.prepare_cached(&row)?, found: BTreeMap::new() };
    let (after, before) = filter.range();
    let mut tail = connection.prepare_cached(&format!("SELECT {LIST_COLUMNS} FROM {TAIL}"))?;
    let mut rows = tail.query(params![filter.account, after, before, filter.domain])?;
    while let Some(row) = rows.next()? {
        let row = read(row)?;
        if filter.admits(&row) && holds(&row, needle) {
            page.add(row);
        }
    }
    search::walk(connection, needle, filter.account, (after, before), &mut page)?;
    Ok(page.found.into_values().rev().collect())
}

#[cfg(test)]
mod tests;
