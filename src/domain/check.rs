//! Live check of a domain's DNS records (contract 3.2): uncached, within one time budget; no answer counts neither way.

use std::net::IpAddr;
use std::time::Duration;

use futures_util::future::join_all;
use mail_auth::SpfResult;
use mail_auth::spf::verify::SpfParameters;
use tokio::time::timeout;

use super::records::{Kind, Status, Wanted};
use crate::net::dns::budget::Budget;
use crate::net::dns::{DnsError, Resolver};

/// Time budget of all DNS queries of one check together: with the rest of the request it stays within the ten seconds
/// of contract 3.5.
pub(crate) const BUDGET: Duration = Duration::from_secs(9);
/// DNS queries that a check of the SPF record may cost, all addresses of the host together.
const SPF_QUESTIONS: usize = 40;
/// Values reported per record, and the length of each.
const MAX_FOUND: usize = 10;
const MAX_FOUND_CHARS: usize = 1000;

/// Result for one record.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Finding {
    /// Comparison with the expected value.
    pub status: Status,
    /// The first few values found.
    pub(crate) found: Vec<String>,
}

/// Checks the records of domains.
#[derive(Clone)]
pub struct Checker {
    resolver: Resolver,
    budget: Duration,
}

impl Checker {
    /// Creates a checker that asks `resolver`, which has no cache, and spends at most `budget` on one domain.
    pub const fn new(resolver: Resolver, budget: Duration) -> Self {
        Self { resolver, budget }
    }

    /// Returns the present state of the five records, in the order of the contract.
    pub async fn check(&self, wanted: &Wanted<'_>) -> [Finding; 5] {
        let records = wanted.records();
        let name = |kind: Kind| records.iter().find(|record| record.kind == kind).map_or("", |record| &record.name);
        let (mx, spf, dkim, dmarc, ed25519) = tokio::join!(
            self.within(self.mx(wanted)),
            self.within(self.spf(wanted)),
            self.within(self.key(name(Kind::Dkim), wanted.rsa.value)),
            self.within(self.dmarc(name(Kind::Dmarc))),
            self.within(self.key(name(Kind::DkimEd25519), wanted.ed25519.value)),
        );
        [mx, spf, dkim, dmarc, ed25519]
    }

    /// Returns the present state of keys' records, given by name and public key.
    pub(crate) async fn check_keys(&self, keys: &[(String, String)]) -> Vec<Finding> {
        join_all(keys.iter().map(|(name, wanted)| self.within(self.key(name, wanted)))).await
    }

    async fn within(&self, look: impl Future<Output = Finding>) -> Finding {
        timeout(self.budget, look).await.unwrap_or_default()
    }

    async fn mx(&self, wanted: &Wanted<'_>) -> Finding {
        let mut hosts = match self.resolver.mail_hosts(wanted.name).await {
            Ok(hosts) => hosts,
            Err(error) => return unanswered(&error),
        };
        let bare = |host: &str| host.trim_end_matches('.').to_lowercase();
        let ours = bare(wanted.hostname);
        hosts.sort_by_key(|(preference, host)| (bare(host) != ours, *preference));
        let named = hosts.first().is_some_and(|(_, host)| bare(host) == ours);
        let shown = hosts.iter().map(|(preference, host)| format!("{preference} {}", shown_host(&bare(host))));
        finding(named, shown.collect())
    }

    async fn spf(&self, wanted: &Wanted<'_>) -> Finding {
        let texts = match self.resolver.texts(wanted.name).await {
            Ok(texts) => texts,
            Err(error) => return unanswered(&error),
        };
        let policies: Vec<String> = texts.into_iter().filter(|text| is_spf(text)).collect();
        let [policy] = policies.as_slice() else {
            // RFC 7208 §4.5: more than one is a permanent error.
            return finding(false, policies);
        };
        if has_mechanism(policy, &wanted.spf_mechanism()) {
            return finding(true, policies);
        }
        match self.spf_passes(wanted).await {
            Some(passes) => finding(passes, policies),
            None => Finding { status: Status::Unchecked, found: shown(policies) },
        }
    }

    /// True if the policy passes for every address that the appliance sends from; `None` if DNS does not say.
    async fn spf_passes(&self, wanted: &Wanted<'_>) -> Option<bool> {
        let addresses = match self.resolver.addresses(wanted.hostname).await {
            Ok(addresses) => addresses,
            Err(error) if error.is_transient() => return None,
            Err(_) => return Some(false),
        };
        let budget = Budget::new(SPF_QUESTIONS);
        for address in addresses {
            if !self.spf_passes_for(address, wanted, &budget).await? {
                return Some(false);
            }
        }
        Some(true)
    }

    async fn spf_passes_for(&self, address: IpAddr, wanted: &Wanted<'_>, budget: &Budget) -> Option<bool> {
        let sender = format!("postmaster@{}", wanted.name);
        let parameters = SpfParameters::verify_mail_from(address, wanted.hostname, wanted.hostname, &sender);
        match budget.verify_spf(self.resolver.authenticator(), parameters).await.result() {
            SpfResult::Pass => Some(true),
            SpfResult::TempError => None,
            SpfResult::Fail | SpfResult::SoftFail | SpfResult::Neutral | SpfResult::PermError | SpfResult::None => {
                Some(false)
            }
        }
    }

    async fn key(&self, name: &str, wanted: &str) -> Finding {
        let texts = match self.resolver.texts(name).await {
            Ok(texts) => texts,
            Err(error) => return unanswered(&error),
        };
        let fits = |text: &String| is_key(text) && tag(text, "p").is_some_and(|key| without_space(key) == wanted);
        finding(texts.iter().any(fits), texts)
    }

