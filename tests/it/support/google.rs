//! A stand-in for Google: signed tokens, a key set, a token endpoint.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use mailkite::testing::clock::Timestamp;
use mailkite::testing::config;
use ring::rand::SystemRandom;
use ring::rsa;
use ring::signature::{RSA_PKCS1_SHA256, RsaKeyPair};
use serde_json::{Value, json};

use super::receiver::{Receiver, Reply};

/// Time at which the valid token was issued.
pub(crate) const NOW: Timestamp = Timestamp::from_millis(1_785_196_800_000);
/// Our client id at Google.
pub(crate) const CLIENT: &str = "1234567890-abc.apps.googleusercontent.com";
/// The key that Google signs with.
pub(crate) const SIGNING_KEY: &str = include_str!("../../fixtures/rsa_signing_key.b64");
/// A key that is not Google's.
pub(crate) const OTHER_KEY: &str = include_str!("../../fixtures/rsa_other_key.b64");

/// Settings with `receiver` in the place of Google.
pub(crate) fn settings(receiver: &Receiver) -> config::Google {
    config::Google {
        client_id: Some(CLIENT.to_owned()),
        client_secret: Some("GOCSPX-s&cret=".to_owned()),
        redirect_uri: Some("https://app.acme.dev/configured".to_owned()),
        token_url: format!("http://{}/token", receiver.address()),
        jwks_url: format!("http://{}/certs", receiver.address()),
    }
}

/// A key of the fixtures.
pub(crate) fn key_pair(text: &str) -> RsaKeyPair {
    let der = STANDARD.decode(text.split_whitespace().collect::<String>()).unwrap();
    RsaKeyPair::from_pkcs8(&der).unwrap()
}

/// A part of a JWT.
pub(crate) fn part(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// The part of a JWT that is signed.
pub(crate) fn signed_text(header: &Value, claims: &Value) -> String {
    format!("{}.{}", part(header.to_string()), part(claims.to_string()))
}

/// A JWT signed by this key.
pub(crate) fn rs256(key: &str, header: &Value, claims: &Value) -> String {
    let (pair, text) = (key_pair(key), signed_text(header, claims));
    let mut signature = vec![0; pair.public().modulus_len()];
    pair.sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), text.as_bytes(), &mut signature).unwrap();
    format!("{text}.{}", part(signature))
}

/// The header of a valid token.
pub(crate) fn header() -> Value {
    json!({"alg": "RS256", "typ": "JWT", "kid": "one"})
}

/// The claims of a valid token.
pub(crate) fn claims() -> Value {
    json!({
        "iss": "https://accounts.google.com", "aud": CLIENT, "azp": CLIENT, "sub": "110169484474386276334",
        "email": "Ada@Acme.dev", "email_verified": true, "name": "Ada Lovelace", "given_name": "Ada",
        "picture": "https://lh3.googleusercontent.com/a/ada=s96-c",
        "iat": NOW.as_secs(), "exp": NOW.as_secs() + 3600,
    })
}

/// The valid claims with one changed; `null` removes it.
pub(crate) fn claims_with(name: &str, value: Value) -> Value {
    let mut claims = claims();
    if value.is_null() {
        claims.as_object_mut().unwrap().remove(name);
    } else {
        claims[name] = value;
    }
    claims
}

/// The valid token.
pub(crate) fn good() -> String {
    rs256(SIGNING_KEY, &header(), &claims())
}

/// The signing key as the key set names it.
pub(crate) fn jwk(kid: &str) -> Value {
    let pair = key_pair(SIGNING_KEY);
    let public = rsa::PublicKeyComponents::<Vec<u8>>::from(pair.public());
    json!({"kty": "RSA", "alg": "RS256", "use": "sig", "kid": kid, "n": part(public.n), "e": part(public.e)})
}

/// The key set.
pub(crate) fn key_set(kids: &[&str]) -> Reply {
    let keys: Vec<Value> = kids.iter().map(|kid| jwk(kid)).collect();
    reply(&json!({ "keys": keys })).header("cache-control", "public, max-age=3600, must-revalidate, no-transform")
}

/// An answer in JSON.
pub(crate) fn reply(json: &Value) -> Reply {
    Reply::status(200).header("content-type", "application/json; charset=utf-8").body(json.to_string())
}

/// The answer of the token endpoint.
pub(crate) fn token_reply(token: &str) -> Reply {
    reply(&json!({"access_token": "ya29.secret", "expires_in": 3599, "token_type": "Bearer", "id_token": token}))
}
