//! What a host says that it takes, and a parcel made to fit it.

use std::borrow::Cow;

use super::Reply;
use crate::mail::address::Mailbox;
use crate::mail::mime;
use crate::outbound::{DeliveryRequest, Outcome, Verdict};

/// What the host offers.
#[derive(Clone, Debug, Default)]
pub(super) struct Extensions {
    pub(super) pipelining: bool,
    pub(super) eight_bit: bool,
    pub(super) smtputf8: bool,
    pub(super) starttls: bool,
    pub(super) enhanced: bool,
    /// `Some(0)`: no fixed limit (RFC 1870 §4).
    pub(super) size: Option<u64>,
    pub(super) auth: Vec<String>,
}

impl Extensions {
    /// Those of the reply to EHLO.
    pub(super) fn of(reply: &Reply) -> Self {
        let mut offers = Self::default();
        for line in reply.lines.iter().skip(1) {
            let mut words = line.split_ascii_whitespace();
            let word = words.next().unwrap_or_default().to_ascii_uppercase();
            match word.as_str() {
                "PIPELINING" => offers.pipelining = true,
                "8BITMIME" => offers.eight_bit = true,
                "SMTPUTF8" => offers.smtputf8 = true,
                "STARTTLS" => offers.starttls = true,
                "ENHANCEDSTATUSCODES" => offers.enhanced = true,
                "SIZE" => offers.size = Some(words.next().and_then(|size| size.parse().ok()).unwrap_or(0)),
                "AUTH" => offers.auth = words.map(str::to_owned).collect(),
                _ => {}
            }
        }
        offers
    }

    /// Refuses for a host that takes no international addresses the recipients that have one, or all of them if the sender
    /// has (RFC 6531 §3.2).
    pub(super) fn refuse_international(
        &self,
        parcel: &DeliveryRequest,
        recipients: &[Mailbox],
        outcomes: &mut [Option<Outcome>],
    ) {
        let from_one = parcel.reverse_path.as_ref().is_some_and(is_international);
        for (recipient, outcome) in recipients.iter().zip(outcomes).filter(|_| !self.smtputf8) {
            if from_one || is_international(recipient) {
                let why = "5.6.7 the remote host takes no international addresses";
                *outcome = Some(Outcome::ours(Verdict::Bounced, why));
            }
        }
    }

    /// The parcel as the host can take it, with an ASCII header if it knows no other, recoded if it takes 7 bits alone; or why
    /// it cannot (RFC 1870 §6, RFC 6152 §3).
    pub(super) async fn adapt<'p>(&self, parcel: &'p DeliveryRequest) -> Result<Cow<'p, DeliveryRequest>, Outcome> {
        let refuse = |diagnostic: &str| Err(Outcome::ours(Verdict::Bounced, diagnostic));
        let mut parcel = Cow::Borrowed(parcel);
        if !self.smtputf8
            && let Some(form) = &parcel.ascii
        {
            // RFC 6857 is for mail that was delivered; what is sent keeps its author (RFC 5322 §3.6.2), whose domain is
            // judged.
            if mime::has_international_author(&parcel.data) {
                return refuse("5.6.7 the remote host takes no international addresses, and the author has one");
            }
            if let Some(data) = form.of(&parcel.data).await {
                parcel.to_mut().data = data;
            }
        }
        if !self.eight_bit && !parcel.data.is_ascii() {
            let data = parcel.data.clone();
            // It may be 25 MiB.
            let recoded = tokio::task::spawn_blocking(move || mime::to_seven_bit(&data)).await;
            let Ok(Some(recoded)) = recoded else {
                return refuse("5.6.3 the remote host takes no 8-bit mail, and this cannot be written in 7 bits");
            };
            parcel.to_mut().data = recoded.into();
        }
        if self.size.is_some_and(|limit| limit > 0 && parcel.data.len() as u64 > limit) {
            return refuse("5.3.4 the message is larger than the remote host takes");
        }
        Ok(parcel)
    }
}

/// Whether an address has letters beyond ASCII (RFC 6531 §3.3); domains never do.
pub(super) fn is_international(mailbox: &Mailbox) -> bool {
    !mailbox.local().is_ascii()
}
