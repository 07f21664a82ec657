//! MTA-STS policies of domains: discovery, retrieval and caching (RFC 8461).
//!
//! A policy is kept in memory for its own lifetime. A policy that cannot be fetched is not enforced, unless an
//! earlier one is still in force: an attacker who blocks the fetch must not be able to disable it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hyper::HeaderMap;

use crate::clock::Timestamp;
use crate::mail::address::Domain;
use crate::net::dns::Resolver;
use crate::net::egress::{Answer, Egress, Limits, Policy as EgressPolicy, Target};

/// Limit of cached domains; beyond it domains without a policy in force are evicted first, then the one that expires
/// first.
const REMEMBERED: usize = 4_096;
/// Time that the absence of a policy is cached, and interval between checks of a policy's id.
const LOOK_AGAIN: Duration = Duration::from_secs(600);
/// RFC 8461 §3.2: about a year.
const MAX_AGE: u64 = 31_557_600;
/// RFC 8461 §3.3 suggests a minute and 64 KiB; mail should not wait that long for a policy.
const FETCH: Limits = Limits { timeout: Duration::from_secs(30), max_answer_bytes: 64 * 1024 };

/// Finds policies.
#[derive(Clone)]
pub struct MtaSts {
    resolver: Arc<Resolver>,
    egress: Egress,
    policy: EgressPolicy,
    /// Port of the policy servers; anything but 443 is for tests.
    port: u16,
    known: Arc<Mutex<HashMap<String, Known>>>,
}

/// The requirement of a domain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum PolicyLookup {
    /// No policy, or one in testing mode.
    None,
    /// Only these hosts, with a valid certificate.
    Enforced(Arc<Policy>),
}

/// A policy (RFC 8461 §3.2).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Policy {
    mode: Mode,
    max_age: Duration,
    /// Names, or `*.` followed by a name.
    hosts: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    Enforce,
    Testing,
    None,
}

#[derive(Clone)]
struct Known {
    id: Option<String>,
    policy: Option<Arc<Policy>>,
    looked_at: Timestamp,
    expires_at: Timestamp,
}

impl Known {
    fn nothing(now: Timestamp) -> Self {
        Self { id: None, policy: None, looked_at: now, expires_at: now }
    }

    /// Returns true if the policy has not expired and needs no check yet.
    fn is_fresh(&self, now: Timestamp) -> bool {
        let looked = now >= self.looked_at && now.since(self.looked_at) < LOOK_AGAIN;
        looked && (self.policy.is_none() || now < self.expires_at)
    }

    fn found(&self, now: Timestamp) -> PolicyLookup {
        match &self.policy {
            Some(policy) if policy.mode == Mode::Enforce && now < self.expires_at => {
                PolicyLookup::Enforced(Arc::clone(policy))
            }
            _ => PolicyLookup::None,
        }
    }
}

impl MtaSts {
    /// Finds policies with `resolver` and `egress`; `policy` judges URLs by their form.
    pub fn new(resolver: Arc<Resolver>, egress: Egress, policy: EgressPolicy, port: u16) -> Self {
        Self { resolver, egress, policy, port, known: Arc::default() }
    }

