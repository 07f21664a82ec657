//! Forward routes: received mail that goes on to one address (contract 4.1), and the report that comes back when it did
//! not arrive there, which goes back to who sent the mail.
//!
//! The mail data goes on as received, so its signatures keep their worth; what is put before it says that it came through
//! here. The envelope sender is rewritten by SRS, or the next host's SPF check would fail. What a gate of contract 4.6 holds
//! back is not forwarded, and the route and the message say why.

mod report;
mod rewrite;

pub(crate) use report::ForwardReport;

use crate::store::Connection;
use serde::{Deserialize, Serialize};

use super::message::arc;
use super::message::dkim::DomainKeys;
use super::submit::sender::Refusal;
use super::{Dependencies, Outbound};
use crate::clock::Timestamp;
use crate::config::Config;
use crate::domain::name::{organizational, with_parents};
use crate::id::{AccountRowId, MailDataRowId, MessageRowId, RouteId};
use crate::jobs::{self, EnqueuedJob, Flow};
use crate::limits::{Kind, Limits};
use crate::mail::address::Mailbox;
use crate::mail::mime;
use crate::mail::status_code::EnhancedStatusCode;
use crate::mail::trace::Verdict;
use crate::mail::verification::Verification;
use crate::store;
use crate::store::accounts;
use crate::store::accounts::Account;
use crate::store::accounts::domains;
use crate::store::sending::dispatches::{DispatchRow, NewDispatch};
use crate::store::sending::forward_marks::NewMark;
use crate::store::sending::recipients::{RecipientRow, RecipientState};
use crate::store::sending::{destinations, dispatches, forward_marks, recipients, suppressions};
use crate::store::webhooks::routes;
use crate::store::webhooks::routes::OnAuthFail;

/// The field that names the routes which forwarded a message.
pub(crate) const FORWARDED: &str = "X-Mailkite-Forwarded";
/// The field that says how many messages this one may still become.
pub(crate) const COPIES: &str = "X-Mailkite-Copies";
/// A message with more Received fields is not forwarded (contract 4.1).
pub(crate) const MAX_RECEIVED: usize = 50;

/// The local part that speaks for an author where a route matches many addresses.
const NOBODY: &str = "noreply";

/// A received message that a route forwards.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Forward<'a> {
    /// The account.
    pub(crate) account: AccountRowId,
    /// The message's row; none when nothing else is stored of it.
    pub(crate) message: Option<MessageRowId>,
    /// The route.
    pub(crate) route: &'a RouteId,
    /// Where it goes.
    pub(crate) to: &'a str,
    /// The domain of the recipient that the route matched.
    pub(crate) domain: &'a str,
    /// Envelope sender; empty is the null reverse-path, which stays so.
    pub(crate) mail_from: &'a str,
    /// The trace fields that we put before it.
    pub(crate) trace: &'a str,
    /// The raw copy's row.
    pub(crate) raw_id: MailDataRowId,
    /// The recipient that the route matched.
    pub(crate) recipient: &'a Mailbox,
    /// Whether the route matches this one address, and not whichever a sender likes.
    pub(crate) exact: bool,
    /// What becomes of it when its author is not authenticated.
    pub(crate) policy: OnAuthFail,
    /// What was found out about who it is from.
    pub(crate) verification: &'a Verification,
    /// What reports about it are known by: its Message-ID, else our own id of it.
    pub(crate) mark: &'a str,
    /// The domain of the author whom every reader finds in From; none where they may differ.
    pub(crate) author: Option<&'a str>,
    /// Whether every reader finds the same fields.
    pub(crate) plain_header: bool,
    /// How many messages it may still become where it arrives; none: any number.
    pub(crate) copies: Option<u64>,
}

/// How many messages a received one may still become by forwarding: what the limit says, or less if it was forwarded
/// already. The field can be made up outside, but only to make it less.
pub(crate) fn copies_left(fields: &[String], limits: &Limits) -> Option<u64> {
    let told = fields.iter().map(|field| field.trim().parse::<u64>().unwrap_or(0)).min();
    match (limits.most(Kind::LocalCopies), told) {
        (Some(most), Some(told)) => Some(most.min(told)),
        (most, _) => most,
    }
}

/// How many of `due` forwards may run, and how many messages each of theirs may become then: together no more than `copies`.
/// A loop is bounded by its depth elsewhere; this bounds its width.
pub(crate) fn share_copies(copies: Option<u64>, due: usize) -> (usize, Option<u64>) {
    let Some(copies) = copies else { return (due, None) };
    let running = due.min(usize::try_from(copies).unwrap_or(usize::MAX));
    let rest = copies.saturating_sub(running as u64);
    (running, Some(rest.checked_div(running as u64).unwrap_or(0)))
}

