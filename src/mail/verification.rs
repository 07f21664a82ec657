//! What this server found out about who a message is from. It goes along with the message wherever that goes next, so
//! that no hop within the server forgets it.

use serde::{Deserialize, Serialize};

use super::trace::{self, ResInfo, Verdict};

/// The verdicts on a message (contract 5.2); `None` where a check was not made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verdicts {
    /// RFC 7208, of the envelope sender, or of the HELO name where that is null.
    pub spf: Option<Verdict>,
    /// RFC 6376: the best of the signatures that were checked.
    pub dkim: Option<Verdict>,
    /// RFC 7489, RFC 9989.
    pub dmarc: Option<Verdict>,
    /// RFC 8617: the newest seal of the chain.
    pub arc: Option<Verdict>,
}

/// What a verification found out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verification {
    /// One verdict for each method.
    pub verdicts: Verdicts,
    /// The Authentication-Results field to put on the message, with its final CRLF (RFC 8601).
    pub authentication_results: String,
    /// Whether a signature or SPF passed for the organizational domain of the one author.
    pub aligned: bool,
    /// Whether the policy of the author's domain wants what fails quarantined or rejected.
    pub enforced: bool,
}

impl Verification {
    /// Nobody was asked.
    pub(crate) fn unchecked(hostname: &str) -> Self {
        Self {
            verdicts: Verdicts::default(),
            authentication_results: trace::authentication_results(hostname, &[]),
            aligned: false,
            enforced: false,
        }
    }

    /// Of a message that this server sent itself, for an account that it let send from `domain`.
    pub(crate) fn of_own_message(hostname: &str, domain: &str, mail_from: &str) -> Self {
        let passed = |method, property, value: &str| ResInfo {
            method,
            verdict: Verdict::Pass,
            properties: vec![(property, value.to_owned())],
        };
        let spf = if mail_from.is_empty() {
            passed("spf", "smtp.helo", hostname)
        } else {
            passed("spf", "smtp.mailfrom", mail_from)
        };
        let checks = [spf, passed("dkim", "header.d", domain), passed("dmarc", "header.from", domain)];
        let pass = Some(Verdict::Pass);
        Self {
            verdicts: Verdicts { spf: pass, dkim: pass, dmarc: pass, arc: Some(Verdict::None) },
            authentication_results: trace::authentication_results(hostname, &checks),
            aligned: true,
            enforced: false,
        }
    }
}
