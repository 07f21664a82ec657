//! Signing in with Google against a token endpoint and a key set of our own: real HTTP, real RS256.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use mailkite::testing::accounts::google::{Google, GoogleError, GoogleIdentity, Grant};
use mailkite::testing::clock::Timestamp;
use mailkite::testing::config;
use mailkite::testing::net::dns::Resolver;
use ring::{hmac, rsa};
use rustls::RootCertStore;
use serde_json::{Value, json};

use crate::support::google::{
    CLIENT, NOW, OTHER_KEY, SIGNING_KEY, claims, claims_with, good, header, jwk, key_pair, key_set, part, reply,
    rs256, settings, signed_text, token_reply,
};
use crate::support::receiver::{Received, Receiver, Reply, client_config};

const MINUTE: Duration = Duration::from_secs(60);

/// A client of a Google whose two endpoints are served by `script`.
async fn google(script: impl Fn(&Received) -> Reply + Send + Sync + 'static) -> (Google, Receiver) {
    let receiver = Receiver::start(script).await;
    let settings = settings(&receiver);
    (with_settings(settings), receiver)
}

fn with_settings(settings: config::Google) -> Google {
    Google::new(settings, &client_config(RootCertStore::empty()), Arc::new(Resolver::new(&[]).unwrap())).unwrap()
}

/// Signs in with a token endpoint that gives `token` and a key set with the key `one`.
async fn sign_in_with(token: String) -> Result<GoogleIdentity, GoogleError> {
    let script = move |request: &Received| match request.path.as_str() {
        "/token" => token_reply(&token),
        _ => key_set(&["one"]),
    };
    google(script).await.0.sign_in(Grant::new("4/code"), NOW).await
}

fn is_rejected<T: std::fmt::Debug>(result: &Result<T, GoogleError>) -> bool {
    matches!(result, Err(GoogleError::Rejected(_)))
}

fn is_unreachable<T: std::fmt::Debug>(result: &Result<T, GoogleError>) -> bool {
    matches!(result, Err(GoogleError::Unreachable(_)))
}

/// Number of requests for the key set.
fn asked_for_keys(receiver: &Receiver) -> usize {
    receiver.requests().iter().filter(|request| request.path == "/certs").count()
}

#[tokio::test]
async fn a_code_becomes_the_identity_that_google_signed() {
    let token = good();
    let script = move |request: &Received| match request.path.as_str() {
        "/token" => token_reply(&token),
        _ => key_set(&["zero", "one"]),
    };
    let (google, mut receiver) = google(script).await;
    let verifier = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";
    let grant =
        Grant { code: "4/0A&b=c", redirect_uri: Some("https://app.acme.dev/in?a=1"), code_verifier: Some(verifier) };
    let identity = google.sign_in(grant, NOW).await.unwrap();
    let expected = GoogleIdentity {
        subject: "110169484474386276334".to_owned(),
        email: "ada@acme.dev".to_owned(),
        name: Some("Ada Lovelace".to_owned()),
        picture: Some("https://lh3.googleusercontent.com/a/ada=s96-c".to_owned()),
    };
    assert_eq!(identity, expected);

    let request = receiver.next_request().await;
    assert_eq!((request.method.as_str(), request.path.as_str()), ("POST", "/token"));
    assert_eq!(request.header("content-type"), "application/x-www-form-urlencoded");
    let form: Vec<(String, String)> = url::form_urlencoded::parse(&request.body).into_owned().collect();
    let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    let expected = [
        pair("grant_type", "authorization_code"),
        pair("client_id", CLIENT),
        pair("client_secret", "GOCSPX-s&cret="),
        pair("code", "4/0A&b=c"),
        pair("redirect_uri", "https://app.acme.dev/in?a=1"),
        pair("code_verifier", verifier),
    ];
    assert_eq!(form, expected);
    assert_eq!(receiver.next_request().await.method.as_str(), "GET");

    google.sign_in(Grant::new("4/next"), NOW).await.unwrap();
    let form = String::from_utf8(receiver.next_request().await.body.to_vec()).unwrap();
    assert!(form.ends_with("&redirect_uri=https%3A%2F%2Fapp.acme.dev%2Fconfigured"), "{form}");
}

