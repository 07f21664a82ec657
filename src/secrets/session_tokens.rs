//! Session tokens: JWTs that name a session's row (contract 1.4). Pure; the store knows if the session still exists.

use std::time::Duration;

use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use serde::{Deserialize, Serialize};

use crate::clock::Timestamp;
use crate::id::{AccountId, random_base62};

/// The lifetime of a session (contract 1.4).
pub(crate) const LIFETIME: Duration = Duration::from_secs(604_800);

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claims {
    /// The account's public id.
    pub(crate) sub: AccountId,
    /// Issued at, in Unix seconds.
    pub(crate) iat: i64,
    /// Expires at, in Unix seconds.
    pub exp: i64,
    /// The session's id.
    pub jti: String,
}

/// Issues and verifies tokens with one key.
#[derive(Clone)]
pub struct Tokens {
    encoding: EncodingKey,
    decoding: DecodingKey,
}

impl Tokens {
    /// Uses this key for HS256.
    pub fn new(key: &[u8; 32]) -> Self {
        Self { encoding: EncodingKey::from_secret(key), decoding: DecodingKey::from_secret(key) }
    }

    /// Issues a token for a new session.
    pub fn issue(&self, account: &AccountId, now: Timestamp) -> (String, Claims) {
        let claims = Claims {
            sub: account.clone(),
            iat: now.as_secs(),
            exp: now.plus(LIFETIME).as_secs(),
            jti: random_base62(22),
        };
        // Fails only for claims that are not JSON.
        let token = jsonwebtoken::encode(&Header::new(Algorithm::HS256), &claims, &self.encoding);
        (token.unwrap_or_default(), claims)
    }

    /// Returns the claims of a token that is genuine and has not expired.
    pub(crate) fn read(&self, token: &str, now: Timestamp) -> Option<Claims> {
        let mut rules = Validation::new(Algorithm::HS256);
        // Expiry is checked below, with the clock that issued the token.
        rules.validate_exp = false;
        rules.required_spec_claims.clear();
        let claims: Claims = jsonwebtoken::decode(token, &self.decoding, &rules).ok()?.claims;
        (claims.exp > now.as_secs()).then_some(claims)
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests may panic")]

    use base64::Engine as _;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;

    use super::*;

    const NOW: Timestamp = Timestamp::from_millis(1_785_196_800_000);

    fn tokens() -> Tokens {
        Tokens::new(&[7; 32])
    }

    #[test]
    fn a_token_is_read_by_its_key_until_it_ends() {
        let account = AccountId::new(NOW);
        let (token, claims) = tokens().issue(&account, NOW);
        assert_eq!((claims.sub.clone(), claims.exp - claims.iat), (account, 604_800));
        assert_eq!(tokens().read(&token, NOW), Some(claims.clone()));
        assert_eq!(tokens().read(&token, Timestamp::from_millis(claims.exp * 1000 - 1)), Some(claims.clone()));
        assert_eq!(tokens().read(&token, Timestamp::from_millis(claims.exp * 1000)), None);
        assert_eq!(Tokens::new(&[8; 32]).read(&token, NOW), None);
    }

    #[test]
    fn other_algorithms_and_changed_claims_are_refused() {
        let (token, claims) = tokens().issue(&AccountId::new(NOW), NOW);
        let (head, rest) = token.split_once('.').unwrap();
        let (body, tag) = rest.split_once('.').unwrap();
        let part = |json: &str| BASE64.encode(json);
        let none = part(r#"{"alg":"none","typ":"JWT"}"#);
        let other = part(&serde_json::to_string(&Claims { exp: claims.exp + 1, ..claims.clone() }).unwrap());
        let key = EncodingKey::from_secret(&[7; 32]);
        let hs512 = jsonwebtoken::encode(&Header::new(Algorithm::HS512), &claims, &key).unwrap();
        let no_end =
            jsonwebtoken::encode(&Header::default(), &serde_json::json!({"sub": "x", "jti": "y"}), &key).unwrap();
        for forged in [
            format!("{none}.{body}."),
            format!("{none}.{body}.{tag}"),
            format!("{head}.{other}.{tag}"),
            format!("{head}.{body}."),
            hs512,
            no_end,
            String::new(),
        ] {
            assert_eq!(tokens().read(&forged, NOW), None, "{forged}");
        }
    }
}
