//! Replies of a remote host (RFC 5321 §4.2), made printable.

use crate::mail::status_code::EnhancedStatusCode;
use crate::outbound::queue::refusal;
use crate::outbound::queue::refusal::{ReplySource, Stage};
use crate::outbound::{Outcome, Verdict};

/// Characters kept of a reply.
const MAX_DIAGNOSTIC: usize = 1_000;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Reply {
    /// 200 to 599.
    pub code: u16,
    /// The text of each line, without the code.
    pub lines: Vec<String>,
}

/// One line of a reply.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct ReplyLine {
    pub(super) code: u16,
    /// No hyphen follows the code.
    pub(super) is_last: bool,
    pub(super) text: String,
}

impl ReplyLine {
    /// Parses a line without its line end.
    pub(super) fn parse(octets: &[u8]) -> Option<Self> {
        let text = String::from_utf8_lossy(octets);
        let printable: String = text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect();
        let (digits, rest) = printable.split_at_checked(3)?;
        let code = digits.parse().ok().filter(|code| (200..600).contains(code))?;
        if !digits.bytes().all(|byte| byte.is_ascii_digit()) {
            return None;
        }
        let is_last = match rest.chars().next() {
            None | Some(' ') => true,
            Some('-') => false,
            Some(_) => return None,
        };
        Some(Self { code, is_last, text: rest.get(1..).unwrap_or_default().to_owned() })
    }
}

impl Reply {
    /// True for 2yz.
    pub(crate) const fn is_positive(&self) -> bool {
        self.code >= 200 && self.code < 300
    }

    /// Returns the whole reply as one line of at most [`MAX_DIAGNOSTIC`] characters.
    pub(crate) fn text(&self) -> String {
        let mut text = self.code.to_string();
        let mut known: Option<EnhancedStatusCode> = None;
        for line in &self.lines {
            // RFC 2034 §4: each line repeats the enhanced code, and once is enough.
            let prefix = EnhancedStatusCode::split_prefix(line);
            let line = match prefix {
                Some((status, rest)) if known == Some(status) => rest.trim_start(),
                _ => line.as_str(),
            };
            known = known.or(prefix.map(|(status, _)| status));
            if !line.is_empty() {
                text.push(' ');
                text.push_str(line);
            }
        }
        text.chars().take(MAX_DIAGNOSTIC).collect()
    }

    /// Returns the outcome of the recipients whom a reply to a command at `stage` is about.
    pub(crate) fn outcome(&self, stage: Stage) -> Outcome {
        let diagnostic = self.text();
        let (verdict, no_mailbox) = match self.code {
            200..300 => (Verdict::Sent, false),
            // An intermediate reply is not an answer.
            300..400 => (Verdict::Deferred, false),
            code => {
                let found = refusal::classify(ReplySource::MailHost, stage, code, &diagnostic);
                (found.verdict, found.no_mailbox)
            }
        };
        // Some hosts write the code behind their text.
        let status = EnhancedStatusCode::find_in(&diagnostic).next();
        Outcome { verdict, code: Some(self.code), status, diagnostic, no_mailbox, stage }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_replies() {
        for (octets, code, is_last, text) in [
            (b"250 ok".as_slice(), 250, true, "ok"),
            (b"250-SIZE 5", 250, false, "SIZE 5"),
            (b"354", 354, true, ""),
            (b"550 a\0b\x1b[1m", 550, true, "a\u{fffd}b\u{fffd}[1m"),
        ] {
            assert_eq!(ReplyLine::parse(octets), Some(ReplyLine { code, is_last, text: text.to_owned() }));
        }
        for bad in [
            b"".as_slice(),
            b"25",
            b"999 x",
            b"199 x",
            b"25x ok",
            b"+25 ok",
            b"250x",
            b"HTTP/1.1 400",
            b"\xff\xff\xff x",
        ] {
            assert_eq!(ReplyLine::parse(bad), None, "{}", String::from_utf8_lossy(bad));
        }
    }

    #[test]
    fn a_reply_is_one_line_and_a_verdict() {
        let reply =
            |code, lines: &[&str]| Reply { code, lines: lines.iter().map(|line| (*line).to_owned()).collect() };
        let gmail = reply(550, &["5.1.1 The account", "5.1.1 does not exist", "5.1.1"]);
        assert_eq!(gmail.text(), "550 5.1.1 The account does not exist");
        let outcome = gmail.outcome(Stage::Rcpt);
        assert_eq!((outcome.verdict, outcome.status), (Verdict::Bounced, Some(EnhancedStatusCode::BAD_MAILBOX)));
        assert_eq!(reply(451, &["later"]).outcome(Stage::Data).verdict, Verdict::Deferred);
        assert_eq!(reply(250, &[]).outcome(Stage::Data).verdict, Verdict::Sent);
        assert_eq!(reply(552, &["5.5.3 Too many recipients"]).outcome(Stage::Rcpt).verdict, Verdict::Deferred);
        assert_eq!(reply(552, &["5.2.2 full"]).outcome(Stage::Rcpt).verdict, Verdict::Bounced);
        assert_eq!(reply(354, &["go"]).outcome(Stage::Data).verdict, Verdict::Deferred, "no final reply");
    }
}