/// What goes along with forwarded mail until it leaves.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Forwarding {
    /// What was found out about who it is from.
    verification: Verification,
    /// The address that speaks for its author; none when it leaves as it came.
    from: Option<String>,
}

impl Forwarding {
    /// Reads what a dispatch has.
    ///
    /// # Errors
    /// It was not written by this program.
    pub(crate) fn parse(json: &str) -> store::Result<Self> {
        serde_json::from_str(json).map_err(|_| store::Error::Corrupt("forwarding"))
    }

    /// What is done to mail that an earlier version left to be forwarded, which did not say what it found.
    pub(crate) fn unknown(hostname: &str) -> Self {
        Self { verification: Verification::unchecked(hostname), from: None }
    }

    /// The mail as it leaves, and what is known of it then; none when it should be signed and there is no key.
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
        // What is put before it would otherwise end at such a line for some readers; no signature covers one.
        let mail = mime::without_stray_lines(mail);
        let mut mail = mime::without_results_of(mail, hostname);
        let mut verification = self.verification;
        let mut known = verification.clone();
        if let Some(from) = &self.from {
            mail = rewrite::rewritten(&mail, from, domain);
            let signature = keys?.sign(&mail).ok()?;
            mail.splice(..0, signature.into_bytes());
            // It is ours now; what its chain was when it came in stays true.
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

/// The gate that holds a message back (contract 4.6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Gate {
    /// The account's e-mail is not verified.
    Unverified,
    /// The destination did not confirm.
    Unproven,
    /// The account sends it nothing.
    Suppressed,
    /// Its author is not authenticated.
    Refused,
}

impl Gate {
    /// What the route's last outcome says.
    pub(crate) const fn word(self) -> &'static str {
        match self {
            Self::Unverified => "unverified",
            Self::Unproven => "unproven",
            Self::Suppressed => "suppressed",
            Self::Refused => "refused",
        }
    }

    /// Returns the status code of a recipient that is not forwarded to.
    pub(crate) const fn status(self) -> EnhancedStatusCode {
        EnhancedStatusCode::NOT_AUTHORIZED
    }

    /// Returns the text of the recipient's diagnostic, without the status code.
    pub(crate) const fn sentence(self) -> &'static str {
        match self {
            Self::Unverified => "not forwarded: the account's e-mail address is not verified",
            Self::Unproven => "not forwarded: the destination has not confirmed that it wants this mail",
            Self::Suppressed => "not forwarded: the destination is suppressed",
            Self::Refused => "not forwarded: its From address is not authenticated",
        }
    }
}

/// The first domain of a user that shares its owner with the envelope senders of forwarded mail, in a sentence: SPF of what
/// is forwarded then aligns with it.
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
    /// Leaves a forwarded message with its job, in the transaction that stores the message; returns the job.
    /// None when the route's address is none, or a gate holds the message back.
    pub(crate) fn forward(
        &self,
        tx: &Connection,
        forward: Forward<'_>,
        now: Timestamp,
    ) -> store::Result<Option<EnqueuedJob>> {
        let Ok(to) = Mailbox::parse(forward.to) else { return Ok(None) };
        let from = match self.pass(tx, forward, &to)? {
            Ok(from) => from,
            Err(gate) => {
                hold_back(tx, forward, &to, gate, now)?;
                return Ok(None);
            }
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
            let new = NewMark {
                mark: &report::mark(srs, forward.mark),
                account: forward.account,
                sender: &sender.without_subaddress(),
                recipient: &forward.recipient.to_string(),
            };
            forward_marks::insert(tx, new, now)?;
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
            raw_id: forward.raw_id,
            forwarding: Some(&forwarding),
        };
        self.send_on(tx, new, to, now)
    }

    /// The From that a message leaves with, none for its own, or the first gate that is closed.
    fn pass(
        &self,
        tx: &Connection,
        forward: Forward<'_>,
        to: &Mailbox,
    ) -> store::Result<Result<Option<String>, Gate>> {
        let account = match self.parts.forwarder(tx, forward.account, to)? {
            Ok(account) => account,
            Err(gate) => return Ok(Err(gate)),
        };
        if self.parts.config.dev || self.is_authenticated(tx, forward)? {
            return Ok(Ok(None));
        }
        if forward.policy == OnAuthFail::Refuse || !forward.plain_header {
            return Ok(Err(Gate::Refused));
        }
        // Nobody speaks for whom readers do not agree on, and a name beside an address of its own domain would be believed.
        let Some(author) = forward.author else { return Ok(Err(Gate::Refused)) };
        if self.is_local_author(tx, author)? || is_own_author(tx, forward, author)? {
            return Ok(Err(Gate::Refused));
        }
        // A From of the domain is sent as any other is.
        match self.parts.find_sender(tx, &account, None, forward.domain) {
            Ok(_) if forward.exact && Mailbox::parse(&forward.recipient.canonical()).is_ok() => {
                Ok(Ok(Some(forward.recipient.canonical())))
            }
            // The sender chose the recipient, or nobody can be sent mail there.
            Ok(_) => Ok(Ok(Some(format!("{NOBODY}@{}", forward.domain)))),
            Err(Refusal::Store(error)) => Err(error),
            Err(_) => Ok(Err(Gate::Refused)),
        }
    }

    /// Whether a message may leave with its own From (contract 4.6).
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

    /// Whether a From domain is one that our own name on the envelope could seem to vouch for: an account's, or one that
    /// shares its owner with the host's.
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

    /// The dispatch of received mail to one address.
    pub(crate) fn send_on(
        &self,
        tx: &Connection,
        new: NewDispatch<'_>,
        to: Mailbox,
        now: Timestamp,
    ) -> store::Result<Option<EnqueuedJob>> {
        let account = new.account_id;
        let (domain, lane) = self.parts.destination(tx, new.sending_domain, &to)?;
        let dispatch = dispatches::insert(tx, &NewDispatch { domain, ..new }, now)?;
        recipients::insert(tx, dispatch, 0, &to.to_string(), "queued", now)?;
        self.parts.jobs.enqueue(tx, &Flow::new(&lane, account), jobs::JobSubject::Dispatch(dispatch), now).map(Some)
    }
}

