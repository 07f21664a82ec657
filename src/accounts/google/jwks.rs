//! Google's public keys, cached for as long as Google says and fetched again when a token names an unknown key.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hyper::header::{ACCEPT, HeaderMap, HeaderValue};
use jsonwebtoken::DecodingKey;
use serde::Deserialize;

use super::{GoogleError, LIMITS};
use crate::clock::Timestamp;
use crate::net::egress::{Answer, Egress, Target};

/// Bounds of the time for which keys are cached, whatever the response says.
const SHORTEST_LIFE: Duration = Duration::from_secs(60);
const LONGEST_LIFE: Duration = Duration::from_secs(86_400);
/// Pause between two fetches for unknown keys: made-up key ids must not make this server a burden on Google.
const UNKNOWN_KEY_PAUSE: Duration = Duration::from_secs(60);
/// Tolerance for a `now` that lies before the fetch: concurrent requests, as opposed to a clock that was set back.
const BACKWARDS: Duration = Duration::from_secs(60);

/// The keys of a JWK Set's URL.
pub(crate) struct Keys {
    target: Target,
    cached: Mutex<Arc<Cached>>,
    /// Time of the last fetch. The holder of the lock fetches; the others wait and then look again.
    asked: tokio::sync::Mutex<Option<Timestamp>>,
}

struct Cached {
    by_id: HashMap<String, DecodingKey>,
    from: Timestamp,
    until: Timestamp,
}

enum Look {
    Found(DecodingKey),
    Unknown,
    Stale,
}

/// RFC 7517 §5.
#[derive(Deserialize)]
struct KeySet {
    keys: Vec<Key>,
}

/// RFC 7517 §4 and RFC 7518 §6.3.1; keys of other types lack these fields and are skipped for it.
#[derive(Deserialize)]
struct Key {
    kty: Option<String>,
    kid: Option<String>,
    alg: Option<String>,
    #[serde(rename = "use")]
    usage: Option<String>,
    n: Option<String>,
    e: Option<String>,
}

impl Keys {
    pub(crate) fn new(target: Target) -> Self {
        let long_ago = Timestamp::from_millis(i64::MIN);
        let none = Cached { by_id: HashMap::new(), from: long_ago, until: long_ago };
        Self { target, cached: Mutex::new(Arc::new(none)), asked: tokio::sync::Mutex::new(None) }
    }

    /// Returns the key with id `kid`, from the cache or from Google.
    pub(crate) async fn find(&self, egress: &Egress, kid: &str, now: Timestamp) -> Result<DecodingKey, GoogleError> {
        if let Look::Found(key) = self.look_up(kid, now) {
            return Ok(key);
        }
        let unknown = || GoogleError::rejected("the id token is signed with a key that Google does not have");
        let mut asked = self.asked.lock().await;
        match self.look_up(kid, now) {
            Look::Found(key) => return Ok(key),
            Look::Unknown if asked.is_some_and(|asked| is_between(now, asked, asked.plus(UNKNOWN_KEY_PAUSE))) => {
                return Err(unknown());
            }
            Look::Unknown | Look::Stale => {}
        }
        *asked = Some(now);
        let fetched = self.fetch(egress, now).await?;
        let found = fetched.by_id.get(kid).cloned();
        *self.cached.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(fetched);
        found.ok_or_else(unknown)
    }

    fn look_up(&self, kid: &str, now: Timestamp) -> Look {
        let cached = Arc::clone(&self.cached.lock().unwrap_or_else(PoisonError::into_inner));
        if !is_between(now, cached.from, cached.until) {
            return Look::Stale;
        }
        cached.by_id.get(kid).map_or(Look::Unknown, |key| Look::Found(key.clone()))
    }

    async fn fetch(&self, egress: &Egress, now: Timestamp) -> Result<Cached, GoogleError> {
        let headers = HeaderMap::from_iter([(ACCEPT, HeaderValue::from_static("application/json"))]);
        let answer = egress.get(&self.target, headers, LIMITS).await?;
        if answer.status != 200 {
            return Err(GoogleError::Unreachable(format!("its keys came with status {}", answer.status)));
        }
        let set: Option<KeySet> = serde_json::from_slice(&answer.body).ok();
        let by_id: HashMap<_, _> = set.into_iter().flat_map(|set| set.keys).filter_map(usable).collect();
        if by_id.is_empty() {
            return Err(GoogleError::Unreachable("its keys cannot be read".to_owned()));
        }
        Ok(Cached { by_id, from: now, until: now.plus(life(&answer)) })
    }
}

/// True if `now` lies in a span, or so shortly before it that the clock was not set back.
fn is_between(now: Timestamp, from: Timestamp, until: Timestamp) -> bool {
    from.minus(BACKWARDS) <= now && now < until
}

/// Returns a key that may sign with RS256, with its id. Its size is checked at each signature.
fn usable(key: Key) -> Option<(String, DecodingKey)> {
    let is_rsa = key.kty.as_deref() == Some("RSA");
    let is_for_us = key.alg.is_none_or(|alg| alg == "RS256") && key.usage.is_none_or(|usage| usage == "sig");
    let key = (key.kid?, DecodingKey::from_rsa_components(&key.n?, &key.e?).ok()?);
    (is_rsa && is_for_us).then_some(key)
}

/// RFC 9111 §4.2: the rest of `max-age` after the time that the response spent in caches.
fn life(answer: &Answer) -> Duration {
    let values = |wanted| answer.headers.iter().filter(move |(name, _)| name == wanted).map(|(_, value)| value);
    let seconds = |text: &str| text.trim().parse::<u64>().ok();
    let directives = values("cache-control").flat_map(|value| value.split(','));
    let max_age = directives
        .filter_map(|directive| directive.split_once('='))
        .find(|(name, _)| name.trim().eq_ignore_ascii_case("max-age"))
        .and_then(|(_, age)| seconds(age.trim().trim_matches('"')));
    let age = values("age").find_map(|value| seconds(value));
    let left = max_age.unwrap_or(0).saturating_sub(age.unwrap_or(0));
    Duration::from_secs(left).clamp(SHORTEST_LIFE, LONGEST_LIFE)
}
