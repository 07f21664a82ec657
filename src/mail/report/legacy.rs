//! Bounces of hosts that do not write RFC 3464: Exim's field, qmail's text (QSBMF).

use super::delivery_status::{Action, MAX_DIAGNOSTIC, MAX_RECIPIENTS, ReportedRecipient, address, reply_code};
use crate::mail::mime;

/// Reads X-Failed-Recipients. Exim gives the reasons in prose, which is not read.
pub(super) fn from_exim(raw: &[u8]) -> Vec<ReportedRecipient> {
    let values = mime::field_values(raw, "X-Failed-Recipients");
    values
        .iter()
        .flat_map(|value| value.split(','))
        .map(str::trim)
        .filter(|address| address.contains('@'))
        .take(MAX_RECIPIENTS)
        .map(|address| ReportedRecipient {
            recipient: Some(address.to_owned()),
            original_recipient: None,
            action: Action::Failed,
            status: None,
            diagnostic: None,
            code: None,
        })
        .collect()
}

/// Reads qmail's text: a first paragraph that begins with these words, then one for each recipient, whose first line
/// is the address, until a line that begins with `---`.
pub(super) fn from_qmail(text: &str) -> Vec<ReportedRecipient> {
    if !text.starts_with("Hi. This is the") {
        return Vec::new();
    }
    let lines: Vec<&str> = text.lines().map(str::trim).take_while(|line| !line.starts_with("---")).collect();
    let paragraphs = lines.split(|line| line.is_empty()).skip(1);
    paragraphs.filter_map(qmail_recipient).take(MAX_RECIPIENTS).collect()
}

fn qmail_recipient(lines: &[&str]) -> Option<ReportedRecipient> {
    let (first, reasons) = lines.split_first()?;
    let recipient = first.strip_prefix('<')?.strip_suffix(">:").and_then(address)?;
    let reason = reasons.join(" ");
    // The remote host's reply if there was one; else qmail's own sentence, which ends in `(#5.1.1)`.
    let reply = reasons.iter().find_map(|line| line.split_once(" said: ")).map(|(_, reply)| reply);
    let status = reason.rsplit_once("(#").and_then(|(_, rest)| rest.split(')').next()?.parse().ok());
    let diagnostic: String = reply.unwrap_or(&reason).chars().take(MAX_DIAGNOSTIC).collect();
    Some(ReportedRecipient {
        recipient: Some(recipient),
        original_recipient: None,
        action: Action::Failed,
        status: if reply.is_some() { None } else { status },
        code: reply_code(&diagnostic),
        diagnostic: Some(diagnostic).filter(|text| !text.is_empty()),
    })
}
