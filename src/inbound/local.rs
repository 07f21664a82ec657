//! Local delivery: mail sent from here to a domain received here passes the same acceptance as mail from outside.

use std::net::{IpAddr, Ipv4Addr};

use super::receive::{Checks, log_received};
use super::{Inbound, ReceiveError, Recipient, RecipientRefusal};
use crate::event_bus::mail_log::{self, Line, Via};
use crate::mail::address::{ForwardPath, ReversePath};
use crate::mail::envelope::{Envelope, Peer};
use crate::mail::status_code::EnhancedStatusCode;
use crate::mail::verification::Verification;
use crate::outbound::queue::deliver::{Delivering, LocalDelivery};
use crate::outbound::{DeliveryRequest, Outcome};
use crate::store::blobs::pending::MailData;

impl LocalDelivery for Inbound {
    fn deliver(&self, request: DeliveryRequest, verification: Verification) -> Delivering {
        let this = self.clone();
        Box::pin(async move { this.take(request, verification).await })
    }
}

impl Inbound {
    async fn take(&self, request: DeliveryRequest, verification: Verification) -> Vec<Outcome> {
        let mut outcomes = Vec::with_capacity(request.recipients.len());
        let mut recipients = Vec::new();
        for mailbox in &request.recipients {
            match self.resolve(&ForwardPath::Mailbox(mailbox.clone())).await {
                Ok(recipient) => {
                    recipients.push(recipient);
                    outcomes.push(None);
                }
                Err(refusal) => outcomes.push(Some(refused(refusal))),
            }
        }
        let taken =
            if recipients.is_empty() { None } else { Some(self.take_for(request, verification, recipients).await) };
        let taken =
            taken.unwrap_or_else(|| Outcome::without_reply(EnhancedStatusCode::TRANSIENT_SYSTEM, "not tried"));
        outcomes.into_iter().map(|outcome| outcome.unwrap_or_else(|| taken.clone())).collect()
    }

    async fn take_for(
        &self,
        request: DeliveryRequest,
        verification: Verification,
        recipients: Vec<Recipient>,
    ) -> Outcome {
        let peer = Peer {
            address: IpAddr::V4(Ipv4Addr::LOCALHOST),
            helo: self.shared.config.hostname.clone(),
            esmtp: true,
            tls: None,
        };
        let reverse_path = match request.reverse_path {
            Some(mailbox) => ReversePath::Mailbox(mailbox),
            None => ReversePath::Null,
        };
        let envelope = Envelope { reverse_path, recipients, smtputf8: true, eight_bit: true };
        let data = MailData::Memory(request.data.into());
        let to = |envelope: &Envelope<Recipient>| {
            mail_log::join(envelope.recipients.iter().map(|recipient| recipient.mailbox().to_string()))
        };
        let logged = mail_log::is_enabled().then(|| (envelope.reverse_path.to_string(), to(&envelope)));
        let size = Some(data.len());
        let received = self.receive_checked(&peer, envelope, data, Checks::Known(verification)).await;
        if let Some((from, to)) = logged {
            let line = Line { from: Some(&from), to: Some(&to), size, ..Line::of(Via::Local, &peer) };
            log_received(line, None, &received);
        }
        match received {
            Ok(accepted) => Outcome::of_own_reply(250, EnhancedStatusCode::OK, format!("Ok: {}", accepted.id)),
            Err(ReceiveError::MailLoop) => {
                Outcome::of_own_reply(554, EnhancedStatusCode::ROUTING_LOOP, "the message goes round in a loop")
            }
            Err(ReceiveError::AccountFull) => {
                Outcome::without_reply(EnhancedStatusCode::MAILBOX_FULL, "the mailbox is full")
            }
            Err(ReceiveError::NotAReport) => Outcome::of_own_reply(
                550,
                EnhancedStatusCode::NOT_AUTHORIZED,
                "only reports about forwarded mail are taken at this address",
            ),
            Err(error @ (ReceiveError::StorageFull(_) | ReceiveError::Storage(_) | ReceiveError::Busy)) => {
                Outcome::without_reply(EnhancedStatusCode::TRANSIENT_SYSTEM, error.to_string())
            }
        }
    }
}

fn refused(refusal: RecipientRefusal) -> Outcome {
    match refusal {
        RecipientRefusal::Unknown => {
            Outcome::of_own_reply(550, EnhancedStatusCode::BAD_MAILBOX, "there is no such recipient here")
        }
        // The domain was removed since the dispatch was prepared; the next attempt goes to its remote hosts.
        RecipientRefusal::RelayRefused | RecipientRefusal::DomainPending => {
            Outcome::without_reply(EnhancedStatusCode::TRANSIENT_ROUTING, "the domain is no longer received here")
        }
        RecipientRefusal::AccountFull => {
            Outcome::without_reply(EnhancedStatusCode::MAILBOX_FULL, "the mailbox is full")
        }
        RecipientRefusal::StorageFull | RecipientRefusal::Unavailable => {
            Outcome::without_reply(EnhancedStatusCode::TRANSIENT_SYSTEM, "storage is not available")
        }
    }
}
