//! Forward routes: received mail is sent on to one address (contract 4.1), and a report that it was not delivered
//! there is returned to the original sender.
//!
//! Mail data is forwarded as received, so its signatures stay valid; the prepended trace fields say that it passed
//! through this server. The envelope sender is rewritten by SRS, because the next host's SPF check would fail
//! otherwise. A message held back by a gate of contract 4.6 is not forwarded, and the route and the message record
//! the reason.

mod gate;
mod report;
mod rewrite;

pub(crate) use gate::Gate;
pub(crate) use report::ForwardReport;

use crate::store::Connection;
use serde::{Deserialize, Serialize};

use super::message::arc;
use super::message::dkim::DomainKeys;
use super::submit::sender::SenderError;
use super::{Dependencies, Outbound};
use crate::clock::Timestamp;
use crate::config::Config;
use crate::domain::name::{organizational, with_parents};
use crate::id::{AccountRowId, MailDataRowId, MessageRowId, RouteId};
use crate::jobs::{self, EnqueuedJob, Flow};
use crate::limits::{Kind, Limits};
use crate::mail::address::Mailbox;
use crate::mail::mime;
use crate::mail::trace::Verdict;
use crate::mail::verification::Verification;
use crate::store;
use crate::store::accounts;
use crate::store::accounts::Account;
use crate::store::accounts::domains;
use crate::store::sending::dispatches::{DispatchRow, NewDispatch};
use crate::store::sending::forwarded_messages::NewForwardedMessage;
use crate::store::sending::recipients::RecipientStatus;
use crate::store::sending::recipients::{RecipientRow, RecipientState};
use crate::store::sending::{destinations, dispatches, forwarded_messages, recipients, suppressions};
use crate::store::webhooks::routes;
use crate::store::webhooks::routes::OnAuthFail;

/// Header field that names the routes which forwarded a message.
pub(crate) const FORWARDED: &str = "X-Mailkite-Forwarded";
/// Header field with the number of messages this one may still become.
pub(crate) const COPIES: &str = "X-Mailkite-Copies";
/// Limit of Received fields: a message with more is not forwarded (contract 4.1).
pub(crate) const MAX_RECEIVED: usize = 50;

/// Local part of the rewritten From if the route matches many addresses.
const NOBODY: &str = "noreply";

/// A received message that a route forwards.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Forward<'a> {
    pub(crate) account: AccountRowId,
    /// The message's row; `None` when nothing else is stored of it.
    pub(crate) message: Option<MessageRowId>,
    pub(crate) route: &'a RouteId,
    /// The destination address.
    pub(crate) to: &'a str,
    /// The domain of the recipient that the route matched.
    pub(crate) domain: &'a str,
    /// Envelope sender; empty for the null reverse-path, which is kept.
    pub(crate) mail_from: &'a str,
    /// The trace fields that this server prepends.
    pub(crate) trace: &'a str,
    /// The raw copy's row.
    pub(crate) mail_data_id: MailDataRowId,
    /// The recipient that the route matched.
    pub(crate) recipient: &'a Mailbox,
    /// True if the route matches this one address only, rather than any address a sender chooses.
    pub(crate) exact: bool,
    /// Policy for an author who is not authenticated.
    pub(crate) policy: OnAuthFail,
    /// Authentication results for the sender and the author.
    pub(crate) verification: &'a Verification,
    /// Identifier used to match reports about it: its Message-ID, else the internal id.
    pub(crate) message_id: &'a str,
    /// The author's domain if every reader finds the same one in From; `None` if readers may differ.
    pub(crate) author: Option<&'a str>,
    /// True if every reader finds the same header fields.
    pub(crate) plain_header: bool,
    /// Number of messages it may still become at its destination; `None` for no limit.
    pub(crate) copies: Option<u64>,
}

/// Returns how many messages a received one may still become by forwarding: the configured limit, or less if it was
/// forwarded before. Outsiders can forge the field, but only to lower the number.
pub(crate) fn copies_left(fields: &[String], limits: &Limits) -> Option<u64> {
    let announced = fields.iter().map(|field| field.trim().parse::<u64>().unwrap_or(0)).min();
    match (limits.most(Kind::LocalCopies), announced) {
        (Some(most), Some(announced)) => Some(most.min(announced)),
        (most, _) => most,
    }
}

