//! Forward routes: received mail that goes on to one address (contract 4.1), and the report that comes back when it did
//! not arrive there, which goes back to who sent the mail.
//!
//! The mail data goes on as received, so its signatures keep their worth; what is put before it says that it came through
//! here. The envelope sender is rewritten by SRS, or the next host's SPF check would fail. What a gate of contract 4.6 holds
//! back is not forwarded, and the route and the message say why.

use rusqlite::Connection;

use super::Outbound;
use crate::clock::Timestamp;
use crate::id::RouteId;
use crate::jobs::{self, Left};
use crate::limits::{Kind, Limits};
use crate::mail::address::Mailbox;
use crate::store::dispatches::NewDispatch;
use crate::store::recipients::Standing;
use crate::store::{self, accounts, destinations, dispatches, recipients, routes, suppressions};

/// The field that names the routes which forwarded a message.
pub const FORWARDED: &str = "X-Mailkite-Forwarded";
/// The field that says how many messages this one may still become.
pub const COPIES: &str = "X-Mailkite-Copies";
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
    /// How many messages it may still become where it arrives; none: any number.
    pub copies: Option<u64>,
}

/// How many messages a received one may still become by forwarding: what the limit says, or less if it was forwarded
/// already. The field can be made up outside, but only to make it less.
pub fn copies_left(fields: &[String], limits: &Limits) -> Option<u64> {
    let told = fields.iter().map(|field| field.trim().parse::<u64>().unwrap_or(0)).min();
    match (limits.most(Kind::LocalCopies), told) {
        (Some(most), Some(told)) => Some(most.min(told)),
        (most, _) => most,
    }
}

/// How many of `due` forwards may run, and how many messages each of theirs may become then: together no more than `copies`.
/// A loop is bounded by its depth elsewhere; this bounds its width.
pub fn share_copies(copies: Option<u64>, due: usize) -> (usize, Option<u64>) {
    let Some(copies) = copies else { return (due, None) };
    let running = due.min(usize::try_from(copies).unwrap_or(usize::MAX));
    let rest = copies.saturating_sub(running as u64);
    (running, Some(rest.checked_div(running as u64).unwrap_or(0)))
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

/// The gate that holds a message back (contract 4.6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Gate {
    /// The account's e-mail is not verified.
    Unverified,
    /// The destination did not confirm.
    Unproven,
    /// The account sends it nothing.
    Suppressed,
}

impl Gate {
    /// What the route's last outcome says.
    const fn word(self) -> &'static str {
        match self {
            Self::Unverified => "unverified",
            Self::Unproven => "unproven",
            Self::Suppressed => "suppressed",
        }
    }

    /// What the recipient's row says.
    const fn sentence(self) -> &'static str {
        match self {
            Self::Unverified => "5.7.1 not forwarded: the account's e-mail address is not verified",
            Self::Unproven => "5.7.1 not forwarded: the destination has not confirmed that it wants this mail",
            Self::Suppressed => "5.7.1 not forwarded: the destination is suppressed",
        }
    }
}

impl Outbound {
    /// Leaves a forwarded message with its job, in the transaction that stores the message; returns the job.
    /// None when the route's address is none, or a gate holds the message back.
    ///
    /// # Errors
    /// Storage trouble.
    pub fn forward(&self, tx: &Connection, forward: Forward<'_>, now: Timestamp) -> store::Result<Option<Left>> {
        let Ok(to) = Mailbox::parse(forward.to) else { return Ok(None) };
        if let Some(gate) = self.closed_gate(tx, forward, &to)? {
            hold_back(tx, forward, &to, gate, now)?;
            return Ok(None);
        }
        let reverse_path = match Mailbox::parse(forward.mail_from) {
            Ok(sender) => {
                self.parts.return_paths.srs(&sender, now).map(|mailbox| mailbox.to_string()).unwrap_or_default()
            }
            Err(_) => String::new(),
        };
        let copies = forward.copies.map(|copies| format!("{COPIES}: {copies}\r\n")).unwrap_or_default();
        let new = NewDispatch {
            account_id: forward.account,
            message: forward.message,
            route_id: Some(forward.route),
            sending_domain: forward.domain,
            domain: None,
            reverse_path: &reverse_path,
            prefix: &format!("{FORWARDED}: {}\r\n{copies}{}", forward.route, forward.trace),
            raw_id: forward.raw_id,
        };
        self.send_on(tx, new, to, now)
    }

    /// The first gate that is closed.
    fn closed_gate(&self, tx: &Connection, forward: Forward<'_>, to: &Mailbox) -> store::Result<Option<Gate>> {
        if !self.parts.config.dev {
            if !accounts::find_by_row(tx, forward.account)?.is_some_and(|account| account.email_verified) {
                return Ok(Some(Gate::Unverified));
            }
            if !destinations::is_proven(tx, forward.account, to)? {
                return Ok(Some(Gate::Unproven));
            }
        }
        let suppressed = suppressions::find_suppressed(tx, forward.account, &[to.to_string().to_lowercase()])?;
        Ok((!suppressed.is_empty()).then_some(Gate::Suppressed))
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
        self.parts.jobs.leave(tx, &lane, jobs::Kind::Dispatch, dispatch, now).map(Some)
    }
}

/// Writes down, on the route and beside the message, that and why it was not forwarded.
fn hold_back(tx: &Connection, forward: Forward<'_>, to: &Mailbox, gate: Gate, now: Timestamp) -> store::Result<()> {
    tracing::info!(route = %forward.route, reason = gate.word(), "a message was not forwarded");
    routes::note_outcome(tx, forward.route, gate.word(), None)?;
    let Some(message) = forward.message else { return Ok(()) };
    let new = NewDispatch {
        account_id: forward.account,
        message: Some(message),
        route_id: Some(forward.route),
        sending_domain: forward.domain,
        domain: Some(to.domain().as_str()),
        reverse_path: "",
        prefix: "",
        raw_id: forward.raw_id,
    };
    let dispatch = dispatches::insert(tx, &new, now)?;
    dispatches::hold_back(tx, dispatch)?;
    recipients::insert(tx, dispatch, 0, &to.to_string(), "failed", now)?;
    let standing = Standing { status: "failed", smtp_code: None, diagnostic: Some(gate.sentence()) };
    recipients::settle(tx, dispatch, 0, standing, now)
}
