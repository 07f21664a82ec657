//! What was said in a session, for people to read: the beginning and the end of it, without mail data and credentials.

use std::collections::VecDeque;

use super::reply::Reply;
use crate::outbound::transport::MAX_TRANSCRIPT;

/// Octets kept of the beginning.
const HEAD: usize = MAX_TRANSCRIPT * 3 / 4;
/// Octets kept of the end.
const TAIL: usize = MAX_TRANSCRIPT / 4 - 64;
const MAX_LINE: usize = 512;

/// Lines of a dialog.
#[derive(Clone, Debug, Default)]
pub(crate) struct Transcript {
    head: String,
    tail: VecDeque<String>,
    tail_len: usize,
    left_out: usize,
}

impl Transcript {
    /// A line of our own: which host, which TLS.
    pub(crate) fn note(&mut self, text: &str) {
        self.push(format!("-- {text}"));
    }

    /// What we say.
    pub(crate) fn client(&mut self, text: &str) {
        self.push(format!("C: {text}"));
    }

    /// What the host says.
    pub(crate) fn server(&mut self, reply: &Reply) {
        let count = reply.lines.len();
        for (at, line) in reply.lines.iter().enumerate() {
            let mark = if at + 1 == count { ' ' } else { '-' };
            self.push(format!("S: {}{mark}{line}", reply.code));
        }
    }

    /// Everything of another dialog.
    pub(crate) fn append(&mut self, other: &str) {
        other.lines().for_each(|line| self.push(line.to_owned()));
    }

    fn push(&mut self, line: String) {
        let mut line: String = if line.len() > MAX_LINE { line.chars().take(MAX_LINE).collect() } else { line };
        line.push('\n');
        if self.tail.is_empty() && self.left_out == 0 && self.head.len() + line.len() <= HEAD {
            return self.head.push_str(&line);
        }
        self.tail_len += line.len();
        self.tail.push_back(line);
        while self.tail_len > TAIL
            && let Some(gone) = self.tail.pop_front()
        {
            self.tail_len -= gone.len();
            self.left_out += 1;
        }
    }

    /// The dialog; at most [`MAX_TRANSCRIPT`] octets.
    pub(crate) fn text(&self) -> String {
        let mut text = self.head.clone();
        if self.left_out > 0 {
            text.push_str(&format!("-- {} lines are left out\n", self.left_out));
        }
        self.tail.iter().for_each(|line| text.push_str(line));
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn beginning_and_end_are_kept() {
        let mut transcript = Transcript::default();
        for n in 0..5_000 {
            transcript.client(&format!("RCPT TO:<{n}@example.com>"));
        }
        transcript.client(&"x".repeat(100_000));
        let text = transcript.text();
        assert!(text.len() <= MAX_TRANSCRIPT, "{}", text.len());
        assert!(text.starts_with("C: RCPT TO:<0@") && text.contains("lines are left out") && text.contains("<4999@"));
    }
}
