//! Reading the trace of a message: which hosts say that it passed through them.

use super::header::Fields;
use super::{Limits, words};

/// How many Received fields were written by `hostname`, to end loops through this server.
pub fn received_by(raw: &[u8], hostname: &str) -> usize {
    let limits = Limits::default();
    let mut fields = Fields::new(raw, 0, &limits);
    let mut ours = 0;
    while let Some(field) = fields.next(|_| false) {
        if field.is("Received")
            && by_host(&words::decode_text(field.value)).is_some_and(|by| same_host(&by, hostname))
        {
            ours += 1;
        }
    }
    ours
}

/// The values of every field of this name, trimmed.
pub fn field_values(raw: &[u8], name: &str) -> Vec<String> {
    let limits = Limits::default();
    let mut fields = Fields::new(raw, 0, &limits);
    let mut values = Vec::new();
    while let Some(field) = fields.next(|_| false) {
        if field.is(name) {
            values.push(words::decode_text(field.value).trim().to_owned());
        }
    }
    values
}

fn same_host(by: &str, hostname: &str) -> bool {
    by.trim_end_matches(['.', ';']).eq_ignore_ascii_case(hostname.trim_end_matches('.'))
}

/// The domain after `by` (RFC 5321 §4.4). What follows `from` is chosen by the peer and is skipped, as comments are.
fn by_host(value: &str) -> Option<String> {
    let mut depth = 0_usize;
    let outside: String = value
        .chars()
        .map(|c| {
            depth = match c {
                '(' => depth + 1,
                ')' => depth.saturating_sub(1),
                _ => depth,
            };
            if depth > 0 || c == ')' { ' ' } else { c }
        })
        .collect();
    let mut tokens = outside.split_ascii_whitespace();
    while let Some(token) = tokens.next() {
        if token.eq_ignore_ascii_case("from") {
            tokens.next();
        } else if token.eq_ignore_ascii_case("by") {
            return tokens.next().map(str::to_owned);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_fields_written_by_this_host_count() {
        let raw = b"Received: from a.example (a.example [192.0.2.1])\r\n by mx.acme.dev with ESMTPS id 1;\r\n Tue, 28 Jul 2026 00:00:00 +0000\r\n\
            Received: by MX.acme.dev.; Tue, 28 Jul 2026 00:00:00 +0000\r\n\
            Received: from by (by mx.acme.dev) by other.example with SMTP; x\r\n\
            Received: from x by mx.acme.dev.evil.example\r\n\r\n";
        assert_eq!(received_by(raw, "mx.acme.dev"), 2);
    }
}
