//! The dialog of a session, for people to read: its beginning and its end, without message data and credentials.

use std::collections::VecDeque;

use super::reply::Reply;

/// Limit of a transcript, in octets.
pub const MAX_TRANSCRIPT: usize = 16 * 1024;
/// Octets kept of the beginning.
const HEAD: usize = MAX_TRANSCRIPT * 3 / 4;
/// Octets kept of the end.
const TAIL: usize = MAX_TRANSCRIPT / 4 - 64;
const MAX_LINE: usize = 512;

#[derive(Clone, Debug, Default)]
pub(crate) struct Transcript {
    head: String,
    tail: VecDeque<String>,
    tail_len: usize,
    omitted: usize,
}

impl Transcript {
    /// Adds a remark: the host, the TLS version.
    pub(crate) fn note(&mut self, text: &str) {
        self.push(format!("-- {text}"));
    }

    /// Adds a command.
    pub(crate) fn client(&mut self, text: &str) {
        self.push(format!("C: {text}"));
    }

    /// Adds a reply.
    pub(crate) fn server(&mut self, reply: &Reply) {
        let count = reply.lines.len();
        for (at, line) in reply.lines.iter().enumerate() {
            let mark = if at + 1 == count { ' ' } else { '-' };
            self.push(format!("S: {}{mark}{line}", reply.code));
        }
    }

    /// Adds another dialog.
    pub(crate) fn append(&mut self, other: &str) {
        other.lines().for_each(|line| self.push(line.to_owned()));
    }

    fn push(&mut self, line: String) {
        let mut line: String = if line.len() > MAX_LINE { line.chars().take(MAX_LINE).collect() } else { line };
        line.push('\n');
        if self.tail.is_empty() && self.omitted == 0 && self.head.len() + line.len() <= HEAD {
            return self.head.push_str(&line);
        }
        self.tail_len += line.len();
        self.tail.push_back(line);
        while self.tail_len > TAIL
            && let Some(oldest) = self.tail.pop_front()
        {
            self.tail_len -= oldest.len();
            self.omitted += 1;
        }
    }

    /// Returns the dialog; at most [`MAX_TRANSCRIPT`] octets.
    pub(crate) fn text(&self) -> String {
        let mut text = self.head.clone();
        if self.omitted > 0 {
            text.push_str(&format!("-- {} lines are left out\n", self.omitted));
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
