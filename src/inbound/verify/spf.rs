//! Detects errors in a domain's SPF records that RFC 7208 forbids and the library ignores: several records, and unknown
//! mechanisms.

const MECHANISMS: [&str; 8] = ["all", "include", "a", "mx", "ptr", "ip4", "ip6", "exists"];

/// True if these TXT records of one name are a `permerror` without further lookups (RFC 7208 §4.5, §4.6.1).
pub(crate) fn are_malformed(texts: &[String]) -> bool {
    let mut records = texts.iter().filter_map(|text| terms(text));
    let Some(mut first) = records.next() else { return false };
    records.next().is_some() || first.any(|term| !is_term(term))
}

/// Returns the terms of a text that is an SPF record.
fn terms(text: &str) -> Option<impl Iterator<Item = &str>> {
    let (version, rest) = text.split_once(' ').unwrap_or((text, ""));
    version.eq_ignore_ascii_case("v=spf1").then(|| rest.split_ascii_whitespace())
}

/// True for the name of a mechanism, and for any modifier: unknown modifiers are ignored (RFC 7208 §6).
fn is_term(term: &str) -> bool {
    let bare = term.strip_prefix(['+', '-', '?', '~']).unwrap_or(term);
    let end = bare.find([':', '=', '/']).unwrap_or(bare.len());
    let (name, rest) = bare.split_at_checked(end).unwrap_or_default();
    rest.starts_with('=') || MECHANISMS.iter().any(|mechanism| mechanism.eq_ignore_ascii_case(name))
}

#[cfg(test)]
mod tests {
    use super::are_malformed;

    #[test]
    fn one_record_of_known_mechanisms_is_well_formed() {
        for (texts, malformed) in [
            (
                vec!["v=spf1 a mx/24 ip4:192.0.2.0/24 -include:x.example ?exists:%{i}.x ~ptr exp=e.x unknown=1 -ALL"],
                false,
            ),
            (vec!["V=SPF1"], false),
            (vec!["google-site-verification=x", "v=spf1 -all", "v=spf10 +all"], false),
            (vec!["some text"], false),
            (vec![], false),
            (vec!["v=spf1 -all", "v=spf1 +all"], true),
            (vec!["v=spf1 foo:bar -all"], true),
            (vec!["v=spf1 allow -all"], true),
        ] {
            let texts: Vec<String> = texts.into_iter().map(str::to_owned).collect();
            assert_eq!(are_malformed(&texts), malformed, "{texts:?}");
        }
    }
}
