//! The state of a delivery request during an attempt.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::time::Instant;

use crate::mail::status_code::EnhancedStatusCode;
use crate::outbound::client::{SessionError, TransactionResult, Transcript};
use crate::outbound::queue::hosts::Denied;
use crate::outbound::queue::refusal;
use crate::outbound::{DeliveryRequest, DeliveryResult, Host, Outcome, SessionRecord, Unroutable, Verdict};

/// The state of a delivery request: outcomes so far, session record and transcript.
pub(super) struct Progress {
    pub(crate) outcomes: Vec<Option<Outcome>>,
    pub(crate) record: SessionRecord,
    pub(crate) transcript: Transcript,
    /// The last failure, used for recipients without a verdict.
    last_error: Option<Outcome>,
    /// Mail data was sent and not answered: no other host is tried in this attempt.
    stop: bool,
    /// End of the attempt, however far it came.
    pub(crate) deadline: Instant,
    /// True once a host was tried.
    pub(crate) tried: bool,
    /// Addresses that were not tried because their host was paused or full.
    pub(crate) skipped: Vec<(SocketAddr, Denied)>,
    /// True if one of the hosts has an IPv4 address.
    pub(crate) has_ipv4: bool,
    /// True if our IPv6 address was refused for its missing reverse DNS name, so other IPv6 addresses are not tried.
    pub(crate) only_ipv4: bool,
}

impl Progress {
    pub(super) fn of(request: &DeliveryRequest, time: Duration) -> Self {
        Self {
            outcomes: vec![None; request.recipients.len()],
            record: SessionRecord::default(),
            transcript: Transcript::default(),
            last_error: None,
            stop: false,
            deadline: Instant::now() + time,
            tried: false,
            skipped: Vec::new(),
            has_ipv4: false,
            only_ipv4: false,
        }
    }

    /// Returns the indexes of recipients without a verdict.
    pub(super) fn open(&self) -> Vec<usize> {
        let open = self.outcomes.iter().enumerate().filter(|(_, outcome)| outcome.is_none());
        open.map(|(place, _)| place).collect()
    }

    /// Returns true if no host decided anything, nor may have accepted the mail.
    pub(super) fn is_untouched(&self) -> bool {
        self.outcomes.iter().all(Option::is_none) && !self.stop
    }

    pub(super) fn is_over(&self) -> bool {
        self.stop || Instant::now() >= self.deadline || self.outcomes.iter().all(Option::is_some)
    }

    /// Returns true if one of the hosts accepts mail but has no free connection slot.
    pub(super) fn is_full(&self) -> bool {
        let of_use = |address: &SocketAddr| !self.only_ipv4 || address.is_ipv4();
        self.skipped.iter().any(|(address, denied)| *denied == Denied::Full && of_use(address))
    }

    /// Returns true if nothing was decided and the skipped hosts should be waited for: every remaining host is
    /// paused, or one of them is full.
    pub(super) fn waits(&self) -> bool {
        self.is_untouched() && (self.is_full() || (!self.tried && !self.skipped.is_empty()))
    }

    /// Records a host that could not be connected to.
    pub(super) fn note_unreached(&mut self, host: &Host, address: SocketAddr, fault: &SessionError) {
        self.transcript.note(&format!("{} [{address}]", host.name));
        self.failed(host, address, fault);
    }

    /// Records a host that refused or broke off a session. Returns true if it refused because our IPv6 address has no
    /// reverse DNS name.
    pub(super) fn failed(&mut self, host: &Host, address: SocketAddr, fault: &SessionError) -> bool {
        let failure = fault.outcome(&host.name);
        if fault.is_local() {
            // The host itself was not reached, so the replies of others are more informative.
            self.last_error.get_or_insert(failure);
            return false;
        }
        self.last_error = Some(failure);
        self.tried_at(host, address);
        let wants_ipv4 = matches!(fault, SessionError::Refused(reply) if self.wants_ipv4(address, &reply.text()));
        self.only_ipv4 |= wants_ipv4;
        wants_ipv4
    }

    fn tried_at(&mut self, host: &Host, address: SocketAddr) {
        self.tried = true;
        self.record.host = Some(host.name.clone());
        self.record.address = Some(address);
    }

    /// Stores the outcomes of a transaction. Returns true if this address refused a recipient because our IPv6
    /// address has no reverse DNS name; such recipients have no verdict yet.
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
                    self.last_error = Some(Outcome { verdict: Verdict::Deferred, ..refused.clone() });
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
            // The final reply is missing, so the host may have the mail.
            self.stop = ended.data_sent;
        }
        wants_ipv4
    }

    /// Returns the last failure as a sentence.
    pub(super) fn last_error_text(&self) -> String {
        self.last_error.as_ref().map(|failure| failure.diagnostic.clone()).unwrap_or_default()
    }

    /// Returns true if a refusal is about the reverse DNS name of our IPv6 address, so that IPv4 may work.
    fn wants_ipv4(&self, address: SocketAddr, text: &str) -> bool {
        address.is_ipv6() && self.has_ipv4 && refusal::requires_reverse_dns(text)
    }

    pub(super) fn unroutable(mut self, unroutable: Unroutable) -> Self {
        let outcome = Outcome::without_reply(unroutable.status, unroutable.text);
        self.transcript.note(&outcome.diagnostic);
        if outcome.verdict == Verdict::Bounced {
            self.outcomes.fill(Some(outcome));
        } else {
            self.last_error = Some(outcome);
        }
        self
    }

    pub(super) fn finish(self) -> DeliveryResult {
        let (status, untried) = if self.skipped.is_empty() {
            (EnhancedStatusCode::TRANSIENT_ROUTING, "no host could be tried")
        } else {
            (EnhancedStatusCode::CONGESTION, "the mail hosts take no more connections at the moment")
        };
        let rest = self.last_error.unwrap_or_else(|| Outcome::without_reply(status, untried));
        let outcomes = self.outcomes.into_iter().map(|outcome| outcome.unwrap_or_else(|| rest.clone())).collect();
        let record = SessionRecord { transcript: self.transcript.text(), ..self.record };
        DeliveryResult { outcomes, record, wait: None }
    }
}
