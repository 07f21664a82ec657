//! What became of a recipient: who said so, and what that says of others.

use super::refusal::{self, Speaker, Stage};
use crate::jobs::Health;
use crate::outbound::{Outcome, Verdict};

impl Outcome {
    /// One that `speaker`, who is no host of the recipient's domain as such, gave by a reply.
    pub(crate) fn said_by(mut self, speaker: Speaker) -> Self {
        if self.verdict == Verdict::Bounced
            && let Some(code) = self.code
        {
            let meant = refusal::meaning(speaker, self.stage, Some(code), &self.diagnostic);
            (self.verdict, self.no_mailbox) = (meant.verdict, meant.no_mailbox);
        }
        self
    }

    /// Whether a host defers it, and would any other message as well.
    pub(crate) fn is_of_host(&self, speaker: Speaker) -> bool {
        let meant = || refusal::meaning(speaker, self.stage, self.code, &self.diagnostic);
        self.verdict == Verdict::Deferred && self.code.is_some() && meant().of_host
    }

    /// One of this server as the host of the recipient's domain.
    pub(crate) fn of_reply(verdict: Verdict, code: u16, diagnostic: impl Into<String>) -> Self {
        let diagnostic = diagnostic.into();
        let meant = refusal::meaning(Speaker::Ours, Stage::Rcpt, Some(code), &diagnostic);
        Self {
            verdict,
            code: Some(code),
            no_mailbox: verdict == Verdict::Bounced && meant.no_mailbox,
            diagnostic,
            stage: Stage::Rcpt,
        }
    }

    /// One that we decided; the diagnostic begins with an enhanced status code (RFC 3463).
    pub(crate) fn ours(verdict: Verdict, diagnostic: impl Into<String>) -> Self {
        let diagnostic = diagnostic.into();
        let no_mailbox =
            verdict == Verdict::Bounced && refusal::meaning(Speaker::Ours, Stage::Rcpt, None, &diagnostic).no_mailbox;
        Self { verdict, code: None, diagnostic, no_mailbox, stage: Stage::Session }
    }

    /// A deferral is final once the time to try is over (RFC 3463 §3.5: 5.4.7).
    pub(crate) fn unless_over(self, over: bool) -> Self {
        if !over || self.verdict != Verdict::Deferred {
            return self;
        }
        let diagnostic = format!("5.4.7 not delivered in time; the last answer was: {}", self.diagnostic);
        Self { verdict: Verdict::Bounced, code: None, diagnostic, no_mailbox: false, ..self }
    }
}

/// What outcomes say of the destination. A reply that defers a recipient says little of others; no reply, or 421
/// (RFC 5321 §3.8: the service closes), says that nothing else would fare better.
pub(crate) fn health(outcomes: &[Outcome]) -> Health {
    let deferred = |one: &&Outcome| one.verdict == Verdict::Deferred;
    if outcomes.iter().filter(deferred).any(|one| one.code.is_none_or(|code| code == 421)) {
        let taken = outcomes.iter().any(|one| one.verdict == Verdict::Sent);
        return if taken { Health::Reluctant } else { Health::Unreachable };
    }
    if outcomes.iter().any(|one| deferred(&one)) {
        return Health::Reluctant;
    }
    // What we bounced ourselves did not ask it.
    let asked = outcomes.iter().any(|one| one.code.is_some() || one.verdict == Verdict::Sent);
    if asked { Health::Up } else { Health::Unknown }
}
