//! Forward routes: received mail that goes on to one address (contract 4.1), and the report that comes back when it did
//! not arrive there, which goes back to who sent the mail.
//!
//! The mail data goes on as received, so its signatures keep their worth; what is put before it says that it came through
//! here. The envelope sender is rewritten by SRS, or the next host's SPF check would fail.

use rusqlite::Connection;

use super::Outbound;
use crate::clock::Timestamp;
use crate::id::RouteId;
use crate::jobs::Left;
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

/// A report at one of our SRS addresses.
#[derive(Clone, Copy, Debug)]
pub struct Returned<'a> {
    /// The account that the queue counts it for.
    pub account: i64,
    /// Whom the address stands for.
    pub sender: &'a Mailbox,
    /// The trace fields that we put before it.
    pub trace: &'a str,
    /// The raw copy's row.
    pub raw_id: i64,
}

impl Outbound {
    /// Leaves a forwarded message with its job, in the transaction that stores the message; returns the job.
    /// None when the route's address is none.
    ///
    /// # Errors
    /// Storage trouble.
    pub fn forward(&self, tx: &Connection, forward: Forward<'_>, now: Timestamp) -> store::Result<Option<Left>> {
        let Ok(to) = Mailbox::parse(forward.to) else { return Ok(None) };
        let reverse_path = match Mailbox::parse(forward.mail_from) {
            Ok(sender) => {
                self.parts.return_paths.srs(&sender, now).map(|mailbox| mailbox.to_string()).unwrap_or_default()
            }
            Err(_) => String::new(),
        };
        let new = NewDispatch {
            account_id: forward.account,
            message: forward.message,
            route_id: Some(forward.route),
            sending_domain: forward.domain,
            domain: None,
            reverse_path: &reverse_path,
            prefix: &format!("{FORWARDED}: {}\r\n{}", forward.route, forward.trace),
            raw_id: forward.raw_id,
        };
        self.send_on(tx, new, to, now)
    }

    /// Leaves a report for the sender of what was forwarded, with its job, in the transaction that the 250 promises; returns
    /// the job. It keeps the null reverse-path, so nothing comes back of it.
    ///
    /// # Errors
    /// Storage trouble.
    pub fn give_back(&self, tx: &Connection, report: Returned<'_>, now: Timestamp) -> store::Result<Option<Left>> {
        let new = NewDispatch {
            account_id: report.account,
            message: None,
            route_id: None,
            sending_domain: &self.parts.config.hostname,
            domain: None,
            reverse_path: "",
            prefix: report.trace,
            raw_id: report.raw_id,
        };
        self.send_on(tx, new, report.sender.clone(), now)
    }

    /// The dispatch of received mail to one address.
    fn send_on(
        &self,
        tx: &Connection,
        new: NewDispatch<'_>,
        to: Mailbox,
        now: Timestamp,
    ) -> store::Result<Option<Left>> {
        let (domain, lane) = self.parts.destination(tx, new.sending_domain, &to)?;
        let dispatch = dispatches::insert(tx, &NewDispatch { domain, ..new }, now)?;
        recipients::insert(tx, dispatch, 0, &to.to_string(), "queued", now)?;
        self.parts.jobs.leave(tx, &lane, Kind::Dispatch, dispatch, now).map(Some)
    }
}