#[tokio::test]
async fn what_google_may_say_otherwise_is_understood() {
    for (name, value) in [
        ("iss", json!("accounts.google.com")),
        ("email_verified", json!("true")),
        ("exp", json!(NOW.as_secs() + 1)),
        ("hd", json!("acme.dev")),
        ("azp", json!(null)),
        ("iat", json!(NOW.as_secs() + 300)),
        ("iat", json!(NOW.as_secs() - 3600)),
        ("nbf", json!(NOW.as_secs() - 300)),
        ("nbf", json!(NOW.as_secs() + 300)),
    ] {
        let identity = sign_in_with(rs256(SIGNING_KEY, &header(), &claims_with(name, value))).await.unwrap();
        assert_eq!(identity.email, "ada@acme.dev", "{name}");
    }
    for (name, value) in [
        ("name", json!(null)),
        ("name", json!("")),
        ("name", json!("\u{0}\n")),
        ("picture", json!(null)),
        ("picture", json!("javascript:alert(1)")),
        ("picture", json!("http://example.com/a.png")),
    ] {
        let identity = sign_in_with(rs256(SIGNING_KEY, &header(), &claims_with(name, value))).await.unwrap();
        assert!(if name == "name" { identity.name.is_none() } else { identity.picture.is_none() }, "{identity:?}");
    }
}

#[tokio::test]
async fn claims_that_prove_nothing_are_rejected() {
    for (name, value) in [
        ("aud", json!("another.apps.googleusercontent.com")),
        ("aud", json!([CLIENT, "another.apps.googleusercontent.com"])),
        ("aud", json!(null)),
        ("iss", json!("https://accounts.google.com.evil.example")),
        ("iss", json!("https://accounts.google.com/")),
        ("iss", json!(null)),
        ("exp", json!(NOW.as_secs())),
        ("exp", json!(0)),
        ("exp", json!(i64::MIN)),
        ("exp", json!("99999999999")),
        ("exp", json!(null)),
        ("azp", json!("another.apps.googleusercontent.com")),
        ("azp", json!("")),
        ("azp", json!([CLIENT])),
        ("iat", json!(NOW.as_secs() + 301)),
        ("iat", json!(NOW.as_secs() - 3901)),
        ("iat", json!(0)),
        ("iat", json!(i64::MIN)),
        ("iat", json!(i64::MAX)),
        ("iat", json!("1")),
        ("iat", json!(null)),
        ("nbf", json!(NOW.as_secs() + 301)),
        ("nbf", json!(i64::MAX)),
        ("nbf", json!("now")),
        ("sub", json!("")),
        ("sub", json!("a b")),
        ("sub", json!(null)),
        ("email", json!(null)),
        ("email", json!("")),
        ("email", json!("not an address")),
        ("email", json!("a@b.dev\r\nBcc: c@d.dev")),
        ("email_verified", json!(false)),
        ("email_verified", json!("false")),
        ("email_verified", json!("yes")),
        ("email_verified", json!(1)),
        ("email_verified", json!(null)),
    ] {
        let token = rs256(SIGNING_KEY, &header(), &claims_with(name, value.clone()));
        let result = sign_in_with(token).await;
        assert!(is_rejected(&result), "{name} = {value}: {result:?}");
    }
}

#[tokio::test]
async fn only_an_rs256_signature_by_googles_key_counts() {
    let with = |name: &str, value: &str| {
        let mut header = header();
        header[name] = json!(value);
        header
    };
    let unsigned = |header: &Value| format!("{}.", signed_text(header, &claims()));
    let public = rsa::PublicKeyComponents::<Vec<u8>>::from(key_pair(SIGNING_KEY).public());
    let hs256 = |secret: &[u8]| {
        let text = signed_text(&with("alg", "HS256"), &claims());
        let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret), text.as_bytes());
        format!("{text}.{}", part(tag))
    };
    let good = good();
    let (text, signature) = good.rsplit_once('.').unwrap();
    let other_claims = signed_text(&header(), &claims_with("sub", json!("1")));
    let mut without_kid = header();
    without_kid.as_object_mut().unwrap().remove("kid");
    for (what, token) in [
        ("alg none", unsigned(&with("alg", "none"))),
        ("alg NONE", unsigned(&with("alg", "NONE"))),
        ("no signature", unsigned(&header())),
        ("no signature part", text.to_owned()),
        ("HS256 with the modulus", hs256(&public.n)),
        ("HS256 with the modulus as text", hs256(part(&public.n).as_bytes())),
        ("HS256 with the whole public key", hs256(key_pair(SIGNING_KEY).public().as_ref())),
        ("RS512 in the header", rs256(SIGNING_KEY, &with("alg", "RS512"), &claims())),
        ("PS256 in the header", rs256(SIGNING_KEY, &with("alg", "PS256"), &claims())),
        ("another key", rs256(OTHER_KEY, &header(), &claims())),
        ("an unknown kid", rs256(SIGNING_KEY, &with("kid", "two"), &claims())),
        ("no kid", rs256(SIGNING_KEY, &without_kid, &claims())),
        ("other claims under the signature", format!("{other_claims}.{signature}")),
        ("a cut signature", good[..good.len() - 4].to_owned()),
        ("a fourth part", format!("{good}.x")),
        ("garbage", "garbage".to_owned()),
        ("nothing", String::new()),
    ] {
        let result = sign_in_with(token).await;
        assert!(is_rejected(&result), "{what}: {result:?}");
    }
    sign_in_with(good).await.unwrap();
}

