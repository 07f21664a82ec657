//! The appliance's own mail: address confirmations and owner notices. It is no account's message, so no list shows
//! it.

use std::sync::Arc;

use crate::store::Connection;

use super::message::compose::{Content, compose};
use super::queue::deliver::{Dispatcher, HostPause, postponed, waits};
use super::queue::hosts::Wait;
use super::queue::outcome::health;
use super::{DeliveryRequest, Destination, Outcome, Verdict};
use crate::clock::Timestamp;
use crate::event_bus::Activity;
use crate::event_bus::mail_log::Line;
use crate::jobs::{self, AttemptResult, ClaimedJob, Flow, Handler, Settlement};
use crate::mail::address::Mailbox;
use crate::mail::mailbox_list::NamedMailbox;
use crate::mail::status_code::EnhancedStatusCode;
use crate::mail::verification::Verification;
use crate::store;
use crate::store::accounts::domains;
use crate::store::accounts::notices;
use crate::store::accounts::notices::Notice;

/// Display name of the sender.
const NAME: &str = "mailkite";

/// Sends notices; handles the jobs of that kind.
pub(crate) struct SystemMail {
    /// Delivers mail to its hosts.
    pub(crate) dispatcher: Arc<Dispatcher>,
}

/// An attempt to be recorded.
pub(crate) enum Attempted {
    Outcome {
        notice: Notice,
        outcome: Outcome,
    },
    /// The hosts accept nothing at the moment.
    HostPause(HostPause),
}

/// A recorded attempt.
pub(crate) struct Settled {
    notice: Notice,
    outcome: Outcome,
    next_attempt_at: Option<Timestamp>,
}

impl Handler for SystemMail {
    type Attempted = Attempted;
    type Settled = Settled;

    async fn attempt(self: Arc<Self>, flow: Flow, job: ClaimedJob, now: Timestamp) -> AttemptResult<Attempted> {
        let id = job.subject_id.of_kind();
        let this = Arc::clone(&self);
        let found = self.dispatcher.outbound.parts.db.read(move |connection| {
            let Some(notice) = notices::find(connection, id)? else { return Ok(None) };
            let data = this.compose(connection, &notice)?;
            Ok(Some((notice, data)))
        });
        match found.await {
            Ok(Some((notice, Some((recipient, data))))) => match self.transmit(&flow, recipient, data, now).await {
                (_, Some(wait)) if now < notice.expires_at => waits(&flow, &job, wait, Attempted::HostPause),
                (outcome, _) => attempted(notice, outcome, now),
            },
            // The address or the mail cannot be parsed, and a retry would not change that.
            Ok(Some((notice, None))) => {
                let outcome =
                    Outcome::without_reply(EnhancedStatusCode::BAD_MAILBOX_SYNTAX, "the notice cannot be sent");
                attempted(notice, outcome, now)
            }
            Ok(None) => AttemptResult::finished(),
            Err(error) => {
                tracing::warn!(job = job.id.get(), %error, "a notice could not be read");
                postponed(now)
            }
        }
    }

    fn settle(
        &self,
        tx: &Connection,
        attempted: Attempted,
        settlement: Settlement,
    ) -> store::Result<Option<Settled>> {
        let (notice, outcome) = match attempted {
            Attempted::Outcome { notice, outcome } => (notice, outcome),
            Attempted::HostPause(pause) => return pause.record(tx).map(|()| None),
        };
        let next_attempt_at = match settlement {
            Settlement::Retry(at) => Some(at),
            Settlement::Delivered | Settlement::Failed => {
                notices::delete(tx, notice.id)?;
                None
            }
        };
        Ok(Some(Settled { notice, outcome, next_attempt_at }))
    }

    fn committed(&self, Settled { notice, outcome, next_attempt_at }: Settled) {
        let (to, next_attempt) = (Some(notice.recipient.as_str()), next_attempt_at);
        outcome.log(Line { from: Some(""), to, next_attempt, ..Line::default() });
        let parts = &self.dispatcher.outbound.parts;
        parts.publisher.publish(|| Activity::Sent {
            message_id: None,
            from: format!("postmaster@{}", parts.config.hostname),
            to: notice.recipient,
            subject: Some(notice.subject),
            status: outcome.verdict.status().as_str(),
            captured: outcome.is_captured(),
            diagnostic: outcome.diagnostic,
            host: None,
            next_attempt_at: next_attempt_at.map(Timestamp::as_millis),
        });
    }
}

