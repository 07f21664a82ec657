//! The trace fields this server writes: Received (RFC 5321 §4.4) and Authentication-Results (RFC 8601).
//!
//! Peers choose their HELO names and senders their domains, so everything from them is sanitized before it is written
//! into a header. Parsing the trace fields of others is up to `mime`.

use std::fmt;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::clock::Timestamp;
use crate::mail::date;
use crate::mail::envelope::Peer;

/// Longer names are truncated; RFC 5321 §4.5.3.1.2 allows 255 octets.
const MAX_NAME: usize = 255;

/// A result of authentication, as named in contract 5.2 and RFC 8601 §2.7.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// The check passed.
    Pass,
    /// The check failed.
    Fail,
    /// Failed, but the domain owner is not certain (SPF `~all`).
    SoftFail,
    /// The domain owner asserts nothing.
    Neutral,
    /// Nothing to check: no record or no signature.
    None,
    /// DNS did not answer in time; a later check may succeed.
    TempError,
    /// The record of the domain or the field of the message is malformed.
    PermError,
}

impl Verdict {
    /// Returns the name in contract 5.2.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Pass => "pass",
            Self::Fail => "fail",
            Self::SoftFail => "softfail",
            Self::Neutral => "neutral",
            Self::None => "none",
            Self::TempError => "temperror",
            Self::PermError => "permerror",
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// One result of an Authentication-Results field (RFC 8601 §2.2 `resinfo`): the method, its verdict and the
/// identifiers that were checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ResInfo {
    /// `spf`, `dkim`, `dmarc` or `arc`.
    pub(crate) method: &'static str,
    pub(crate) verdict: Verdict,
    /// `smtp.mailfrom`, `header.d` and so on (RFC 8601 §2.7), each with its value from the message.
    pub(crate) properties: Vec<(&'static str, String)>,
}

/// Formats the Received field of a message that `peer` delivered, with its final CRLF.
///
/// `for_recipient` is the only recipient; `None` if there are several, since naming one would reveal blind copies
/// (RFC 5321 §7.6).
pub(crate) fn received(
    peer: &Peer,
    hostname: &str,
    id: &str,
    smtputf8: bool,
    for_recipient: Option<&str>,
    at: Timestamp,
) -> String {
    let mut field = format!("Received: from {} ({})\r\n", sanitized_name(&peer.helo), address_literal(peer.address));
    field.push_str(&format!("\tby {hostname} with {} id {}", with_protocol(peer, smtputf8), sanitized_name(id)));
    if let Some(tls) = &peer.tls {
        field.push_str(&format!("\r\n\t({} {})", sanitized_name(&tls.version), sanitized_name(&tls.cipher)));
    }
    if let Some(recipient) = for_recipient {
        field.push_str(&format!("\r\n\tfor <{}>", sanitized_path(recipient)));
    }
    field.push_str(&format!(";\r\n\t{}\r\n", date::format(at)));
    field
}

/// Returns the protocol of the `with` clause: RFC 5321 §4.4, RFC 3848, RFC 6531 §4.3.
const fn with_protocol(peer: &Peer, smtputf8: bool) -> &'static str {
    match (smtputf8, peer.esmtp, peer.tls.is_some()) {
        (true, _, true) => "UTF8SMTPS",
        (true, _, false) => "UTF8SMTP",
        (false, true, true) => "ESMTPS",
        (false, true, false) => "ESMTP",
        (false, false, _) => "SMTP",
    }
}

/// Formats an address literal (RFC 5321 §4.1.3).
fn address_literal(address: IpAddr) -> String {
    match address.to_canonical() {
        IpAddr::V4(v4) => format!("[{v4}]"),
        IpAddr::V6(v6) => format!("[IPv6:{v6}]"),
    }
}

/// Formats the Authentication-Results field of `hostname`, with its final CRLF; `none` without checks (RFC 8601
/// §2.2).
pub(crate) fn authentication_results(hostname: &str, checks: &[ResInfo]) -> String {
    let mut field = format!("Authentication-Results: {hostname}");
    if checks.is_empty() {
        field.push_str("; none");
    }
    for check in checks {
        field.push_str(&format!(";\r\n\t{}={}", check.method, check.verdict));
        for (property, value) in &check.properties {
            field.push_str(&format!(" {property}={}", pvalue(value)));
        }
    }
    field.push_str("\r\n");
    field
}