/// Returns how many of `due` forwards may run, and how many messages each may then become: at most `copies` in total.
/// A loop's depth is bounded elsewhere; this bounds its width.
pub(crate) fn share_copies(copies: Option<u64>, due: usize) -> (usize, Option<u64>) {
    let Some(copies) = copies else { return (due, None) };
    let running = due.min(usize::try_from(copies).unwrap_or(usize::MAX));
    let rest = copies.saturating_sub(running as u64);
    (running, Some(rest.checked_div(running as u64).unwrap_or(0)))
}

/// Data stored with forwarded mail until it leaves.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Forwarding {
    /// Authentication results for the sender and the author.
    verification: Verification,
    /// The rewritten From address; `None` when the message leaves unchanged.
    from: Option<String>,
}

impl Forwarding {
    /// Parses the data stored with a dispatch.
    ///
    /// # Errors
    /// The JSON was not written by this program.
    pub(crate) fn parse(json: &str) -> store::Result<Self> {
        serde_json::from_str(json).map_err(|_| store::Error::Corrupt("forwarding"))
    }

    /// Returns the data assumed for mail queued by an earlier version, which did not store authentication results.
    pub(crate) fn unknown(hostname: &str) -> Self {
        Self { verification: Verification::unchecked(hostname), from: None }
    }

    /// Returns the mail as it leaves, with its authentication results; `None` when it has to be signed and there is
    /// no key.
    #[expect(clippy::too_many_arguments, reason = "one call site; a struct would only rename the arguments")]
    pub(crate) fn finish(
        self,
        mail: Vec<u8>,
        prefix: &str,
        hostname: &str,
        domain: &str,
        keys: Option<&DomainKeys>,
        seals: bool,
        now: Timestamp,
    ) -> Option<(Vec<u8>, Verification)> {
        // For some readers such a line would end the prepended header; no signature covers it.
        let mail = mime::without_stray_lines(mail);
        let mut mail = mime::without_results_of(mail, hostname);
        let mut verification = self.verification;
        let mut known = verification.clone();
        if let Some(from) = &self.from {
            mail = rewrite::rewritten(&mail, from, domain);
            let signature = keys?.sign(&mail).ok()?;
            mail.splice(..0, signature.into_bytes());
            // The author is now a local domain; the received chain state still holds.
            known = Verification::of_own_message(hostname, domain, "");
            known.verdicts.arc = verification.verdicts.arc;
        }
        mail.splice(..0, prefix.bytes());
        if let Some(keys) = keys.filter(|_| seals) {
            match arc::seal(&mail, keys, &verification, now) {
                Ok(set) => drop(mail.splice(..0, set.into_bytes())),
                Err(error) => tracing::warn!(%error, "forwarded mail could not be sealed"),
            }
        }
        verification = known;
        Some((mail, verification))
    }
}