impl SystemMail {
    /// Composes the mail, signed when the host name belongs to a domain that is verified here.
    fn compose(&self, connection: &Connection, notice: &Notice) -> store::Result<Option<(Mailbox, Vec<u8>)>> {
        let parts = &self.dispatcher.outbound.parts;
        let hostname = parts.config.hostname.as_str();
        let text = parts.secrets.open_text(notices::PURPOSE, &notice.text_sealed).ok();
        let recipient = Mailbox::parse(&notice.recipient).ok();
        let sender = Mailbox::parse(&format!("postmaster@{hostname}")).ok();
        let (Some(text), Some(recipient), Some(sender)) = (text, recipient, sender) else { return Ok(None) };
        let content = Content {
            from: NamedMailbox { name: Some(NAME.to_owned()), mailbox: sender },
            to: vec![NamedMailbox { name: None, mailbox: recipient.clone() }],
            cc: Vec::new(),
            reply_to: Vec::new(),
            subject: notice.subject.clone(),
            text: Some(text),
            html: None,
            in_reply_to: None,
            // RFC 3834 §5: automatic responders must not answer it.
            headers: vec![("Auto-Submitted".to_owned(), "auto-generated".to_owned())],
            attachments: Vec::new(),
            message_id: format!("<notice.{}.{}@{hostname}>", notice.id, notice.created_at.as_millis()),
            date: notice.created_at,
        };
        let Ok(mut mail) = compose(&content) else { return Ok(None) };
        if let Some(signature) = parts.host_signature(connection, &mail)? {
            mail.splice(..0, signature.into_bytes());
        }
        Ok(Some((recipient, mail)))
    }

    /// Transmits the mail; returns the result, or the wait for its hosts.
    async fn transmit(
        &self,
        flow: &Flow,
        recipient: Mailbox,
        data: Vec<u8>,
        now: Timestamp,
    ) -> (Outcome, Option<Wait>) {
        let dispatcher = &self.dispatcher;
        let parts = &dispatcher.outbound.parts;
        let hostname = parts.config.hostname.as_str();
        let name = recipient.domain().as_str().to_owned();
        // The null reverse-path: nobody handles a notice that cannot be delivered.
        let request = DeliveryRequest {
            reverse_path: None,
            recipients: vec![recipient.clone()],
            data: data.into(),
            ascii: None,
        };
        let asked = name.clone();
        let local = parts.db.read(move |connection| domains::find_verified(connection, &asked)).await;
        let mut wait = None;
        let outcomes = if matches!(local, Ok(Some(_))) {
            dispatcher.local.deliver(request, Verification::of_own_message(hostname, hostname, "")).await
        } else if parts.config.dev {
            vec![Outcome::without_reply(EnhancedStatusCode::OK, "captured: in dev mode nothing leaves the machine")]
        } else {
            let destination = match &parts.config.outbound.smarthost {
                Some(relay) => Destination::Smarthost(Arc::clone(relay)),
                None => Destination::Domain(recipient.domain().clone()),
            };
            let done = dispatcher.transport.transmit(flow, &destination, request, now).await;
            wait = done.wait;
            done.outcomes
        };
        let outcome = outcomes.into_iter().next();
        (outcome.unwrap_or_else(|| Outcome::without_reply(EnhancedStatusCode::TRANSIENT_SYSTEM, "no outcome")), wait)
    }
}

fn attempted(notice: Notice, outcome: Outcome, now: Timestamp) -> AttemptResult<Attempted> {
    let over = now >= notice.expires_at;
    let verdict = match outcome.verdict {
        Verdict::Sent => jobs::Verdict::Delivered,
        Verdict::Deferred if !over => {
            jobs::Verdict::Deferred { not_before: None, not_after: Some(notice.expires_at) }
        }
        Verdict::Deferred | Verdict::Bounced => jobs::Verdict::Failed,
    };
    let health = health(std::slice::from_ref(&outcome));
    AttemptResult { verdict, health, attempted: Some(Attempted::Outcome { notice, outcome }) }
}
