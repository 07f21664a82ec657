//! Abuse reports, as feedback loops send them (RFC 5965).

use super::delivery_status::address;
use crate::mail::mime;

const MAX_REVERSE_PATHS: usize = 5;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AbuseReport {
    /// `abuse`, `fraud`, `not-spam` and so on (RFC 5965 §7.3), in lower case.
    pub feedback_type: String,
    /// The recipient who complained.
    pub original_rcpt_to: Option<String>,
    /// Message-ID of the reported message, with angle brackets.
    pub message_id: Option<String>,
    /// Envelope senders of the reported message, from the report and from the message that it encloses.
    pub reverse_paths: Vec<String>,
}

impl AbuseReport {
    /// True if a user complained about the message. `not-spam` says the opposite; the other types report failed
    /// authentication (RFC 6591).
    pub(crate) fn is_complaint(&self) -> bool {
        !matches!(self.feedback_type.as_str(), "not-spam" | "auth-failure" | "dmarc")
    }
}

/// Reads the fields of a report; `original` is the message or header that it encloses.
pub(super) fn parse(text: &[u8], original: Option<Vec<u8>>) -> AbuseReport {
    let first = |name: &str| mime::field_values(text, name).into_iter().next();
    let feedback_type = first("Feedback-Type").map(|value| value.to_ascii_lowercase());
    let is_keyword = |value: &String| {
        (1..=40).contains(&value.len())
            && value.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
    };
    let paths = first("Original-Mail-From").into_iter();
    let enclosed = original.iter().flat_map(|original| mime::field_values(original, "Return-Path"));
    let reverse_paths = paths.chain(enclosed).filter_map(|value| address(&value)).take(MAX_REVERSE_PATHS).collect();
    let original = original.map(|original| mime::parse(&original));
    AbuseReport {
        feedback_type: feedback_type.filter(is_keyword).unwrap_or_else(|| "abuse".to_owned()),
        original_rcpt_to: first("Original-Rcpt-To").and_then(|value| address(&value)),
        message_id: original.and_then(|mail| mail.message_id),
        reverse_paths,
    }
}
