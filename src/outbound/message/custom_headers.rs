//! Custom header fields (contract 8.1): those written as given, those that describe the form of a message and are
//! dropped, and those that only the server or relaying hosts may write.
//!
//! Some programs submit the complete header of a message that they used to build themselves. Fields that describe its
//! form are generated here, so dropping them changes nothing; Date and Message-ID are used if valid.

use super::compose::{ComposeError, check_header};
use crate::mail::{date, message_id};

/// Returns the value to write; `None` for a field that is dropped.
///
/// # Errors
/// The field is not allowed in a message.
pub(crate) fn written(name: &str, value: &str) -> Result<Option<String>, ComposeError> {
    if value.chars().any(char::is_control) {
        return Err(ComposeError::ControlCharacter);
    }
    let is = |known: &str| name.eq_ignore_ascii_case(known);
    if is("Date") {
        return Ok(date::normalize(value));
    }
    if is("Message-ID") {
        return Ok(message_id::for_own_message(value));
    }
    if is("MIME-Version") || name.get(..8).is_some_and(|head| head.eq_ignore_ascii_case("Content-")) {
        return Ok(None);
    }
    check_header(name, value).map(|()| Some(value.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_says_how_a_message_is_made_is_left_out() {
        for (name, value) in [
            ("MIME-Version", "1.0"),
            ("mime-version", "2.0"),
            ("Content-Type", "text/html; charset=UTF-8"),
            ("content-transfer-encoding", "8bit"),
            ("Content-Language", "de"),
            ("Content-Length", "5"),
            ("Date", "yesterday"),
            ("Date", "Mon, 28 Jul 2026 00:00:00 +0000"),
            ("Date", "Tue, 28 Jul 2026 00:00:00 +2500"),
            ("Date", "2026-07-28T00:00:00Z"),
            ("Message-ID", "nonsense"),
            ("message-id", "<a b@c.test>"),
            ("Message-Id", "<@c.test>"),
            ("Message-ID", "<a@>"),
            ("Message-ID", "<a@b@c.test>"),
            ("Message-ID", "<a@c.test"),
            ("Message-ID", "<ä@c.test>"),
            ("Message-ID", "<a@c.test> <b@c.test>"),
        ] {
            assert_eq!(written(name, value), Ok(None), "{name}: {value}");
        }
        let long = format!("<{}@c.test>", "a".repeat(900));
        assert_eq!(written("Message-ID", &long), Ok(None));
    }

    #[test]
    fn a_valid_date_and_message_id_are_the_senders_own() {
        for (name, value, kept) in [
            ("Date", "Tue, 28 Jul 2026 02:00:00 +0200", "Tue, 28 Jul 2026 02:00:00 +0200"),
            ("date", " 28 Jul 2026 02:00 -0500 ", "Tue, 28 Jul 2026 02:00:00 -0500"),
            ("DATE", "Tue, 28 Jul 2026 00:00:00 GMT", "Tue, 28 Jul 2026 00:00:00 +0000"),
            ("Message-ID", "<a.b+c@d.test>", "<a.b+c@d.test>"),
            ("message-id", "a@d.test", "<a@d.test>"),
            ("Message-Id", " <a@[192.0.2.1]> ", "<a@[192.0.2.1]>"),
            ("X-Tag", "one", "one"),
        ] {
            assert_eq!(written(name, value), Ok(Some(kept.to_owned())), "{name}: {value}");
        }
    }

    #[test]
    fn what_only_the_server_and_hosts_may_say_is_refused() {
        for name in [
            "From",
            "to",
            "CC",
            "Bcc",
            "Subject",
            "Received",
            "Return-Path",
            "DKIM-Signature",
            "ARC-Seal",
            "Resent-To",
            "Authentication-Results",
            "X-Mailkite-Copies",
        ] {
            assert_eq!(written(name, "a@b.test"), Err(ComposeError::Reserved), "{name}");
        }
        assert_eq!(written("Content-Type", "text/html\r\nBcc: a@b.test"), Err(ComposeError::ControlCharacter));
        assert_eq!(written("Date", "x\0"), Err(ComposeError::ControlCharacter));
        assert_eq!(written("Sender", "nobody"), Err(ComposeError::Sender));
        assert_eq!(written("X A", "a"), Err(ComposeError::Name));
    }
}
