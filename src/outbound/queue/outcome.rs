//! Outcomes of recipients: made by this server's own decisions and by replies, and what they say about the host.

use super::refusal::{self, ReplySource, Stage};
use crate::event_bus::mail_log::{Event, Line};
use crate::jobs::Health;
use crate::mail::status_code::{EnhancedStatusCode, StatusClass};
use crate::outbound::{Outcome, Verdict};

impl From<StatusClass> for Verdict {
    fn from(class: StatusClass) -> Self {
        match class {
            StatusClass::Success => Self::Sent,
            StatusClass::PersistentTransient => Self::Deferred,
            StatusClass::Permanent => Self::Bounced,
        }
    }
}

impl Outcome {
    /// Returns an outcome that this server decides itself, without a reply.
    pub(crate) fn without_reply(status: EnhancedStatusCode, text: impl AsRef<str>) -> Self {
        let verdict = Verdict::from(status.class);
        Self {
            verdict,
            code: None,
            status: Some(status),
            diagnostic: format!("{status} {}", text.as_ref()),
            no_mailbox: refusal::is_no_mailbox(status),
            stage: Stage::Session,
        }
    }

    /// Returns the outcome of mail to a domain that is hosted here: this server's own reply to RCPT or to the message.
    pub(crate) fn of_own_reply(code: u16, status: EnhancedStatusCode, text: impl AsRef<str>) -> Self {
        let decided = Self::without_reply(status, text);
        Self { code: Some(code), diagnostic: format!("{code} {}", decided.diagnostic), stage: Stage::Rcpt, ..decided }
    }

    /// Classifies a refusal again, which was taken for one of a mail host, as one of `source`.
    pub(crate) fn reclassified(mut self, source: ReplySource) -> Self {
        if self.verdict == Verdict::Bounced
            && let Some(code) = self.code
        {
            let found = refusal::classify(source, self.stage, code, &self.diagnostic);
            (self.verdict, self.no_mailbox) = (found.verdict, found.no_mailbox);
        }
        self
    }

    /// True if a host defers this recipient, and would defer any other message as well.
    pub(crate) fn is_host_wide(&self, source: ReplySource) -> bool {
        self.verdict == Verdict::Deferred
            && self.code.is_some_and(|code| refusal::classify(source, self.stage, code, &self.diagnostic).host_wide)
    }

    /// True for mail that dev mode keeps: sent, but no host replied.
    pub(crate) const fn is_captured(&self) -> bool {
        matches!(self.verdict, Verdict::Sent) && self.code.is_none()
    }

    /// Logs the outcome; `line` has all but what it says.
    pub(crate) fn log(&self, line: Line<'_>) {
        let event = match self.verdict {
            Verdict::Sent => Event::Delivered,
            Verdict::Deferred => Event::Deferred,
            Verdict::Bounced => Event::Bounced,
        };
        let said = Some(self.diagnostic.as_str());
        let (reply, reason) = if self.code.is_some() { (said, None) } else { (None, said) };
        Line { reply, reason, ..line }.log(event);
    }

    /// Turns a deferral into a bounce once the time to try is over (RFC 3463 §3.5: x.4.7).
    pub(crate) fn expire_if(self, is_over: bool) -> Self {
        if !is_over || self.verdict != Verdict::Deferred {
            return self;
        }
        let text = format!("not delivered in time; the last answer was: {}", self.diagnostic);
        Self { stage: self.stage, ..Self::without_reply(EnhancedStatusCode::DELIVERY_TIME_EXPIRED, text) }
    }
}

/// Returns the health of a destination after an attempt. A reply that defers one recipient says little of others; no
/// reply, or 421 (RFC 5321 §3.8: the service closes), says that any other message would fail as well.
pub(crate) fn health(outcomes: &[Outcome]) -> Health {
    let deferred = |one: &&Outcome| one.verdict == Verdict::Deferred;
    if outcomes.iter().filter(deferred).any(|one| one.code.is_none_or(|code| code == 421)) {
        let any_sent = outcomes.iter().any(|one| one.verdict == Verdict::Sent);
        return if any_sent { Health::Reluctant } else { Health::Unreachable };
    }
    if outcomes.iter().any(|one| deferred(&one)) {
        return Health::Reluctant;
    }
    // A bounce that this server decided says nothing about the destination.
    let asked = outcomes.iter().any(|one| one.code.is_some() || one.verdict == Verdict::Sent);
    if asked { Health::Up } else { Health::Unknown }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_status_code_decides_what_this_server_says_itself() {
        let own = |status, text: &str| {
            let outcome = Outcome::without_reply(status, text);
            (outcome.verdict, outcome.no_mailbox, outcome.diagnostic)
        };
        let null_mx = "5.1.10 the domain takes no mail (null MX)".to_owned();
        assert_eq!(
            own(EnhancedStatusCode::NULL_MX, "the domain takes no mail (null MX)"),
            (Verdict::Bounced, true, null_mx)
        );
        assert!(own(EnhancedStatusCode::BAD_SYSTEM, "the domain spam.example does not exist").1);
        assert!(!own(EnhancedStatusCode::NOT_AUTHORIZED, "the domain has no keys to sign it with").1);
        assert_eq!(own(EnhancedStatusCode::NO_ANSWER, "no answer").0, Verdict::Deferred);
        let unknown = Outcome::of_own_reply(550, EnhancedStatusCode::BAD_MAILBOX, "there is no such recipient here");
        assert_eq!((unknown.code, unknown.verdict, unknown.no_mailbox), (Some(550), Verdict::Bounced, true));
        assert_eq!(unknown.diagnostic, "550 5.1.1 there is no such recipient here");
    }

    #[test]
    fn an_expired_deferral_suppresses_nobody() {
        let last = Outcome::of_own_reply(450, EnhancedStatusCode::transient(1, 1), "no");
        assert_eq!(last.clone().expire_if(false), last);
        let expired = last.expire_if(true);
        assert_eq!((expired.verdict, expired.no_mailbox, expired.code), (Verdict::Bounced, false, None));
        assert_eq!(expired.diagnostic, "5.4.7 not delivered in time; the last answer was: 450 4.1.1 no");
    }
}
