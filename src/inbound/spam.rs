//! Spam verdicts by rspamd, if the operator runs one: one request to its HTTP check per message.
//!
//! An rspamd that does not answer costs its timeout and yields no verdict; mail is never lost or refused because of it.

use std::time::Duration;

use hyper::HeaderMap;
use hyper::body::Bytes;
use hyper::header::{HeaderName, HeaderValue};
use serde::Deserialize;

use super::recipients::AccountRecipient;
use crate::mail::envelope::{Envelope, Peer};
use crate::net::egress::{Egress, Limits, Target};
use crate::store::messages::SpamVerdict;

const LIMITS: Limits = Limits { timeout: Duration::from_secs(10), max_answer_bytes: 1 << 20 };

/// Client of rspamd's check.
#[derive(Clone)]
pub(crate) struct SpamCheck {
    target: Target,
    egress: Egress,
}

/// The field used of rspamd's response.
#[derive(Deserialize)]
struct RspamdAnswer {
    action: String,
}

impl SpamCheck {
    /// Creates a check against the controller or worker at `target` (its `/checkv2`), through a client that may reach
    /// it.
    pub(crate) const fn new(target: Target, egress: Egress) -> Self {
        Self { target, egress }
    }

    /// Returns `None` if rspamd gave no verdict.
    pub(crate) async fn check(
        &self,
        raw: &[u8],
        peer: &Peer,
        envelope: &Envelope<AccountRecipient>,
    ) -> Option<SpamVerdict> {
        let mut headers = HeaderMap::new();
        let mut add = |name: &'static str, text: &str| {
            // A value that is not allowed in a header is left out; rspamd judges without it.
            headers.extend(HeaderValue::from_str(text).ok().map(|value| (HeaderName::from_static(name), value)));
        };
        add("ip", &peer.address.to_string());
        add("helo", &peer.helo);
        add("from", &envelope.reverse_path.to_string());
        for recipient in &envelope.recipients {
            add("rcpt", &recipient.mailbox.to_string());
        }
        let answer = match self.egress.post(&self.target, headers, Bytes::copy_from_slice(raw), LIMITS).await {
            Ok(answer) if answer.status == 200 => answer,
            Ok(answer) => {
                tracing::warn!(status = answer.status, "rspamd gave no verdict");
                return None;
            }
            Err(error) => {
                tracing::warn!(%error, "rspamd was not reached");
                return None;
            }
        };
        let verdict: RspamdAnswer = serde_json::from_slice(&answer.body).ok()?;
        Some(match verdict.action.as_str() {
            "reject" | "add header" | "rewrite subject" | "quarantine" => SpamVerdict::Spam,
            _ => SpamVerdict::Ham,
        })
    }
}
