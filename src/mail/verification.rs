//! The sender verification of a message. It travels with the message wherever that goes next, so that no later stage
//! has to verify again or loses the result.

use serde::{Deserialize, Serialize};

use super::trace::{self, ResInfo, Verdict};

/// The verdicts on a message (contract 5.2); `None` where a check was not made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verdicts {
    /// RFC 7208, for the envelope sender, or for the HELO name if that is null.
    pub spf: Option<Verdict>,
    /// RFC 6376: the best result among the signatures checked.
    pub dkim: Option<Verdict>,
    /// RFC 7489, RFC 9989.
    pub dmarc: Option<Verdict>,
    /// RFC 8617: the most recent seal of the chain.
    pub arc: Option<Verdict>,
}

/// The result of a verification.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verification {
    /// The verdict of each method.
    pub verdicts: Verdicts,
    /// The Authentication-Results field to prepend to the message, with its final CRLF (RFC 8601).
    pub authentication_results: String,
    /// True if DKIM or SPF passed for the organizational domain of the sole author (DMARC alignment).
    pub aligned: bool,
    /// True if the author domain's DMARC policy is quarantine or reject.
    pub enforced: bool,
}

impl Verification {
    /// The verification of a message that was not checked.
    pub(crate) fn unchecked(hostname: &str) -> Self {
        Self {
            verdicts: Verdicts::default(),
            authentication_results: trace::authentication_results(hostname, &[]),
            aligned: false,
            enforced: false,
        }
    }

    /// The verification of a message that this server sent itself, for an account authorized to send from `domain`.
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
