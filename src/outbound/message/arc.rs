//! Adds ARC sets to forwarded mail (RFC 8617), so that its receiver can see what this server found on arrival.
//!
//! The set repeats our Authentication-Results; `cv` is the result of our check of the chain on arrival. Sealed with
//! the RSA key of the domain that received the mail, because not every verifier supports Ed25519.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use mail_auth::common::crypto::HashAlgorithm;
use mail_auth::dkim::Canonicalization;

use super::dkim::{DomainKeys, SignError};
use crate::clock::Timestamp;
use crate::mail::mime::{Fields, Limits};
use crate::mail::signed_part::without_trailing_blanks;
use crate::mail::trace::Verdict;
use crate::mail::verification::Verification;

/// RFC 8617 §5.1.1: a chain with more sets is not extended.
const MAX_SETS: usize = 50;
const RESULTS: &str = "ARC-Authentication-Results";
const SIGNATURE: &str = "ARC-Message-Signature";
const SEAL: &str = "ARC-Seal";
/// Fields that the set covers: each occurrence, plus one more for fields that may occur only once.
const SIGNED: &[&str] = &[
    "From",
    "To",
    "Cc",
    "Subject",
    "Date",
    "Message-ID",
    "Reply-To",
    "In-Reply-To",
    "References",
    "MIME-Version",
    "Content-Type",
    "Content-Transfer-Encoding",
];
/// Fields that may occur several times; covered as often as they occur.
const SIGNED_AS_THEY_ARE: &[&str] = &["DKIM-Signature", "List-Id", "List-Unsubscribe"];

/// The existing ARC chain of a message.
#[derive(Debug, PartialEq, Eq)]
enum Chain {
    /// No set.
    None,
    /// This number of sets, all valid.
    Pass(usize),
    /// This number of sets, not all valid.
    Fail(usize),
    /// The chain must not be extended, or its state is unknown.
    Closed,
}

/// Returns the fields to prepend to `mail`, which is otherwise as it leaves; empty when the chain is not extended.
///
/// # Errors
/// The key cannot sign.
pub(crate) fn seal(
    mail: &[u8],
    keys: &DomainKeys,
    verification: &Verification,
    now: Timestamp,
) -> Result<String, SignError> {
    let limits = Limits::default();
    let (fields, body) = fields_of(mail, &limits);
    let chain = chain_of(&fields, verification.verdicts.arc);
    let (instance, cv) = match chain {
        Chain::None => (1, "none"),
        Chain::Pass(sets) => (sets + 1, "pass"),
        Chain::Fail(sets) => (sets + 1, "fail"),
        Chain::Closed => return Ok(String::new()),
    };
    let (domain, selector, time) = (keys.domain(), keys.rsa_selector(), now.as_secs());
    let said = verification.authentication_results.trim_end();
    let said = said.split_once(": ").map_or(said, |(_, results)| results);
    let results = format!("{RESULTS}: i={instance}; {said}\r\n");
    let (names, covered) = signed_fields(&fields);
    let body_hash = {
        let whole = without_trailing_blanks(mail);
        let body = whole.get(body..).unwrap_or_default();
        BASE64.encode(HashAlgorithm::Sha256.hash(Canonicalization::Relaxed.canonical_body(body, 0)))
    };
    let start = format!("i={instance}; a=rsa-sha256; d={domain}; s={selector}; t={time}");
    let unsigned = format!(
        "{SIGNATURE}: {start}; c=relaxed/relaxed;\r\n\th={};\r\n\tbh={body_hash};\r\n\tb=",
        names.chunks(8).map(|names| names.join(":")).collect::<Vec<_>>().join(":\r\n\t ")
    );
    let mut input = covered;
    input.extend_from_slice(&relaxed(unsigned.as_bytes()));
    let signature = format!("{unsigned}{}\r\n", folded(&keys.sign_rsa(&input)?));
    let unsigned = format!("{SEAL}: {start}; cv={cv};\r\n\tb=");
    // RFC 8617 §5.1.2: after a failed chain, the set covers itself alone.
    let mut input = if cv == "pass" { sets_of(&fields, instance - 1) } else { Vec::new() };
    for field in [&results, &signature] {
        input.extend_from_slice(&relaxed(field.as_bytes()));
        input.extend_from_slice(b"\r\n");
    }
    input.extend_from_slice(&relaxed(unsigned.as_bytes()));
    let seal = format!("{unsigned}{}\r\n", folded(&keys.sign_rsa(&input)?));
    Ok(format!("{seal}{signature}{results}"))
}

