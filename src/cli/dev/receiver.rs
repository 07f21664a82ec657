//! The built-in webhook receiver: verifies both signatures with code of its own and answers 200, or 401.

use data_encoding::HEXLOWER;
use std::convert::Infallible;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper::{HeaderMap, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use moka::policy::EvictionPolicy;
use moka::sync::Cache;
use ring::hmac;
use tokio::net::TcpListener;

use crate::clock::Clock;
use crate::http::local::OwnNames;

/// Larger payloads are refused.
const MAX_BODY: usize = 256 * 1024 * 1024;
/// Deliveries remembered for the screen.
const REMEMBERED: u64 = 64;

/// The signatures of a delivery and the result of verifying them.
#[derive(Clone, Debug)]
pub(crate) struct Received {
    /// `x-mailkite-signature`.
    pub(crate) signature: String,
    /// `webhook-signature`.
    pub(crate) standard_signature: String,
    /// True if both signatures are valid.
    pub(crate) genuine: bool,
}

/// The receiver; clones share its memory.
#[derive(Clone, Debug)]
pub(crate) struct Receiver {
    /// By event id.
    seen: Cache<String, Received>,
}

impl Receiver {
    /// Answers on `listener` for as long as the process runs.
    pub(crate) fn start(listener: TcpListener, secret: String) -> Self {
        // A new delivery always displaces an old one: the screen asks for it next.
        let seen = Cache::builder().max_capacity(REMEMBERED).eviction_policy(EvictionPolicy::lru()).build();
        let receiver = Self { seen };
        let (this, secret) = (receiver.clone(), Arc::new(secret));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (this, secret) = (this.clone(), Arc::clone(&secret));
                let service = service_fn(move |request| {
                    let (this, secret) = (this.clone(), Arc::clone(&secret));
                    async move { Ok::<_, Infallible>(this.answer(request, &secret).await) }
                });
                let connection =
                    hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service);
                tokio::spawn(async move { drop(connection.await) });
            }
        });
        receiver
    }

    /// Returns what was received of an event.
    pub(crate) fn received(&self, event_id: &str) -> Option<Received> {
        self.seen.get(event_id)
    }

    async fn answer(&self, request: Request<Incoming>, secret: &str) -> Response<Full<Bytes>> {
        // A page in a browser on this machine is not a server that posts webhooks.
        if OwnNames::new("http://localhost", "localhost").admit(&request, false).is_err() {
            return reply(StatusCode::FORBIDDEN, "this receiver is for mailkite dev");
        }
        let headers = request.headers().clone();
        let body = Limited::new(request.into_body(), MAX_BODY).collect().await;
        let Ok(body) = body.map(|collected| collected.to_bytes()) else {
            return reply(StatusCode::PAYLOAD_TOO_LARGE, "too large");
        };
        let text =
            |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned();
        let received = Received {
            signature: text("x-mailkite-signature"),
            standard_signature: text("webhook-signature"),
            genuine: first_scheme(&headers, &body, secret) && second_scheme(&headers, &body, secret),
        };
        let genuine = received.genuine;
        self.seen.insert(text("webhook-id"), received);
        if genuine {
            reply(StatusCode::OK, "{\"status\":\"ok\"}")
        } else {
            reply(StatusCode::UNAUTHORIZED, "bad signature")
        }
    }
}

fn reply(status: StatusCode, text: &'static str) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from_static(text.as_bytes())));
    *response.status_mut() = status;
    response
}

/// Checks that a signature's time is near enough to be no replay (contract 9.3).
fn is_recent(millis: i64) -> bool {
    Clock::System.now().as_millis().abs_diff(millis) <= 300_000
}

fn value<'h>(headers: &'h HeaderMap, name: &str) -> &'h str {
    headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
}

fn verify_hmac(key: &[u8], parts: [&[u8]; 3], tag: &[u8]) -> bool {
    let message = parts.concat();
    hmac::verify(&hmac::Key::new(hmac::HMAC_SHA256, key), &message, tag).is_ok()
}

/// Verifies `x-mailkite-signature: t=…,v1=…` over `t.body`, keyed with the whole secret.
fn first_scheme(headers: &HeaderMap, body: &[u8], secret: &str) -> bool {
    let header = value(headers, "x-mailkite-signature");
    let Some((time, tag)) = header.strip_prefix("t=").and_then(|rest| rest.split_once(",v1=")) else { return false };
    let tag = HEXLOWER.decode(tag.as_bytes()).unwrap_or_default();
    time.parse().is_ok_and(is_recent) && verify_hmac(secret.as_bytes(), [time.as_bytes(), b".", body], &tag)
}

/// Verifies `webhook-signature: v1,…` over `id.seconds.body`, keyed with the decoded secret.
fn second_scheme(headers: &HeaderMap, body: &[u8], secret: &str) -> bool {
    let key = secret.strip_prefix("whsec_").and_then(|text| BASE64.decode(text).ok()).unwrap_or_default();
    let time = value(headers, "webhook-timestamp");
    let head = format!("{}.{time}", value(headers, "webhook-id"));
    let in_time = time.parse::<i64>().is_ok_and(|seconds| is_recent(seconds.saturating_mul(1_000)));
    in_time
        && value(headers, "webhook-signature").split(' ').any(|part| {
            let tag = part.strip_prefix("v1,").and_then(|text| BASE64.decode(text).ok()).unwrap_or_default();
            verify_hmac(&key, [head.as_bytes(), b".", body], &tag)
        })
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests may panic")]

    use super::*;
    use data_encoding::HEXLOWER;

    const SECRET: &str = "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";

    fn tag(key: &[u8], message: &str) -> Vec<u8> {
        hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), message.as_bytes()).as_ref().to_vec()
    }

    fn headers(millis: i64, body: &str) -> HeaderMap {
        let seconds = millis / 1_000;
        let key: Vec<u8> = (0..32).collect();
        let first = HEXLOWER.encode(&tag(SECRET.as_bytes(), &format!("{millis}.{body}")));
        let second = BASE64.encode(tag(&key, &format!("evt_1.{seconds}.{body}")));
        let mut headers = HeaderMap::new();
        headers.insert("x-mailkite-signature", format!("t={millis},v1={first}").parse().unwrap());
        headers.insert("webhook-id", "evt_1".parse().unwrap());
        headers.insert("webhook-timestamp", seconds.to_string().parse().unwrap());
        headers.insert("webhook-signature", format!("v1,b2xk v1,{second}").parse().unwrap());
        headers
    }

    #[test]
    fn both_schemes_hold_for_this_body_this_secret_and_this_time_alone() {
        let now = Clock::System.now().as_millis();
        let genuine = headers(now, "{}");
        let verdicts = |headers: &HeaderMap, body: &[u8], secret: &str| {
            (first_scheme(headers, body, secret), second_scheme(headers, body, secret))
        };
        assert_eq!(verdicts(&genuine, b"{}", SECRET), (true, true));
        assert_eq!(verdicts(&genuine, b"{ }", SECRET), (false, false));
        assert_eq!(verdicts(&genuine, b"{}", "whsec_AAEC"), (false, false));
        assert_eq!(verdicts(&headers(now - 400_000, "{}"), b"{}", SECRET), (false, false));
        assert_eq!(verdicts(&HeaderMap::new(), b"{}", SECRET), (false, false));
    }
}
