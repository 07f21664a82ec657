//! What is known of a parcel so far.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::time::Instant;

use crate::mail::status_code::EnhancedStatusCode;
use crate::outbound::client::{SessionError, TransactionResult, Transcript};
use crate::outbound::queue::hosts::Denied;
use crate::outbound::queue::refusal;
use crate::outbound::{DeliveryRequest, DeliveryResult, Host, Outcome, SessionRecord, Unroutable, Verdict};

/// See the head of this file.
pub(super) struct Progress {
    pub(crate) outcomes: Vec<Option<Outcome>>,
    pub(crate) receipt: SessionRecord,
    pub(crate) transcript: Transcript,
    /// The last trouble, for those who are left.
    trouble: Option<Outcome>,
    /// Mail data went out and was not answered: no other host gets it in this attempt.
    stop: bool,
    /// When the attempt ends, however far it came.
    pub(crate) deadline: Instant,
    /// A host was tried, …
    pub(crate) tried: bool,
    /// … and these were not, because they pause or have no room.
    pub(crate) passed_over: Vec<(SocketAddr, Denied)>,
    /// One of the hosts has an IPv4 address.
    pub(crate) has_ipv4: bool,
    /// Our IPv6 address has no name: no other of theirs would do.
    pub(crate) only_ipv4: bool,
}

impl Progress {
    pub(super) fn of(parcel: &DeliveryRequest, time: Duration) -> Self {
        Self {
            outcomes: vec![None; parcel.recipients.len()],
            receipt: SessionRecord::default(),
            transcript: Transcript::default(),
            trouble: None,
            stop: false,
            deadline: Instant::now() + time,
            tried: false,
            passed_over: Vec::new(),
            has_ipv4: false,
            only_ipv4: false,
        }
    }

    /// The places of recipients without a verdict.
    pub(super) fn open(&self) -> Vec<usize> {
        let open = self.outcomes.iter().enumerate().filter(|(_, outcome)| outcome.is_none());
        open.map(|(place, _)| place).collect()
    }

    /// Whether no host decided anything, nor may have.
    pub(super) fn is_untouched(&self) -> bool {
        self.outcomes.iter().all(Option::is_none) && !self.stop
    }

    pub(super) fn is_over(&self) -> bool {
        self.stop || Instant::now() >= self.deadline || self.outcomes.iter().all(Option::is_some)
    }

    /// Whether one of the hosts takes mail, but has no room for another connection.
    pub(super) fn is_full(&self) -> bool {
        let of_use = |address: &SocketAddr| !self.only_ipv4 || address.is_ipv4();
        self.passed_over.iter().any(|(address, denied)| *denied == Denied::Full && of_use(address))
    }

    /// Whether nothing came of it, and what was passed over is to be waited for: every host that is left pauses, or one
    /// of them is full.
    pub(super) fn waits(&self) -> bool {
        self.is_untouched() && (self.is_full() || (!self.tried && !self.passed_over.is_empty()))
    }

    /// A host could not be connected to.
    pub(super) fn note_unreached(&mut self, host: &Host, address: SocketAddr, fault: &SessionError) {
        self.transcript.note(&format!("{} [{address}]", host.name));
        self.failed(host, address, fault);
    }

    /// A host took no session, or broke it off. Whether it did so because our IPv6 address has no name.
    pub(super) fn failed(&mut self, host: &Host, address: SocketAddr, fault: &SessionError) -> bool {
        let trouble = fault.outcome(&host.name);
        if fault.is_local() {
            // It was not asked. What others said says more.
            self.trouble.get_or_insert(trouble);
            return false;
        }
        self.trouble = Some(trouble);
        self.tried_at(host, address);
        let wants_ipv4 = matches!(fault, SessionError::Refused(reply) if self.wants_ipv4(address, &reply.text()));
        self.only_ipv4 |= wants_ipv4;
        wants_ipv4
    }

    fn tried_at(&mut self, host: &Host, address: SocketAddr) {
        self.tried = true;
        self.receipt.host = Some(host.name.clone());
        self.receipt.address = Some(address);
    }

    /// Takes over what a transaction decided. Whether this address refused anybody because our IPv6 address has no name:
    /// those have no verdict yet.
    pub(super) fn take(
        &mut self,
        open: &[usize],
        ended: TransactionResult,
        host: &Host,
        address: SocketAddr,
    ) -> bool {
        self.tried_at(host, address);
        let mut wants_ipv4 = false;
        for (place, outcome) in open.iter().zip(ended.outcomes) {
            // Only a reply can be about reverse DNS.
            let refused = outcome.as_ref().filter(|one| one.verdict != Verdict::Sent && one.code.is_some());
            let outcome = match refused {
                Some(refused) if self.wants_ipv4(address, &refused.diagnostic) => {
                    wants_ipv4 = true;
                    self.trouble = Some(Outcome { verdict: Verdict::Deferred, ..refused.clone() });
                    None
                }
                _ => outcome,
            };
            if let Some(slot) = self.outcomes.get_mut(*place) {
                *slot = outcome;
            }
        }
        self.only_ipv4 |= wants_ipv4;
        if let Some(fault) = &ended.error {
            wants_ipv4 |= self.failed(host, address, fault);
            // Its last word never came: perhaps it has the mail.
            self.stop = ended.data_sent;
        }
        wants_ipv4
    }

    /// The last trouble, as a sentence.
    pub(super) fn last_error_text(&self) -> String {
        self.trouble.as_ref().map(|trouble| trouble.diagnostic.clone()).unwrap_or_default()
    }

    /// Whether a refusal is about the name of our IPv6 address, which IPv4 may do without.
    fn wants_ipv4(&self, address: SocketAddr, text: &str) -> bool {
        address.is_ipv6() && self.has_ipv4 && refusal::requires_reverse_dns(text)
    }

    pub(super) fn unroutable(mut self, unroutable: Unroutable) -> Self {
        let outcome = Outcome::without_reply(unroutable.status, unroutable.text);
        self.transcript.note(&outcome.diagnostic);
        if outcome.verdict == Verdict::Bounced {
            self.outcomes.fill(Some(outcome));
        } else {
            self.trouble = Some(outcome);
        }
        self
    }

    pub(super) fn finish(self) -> DeliveryResult {
        let (status, untried) = if self.passed_over.is_empty() {
            (EnhancedStatusCode::TRANSIENT_ROUTING, "no host could be tried")
        } else {
            (EnhancedStatusCode::CONGESTION, "the mail hosts take no more connections at the moment")
        };
        let rest = self.trouble.unwrap_or_else(|| Outcome::without_reply(status, untried));
        let outcomes = self.outcomes.into_iter().map(|outcome| outcome.unwrap_or_else(|| rest.clone())).collect();
        let receipt = SessionRecord { transcript: self.transcript.text(), ..self.receipt };
        DeliveryResult { outcomes, receipt, wait: None }
    }
}
