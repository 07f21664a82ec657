//! The extensions that a host offers, and a delivery request adapted to them.

use std::borrow::Cow;

use super::Reply;
use crate::mail::address::Mailbox;
use crate::mail::mime;
use crate::mail::status_code::EnhancedStatusCode;
use crate::outbound::{DeliveryRequest, Outcome};

/// Service extensions in the reply to EHLO (RFC 5321 §4.1.1.1).
#[derive(Clone, Debug, Default)]
pub(super) struct Extensions {
    pub(super) pipelining: bool,
    pub(super) eight_bit: bool,
    pub(super) smtputf8: bool,
    pub(super) starttls: bool,
    /// `Some(0)`: no fixed limit (RFC 1870 §4).
    pub(super) size: Option<u64>,
    pub(super) auth: Vec<String>,
}

impl Extensions {
    pub(super) fn from_ehlo(reply: &Reply) -> Self {
        let mut extensions = Self::default();
        for line in reply.lines.iter().skip(1) {
            let mut words = line.split_ascii_whitespace();
            let keyword = words.next().unwrap_or_default().to_ascii_uppercase();
            match keyword.as_str() {
                "PIPELINING" => extensions.pipelining = true,
                "8BITMIME" => extensions.eight_bit = true,
                "SMTPUTF8" => extensions.smtputf8 = true,
                "STARTTLS" => extensions.starttls = true,
                "SIZE" => extensions.size = Some(words.next().and_then(|size| size.parse().ok()).unwrap_or(0)),
                "AUTH" => extensions.auth = words.map(str::to_owned).collect(),
                _ => {}
            }
        }
        extensions
    }

    /// Bounces recipients with an international address if the host does not offer SMTPUTF8, or all of them if the
    /// sender has one (RFC 6531 §3.2).
    pub(super) fn refuse_international(
        &self,
        request: &DeliveryRequest,
        recipients: &[Mailbox],
        outcomes: &mut [Option<Outcome>],
    ) {
        let from_international = request.reverse_path.as_ref().is_some_and(is_international);
        for (recipient, outcome) in recipients.iter().zip(outcomes).filter(|_| !self.smtputf8) {
            if from_international || is_international(recipient) {
                let text = "the remote host takes no international addresses";
                *outcome = Some(Outcome::without_reply(EnhancedStatusCode::NON_ASCII_ADDRESS, text));
            }
        }
    }

    /// Returns the request as the host accepts it: with an ASCII header if it does not offer SMTPUTF8, recoded if it
    /// does not offer 8BITMIME (RFC 6152 §3).
    ///
    /// # Errors
    /// The outcome of all recipients if the message cannot be adapted, or is larger than SIZE allows (RFC 1870 §6).
    pub(super) async fn adapt<'r>(&self, request: &'r DeliveryRequest) -> Result<Cow<'r, DeliveryRequest>, Outcome> {
        let refuse = |status, text: &str| Err(Outcome::without_reply(status, text));
        let mut request = Cow::Borrowed(request);
        if !self.smtputf8
            && let Some(form) = &request.ascii
        {
            // RFC 6857 is for mail that was delivered; sent mail keeps its author (RFC 5322 §3.6.2), since DMARC
            // judges the author's domain.
            if mime::has_international_author(&request.data) {
                return refuse(
                    EnhancedStatusCode::NON_ASCII_ADDRESS,
                    "the remote host takes no international addresses, and the author has one",
                );
            }
            if let Some(data) = form.of(&request.data).await {
                request.to_mut().data = data;
            }
        }
        if !self.eight_bit && !request.data.is_ascii() {
            let data = request.data.clone();
            // Off the runtime: a message may be 25 MiB.
            let recoded = tokio::task::spawn_blocking(move || mime::to_seven_bit(&data)).await;
            let Ok(Some(recoded)) = recoded else {
                return refuse(
                    EnhancedStatusCode::CONVERSION_NOT_SUPPORTED,
                    "the remote host takes no 8-bit mail, and this cannot be written in 7 bits",
                );
            };
            request.to_mut().data = recoded.into();
        }
        if self.size.is_some_and(|limit| limit > 0 && request.data.len() as u64 > limit) {
            return refuse(EnhancedStatusCode::MESSAGE_TOO_BIG, "the message is larger than the remote host takes");
        }
        Ok(request)
    }
}

/// True if the local part has characters beyond ASCII (RFC 6531 §3.3); domains are stored as A-labels.
pub(super) fn is_international(mailbox: &Mailbox) -> bool {
    !mailbox.local().is_ascii()
}
