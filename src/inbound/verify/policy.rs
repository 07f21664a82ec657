//! Reads the TXT records of one name as a DMARC policy (RFC 9989 §4.7, §4.10; RFC 7489 §6.3, §6.6.3).
//!
//! The library takes the first of several records and rejects a whole record for one invalid tag. So it is given
//! exactly one record, rewritten from the valid tags.

use super::tags::Tags;
use crate::mail::uri::split_scheme;

/// Returns the policy record of a name; none if there is none, or several.
pub(crate) fn one_record(texts: &[String]) -> Option<String> {
    let mut records = texts.iter().map(|text| Tags::parse(text)).filter(|tags| tags.begins_with_version());
    let record = records.next()?;
    if records.next().is_some() { None } else { Some(corrected(&record)) }
}

impl Tags<'_> {
    /// Compares the tag name ignoring case, and its value with case.
    fn begins_with_version(&self) -> bool {
        self.begins_with("v", "DMARC1") || self.begins_with("V", "DMARC1")
    }
}

/// Rewrites the record from the valid ones of the tags that matter. Without a valid `p` the result has none, or
/// `p=none` if `rua` is valid; an invalid `sp` or `np` makes `p` invalid as well.
fn corrected(tags: &Tags<'_>) -> String {
    let policy = |name: &str| tags.get(name).map(str::to_ascii_lowercase);
    let is_right = |policy: &Option<String>| {
        policy.as_deref().is_none_or(|policy| matches!(policy, "none" | "quarantine" | "reject"))
    };
    let policies = ["p", "sp", "np"].map(policy);
    let mut record = "v=DMARC1".to_owned();
    if !tags.has_repeated() && policies.first().is_some_and(Option::is_some) && policies.iter().all(is_right) {
        for (name, policy) in ["p", "sp", "np"].into_iter().zip(&policies) {
            if let Some(policy) = policy {
                record.push_str(&format!("; {name}={policy}"));
            }
        }
    } else if tags.get("rua").is_some_and(|list| list.split(',').any(is_report_address)) {
        record.push_str("; p=none");
    }
    for (name, values) in [("adkim", ["r", "s"]), ("aspf", ["r", "s"]), ("t", ["y", "n"]), ("psd", ["y", "n"])] {
        let given = tags.get(name).map(str::to_ascii_lowercase);
        if let Some(value) = values.into_iter().find(|value| given.as_deref() == Some(value)) {
            record.push_str(&format!("; {name}={value}"));
        }
    }
    record
}

/// True for a URI, with or without a maximum report size (`!10m`).
fn is_report_address(item: &str) -> bool {
    let uri = item.split('!').next().unwrap_or_default().trim();
    let Some((scheme, rest)) = split_scheme(uri) else { return false };
    let is_mailbox = rest.split_once('@').is_some_and(|(local, domain)| !local.is_empty() && !domain.is_empty());
    rest.bytes().all(|byte| byte.is_ascii_graphic()) && (is_mailbox || !scheme.eq_ignore_ascii_case("mailto"))
}

#[cfg(test)]
mod tests {
    use super::one_record;

    fn read(texts: &[&str]) -> Option<String> {
        one_record(&texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn one_record_counts_and_several_are_none() {
        let reject = Some("v=DMARC1; p=reject".to_owned());
        assert_eq!(read(&["v=DMARC1; p=reject"]), reject);
        assert_eq!(read(&[" V = DMARC1 ;p = Reject ;"]), reject);
        assert_eq!(read(&["v=spf1 -all", "v=DMARC1; p=reject", "v=DMARC2; p=none", "p=none; v=DMARC1"]), reject);
        assert_eq!(read(&["v=DMARC1; p=none", "v=DMARC1; p=reject"]), None);
        assert_eq!(read(&["v=DMARC1; p=reject", "v=DMARC1; p=reject"]), None);
        assert_eq!(read(&["v=DMARC1", "v=DMARC1; p=reject"]), None);
        for none in ["v=dmarc1; p=reject", "v=DMARC10; p=reject", "p=reject; v=DMARC1", "v=DMARC1 p=reject", ""] {
            assert_eq!(read(&[none]), None, "{none}");
        }
    }

    #[test]
    fn what_is_wrong_in_a_record_is_left_out_and_without_a_policy_the_reports_decide() {
        for (given, corrected) in [
            ("p=quarantine; sp=none; np=reject", "p=quarantine; sp=none; np=reject"),
            ("p=reject; adkim=x; aspf=S; fo=7; ruf=nobody; rua=nobody; pct=x; t=Y; psd=u", "p=reject; aspf=s; t=y"),
            ("p=monitor; rua=mailto:d@x.test", "p=none"),
            ("p=; rua=mailto:d@x.test!10m", "p=none"),
            ("rua=nobody , https://x.test/d", "p=none"),
            ("p=reject; sp=x; rua=mailto:d@x.test; aspf=s", "p=none; aspf=s"),
            ("p=reject; p=none; rua=mailto:d@x.test", "p=none"),
            ("p=monitor", ""),
            ("p=monitor; psd=n", "psd=n"),
            ("p=monitor; rua=mailto:nobody", ""),
            ("p=monitor; rua=mailto: d@x.test", ""),
            ("p=none; sp=x", ""),
            ("", ""),
        ] {
            let corrected =
                if corrected.is_empty() { "v=DMARC1".to_owned() } else { format!("v=DMARC1; {corrected}") };
            assert_eq!(read(&[&format!("v=DMARC1; {given}")]), Some(corrected), "{given}");
        }
    }
}
