//! Forward routes: received mail that goes on to one address (contract 4.1).
//!
//! The mail data goes on as received, so its signatures keep their worth; what is put before it says that it came through
//! here. The envelope sender is rewritten by SRS, or the next host's SPF check would fail.

use rusqlite::Connection;

use super::Outbound;
use crate::clock::Timestamp;
use crate::id::RouteId;
use crate::mail::address::Mailbox;
use crate::store::dispatches::NewDispatch;
use crate::store::jobs::Kind;
use crate::store::{self, dispatches, recipients};

/// The field that names the routes which forwarded a message.
pub const FORWARDED: &str = "X-Mailkite-Forwarded";
/// A message with more Received fields is not forwarded (contract 4.1).
pub const MAX_RECEIVED: usize = 50;

/// A received message that a route forwards.
#[derive(Clone, Copy, Debug)]
pub struct Forward<'a> {
    /// The account.
    pub account: i64,
    /// The message's row; none when nothing else is stored of it.
    pub message: Option<i64>,
    /// The route.
    pub route: &'a RouteId,
    /// Where it goes.
    pub to: &'a str,
    /// The domain of the recipient that the route matched.
    pub domain: &'a str,
    /// Envelope sender; empty is the null reverse-path, which stays so.
    pub mail_from: &'a str,
    /// The trace fields that we put before it.
    pub trace: &'a str,
    /// The raw copy's row.
    pub raw_id: i64,
}

impl Outbound {
    /// Leaves a forwarded message with its job, in the transaction that stores the message; returns the lane to wake.
    /// None when the route's address is none.
    ///
    /// # Errors
    /// Storage trouble.
    pub fn forward(&self, tx: &Connection, forward: Forward<'_>, now: Timestamp) -> store::Result<Option<String>> {
        let Ok(to) = Mailbox::parse(forward.to) else { return Ok(None) };
        let reverse_path = match Mailbox::parse(forward.mail_from) {
            Ok(sender) => {
                self.parts.return_paths.srs(&sender, now).map(|mailbox| mailbox.to_string()).unwrap_or_default()
            }
            Err(_) => String::new(),
        };
        let all = [to];
        let groups = self.parts.group(tx, forward.domain, &all)?;
        let Some((domain, lane, _)) = groups.into_iter().next() else { return Ok(None) };
        let new = NewDispatch {
            account_id: forward.account,
            message: forward.message,
            route_id: Some(forward.route),
            sending_domain: forward.domain,
            domain: domain.as_deref(),
            reverse_path: &reverse_path,
            prefix: &format!("{FORWARDED}: {}\r\n{}", forward.route, forward.trace),
            raw_id: forward.raw_id,
        };
        let dispatch = dispatches::insert(tx, &new, now)?;
        for mailbox in &all {
            recipients::insert(tx, dispatch, 0, &mailbox.to_string(), "queued", now)?;
        }
        store::jobs::insert(tx, &lane, Kind::Dispatch, dispatch, now)?;
        Ok(Some(lane))
    }
}