/// Reason why a message is not forwarded.
#[derive(Debug, thiserror::Error)]
enum NotForwarded {
    #[error("{}", .0.sentence())]
    Gate(Gate),
    #[error(transparent)]
    Store(#[from] store::Error),
}

impl From<Gate> for NotForwarded {
    fn from(gate: Gate) -> Self {
        Self::Gate(gate)
    }
}

/// Returns, for a sentence, the first domain of a user under the same organizational domain as the envelope senders
/// of forwarded mail: SPF of forwarded mail then aligns with it.
pub(crate) fn shared_domain(connection: &Connection, config: &Config) -> store::Result<Option<String>> {
    let host = config.forward_domain().to_lowercase();
    let names = domains::list_beside_forwards(connection)?;
    let shared = names.into_iter().find(|name| organizational(name) == organizational(&host));
    Ok(shared.map(|name| {
        format!(
            "forwarded mail leaves with envelope senders at {host}, and {name} is of the same organization, so SPF of it \
             counts for that; set [outbound] forward_domain to a domain of its own"
        )
    }))
}

impl Outbound {
    /// Queues a forwarded message with its job, in the transaction that stores the message; returns the job. `None`
    /// when the route's address is invalid, or a gate holds the message back.
    pub(crate) fn forward(
        &self,
        tx: &Connection,
        forward: Forward<'_>,
        now: Timestamp,
    ) -> store::Result<Option<EnqueuedJob>> {
        let Ok(to) = Mailbox::parse(forward.to) else { return Ok(None) };
        let from = match self.pass(tx, forward, &to) {
            Ok(from) => from,
            Err(NotForwarded::Gate(gate)) => {
                hold_back(tx, forward, &to, gate, now)?;
                return Ok(None);
            }
            Err(NotForwarded::Store(error)) => return Err(error),
        };
        let copies = forward.copies.map(|copies| format!("{COPIES}: {copies}\r\n")).unwrap_or_default();
        let forwarding = Forwarding { verification: forward.verification.clone(), from };
        let forwarding = serde_json::to_string(&forwarding).map_err(|_| store::Error::Corrupt("forwarding"))?;
        let sender = Mailbox::parse_received(forward.mail_from).ok();
        let srs = match &sender {
            _ if forward.mail_from.is_empty() => None,
            Some(sender) => self.parts.return_paths.srs(sender, now),
            None => self.parts.return_paths.nobody(),
        };
        if let (Some(srs), Some(sender)) = (&srs, sender.filter(|sender| is_known_sender(forward, sender))) {
            let new = NewForwardedMessage {
                fingerprint: &report::fingerprint(srs, forward.message_id),
                account: forward.account,
                sender: &sender.without_subaddress(),
                recipient: &forward.recipient.to_string(),
            };
            forwarded_messages::insert(tx, new, now)?;
        }
        let reverse_path = srs.map(|mailbox| mailbox.to_string()).unwrap_or_default();
        let new = NewDispatch {
            account_id: forward.account,
            message: forward.message,
            route_id: Some(forward.route),
            sending_domain: forward.domain,
            domain: None,
            reverse_path: &reverse_path,
            prefix: &format!("{FORWARDED}: {}\r\n{copies}{}", forward.route, forward.trace),
            mail_data_id: forward.mail_data_id,
            forwarding: Some(&forwarding),
        };
        self.send_on(tx, new, to, now)
    }

    /// Returns the From that a message leaves with (`None` for its own), or the first closed gate.
    fn pass(&self, tx: &Connection, forward: Forward<'_>, to: &Mailbox) -> Result<Option<String>, NotForwarded> {
        let account = self.parts.forwarder(tx, forward.account, to)?;
        if self.parts.config.dev || self.is_authenticated(tx, forward)? {
            return Ok(None);
        }
        if forward.policy == OnAuthFail::Refuse || !forward.plain_header {
            return Err(Gate::Refused.into());
        }
        // No address can speak for an author on whom readers disagree, and a display name next to an address of its
        // own domain would be believed.
        let Some(author) = forward.author else { return Err(Gate::Refused.into()) };
        if self.is_local_author(tx, author)? || is_own_author(tx, forward, author)? {
            return Err(Gate::Refused.into());
        }
        // A From of the local domain has to pass the gates of any other sending.
        match self.parts.find_sender(tx, &account, None, forward.domain) {
            Ok(_) if forward.exact && Mailbox::parse(&forward.recipient.canonical()).is_ok() => {
                Ok(Some(forward.recipient.canonical()))
            }
            // The sender chose the recipient address, or that address cannot be sent mail.
            Ok(_) => Ok(Some(format!("{NOBODY}@{}", forward.domain))),
            Err(SenderError::Store(error)) => Err(error.into()),
            Err(_) => Err(Gate::Refused.into()),
        }
    }

    /// Returns true if a message may leave with its own From (contract 4.6).
    fn is_authenticated(&self, tx: &Connection, forward: Forward<'_>) -> store::Result<bool> {
        let Verification { verdicts, aligned, enforced, .. } = forward.verification;
        let Some(author) = forward.author.filter(|_| forward.plain_header) else { return Ok(false) };
        match verdicts.dmarc {
            Some(Verdict::Pass) => return Ok(true),
            Some(Verdict::Fail) if *enforced => return Ok(false),
            Some(Verdict::Fail) => {}
            Some(_) | None if *aligned => return Ok(true),
            Some(Verdict::TempError | Verdict::PermError) => return Ok(false),
            Some(_) | None => {}
        }
        Ok(!self.is_local_author(tx, author)?)
    }