#[tokio::test]
async fn a_refusal_is_distinguished_from_an_outage() {
    let refusal = |status| {
        Reply::status(status).body(r#"{"error": "invalid_grant", "error_description": "Malformed auth code."}"#)
    };
    let oversize = json!({"id_token": good(), "x": "x".repeat(70_000)});
    for (what, reply, rejected) in [
        ("400", refusal(400), true),
        ("401", refusal(401), true),
        ("403 without words", Reply::status(403).body("<html>no</html>"), true),
        ("no id token", reply(&json!({"access_token": "ya29.secret"})), true),
        ("500", refusal(500), false),
        ("503", Reply::status(503), false),
        ("a redirect", Reply::redirect(302, "https://example.com/"), false),
        ("204", Reply::status(204), false),
        ("garbage", Reply::status(200).body("<html>ok</html>"), false),
        ("an id token of another type", reply(&json!({"id_token": 5})), false),
        ("too long", reply(&oversize), false),
        ("cut off", Reply::close_in_body(), false),
        ("closed", Reply::close_before_headers(), false),
    ] {
        let answer = reply.clone();
        let (google, receiver) = google(move |_| answer.clone()).await;
        let result = google.sign_in(Grant::new("4/code"), NOW).await;
        assert!(if rejected { is_rejected(&result) } else { is_unreachable(&result) }, "{what}: {result:?}");
        assert_eq!(receiver.requests().len(), 1, "{what}");
    }
    let (google, _receiver) = google(move |_| refusal(400)).await;
    let error = google.sign_in(Grant::new("4/code"), NOW).await.unwrap_err();
    assert_eq!(error, GoogleError::Rejected("invalid_grant".to_owned()));
}

#[tokio::test]
async fn keys_that_do_not_come_are_an_outage() {
    let token = good();
    let text = |text: &'static str| Reply::status(200).body(text);
    for keys in [
        Reply::status(404),
        Reply::status(500),
        Reply::redirect(301, "https://example.com/"),
        Reply::close_before_headers(),
        Reply::endless(),
        text("<html>"),
        text("{}"),
        text(r#"{"keys": []}"#),
        text(r#"{"keys": [{"kty": "EC", "kid": "one", "crv": "P-256", "x": "AA", "y": "AA"}]}"#),
        text(r#"{"keys": [{"kty": "oct", "kid": "one", "k": "AAAA"}]}"#),
        text(r#"{"keys": [{"kty": "RSA", "kid": "one", "n": "*", "e": "AQAB"}]}"#),
        reply(&json!({"keys": [{"kty": "RSA", "kid": "one", "use": "enc", "n": jwk("one")["n"], "e": "AQAB"}]})),
    ] {
        let (token, told) = (token.clone(), format!("{keys:?}"));
        let script = move |request: &Received| match request.path.as_str() {
            "/token" => token_reply(&token),
            _ => keys.clone(),
        };
        let result = google(script).await.0.sign_in(Grant::new("4/code"), NOW).await;
        assert!(is_unreachable(&result), "{told}: {result:?}");
    }
}

#[tokio::test]
async fn a_peer_that_hangs_costs_ten_seconds_in_all() {
    let token = good();
    let slow_keys = move |request: &Received| match request.path.as_str() {
        "/token" => token_reply(&token).after(Duration::from_secs(3)),
        _ => Reply::hang(),
    };
    let (slow, _first) = google(slow_keys).await;
    let (silent, _second) = google(|_| Reply::hang()).await;
    let started = Instant::now();
    let (one, two) = tokio::join!(slow.sign_in(Grant::new("4/code"), NOW), silent.sign_in(Grant::new("4/code"), NOW));
    assert!(is_unreachable(&one) && is_unreachable(&two), "{one:?} {two:?}");
    assert!(started.elapsed() >= Duration::from_secs(10) && started.elapsed() < Duration::from_secs(12));
}

#[tokio::test]
async fn keys_are_kept_for_as_long_as_their_answer_says_between_a_minute_and_a_day() {
    let hour = 60 * MINUTE;
    for (cache_control, age, life) in [
        ("public, max-age=3600, must-revalidate", "0", hour),
        ("max-age=\"3600\"", "600", hour - 10 * MINUTE),
        ("no-store", "0", MINUTE),
        ("max-age=1", "0", MINUTE),
        ("max-age=3600", "99999", MINUTE),
        ("max-age=31536000", "0", 24 * hour),
    ] {
        let issued = Arc::new(AtomicI64::new(0));
        let at = Arc::clone(&issued);
        let script = move |request: &Received| match request.path.as_str() {
            "/token" => {
                let mut claims = claims_with("exp", json!(NOW.as_secs() + 1_000_000));
                claims["iat"] = json!(at.load(Ordering::SeqCst));
                token_reply(&rs256(SIGNING_KEY, &header(), &claims))
            }
            _ => reply(&json!({"keys": [jwk("one")]})).header("cache-control", cache_control).header("age", age),
        };
        let (google, receiver) = google(script).await;
        let sign_in = async |now: Timestamp| {
            issued.store(now.as_secs(), Ordering::SeqCst);
            google.sign_in(Grant::new("4/code"), now).await.unwrap();
        };
        for (after, asked) in [(Duration::ZERO, 1), (life - Duration::from_millis(1), 1), (life, 2)] {
            sign_in(NOW.plus(after)).await;
            assert_eq!(asked_for_keys(&receiver), asked, "{cache_control} after {after:?}");
        }
        // A clock that was set back by more than a moment makes no key live longer.
        sign_in(NOW.minus(hour)).await;
        assert_eq!(asked_for_keys(&receiver), 3);
    }
}

#[tokio::test]
async fn an_unknown_key_is_looked_for_once_and_made_up_ones_do_not_hammer_google() {
    let rounds = Arc::new(AtomicUsize::new(0));
    let (counted, token) = (Arc::clone(&rounds), good());
    let forged = rs256(OTHER_KEY, &json!({"alg": "RS256", "kid": "made up"}), &claims());
    let rotated = rs256(SIGNING_KEY, &json!({"alg": "RS256", "kid": "two"}), &claims());
    let script = move |request: &Received| {
        if request.path == "/certs" {
            // Google rotates between the second and the third look.
            let round = counted.fetch_add(1, Ordering::SeqCst);
            return key_set(if round < 2 { &["one"] } else { &["one", "two"] });
        }
        let form = String::from_utf8_lossy(&request.body).into_owned();
        token_reply(if form.contains("forged") {
            &forged
        } else if form.contains("rotated") {
            &rotated
        } else {
            &token
        })
    };
    let (google, _receiver) = google(script).await;
    let asked = || rounds.load(Ordering::SeqCst);
    google.sign_in(Grant::new("good"), NOW).await.unwrap();
    for _ in 0..20 {
        assert!(is_rejected(&google.sign_in(Grant::new("forged"), NOW.plus(MINUTE / 2)).await));
    }
    assert_eq!(asked(), 1, "they were asked for a moment ago");
    let later = NOW.plus(2 * MINUTE);
    let all = futures_util::future::join_all((0..20).map(|_| google.sign_in(Grant::new("forged"), later))).await;
    assert!(all.iter().all(is_rejected));
    assert_eq!(asked(), 2, "once a minute");
    assert!(is_rejected(&google.sign_in(Grant::new("rotated"), later).await));
    google.sign_in(Grant::new("good"), later).await.unwrap();
    assert_eq!(asked(), 2);
    google.sign_in(Grant::new("rotated"), later.plus(MINUTE)).await.unwrap();
    assert_eq!(asked(), 3);
}

#[tokio::test]
async fn sign_ins_at_the_same_time_ask_for_the_keys_once() {
    let token = good();
    let script = move |request: &Received| match request.path.as_str() {
        "/token" => token_reply(&token),
        _ => key_set(&["one"]).after(Duration::from_millis(50)),
    };
    let (google, receiver) = google(script).await;
    let at = |millis| NOW.minus(Duration::from_millis(millis));
    let all =
        futures_util::future::join_all((0..20).map(|number| google.sign_in(Grant::new("4/code"), at(number)))).await;
    assert!(all.iter().all(Result::is_ok));
    assert_eq!(asked_for_keys(&receiver), 1);
}

#[tokio::test]
async fn without_a_client_nothing_is_asked() {
    let half = config::Google { client_id: Some(CLIENT.to_owned()), ..config::Google::default() };
    for settings in [config::Google::default(), half] {
        let google = with_settings(settings);
        assert!(!google.is_configured());
        assert_eq!(google.sign_in(Grant::new("4/code"), NOW).await, Err(GoogleError::NotConfigured));
    }
    let (google, receiver) = google(|_| Reply::status(200)).await;
    assert!(google.is_configured());
    let long = "x".repeat(2049);
    for (code, redirect_uri, code_verifier) in [
        ("", None, None),
        (long.as_str(), None, None),
        ("4/code", Some(long.as_str()), None),
        ("4/code", None, Some("too-short")),
        ("4/code", None, Some("not&unreserved=but-long-enough-for-a-verifier")),
    ] {
        assert!(is_rejected(&google.sign_in(Grant { code, redirect_uri, code_verifier }, NOW).await));
    }
    assert_eq!(receiver.connections(), 0);
}
