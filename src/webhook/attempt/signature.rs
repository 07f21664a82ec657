//! Both signature schemes of a webhook request (contract 9.3).
//!
//! Pure. `x-mailkite-signature` is keyed with the whole secret string and carries milliseconds; `webhook-signature`
//! is the Standard Webhooks scheme, keyed with the decoded secret. Runs once per attempt, so every attempt has a new
//! signature.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use ring::hmac;

use crate::clock::Timestamp;
use data_encoding::HEXLOWER;

/// The secrets that currently sign for an endpoint.
#[derive(Clone, Copy)]
pub(crate) struct SigningSecrets<'a> {
    /// The current secret, including `whsec_`.
    pub(crate) current: &'a str,
    /// Its direct predecessor, during the 24 h after a rotation.
    pub(crate) previous: Option<&'a str>,
}

/// The values of the four headers that sign a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SignatureHeaders {
    /// `x-mailkite-signature`: `t=<ms>,v1=<hex>`.
    pub(crate) signature: String,
    /// `webhook-id`: the event's id.
    pub(crate) webhook_id: String,
    /// `webhook-timestamp`: whole seconds.
    pub(crate) webhook_timestamp: String,
    /// `webhook-signature`: `v1,<base64>`; during a rotation, two of them separated by a space.
    pub(crate) webhook_signature: String,
}

/// Signs the body given as `pieces` for attempt number `attempt` (from 1) at the time `now`.
///
/// During a rotation `webhook-signature` holds both signatures, the current secret's first. Verifiers of
/// `x-mailkite-signature` read a single `v1`, so odd attempts carry the signature of the current secret and even ones
/// that of the previous secret.
pub(crate) fn sign(
    secrets: &SigningSecrets<'_>,
    event_id: &str,
    attempt: u32,
    now: Timestamp,
    pieces: impl IntoIterator<Item: AsRef<[u8]>>,
) -> SignatureHeaders {
    let millis = now.as_millis().to_string();
    let seconds = now.as_secs().to_string();
    let single = secrets.previous.filter(|_| attempt.is_multiple_of(2)).unwrap_or(secrets.current);
    let begun = |secret: &str| hmac_sha256(&decoded(secret), &[event_id, ".", &seconds, "."]);
    let mut v1 = hmac_sha256(single.as_bytes(), &[&millis, "."]);
    let mut standard = begun(secrets.current);
    let mut previous = secrets.previous.map(begun);
    for piece in pieces {
        let piece = piece.as_ref();
        v1.update(piece);
        standard.update(piece);
        previous.iter_mut().for_each(|context| context.update(piece));
    }
    let v1 = HEXLOWER.encode(v1.sign().as_ref());
    let ended = |context: hmac::Context| format!("v1,{}", BASE64.encode(context.sign()));
    let mut webhook_signature = ended(standard);
    if let Some(previous) = previous {
        webhook_signature = format!("{webhook_signature} {}", ended(previous));
    }
    SignatureHeaders {
        signature: format!("t={millis},v1={v1}"),
        webhook_id: event_id.to_owned(),
        webhook_timestamp: seconds,
        webhook_signature,
    }
}

/// Returns the key of the second scheme: the decoded part after `whsec_`, or its raw bytes if it is not base64.
fn decoded(secret: &str) -> Vec<u8> {
    let part = secret.strip_prefix("whsec_").unwrap_or(secret);
    BASE64.decode(part).unwrap_or_else(|_| part.as_bytes().to_vec())
}

/// Starts an HMAC with the strings signed ahead of the body.
fn hmac_sha256(key: &[u8], before: &[&str]) -> hmac::Context {
    let mut context = hmac::Context::with_key(&hmac::Key::new(hmac::HMAC_SHA256, key));
    before.iter().for_each(|part| context.update(part.as_bytes()));
    context
}

#[cfg(test)]
mod tests {
    use super::*;

    const BODY: &str = r#"{"type":"email.received","id":"evt_123","message":"It works."}"#;
    const NOW: Timestamp = Timestamp::from_millis(1_750_000_000_000);
    const PLAIN: &str = "whsec_mailkite_test";
    const ENCODED: &str = "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";
    const ENCODED_B64: &str = "v1,3Gw4r8XtFbw0nRh9INhjp72C5gZFHk9XaDX7Zb6hA78=";

    fn signed(current: &str, previous: Option<&str>, attempt: u32) -> SignatureHeaders {
        sign(&SigningSecrets { current, previous }, "evt_123", attempt, NOW, [BODY])
    }

    #[test]
    fn the_vectors_of_the_contract_come_out() {
        assert_eq!(
            signed(PLAIN, None, 1).signature,
            "t=1750000000000,v1=3d790f831e170ddba4d001f27532bf2c1fc68ebed52eef72fe453dfa1196b03c"
        );
        let headers = signed(ENCODED, None, 2);
        assert_eq!(
            headers,
            SignatureHeaders {
                signature: "t=1750000000000,v1=f3c8c5254f8b54e3beeb8be09335fbc379daef6977d6d649f1713e223bf93882"
                    .to_owned(),
                webhook_id: "evt_123".to_owned(),
                webhook_timestamp: "1750000000".to_owned(),
                webhook_signature: ENCODED_B64.to_owned(),
            }
        );
    }

    #[test]
    fn the_official_client_accepts_them_and_refuses_another_body_or_secret() {
        for secret in [PLAIN, ENCODED] {
            let header = signed(secret, None, 1).signature;
            let verify = |body, secret| mailkite_sdk::verify_webhook_with_tolerance(&header, body, secret, 0);
            assert!(verify(BODY, secret));
            assert!(!verify("{}", secret));
            assert!(!verify(BODY, "whsec_other"));
        }
    }

    #[test]
    fn during_a_rotation_attempts_alternate_and_both_standard_signatures_stand_new_first() {
        let alone = |secret, attempt| signed(secret, None, attempt);
        for (attempt, signer) in [(1, ENCODED), (2, PLAIN), (3, ENCODED), (4, PLAIN)] {
            let headers = signed(ENCODED, Some(PLAIN), attempt);
            assert_eq!(headers.signature, alone(signer, attempt).signature, "attempt {attempt}");
            let old = alone(PLAIN, attempt).webhook_signature;
            assert_eq!(headers.webhook_signature, format!("{ENCODED_B64} {old}"));
        }
    }

    #[test]
    fn it_does_not_matter_in_what_pieces_a_body_comes() {
        let secrets = SigningSecrets { current: ENCODED, previous: Some(PLAIN) };
        for size in 1..BODY.len() {
            let pieces = sign(&secrets, "evt_123", 1, NOW, BODY.as_bytes().chunks(size));
            assert_eq!(pieces, signed(ENCODED, Some(PLAIN), 1), "{size}");
        }
    }

    #[test]
    fn seconds_are_rounded_down() {
        let secrets = SigningSecrets { current: PLAIN, previous: None };
        let late = sign(&secrets, "evt_1", 1, Timestamp::from_millis(1_999), [""]);
        assert_eq!(late.webhook_timestamp, "1");
        assert!(late.signature.starts_with("t=1999,v1="));
    }
}
