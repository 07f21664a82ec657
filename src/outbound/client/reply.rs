//! Replies of a remote host (RFC 5321 §4.2), made printable.

use crate::outbound::queue::refusal;
use crate::outbound::queue::refusal::{Speaker, Stage};
use crate::outbound::{Outcome, Verdict};

const MAX_DIAGNOSTIC: usize = 1_000;

/// A reply.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Reply {
    /// 200 to 599.
    pub code: u16,
    /// The text of each line, without the code.
    pub lines: Vec<String>,
}

/// One line: code, whether it is the last, and its text.
pub(super) fn line(octets: &[u8]) -> Option<(u16, bool, String)> {
    let text = String::from_utf8_lossy(octets);
    let printable: String = text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect();
    let (digits, rest) = printable.split_at_checked(3)?;
    let code = digits.parse().ok().filter(|code| (200..600).contains(code))?;
    if !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    match rest.chars().next() {
        None => Some((code, true, String::new())),
        Some('-') => Some((code, false, rest.get(1..).unwrap_or_default().to_owned())),
        Some(' ') => Some((code, true, rest.get(1..).unwrap_or_default().to_owned())),
        Some(_) => None,
    }
}

impl Reply {
    /// 2yz.
    pub(crate) const fn is_positive(&self) -> bool {
        self.code >= 200 && self.code < 300
    }

    /// The whole reply as one line, at most a thousand characters.
    pub(crate) fn text(&self) -> String {
        let mut text = self.code.to_string();
        let mut enhanced = None;
        for line in &self.lines {
            // RFC 2034 §4: each line repeats the enhanced code, and once is enough.
            let first = line.split(' ').next().filter(|word| word.split('.').count() == 3);
            let line = match (first, enhanced) {
                (Some(code), Some(known)) if code == known => line.get(code.len()..).unwrap_or_default().trim_start(),
                _ => line.as_str(),
            };
            enhanced = enhanced.or(first);
            if !line.is_empty() {
                text.push(' ');
                text.push_str(line);
            }
        }
        text.chars().take(MAX_DIAGNOSTIC).collect()
    }

    /// What it means for those whom it is about.
    pub(crate) fn outcome(&self, stage: Stage) -> Outcome {
        let diagnostic = self.text();
        let (verdict, no_mailbox) = match self.code {
            200..300 => (Verdict::Sent, false),
            // No final reply.
            300..400 => (Verdict::Deferred, false),
            code => {
                let meant = refusal::meaning(Speaker::Host, stage, Some(code), &diagnostic);
                (meant.verdict, meant.no_mailbox)
            }
        };
        Outcome { verdict, code: Some(self.code), diagnostic, no_mailbox, stage }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_replies() {
        assert_eq!(line(b"250 ok"), Some((250, true, "ok".to_owned())));
        assert_eq!(line(b"250-SIZE 5"), Some((250, false, "SIZE 5".to_owned())));
        assert_eq!(line(b"354"), Some((354, true, String::new())));
        assert_eq!(line(b"550 a\0b\x1b[1m"), Some((550, true, "a\u{fffd}b\u{fffd}[1m".to_owned())));
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
            assert_eq!(line(bad), None, "{}", String::from_utf8_lossy(bad));
        }
    }

    #[test]
    fn a_reply_is_one_line_and_a_verdict() {
        let of = |code, lines: &[&str]| Reply { code, lines: lines.iter().map(|line| (*line).to_owned()).collect() };
        let gmail = of(550, &["5.1.1 The account", "5.1.1 does not exist", "5.1.1"]);
        assert_eq!(gmail.text(), "550 5.1.1 The account does not exist");
        assert_eq!(gmail.outcome(Stage::Rcpt).verdict, Verdict::Bounced);
        assert_eq!(of(451, &["later"]).outcome(Stage::Data).verdict, Verdict::Deferred);
        assert_eq!(of(250, &[]).outcome(Stage::Data).verdict, Verdict::Sent);
        assert_eq!(of(552, &["5.5.3 Too many recipients"]).outcome(Stage::Rcpt).verdict, Verdict::Deferred);
        assert_eq!(of(552, &["5.2.2 full"]).outcome(Stage::Rcpt).verdict, Verdict::Bounced);
        assert_eq!(of(354, &["go"]).outcome(Stage::Data).verdict, Verdict::Deferred, "no final reply");
    }
}