/// Whether a From domain lies under the route's, or under one that its account may send from.
fn is_own_author(tx: &Connection, forward: Forward<'_>, author: &str) -> store::Result<bool> {
    for name in with_parents(author) {
        let own = domains::find_of_account(tx, forward.account, &name)?;
        if name == forward.domain || own.is_some_and(|own| own.flags.spf && own.flags.dkim) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Whether the envelope sender of a message is who sent it. Reports go to nobody else: mail with anybody's address as the
/// envelope sender would be a way to mail them (contract 5.1).
fn is_known_sender(forward: Forward<'_>, sender: &Mailbox) -> bool {
    let verdicts = &forward.verification.verdicts;
    // SPF of a message with an envelope sender is about that.
    if verdicts.spf == Some(Verdict::Pass) {
        return true;
    }
    let owner = organizational(sender.domain().as_str());
    let is_author = forward.author.is_some_and(|author| organizational(author) == owner);
    verdicts.dmarc == Some(Verdict::Pass) && forward.plain_header && is_author
}

impl Dependencies {
    /// The gate that closed for a dispatch since it was stored; forwarded mail has one recipient.
    pub(crate) fn closed_gate(
        &self,
        connection: &Connection,
        dispatch: &DispatchRow,
        recipients: &[RecipientRow],
    ) -> store::Result<Option<Gate>> {
        let (Some(_), Some(recipient)) = (&dispatch.route_id, recipients.first()) else { return Ok(None) };
        let Ok(to) = Mailbox::parse(&recipient.address) else { return Ok(None) };
        Ok(self.forwarder(connection, dispatch.account_id, &to)?.err())
    }

    /// The account, where nothing speaks against that it forwards to an address; else the first gate that is closed. Asked
    /// when a message comes in and again before each attempt: somebody may have declined meanwhile.
    fn forwarder(
        &self,
        connection: &Connection,
        account: AccountRowId,
        to: &Mailbox,
    ) -> store::Result<Result<Account, Gate>> {
        let dev = self.config.dev;
        let found = accounts::find_by_row(connection, account)?.filter(|account| dev || account.email_verified);
        let Some(found) = found else { return Ok(Err(Gate::Unverified)) };
        if !dev && !destinations::is_proven(connection, account, to)? {
            return Ok(Err(Gate::Unproven));
        }
        let suppressed = suppressions::find_suppressed(connection, account, &[to.canonical()])?;
        Ok(if suppressed.is_empty() { Ok(found) } else { Err(Gate::Suppressed) })
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
        forwarding: None,
    };
    let dispatch = dispatches::insert(tx, &new, now)?;
    dispatches::postpone(tx, dispatch)?;
    recipients::insert(tx, dispatch, 0, &to.to_string(), "failed", now)?;
    let diagnostic = format!("{} {}", gate.status(), gate.sentence());
    let standing = RecipientState { status: "failed", smtp_code: None, diagnostic: Some(&diagnostic) };
    recipients::settle(tx, dispatch, 0, standing, now)
}