    /// Returns true for a From domain that this server's envelope sender could seem to vouch for: one of an account,
    /// or one under the same organizational domain as the host name.
    fn is_local_author(&self, tx: &Connection, author: &str) -> store::Result<bool> {
        let config = &self.parts.config;
        let owner = organizational(author);
        let hosts = [config.hostname.to_lowercase(), config.forward_domain().to_lowercase()];
        if hosts.iter().any(|host| organizational(host) == owner) {
            return Ok(true);
        }
        for name in with_parents(author) {
            if domains::find_verified(tx, &name)?.is_some() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Queues the dispatch of received mail to one address.
    pub(crate) fn send_on(
        &self,
        tx: &Connection,
        new: NewDispatch<'_>,
        to: Mailbox,
        now: Timestamp,
    ) -> store::Result<Option<EnqueuedJob>> {
        let account = new.account_id;
        let (domain, lane) = self.parts.destination(tx, new.sending_domain, &to)?;
        let dispatch = dispatches::insert(tx, NewDispatch { domain, ..new }, now)?;
        recipients::insert_all(tx, &[(dispatch, to.to_string())], RecipientStatus::Queued, now)?;
        self.parts.jobs.enqueue(tx, &Flow::new(&lane, account), jobs::JobSubject::Dispatch(dispatch), now).map(Some)
    }
}

/// Returns true if a From domain is under the route's domain, or under one that its account may send from.
fn is_own_author(tx: &Connection, forward: Forward<'_>, author: &str) -> store::Result<bool> {
    for name in with_parents(author) {
        let own = domains::find_of_account(tx, forward.account, &name)?;
        if name == forward.domain || own.is_some_and(|own| own.flags.spf && own.flags.dkim) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Returns true if the envelope sender is authenticated. Reports go to nobody else: otherwise a forged envelope
/// sender could be used to send mail to anybody (contract 5.1).
fn is_known_sender(forward: Forward<'_>, sender: &Mailbox) -> bool {
    let verdicts = &forward.verification.verdicts;
    // SPF checks the envelope sender if the message has one.
    if verdicts.spf == Some(Verdict::Pass) {
        return true;
    }
    let owner = organizational(sender.domain().as_str());
    let is_author = forward.author.is_some_and(|author| organizational(author) == owner);
    verdicts.dmarc == Some(Verdict::Pass) && forward.plain_header && is_author
}

impl Dependencies {
    /// Returns the gate that closed since a dispatch was stored; forwarded mail has one recipient.
    pub(crate) fn closed_gate(
        &self,
        connection: &Connection,
        dispatch: &DispatchRow,
        recipients: &[RecipientRow],
    ) -> store::Result<Option<Gate>> {
        let (Some(_), Some(recipient)) = (&dispatch.route_id, recipients.first()) else { return Ok(None) };
        let Ok(to) = Mailbox::parse(&recipient.address) else { return Ok(None) };
        match self.forwarder(connection, dispatch.account_id, &to) {
            Ok(_) => Ok(None),
            Err(NotForwarded::Gate(gate)) => Ok(Some(gate)),
            Err(NotForwarded::Store(error)) => Err(error),
        }
    }

    /// Returns the account if it may forward to an address, else the first closed gate. Checked when a message
    /// arrives and again before each attempt, because a recipient may have declined meanwhile.
    fn forwarder(
        &self,
        connection: &Connection,
        account: AccountRowId,
        to: &Mailbox,
    ) -> Result<Account, NotForwarded> {
        let dev = self.config.dev;
        let found = accounts::find_by_row(connection, account)?.filter(|account| dev || account.email_verified);
        let Some(found) = found else { return Err(Gate::Unverified.into()) };
        if !dev && !destinations::is_confirmed(connection, account, to)? {
            return Err(Gate::Unproven.into());
        }
        let suppressed = suppressions::find_suppressed(connection, account, &[to.canonical()])?;
        if suppressed.is_empty() { Ok(found) } else { Err(Gate::Suppressed.into()) }
    }
}

/// Records on the route and beside the message that it was not forwarded, and the reason.
fn hold_back(tx: &Connection, forward: Forward<'_>, to: &Mailbox, gate: Gate, now: Timestamp) -> store::Result<()> {
    gate.log(tx, forward, to)?;
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
        mail_data_id: forward.mail_data_id,
        forwarding: None,
    };
    let dispatch = dispatches::insert(tx, new, now)?;
    dispatches::postpone(tx, dispatch)?;
    recipients::insert_all(tx, &[(dispatch, to.to_string())], RecipientStatus::Failed, now)?;
    let diagnostic = format!("{} {}", gate.status(), gate.sentence());
    let state = RecipientState { status: RecipientStatus::Failed, smtp_code: None, diagnostic: Some(&diagnostic) };
    recipients::settle(tx, dispatch, 0, state, now)
}