    async fn dmarc(&self, name: &str) -> Finding {
        let texts = match self.resolver.texts(name).await {
            Ok(texts) => texts,
            Err(error) => return unanswered(&error),
        };
        let policies: Vec<&String> = texts.iter().filter(|text| is_dmarc(text)).collect();
        let holds = match policies.as_slice() {
            [policy] => tag(policy, "p").is_some_and(|policy| {
                ["none", "quarantine", "reject"].iter().any(|word| policy.trim().eq_ignore_ascii_case(word))
            }),
            // RFC 7489 §6.6.3: several records are as good as none.
            _ => false,
        };
        finding(holds, texts)
    }
}

/// Shows the root as `.`, which as an MX means "no mail at all".
fn shown_host(bare: &str) -> &str {
    if bare.is_empty() { "." } else { bare }
}

/// Maps a DNS error: a name without such records is an answer, every other error is none.
fn unanswered(error: &DnsError) -> Finding {
    match error {
        DnsError::NoSuchName(_) | DnsError::NoAddress(_) | DnsError::BadName(_) => {
            Finding { status: Status::Missing, found: Vec::new() }
        }
        DnsError::NoAnswer { .. } | DnsError::Setup(_) => {
            tracing::debug!(%error, "a record was not looked at");
            Finding::default()
        }
    }
}

fn finding(holds: bool, found: Vec<String>) -> Finding {
    let status = match (holds, found.is_empty()) {
        (true, _) => Status::Ok,
        (false, true) => Status::Missing,
        (false, false) => Status::Mismatch,
    };
    Finding { status, found: shown(found) }
}

/// Limits the values that are kept, since a stranger writes them.
fn shown(found: Vec<String>) -> Vec<String> {
    let clean = |text: String| text.chars().filter(|c| !c.is_control()).take(MAX_FOUND_CHARS).collect();
    found.into_iter().take(MAX_FOUND).map(clean).collect()
}

/// RFC 7208 §4.5: `v=spf1`, then a space or the end.
fn is_spf(text: &str) -> bool {
    let head = text.get(..6).filter(|head| head.eq_ignore_ascii_case("v=spf1"));
    head.is_some() && text.get(6..).is_some_and(|rest| rest.is_empty() || rest.starts_with(' '))
}

/// True if the policy passes whatever `mechanism` matches; terms after `all` are never reached (RFC 7208 §5.1).
fn has_mechanism(policy: &str, mechanism: &str) -> bool {
    let terms = policy.split_ascii_whitespace().skip(1).map(|term| term.trim_end_matches('.').to_ascii_lowercase());
    let mut reached = terms.take_while(|term| term.trim_start_matches(['+', '-', '~', '?']) != "all");
    reached.any(|term| term.strip_prefix('+').unwrap_or(&term) == mechanism)
}

/// RFC 6376 §3.6.1: a record with another version is discarded. `v=DKIM1\;`, escaped once too often, is one.
fn is_key(text: &str) -> bool {
    tag(text, "v").is_none_or(|version| version.trim() == "DKIM1")
}

/// RFC 7489 §6.3: the version comes first, in exactly this form.
fn is_dmarc(text: &str) -> bool {
    text.split(';').next().is_some_and(|version| without_space(version) == "v=DMARC1")
}

/// Returns the value of a tag in a list such as `v=DKIM1; p=…` (RFC 6376 §3.2).
fn tag<'t>(text: &'t str, name: &str) -> Option<&'t str> {
    text.split(';').filter_map(|tag| tag.split_once('=')).find(|(key, _)| key.trim() == name).map(|(_, value)| value)
}

fn without_space(text: &str) -> String {
    text.chars().filter(|c| !c.is_whitespace()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_told_from_what_only_looks_like_them() {
        assert!(is_spf("v=spf1 -all") && is_spf("V=SPF1"));
        assert!(!is_spf("v=spf10 -all") && !is_spf("spf1") && !is_spf("\u{e4}v=spf1"));
        assert!(is_dmarc("v=DMARC1; p=none") && is_dmarc("v = DMARC1;p=none"));
        assert!(!is_dmarc("v=DMARC12; p=none") && !is_dmarc("p=none; v=DMARC1"));
        assert_eq!(tag("v=DKIM1; k=rsa; p = MII BIj", "p").map(without_space).as_deref(), Some("MIIBIj"));
    }

    #[test]
    fn a_mechanism_counts_where_it_is_reached_and_lets_pass() {
        let has = |policy| has_mechanism(policy, "a:mx.acme.dev");
        assert!(has("v=spf1 a:mx.acme.dev ~all") && has("v=spf1 include:x.y +A:MX.Acme.Dev. -all"));
        assert!(!has("v=spf1 ~all a:mx.acme.dev") && !has("v=spf1 -a:mx.acme.dev ~all"));
        assert!(!has("v=spf1 a:mx.acme.dev/24 ~all") && !has("v=spf1 a:mx.acme.dev.evil.example"));
    }

    #[test]
    fn a_key_record_has_the_right_version_or_none() {
        assert!(is_key("v=DKIM1; k=rsa; p=x") && is_key("p=x"));
        assert!(!is_key("v=DKIM1\\; k=rsa\\; p=x") && !is_key("v=DKIM2; p=x"));
    }

    #[test]
    fn what_is_shown_of_a_strangers_record_is_bounded() {
        let found = shown((0..100).map(|_| format!("a\u{0}{}", "x".repeat(5000))).collect());
        assert_eq!((found.len(), found.first().map(String::len)), (MAX_FOUND, Some(MAX_FOUND_CHARS)));
    }
}
