//! Delivery status notifications (RFC 3464, and RFC 6533 for international addresses): groups of fields, one for each
//! recipient.

use crate::mail::mime::{Fields, Limits};
use crate::mail::status_code::{EnhancedStatusCode, StatusClass};

/// Recipients read of a report.
pub(super) const MAX_RECIPIENTS: usize = 1_000;
/// Characters kept of a diagnostic.
pub(super) const MAX_DIAGNOSTIC: usize = 1_000;

/// The per-recipient fields of a report (RFC 3464 §2.3).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReportedRecipient {
    /// Final-Recipient.
    pub recipient: Option<String>,
    /// Original-Recipient.
    pub original_recipient: Option<String>,
    pub action: Action,
    pub status: Option<EnhancedStatusCode>,
    /// The remote host's reply on one line: `550 5.1.1 no such user`.
    pub diagnostic: Option<String>,
    /// The reply code at the beginning of the diagnostic.
    pub code: Option<u16>,
}

/// RFC 3464 §2.3.3.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    Failed,
    /// Delivery is still being attempted.
    Delayed,
    Delivered,
    /// Passed to a host that sends no reports.
    Relayed,
    /// Passed to the members of a mailing list.
    Expanded,
}

/// Reads the groups of fields, which empty lines separate. The first is about the message.
pub(super) fn parse(text: &[u8]) -> Vec<ReportedRecipient> {
    let limits = Limits::default();
    let mut statuses = Vec::new();
    let mut at = 0;
    while at < text.len() && statuses.len() < MAX_RECIPIENTS {
        let mut fields = Fields::new(text, at, &limits);
        let mut group = Group::default();
        while let Some(field) = fields.next(|_| false) {
            group.read_field(field.name, &unfold(field.value));
        }
        statuses.extend(group.into_status());
        // A line that is not a field ends a group as well, and is skipped.
        let next = fields.body_offset();
        at = if next > at {
            next
        } else {
            text.get(at..).and_then(|rest| memchr::memchr(b'\n', rest)).map_or(text.len(), |end| at + end + 1)
        };
    }
    statuses
}

#[derive(Default)]
struct Group {
    recipient: Option<String>,
    original_recipient: Option<String>,
    action: Option<Action>,
    status: Option<EnhancedStatusCode>,
    diagnostic: Option<String>,
}

impl Group {
    fn read_field(&mut self, name: &[u8], value: &str) {
        match name.to_ascii_lowercase().as_slice() {
            b"final-recipient" => self.recipient = after_type(value).and_then(recipient_address),
            b"original-recipient" => self.original_recipient = after_type(value).and_then(recipient_address),
            b"action" => {
                let keyword = value.split([' ', '(', ';']).next().unwrap_or_default().to_ascii_lowercase();
                self.action = match keyword.as_str() {
                    "failed" => Some(Action::Failed),
                    "delayed" => Some(Action::Delayed),
                    "delivered" => Some(Action::Delivered),
                    "relayed" => Some(Action::Relayed),
                    "expanded" => Some(Action::Expanded),
                    _ => None,
                };
            }
            b"status" => self.status = value.split([' ', '(']).next().and_then(|code| code.parse().ok()),
            b"diagnostic-code" => self.diagnostic = Some(after_type(value).unwrap_or(value).to_owned()),
            _ => {}
        }
    }

    /// Returns `None` for the group about the message, and for one that names no recipient or no result.
    fn into_status(self) -> Option<ReportedRecipient> {
        let action = self.action.or_else(|| self.status.map(|status| action_of(status.class)))?;
        if self.recipient.is_none() && self.original_recipient.is_none() {
            return None;
        }
        let diagnostic = self.diagnostic.map(|text| text.chars().take(MAX_DIAGNOSTIC).collect::<String>());
        let code = diagnostic.as_deref().and_then(reply_code);
        Some(ReportedRecipient {
            recipient: self.recipient,
            original_recipient: self.original_recipient,
            action,
            status: self.status,
            diagnostic: diagnostic.filter(|text| !text.is_empty()),
            code,
        })
    }
}

/// Returns the reply code at the beginning of a diagnostic.
pub(super) fn reply_code(diagnostic: &str) -> Option<u16> {
    let (code, rest) = diagnostic.split_at_checked(3)?;
    let ends = rest.chars().next().is_none_or(|c| !c.is_alphanumeric() && c != '.');
    code.parse().ok().filter(|code| ends && (200..600).contains(code))
}

/// Stands in for a missing Action field (RFC 3463 §3.1).
const fn action_of(class: StatusClass) -> Action {
    match class {
        StatusClass::Success => Action::Delivered,
        StatusClass::PersistentTransient => Action::Delayed,
        StatusClass::Permanent => Action::Failed,
    }
}

/// Returns the text after `rfc822;`, `smtp;` and the like.
fn after_type(value: &str) -> Option<&str> {
    let (kind, rest) = value.split_once(';')?;
    let kind = kind.trim();
    (!kind.is_empty() && !kind.contains(' ')).then(|| rest.trim())
}

fn recipient_address(text: &str) -> Option<String> {
    address(&decode_unitext(text))
}

/// Decodes `\x{F6}`, which stands for a character beyond ASCII in a report of 7 bits (RFC 6533 §3:
/// utf-8-addr-unitext).
fn decode_unitext(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut parts = text.split("\\x{");
    plain.extend(parts.next());
    for part in parts {
        let decoded = part.split_once('}').and_then(|(code, rest)| {
            let c = u32::from_str_radix(code, 16).ok().and_then(char::from_u32)?;
            (!c.is_control()).then_some((c, rest))
        });
        match decoded {
            Some((c, rest)) => {
                plain.push(c);
                plain.push_str(rest);
            }
            None => {
                plain.push_str("\\x{");
                plain.push_str(part);
            }
        }
    }
    plain
}

/// Returns an address without its angle brackets.
pub(super) fn address(text: &str) -> Option<String> {
    let text = text.trim().trim_start_matches('<').trim_end_matches('>');
    (text.contains('@') && text.len() <= 320 && !text.contains(' ')).then(|| text.to_owned())
}

/// Returns a field's value on one line of printable text.
fn unfold(value: &[u8]) -> String {
    let text = String::from_utf8_lossy(value);
    let words = text.split(|c: char| c.is_whitespace() || c.is_control()).filter(|word| !word.is_empty());
    words.collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_malformed_escape_is_kept_as_it_is() {
        assert_eq!(decode_unitext("j\\x{F6}rg@b.test"), "jörg@b.test");
        for odd in ["a\\x{}b", "a\\x{110000}b", "a\\x{F6", "a\\x{a}b", "\\x{"] {
            assert_eq!(decode_unitext(odd), odd);
        }
    }
}