/// A header field: its name and its raw octets.
struct Whole<'m> {
    name: &'m [u8],
    whole: &'m [u8],
}

/// Returns the header fields of a mail, and the offset of its body.
fn fields_of<'m>(mail: &'m [u8], limits: &Limits) -> (Vec<Whole<'m>>, usize) {
    let mut fields = Fields::new(mail, 0, limits);
    let mut all = Vec::new();
    let mut start = 0;
    while let Some(field) = fields.next(|_| false) {
        let end = fields.body_offset();
        all.push(Whole { name: field.name, whole: mail.get(start..end).unwrap_or_default() });
        start = end;
    }
    let body = memchr::memmem::find(mail, b"\r\n\r\n").map_or(mail.len(), |end| end + 4);
    (all, body)
}

impl Whole<'_> {
    fn is(&self, name: &str) -> bool {
        self.name.eq_ignore_ascii_case(name.as_bytes())
    }

    /// Returns the value of a tag, without blanks.
    fn tag(&self, wanted: &str) -> Option<String> {
        let value = self.whole.split_at_checked(self.name.len())?.1;
        let text: String = String::from_utf8_lossy(value).chars().filter(|c| !c.is_whitespace()).collect();
        text.strip_prefix(':')?.split(';').find_map(|tag| {
            let (name, value) = tag.split_once('=')?;
            (name == wanted).then(|| value.to_owned())
        })
    }
}

/// Returns the chain of a message, given the result of our check.
fn chain_of(fields: &[Whole<'_>], found: Option<Verdict>) -> Chain {
    let of = |name: &str| fields.iter().filter(|field| field.is(name)).collect::<Vec<_>>();
    let kinds = [of(RESULTS), of(SIGNATURE), of(SEAL)];
    if kinds.iter().all(Vec::is_empty) {
        return Chain::None;
    }
    let instances = |kind: &Vec<&Whole<'_>>| {
        let mut all: Vec<usize> = kind.iter().filter_map(|field| field.tag("i")?.parse().ok()).collect();
        all.sort_unstable();
        all
    };
    let sets = kinds.iter().flat_map(instances).max().unwrap_or(0);
    let whole = kinds.iter().all(|kind| instances(kind).into_iter().eq(1..=sets));
    let newest = of(SEAL).into_iter().find(|seal| seal.tag("i").is_some_and(|i| i == sets.to_string()));
    let failed_before = newest.and_then(|seal| seal.tag("cv")).is_some_and(|cv| cv.eq_ignore_ascii_case("fail"));
    if sets >= MAX_SETS || failed_before {
        return Chain::Closed;
    }
    match found {
        Some(Verdict::Pass) if whole => Chain::Pass(sets),
        None | Some(Verdict::TempError) => Chain::Closed,
        Some(_) => Chain::Fail(sets),
    }
}

