//! The test of a webhook (contract 3.6): one signed event that is not stored.

use super::email_received::{Auth, EmailReceived, Party, Text};
use crate::clock::Timestamp;
use crate::id::{DeliveryId, MessageId};
use crate::store::webhooks::routes;
use crate::store::webhooks::routes::RouteRow;
use crate::webhook::attempt::deliver::{Webhooks, judge};
use crate::webhook::attempt::outcome::Outcome;
use crate::webhook::attempt::payload::Payload;
use crate::webhook::attempt::request;
use crate::webhook::attempt::request::RequestMeta;
use crate::webhook::attempt::signature::SigningSecrets;
use crate::webhook::manual::retry_now::{Manual, Refused};

impl Webhooks {
    /// Posts a sample `email.received` for `webhook-test@domain` to a route's URL, signed with its current secret.
    ///
    /// It is tried once and leaves no row; the instructions of a control answer are ignored.
    ///
    /// # Errors
    /// [`Refused::RouteGone`] for a route that is not a webhook, [`Refused::DeliveryFailed`] when no HTTP answer
    /// came, or a stored secret that this master key cannot decrypt.
    pub async fn test_webhook(&self, route: &RouteRow, domain: &str, now: Timestamp) -> Result<Manual, Refused> {
        let (Some(url), Some(sealed)) = (route.destination.as_deref(), route.secret_sealed.as_deref()) else {
            return Err(Refused::RouteGone);
        };
        let secret = self.unseal(routes::SECRET_PURPOSE, sealed)?;
        let id = MessageId::of_test(now);
        let payload = test_payload(&id, domain, now);
        let head = RequestMeta {
            delivery: &DeliveryId::of_test(now),
            event_id: id.as_str(),
            attempt: 1,
            secrets: SigningSecrets { current: &secret, previous: None },
        };
        let (headers, body) = request::signed(head, payload, now);
        let clock = std::time::Instant::now();
        let mode = route.ack_mode.unwrap_or_default();
        let answer = self.post(url, mode, headers, body).await.map_err(Refused::DeliveryFailed)?;
        let outcome = judge(mode, &answer, now.plus(clock.elapsed()));
        Ok(Manual { ok: matches!(outcome, Outcome::Delivered { .. }), status: answer.status })
    }
}

fn test_payload(id: &MessageId, domain: &str, now: Timestamp) -> Payload {
    let pass = Some("pass");
    let event = EmailReceived {
        id,
        from: Party { address: "hello@example.com", name: Some("mailkite test") },
        to: Party { address: &format!("webhook-test@{domain}"), name: None },
        subject: Some("A test of your webhook"),
        text: Some(Text::Whole(
            "This message was made up to test your webhook. Nobody sent it, and it is not stored.",
        )),
        html: None,
        thread_id: None,
        received_at: now,
        auth: Auth { spf: pass, dkim: pass, dmarc: pass, spam: Some("ham") },
        attachments: &[],
    };
    Payload::Whole(event.to_json().into())
}
