//! Rewrites the From of a message whose author is not authenticated, as mailing lists do (contract 4.6): an address
//! that the sender cannot choose replaces the author's, and replies go to the author.

use mail_builder::headers::Header as _;
use mail_builder::headers::address::Address;

use crate::mail::invisible::is_invisible;
use crate::mail::mime::{self, Fields, Limits};

/// Fields that are no longer valid, or that the rewritten From replaces.
const REMOVED: &[&str] = &["From", "Sender", "DKIM-Signature"];
const MAX_NAME: usize = 120;

/// Returns the message with `address`, which is at `domain`, as its From.
pub(crate) fn rewritten(mail: &[u8], address: &str, domain: &str) -> Vec<u8> {
    let read = mime::parse_without_bodies(mail);
    let author = read.header_from.first();
    let name = author.and_then(|author| author.name.as_deref()).and_then(shown_name).unwrap_or("unknown".to_owned());
    let mut header = field("From", Address::new_address(Some(format!("{name} via {domain}")), address));
    let mut answers = false;
    let limits = Limits::default();
    let mut fields = Fields::new(mail, 0, &limits);
    let mut start = 0;
    while let Some(found) = fields.next(|_| false) {
        let end = fields.body_offset();
        let whole = mail.get(fields.field_offset()..end).unwrap_or_default();
        start = end;
        answers |= found.is("Reply-To");
        if !REMOVED.iter().any(|name| found.is(name)) {
            header.extend_from_slice(whole);
        }
    }
    if !answers && let Some(author) = author {
        let reply_to = field(
            "Reply-To",
            Address::new_address(author.name.as_deref().and_then(shown_name), author.address.clone()),
        );
        header.splice(..0, reply_to);
    }
    header.extend_from_slice(mail.get(start..).unwrap_or_default());
    header
}

/// Returns a display name without invisible characters; `None` when it contains an address, which mail clients may
/// show as if it were the From.
fn shown_name(name: &str) -> Option<String> {
    const AT: [char; 3] = ['@', '\u{fe6b}', '\u{ff20}'];
    let seen: String = name.chars().filter(|c| !c.is_control() && !is_invisible(*c)).take(MAX_NAME).collect();
    (!seen.trim().is_empty() && !seen.contains(AT)).then_some(seen)
}

fn field(name: &str, address: Address<'_>) -> Vec<u8> {
    let mut field = format!("{name}: ").into_bytes();
    address.write_header(&mut field, name.len() + 2);
    field
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests may panic")]

    use super::rewritten;

    fn text(mail: &str) -> String {
        String::from_utf8(rewritten(mail.as_bytes(), "sales@acme.dev", "acme.dev")).unwrap()
    }

    #[test]
    fn the_forwarding_address_speaks_for_the_author() {
        let mail = "DKIM-Signature: v=1;\r\n b=x\r\nFrom: CEO\r\n <ceo@bank.test>\r\nSender: x@y.test\r\nSubject: Hi\r\n\r\n\
            From: kept@body.test\r\n";
        assert_eq!(
            text(mail),
            "Reply-To: \"CEO\" <ceo@bank.test>\r\nFrom: \"CEO via acme.dev\" <sales@acme.dev>\r\nSubject: Hi\r\n\r\n\
             From: kept@body.test\r\n"
        );
    }

    #[test]
    fn no_address_stands_in_the_name() {
        for name in
            ["ceo@acme.dev", "\"Ada ceo@acme.dev\"", "=?utf-8?q?ceo=EF=BC=A0acme.dev?=", "=?utf-8?q?=E2=80=8B?="]
        {
            let written = text(&format!("From: {name} <x@bank.test>\r\n\r\nHi\r\n"));
            assert!(written.contains("From: \"unknown via acme.dev\" <sales@acme.dev>\r\n"), "{written}");
        }
    }

    #[test]
    fn an_answer_goes_where_the_author_wants_it() {
        let mail = "Reply-To: desk@bank.test\r\nFrom: ceo@bank.test\r\nFrom: b@c.test\r\n\r\nHi\r\n";
        assert_eq!(
            text(mail),
            "From: \"unknown via acme.dev\" <sales@acme.dev>\r\nReply-To: desk@bank.test\r\n\r\nHi\r\n"
        );
        assert_eq!(
            text("Subject: x\r\n\r\nHi\r\n"),
            "From: \"unknown via acme.dev\" <sales@acme.dev>\r\nSubject: x\r\n\r\nHi\r\n"
        );
    }
}
