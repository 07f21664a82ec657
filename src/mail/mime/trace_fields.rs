//! Parses the trace fields of a message: the hosts that claim to have handled it.

use super::header::Fields;
use super::{Limits, words};

/// Returns the number of Received fields written by `hostname`, to detect mail loops through this server.
pub(crate) fn received_count_by(raw: &[u8], hostname: &str) -> usize {
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

/// Returns the trimmed values of all fields `name`.
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

/// Removes the Authentication-Results fields that name `hostname`. They are forged: our own is prepended later, and
/// whoever trusts it must not be misled (RFC 8601 §5).
pub(crate) fn without_results_of(mut raw: Vec<u8>, hostname: &str) -> Vec<u8> {
    let limits = Limits::default();
    let mut fields = Fields::new(&raw, 0, &limits);
    let mut header = Vec::new();
    let mut copied = 0;
    loop {
        let start = fields.body_offset();
        let Some(field) = fields.next(|_| false) else { break };
        let claims = || authserv_id(&words::decode_text(field.value)).is_some_and(|id| same_host(&id, hostname));
        if field.is("Authentication-Results") && claims() {
            header.extend_from_slice(raw.get(copied..start).unwrap_or_default());
            copied = fields.body_offset();
        }
    }
    if copied > 0 {
        // Splice in place, as the rest may be large.
        raw.splice(..copied, header);
    }
    raw
}

/// Returns the authserv-id of an Authentication-Results field (RFC 8601 §2.2), in lower case. Comments may surround
/// it, and it may be a quoted string.
pub(super) fn authserv_id(value: &str) -> Option<String> {
    let mut id = String::new();
    let (mut comments, mut quoted, mut began) = (0_usize, false, false);
    let mut chars = value.chars();
    while let Some(c) = chars.next() {
        // RFC 5322 §3.2.1: a quoted-pair stands for its second character, in comments and in quoted strings.
        let literal = if c == '\\' { chars.next() } else { None };
        match (c, literal) {
            (_, Some(literal)) if comments == 0 => id.push(literal),
            (_, Some(_)) => {}
            ('(', None) if !quoted => comments += 1,
            (')', None) if comments > 0 => comments -= 1,
            _ if comments > 0 => {}
            ('"', None) => quoted = !quoted,
            (c, None) if quoted => id.push(c),
            (';', None) => break,
            (c, None) if c.is_whitespace() && began => break,
            (c, None) if c.is_whitespace() => {}
            (c, None) => id.push(c),
        }
        began |= quoted || !id.is_empty();
    }
    let id = id.trim_end_matches('.').to_ascii_lowercase();
    (!id.is_empty()).then_some(id)
}

fn same_host(by: &str, hostname: &str) -> bool {
    by.trim_end_matches(['.', ';']).eq_ignore_ascii_case(hostname.trim_end_matches('.'))
}

/// Returns the domain after `by` (RFC 5321 §4.4). The peer chooses the word after `from` and the comments, so they
/// are skipped.
fn by_host(value: &str) -> Option<String> {
    let outside = outside_comments(value);
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

/// Replaces comments with spaces.
fn outside_comments(value: &str) -> String {
    let mut depth = 0_usize;
    let blank = |c: char| {
        depth = match c {
            '(' => depth + 1,
            ')' => depth.saturating_sub(1),
            _ => depth,
        };
        if depth > 0 || c == ')' { ' ' } else { c }
    };
    value.chars().map(blank).collect()
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
        assert_eq!(received_count_by(raw, "mx.acme.dev"), 2);
    }

    #[test]
    fn an_authserv_id_is_read_in_each_of_its_forms() {
        for value in [
            "mx.acme.dev; spf=pass",
            " MX.acme.dev. 1; spf=pass",
            "(a (nested\\) comment)) mx.acme.dev (b); none",
            "\"mx.acme.dev\"; none",
            "\"m\\x.ac\\me.dev\" 1;",
            "m\\x.acme.dev; none",
            "(\"(\\() ) \"mx.acme.dev\"",
            "mx.acme(x).dev;",
        ] {
            assert_eq!(authserv_id(value).as_deref(), Some("mx.acme.dev"), "{value}");
        }
        for value in ["", ";", "(mx.acme.dev)", " ; mx.acme.dev", "\"\""] {
            assert_eq!(authserv_id(value), None, "{value}");
        }
        assert_eq!(authserv_id("other.example (mx.acme.dev)").as_deref(), Some("other.example"));
    }

    #[test]
    fn results_in_the_name_of_this_host_are_taken_out_and_others_stay() {
        let raw = "Authentication-Results: other.example; spf=pass\r\nAUTHENTICATION-Results:\r\n (x) MX.acme.dev.;\r\n dkim=pass\r\n\
                   Subject: x\r\nauthentication-results: mx.acme.dev 1; spf=pass\r\n\r\nAuthentication-Results: mx.acme.dev\r\n";
        let cleaned = without_results_of(raw.as_bytes().to_vec(), "mx.acme.dev");
        let expected = "Authentication-Results: other.example; spf=pass\r\nSubject: x\r\n\r\nAuthentication-Results: mx.acme.dev\r\n";
        assert_eq!(String::from_utf8_lossy(&cleaned), expected);
        assert_eq!(without_results_of(cleaned, "mx.acme.dev"), expected.as_bytes());
    }
}