    /// Looks up the requirement of a domain.
    pub(crate) async fn lookup(&self, domain: &str, now: Timestamp) -> PolicyLookup {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner).get(domain).cloned();
        if let Some(known) = &known
            && known.is_fresh(now)
        {
            return known.found(now);
        }
        let id = self.id(domain).await;
        let unchanged = known.as_ref().is_some_and(|known| id.is_some() && known.id == id && now < known.expires_at);
        let fetched = match &id {
            Some(_) if !unchanged => self.fetch(domain).await,
            _ => None,
        };
        let next = match (fetched, known) {
            (Some(policy), _) => {
                let expires_at = now.plus(policy.max_age);
                Known { id, policy: Some(Arc::new(policy)), looked_at: now, expires_at }
            }
            // RFC 8461 §5.1: an earlier policy stays in force until it expires.
            (None, Some(known)) if now < known.expires_at => Known { looked_at: now, ..known },
            (None, _) => Known::nothing(now),
        };
        let found = next.found(now);
        remember(&mut self.known.lock().unwrap_or_else(PoisonError::into_inner), domain, next, now);
        found
    }

    /// Looks up the id of a domain's policy (RFC 8461 §3.1); there must be exactly one record.
    async fn id(&self, domain: &str) -> Option<String> {
        let texts = self.resolver.texts(&format!("_mta-sts.{domain}")).await.ok()?;
        let mut ids = texts.iter().filter_map(|text| record_id(text));
        ids.next().filter(|_| ids.next().is_none())
    }

    async fn fetch(&self, domain: &str) -> Option<Policy> {
        let port = if self.port == 443 { String::new() } else { format!(":{}", self.port) };
        let url = format!("https://mta-sts.{domain}{port}/.well-known/mta-sts.txt");
        let target = Target::parse(&url, &self.policy).ok()?;
        let answer = match self.egress.get(&target, HeaderMap::new(), FETCH).await {
            Ok(answer) if answer.status == 200 && !answer.truncated && is_plain_text(&answer) => answer,
            Ok(answer) => {
                tracing::info!(domain, status = answer.status, "what is served is no MTA-STS policy");
                return None;
            }
            Err(error) => {
                tracing::info!(domain, %error, "an MTA-STS policy could not be fetched");
                return None;
            }
        };
        parse(std::str::from_utf8(&answer.body).ok()?)
    }
}

fn remember(known: &mut HashMap<String, Known>, domain: &str, next: Known, now: Timestamp) {
    if known.len() >= REMEMBERED && !known.contains_key(domain) {
        known.retain(|_, one| now < one.expires_at);
        let first = known.iter().min_by_key(|(_, one)| one.expires_at).map(|(domain, _)| domain.clone());
        if let Some(first) = first.filter(|_| known.len() >= REMEMBERED) {
            known.remove(&first);
        }
    }
    known.insert(domain.to_owned(), next);
}

/// Checks for text/plain (RFC 8461 §3.2): on some web servers strangers can upload files, but rarely with this type.
fn is_plain_text(answer: &Answer) -> bool {
    let header = answer.headers.iter().find(|(name, _)| name == "content-type");
    let kind = header.and_then(|(_, value)| value.split(';').next());
    kind.is_some_and(|kind| kind.trim().eq_ignore_ascii_case("text/plain"))
}

/// Parses the id in `v=STSv1; id=20260728T000000;`.
fn record_id(text: &str) -> Option<String> {
    let mut fields = text.split(';').map(str::trim);
    if fields.next() != Some("v=STSv1") {
        return None;
    }
    let id = fields.find_map(|field| field.strip_prefix("id="))?.trim();
    let fits = (1..=32).contains(&id.len()) && id.bytes().all(|byte| byte.is_ascii_alphanumeric());
    fits.then(|| id.to_owned())
}

/// Parses a policy file: lines of `key: value`.
fn parse(text: &str) -> Option<Policy> {
    let (mut version, mut mode, mut max_age) = (None, None, None);
    let mut hosts = Vec::new();
    for line in text.lines().take(1_000) {
        let Some((key, value)) = line.split_once(':') else { continue };
        let value = value.trim();
        match key.trim() {
            "version" if version.is_none() => version = Some(value),
            "mode" if mode.is_none() => {
                mode = match value {
                    "enforce" => Some(Mode::Enforce),
                    "testing" => Some(Mode::Testing),
                    "none" => Some(Mode::None),
                    _ => return None,
                };
            }
            "max_age" if max_age.is_none() => max_age = Some(seconds(value)?),
            "mx" if hosts.len() < 100 => hosts.push(pattern(value)?),
            _ => {}
        }
    }
    let mode = mode?;
    if version != Some("STSv1") || (hosts.is_empty() && mode != Mode::None) {
        return None;
    }
    Some(Policy { mode, max_age: max_age?, hosts })
}

fn seconds(value: &str) -> Option<Duration> {
    let digits = value.bytes().all(|byte| byte.is_ascii_digit());
    let seconds = value.parse().ok().filter(|seconds| digits && *seconds <= MAX_AGE)?;
    Some(Duration::from_secs(seconds))
}

/// Normalizes a host name, optionally with `*.` for one label in front.
fn pattern(value: &str) -> Option<String> {
    let (wildcard, name) = match value.strip_prefix("*.") {
        Some(name) => ("*.", name),
        None => ("", value),
    };
    Some(format!("{wildcard}{}", Domain::parse(name).ok()?))
}

