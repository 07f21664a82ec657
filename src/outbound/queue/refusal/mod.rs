//! Classifies refusals of other hosts by their source, the command, the codes and the words (contract 8.5).
//!
//! A reply code alone says little. Providers answer 550 to a spammer, to a host without a name, to the second message
//! of a minute and for a mailbox that does not exist; only the last may suppress an address for good. So a mailbox
//! counts as gone only when a host says so of a recipient, and nothing in the reply is about anything else.
//!
//! Pure; [`text`] asks the questions, and [`phrases`] has the words of the field. Decisions of this server are
//! typed and never read back from their text: `super::outcome`.

mod phrases;
mod text;

use crate::mail::status_code::EnhancedStatusCode;
use crate::outbound::Verdict;
use text::RefusalText;
pub(crate) use text::is_no_mailbox;

/// The host that refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ReplySource {
    /// A mail host of the recipient's domain.
    MailHost,
    /// The same without TLS, after TLS with it failed: it may well require TLS.
    MailHostWithoutTls,
    /// The operator's smarthost, most of whose refusals are about its own client.
    Smarthost,
}

/// The command that was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    /// Greeting, EHLO, STARTTLS or AUTH.
    Session,
    Mail,
    Rcpt,
    /// DATA, or the message data.
    Data,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Classification {
    /// [`Verdict::Bounced`] or [`Verdict::Deferred`].
    pub(crate) verdict: Verdict,
    /// The mailbox does not exist or is disabled, so its address is suppressed.
    pub(crate) no_mailbox: bool,
    /// It is about the client as such, so any other message would be refused as well.
    pub(crate) host_wide: bool,
}

/// Classifies a negative reply (4yz, 5yz). `text` may begin with the code.
pub(crate) fn classify(source: ReplySource, stage: Stage, code: u16, text: &str) -> Classification {
    let text = RefusalText::parse(text);
    let host_wide = stage == Stage::Session
        || code == 421
        || (stage == Stage::Mail && text.is_about_client())
        || text.is_overload();
    if !(500..600).contains(&code) || stage == Stage::Session {
        return Classification { verdict: Verdict::Deferred, no_mailbox: false, host_wide };
    }
    let has_no_mailbox_code = text.codes.iter().copied().any(is_no_mailbox);
    let requires_tls = !has_no_mailbox_code
        && match source {
            ReplySource::MailHostWithoutTls => true,
            ReplySource::MailHost => text.requires_tls(),
            ReplySource::Smarthost => false,
        };
    if requires_tls || (text.is_temporary() && !text.has_permanent_mailbox_code()) {
        return Classification {
            verdict: Verdict::Deferred,
            no_mailbox: false,
            host_wide: host_wide || requires_tls,
        };
    }
    let no_mailbox = stage == Stage::Rcpt
        && !text.is_policy()
        && match source {
            ReplySource::Smarthost => has_no_mailbox_code,
            ReplySource::MailHost | ReplySource::MailHostWithoutTls => text.is_no_mailbox(code),
        };
    Classification { verdict: Verdict::Bounced, no_mailbox, host_wide }
}

/// True if a delivery status notification says that the mailbox does not exist. Anybody may write one, so only a code
/// counts: the Status field, the reporting host's own verdict, or without it the first code of the diagnostic, which
/// may hold another host's words.
pub(crate) fn report_says_no_mailbox(status: Option<EnhancedStatusCode>, diagnostic: &str) -> bool {
    let mut text = RefusalText::parse(diagnostic);
    text.codes.splice(..0, status.filter(|status| !status.is_undefined()));
    text.codes.first().copied().is_some_and(is_no_mailbox) && !text.is_policy()
}

/// True if a refusal says that the client's address has no name in DNS, or not a matching one: x.7.25 (RFC 7372 §3.3),
/// or the words of hosts with another code for it.
pub(crate) fn requires_reverse_dns(text: &str) -> bool {
    RefusalText::parse(text).requires_reverse_dns()
}

#[cfg(test)]
mod tests;