/// Makes one token of a name that a peer chose, replacing every character with a meaning in a header.
fn sanitized_name(text: &str) -> String {
    let clean = |c: char| if c.is_control() || c.is_whitespace() || "()<>,;\\\"".contains(c) { '_' } else { c };
    let cleaned: String = text.chars().take(MAX_NAME).map(clean).collect();
    if cleaned.is_empty() { "unknown".to_owned() } else { cleaned }
}

fn sanitized_path(text: &str) -> String {
    text.chars().filter(|c| !c.is_control() && !matches!(c, '<' | '>')).collect()
}

/// Quotes a value that is neither a token nor an address (RFC 8601 §2.2).
fn pvalue(value: &str) -> String {
    let plain = |c: char| c.is_alphanumeric() || "@.-_+=/:[]".contains(c);
    if !value.is_empty() && value.chars().all(plain) {
        return value.to_owned();
    }
    let mut quoted = String::from('"');
    for c in value.chars().filter(|c| !c.is_control()) {
        if matches!(c, '"' | '\\') {
            quoted.push('\\');
        }
        quoted.push(c);
    }
    quoted.push('"');
    quoted
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mail::envelope::TlsInfo;
    use crate::mail::mime;

    fn peer() -> Peer {
        Peer { address: IpAddr::from([192, 0, 2, 7]), helo: "out.example.com".into(), esmtp: true, tls: None }
    }

    const AT: Timestamp = Timestamp::from_millis(1_785_196_800_000);

    #[test]
    fn a_received_field_says_who_how_and_when() {
        let tls = Some(TlsInfo { version: "TLSv1.3".into(), cipher: "TLS_AES_256_GCM_SHA384".into() });
        let secure = Peer { tls, ..peer() };
        assert_eq!(
            received(&secure, "mx.acme.dev", "2Hk9QpVn4tLdA1B2", false, Some("support@acme.dev"), AT),
            "Received: from out.example.com ([192.0.2.7])\r\n\tby mx.acme.dev with ESMTPS id 2Hk9QpVn4tLdA1B2\r\n\
             \t(TLSv1.3 TLS_AES_256_GCM_SHA384)\r\n\tfor <support@acme.dev>;\r\n\tTue, 28 Jul 2026 00:00:00 +0000\r\n"
        );
    }

    #[test]
    fn the_protocol_word_follows_the_session() {
        let word = |esmtp, tls: bool, smtputf8| {
            let tls = tls.then(|| TlsInfo { version: "TLSv1.3".into(), cipher: "X".into() });
            with_protocol(&Peer { esmtp, tls, ..peer() }, smtputf8)
        };
        assert_eq!(word(false, false, false), "SMTP");
        assert_eq!(word(true, false, false), "ESMTP");
        assert_eq!(word(true, true, false), "ESMTPS");
        assert_eq!(word(true, false, true), "UTF8SMTP");
        assert_eq!(word(true, true, true), "UTF8SMTPS");
    }

    #[test]
    fn a_helo_name_cannot_forge_a_header_or_a_host() {
        let hostile = Peer { helo: "x) by mx.acme.dev\r\nSubject: forged (".into(), ..peer() };
        let field = received(&hostile, "mx.acme.dev", "1", false, None, AT);
        assert_eq!(field.matches("\r\n").count(), 3);
        assert!(field.starts_with("Received: from x__by_mx.acme.dev__Subject:_forged__ ([192.0.2.7])\r\n"));
        assert_eq!(mime::received_count_by(field.as_bytes(), "mx.acme.dev"), 1);
        let empty = Peer { address: "::1".parse().unwrap_or(peer().address), helo: String::new(), ..peer() };
        assert!(received(&empty, "mx", "1", false, None, AT).starts_with("Received: from unknown ([IPv6:::1])"));
    }

    #[test]
    fn authentication_results_quote_what_is_no_token() {
        let checks = [
            ResInfo {
                method: "spf",
                verdict: Verdict::Pass,
                properties: vec![("smtp.mailfrom", "\"a b\"@example.com".into())],
            },
            ResInfo {
                method: "dkim",
                verdict: Verdict::TempError,
                properties: vec![("header.d", "example.com".into())],
            },
        ];
        assert_eq!(
            authentication_results("mx.acme.dev", &checks),
            "Authentication-Results: mx.acme.dev;\r\n\tspf=pass smtp.mailfrom=\"\\\"a b\\\"@example.com\";\r\n\
             \tdkim=temperror header.d=example.com\r\n"
        );
        assert_eq!(authentication_results("mx.acme.dev", &[]), "Authentication-Results: mx.acme.dev; none\r\n");
    }
}
