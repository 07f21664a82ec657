//! The results of the library as the words of Authentication-Results (RFC 8601 §2.7).

use mail_auth::dkim::{DkimError, Signature};
use mail_auth::{AuthenticatedMessage, DkimOutput, DkimResult, DmarcResult, Error, SpfResult};

use crate::mail::trace::{ResInfo, Verdict};

/// One valid signature is enough (RFC 6376 §6.1); without one, a signature that may still prove valid ranks before an
/// invalid one.
pub(super) fn best(signatures: &[ResInfo]) -> Verdict {
    let order = [Verdict::Pass, Verdict::TempError, Verdict::Fail, Verdict::PermError, Verdict::Neutral];
    let has = |verdict: &Verdict| signatures.iter().any(|checked| checked.verdict == *verdict);
    order.into_iter().find(has).unwrap_or(Verdict::None)
}

pub(super) const fn nothing(method: &'static str) -> ResInfo {
    ResInfo { method, verdict: Verdict::None, properties: Vec::new() }
}

pub(super) const fn is_good(result: &DkimResult) -> bool {
    matches!(result, DkimResult::Pass | DkimResult::TempError(_))
}

pub(super) fn dkim_checks(
    message: &AuthenticatedMessage<'_>,
    outputs: &[DkimOutput<'_>],
    refused: &[&Signature],
) -> Vec<ResInfo> {
    let named = |signature: &Signature| vec![("header.d", signature.d.clone()), ("header.s", signature.s.clone())];
    let mut checks: Vec<ResInfo> = outputs
        .iter()
        .map(|output| {
            let properties = output.signature().map(named).unwrap_or_default();
            ResInfo { method: "dkim", verdict: dkim_verdict(output.result()), properties }
        })
        .collect();
    let refused = refused.iter();
    checks.extend(refused.map(|signature| ResInfo {
        method: "dkim",
        verdict: Verdict::PermError,
        properties: named(signature),
    }));
    let uncovered = message.errors.iter().filter(|header| header.header == Error::MissingParameters);
    checks.extend(uncovered.map(|_| ResInfo { method: "dkim", verdict: Verdict::PermError, properties: Vec::new() }));
    if checks.is_empty() {
        checks.push(nothing("dkim"));
    }
    checks
}

/// RFC 8601 §2.7.1: a signature that could be read and does not match the message has failed.
pub(super) const fn dkim_verdict(result: &DkimResult) -> Verdict {
    match result {
        DkimResult::Pass => Verdict::Pass,
        DkimResult::Fail(_)
        | DkimResult::Neutral(Error::Dkim(DkimError::FailedBodyHashMatch | DkimError::SignatureExpired)) => {
            Verdict::Fail
        }
        DkimResult::Neutral(_) => Verdict::Neutral,
        DkimResult::PermError(_) => Verdict::PermError,
        DkimResult::TempError(_) => Verdict::TempError,
        DkimResult::None => Verdict::None,
    }
}

pub(super) const fn spf_verdict(result: SpfResult) -> Verdict {
    match result {
        SpfResult::Pass => Verdict::Pass,
        SpfResult::Fail => Verdict::Fail,
        SpfResult::SoftFail => Verdict::SoftFail,
        SpfResult::Neutral => Verdict::Neutral,
        SpfResult::TempError => Verdict::TempError,
        SpfResult::PermError => Verdict::PermError,
        SpfResult::None => Verdict::None,
    }
}

pub(super) const fn dmarc_verdict(result: &DmarcResult) -> Verdict {
    match result {
        DmarcResult::Pass => Verdict::Pass,
        DmarcResult::Fail(_) => Verdict::Fail,
        DmarcResult::TempError(_) => Verdict::TempError,
        DmarcResult::PermError(_) => Verdict::PermError,
        DmarcResult::None => Verdict::None,
    }
}