impl Policy {
    /// Returns true if a host matches the policy; a wildcard stands for one label (RFC 8461 §4.1).
    pub(crate) fn covers(&self, host: &str) -> bool {
        self.hosts.iter().any(|pattern| match pattern.strip_prefix("*.") {
            Some(parent) => host.split_once('.').is_some_and(|(label, rest)| !label.is_empty() && rest == parent),
            None => pattern == host,
        })
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests may panic")]

    use super::*;

    #[test]
    fn records() {
        assert_eq!(record_id("v=STSv1; id=20260728T000000;"), Some("20260728T000000".to_owned()));
        assert_eq!(record_id("v=STSv1;id=1"), Some("1".to_owned()));
        for bad in ["", "v=STSv2; id=1", "id=1; v=STSv1", "v=STSv1", "v=STSv1; id=", "v=STSv1; id=a b", "v=spf1 -all"]
        {
            assert_eq!(record_id(bad), None, "{bad}");
        }
    }

    #[test]
    fn policies() {
        let policy = parse(
            "version: STSv1\r\nmode: enforce\r\nmx: mail.example.com\r\nmx: *.example.net\r\nmx: backup.example.org.\r\n\
             max_age: 604800\r\nunknown: x\r\n",
        )
        .unwrap();
        assert_eq!((policy.mode, policy.max_age), (Mode::Enforce, Duration::from_secs(604_800)));
        for host in ["mail.example.com", "a.example.net", "backup.example.org"] {
            assert!(policy.covers(host), "{host}");
        }
        for host in ["example.net", "a.b.example.net", "mail.example.com.evil.test", "x.mail.example.com"] {
            assert!(!policy.covers(host), "{host}");
        }
        assert_eq!(parse("version: STSv1\nmode: none\nmax_age: 0\n").unwrap().mode, Mode::None);
        for bad in [
            "",
            "mode: enforce\nmx: a.test\nmax_age: 1\n",
            "version: STSv1\nmode: enforce\nmax_age: 1\n",
            "version: STSv1\nmode: maybe\nmx: a.test\nmax_age: 1\n",
            "version: STSv1\nmode: enforce\nmx: a.test\n",
            "version: STSv1\nmode: enforce\nmx: a.test\nmax_age: 31557601\n",
            "version: STSv1\nmode: enforce\nmx: a.test\nmax_age: 99999999999999999999\n",
            "version: STSv1\nmode: enforce\nmx: a.test\nmax_age: +5\n",
            "version: STSv1\nmode: enforce\nmx: a.test\nmax_age: -5\nmax_age: 5\n",
            "version: STSv1\nmode: enforce\nmx: *\nmax_age: 5\n",
            "version: STSv1\nmode: enforce\nmx: a.*.test\nmax_age: 5\n",
            "version: STSv1\nmode: enforce\nmx: *.*.test\nmax_age: 5\n",
            "version: STSv1\nmode: enforce\nmx:\nmax_age: 5\n",
        ] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn memory_is_bounded_and_keeps_what_is_in_force_longest() {
        let now = Timestamp::from_millis(1_785_196_800_000);
        let policy = Arc::new(parse("version: STSv1\nmode: enforce\nmx: a.test\nmax_age: 9\n").unwrap());
        let until = |seconds: u64| Known {
            id: None,
            policy: Some(Arc::clone(&policy)),
            looked_at: now,
            expires_at: now.plus(Duration::from_secs(seconds)),
        };
        let mut known = HashMap::new();
        for number in 0..REMEMBERED - 1 {
            remember(&mut known, &format!("{number}.test"), Known::nothing(now), now);
        }
        remember(&mut known, "kept.test", until(99_999), now);
        assert_eq!(known.len(), REMEMBERED);
        remember(&mut known, "next.test", until(9), now);
        assert_eq!(known.len(), 2, "those without a policy went");
        for number in 0..=u64::try_from(REMEMBERED).unwrap() {
            remember(&mut known, &format!("{number}.test"), until(10 + number), now);
            assert!(known.len() <= REMEMBERED);
        }
        let remembered = |domain: &str| known.contains_key(domain);
        assert!(
            remembered("kept.test") && !remembered("next.test") && !remembered("0.test") && remembered("4096.test")
        );
    }
}