/// Returns the first `sets` sets in relaxed form, each in the order of RFC 8617 §5.1.1.
fn sets_of(fields: &[Whole<'_>], sets: usize) -> Vec<u8> {
    let mut all = Vec::new();
    for instance in 1..=sets {
        for name in [RESULTS, SIGNATURE, SEAL] {
            let number = instance.to_string();
            let found = fields.iter().find(|field| field.is(name) && field.tag("i").is_some_and(|i| i == number));
            all.extend(found.map(|field| relaxed(field.whole)).unwrap_or_default());
            all.extend_from_slice(b"\r\n");
        }
    }
    all
}

/// Returns the names for `h=`, and the fields they refer to in relaxed form: the last of each name first
/// (RFC 6376 §5.4.2).
fn signed_fields(fields: &[Whole<'_>]) -> (Vec<&'static str>, Vec<u8>) {
    let (mut names, mut covered) = (Vec::new(), Vec::new());
    let once = SIGNED.iter().map(|name| (*name, true));
    for (name, over) in once.chain(SIGNED_AS_THEY_ARE.iter().map(|name| (*name, false))) {
        for field in fields.iter().rev().filter(|field| field.is(name)) {
            names.push(name);
            covered.extend_from_slice(&relaxed(field.whole));
            covered.extend_from_slice(b"\r\n");
        }
        if over {
            names.push(name);
        }
    }
    (names, covered)
}

/// Returns a field in relaxed form, without its CRLF (RFC 6376 §3.4.2).
fn relaxed(field: &[u8]) -> Vec<u8> {
    let colon = field.iter().position(|byte| *byte == b':').unwrap_or(field.len());
    let (name, value) = field.split_at(colon);
    let mut out = name.trim_ascii_end().to_ascii_lowercase();
    out.push(b':');
    let mut blank = false;
    let begins = out.len();
    for byte in value.get(1..).unwrap_or_default() {
        match byte {
            b' ' | b'\t' => blank = true,
            b'\r' | b'\n' => {}
            _ => {
                if blank && out.len() > begins {
                    out.push(b' ');
                }
                blank = false;
                out.push(*byte);
            }
        }
    }
    out
}

/// Folds a signature onto lines of its own.
fn folded(signature: &[u8]) -> String {
    let encoded = BASE64.encode(signature);
    let lines: Vec<String> =
        encoded.as_bytes().chunks(70).map(|line| String::from_utf8_lossy(line).into_owned()).collect();
    lines.join("\r\n\t ")
}

#[cfg(test)]
mod tests {
    use super::*;

    const SETS: &str = "ARC-Seal: i=1; cv=none; b=x\r\nARC-Message-Signature: i=1; b=y\r\n\
        ARC-Authentication-Results: i=1; mx.a.test; none\r\nFrom: a@b.test\r\n\r\nHi\r\n";

    fn chain(mail: &str, found: Option<Verdict>) -> Chain {
        chain_of(&fields_of(mail.as_bytes(), &Limits::default()).0, found)
    }

    #[test]
    fn a_chain_is_extended_by_what_the_check_found() {
        assert_eq!(chain("From: a@b.test\r\n\r\nHi\r\n", None), Chain::None);
        assert_eq!(chain(SETS, Some(Verdict::Pass)), Chain::Pass(1));
        assert_eq!(chain(SETS, Some(Verdict::Fail)), Chain::Fail(1));
        for unknown in [None, Some(Verdict::TempError)] {
            assert_eq!(chain(SETS, unknown), Chain::Closed);
        }
        assert_eq!(chain(&SETS.replace("cv=none", "cv = fail"), Some(Verdict::Fail)), Chain::Closed);
        assert_eq!(chain(&SETS.replace("i=1;", "i=50;"), Some(Verdict::Fail)), Chain::Closed);
        assert_eq!(
            chain(&SETS.replacen("i=1;", "i=2;", 1), Some(Verdict::Pass)),
            Chain::Fail(2),
            "sets that are torn"
        );
    }

    #[test]
    fn the_relaxed_form_is_that_of_rfc_6376() {
        for (field, wanted) in [
            ("A: X\r\n", "a:X"),
            ("B : Y\t\r\n\tZ  \r\n", "b:Y Z"),
            ("Subject:\r\n  folded   text\r\n", "subject:folded text"),
            ("Empty:\r\n", "empty:"),
        ] {
            assert_eq!(String::from_utf8_lossy(&relaxed(field.as_bytes())), wanted, "{field:?}");
        }
    }
}
