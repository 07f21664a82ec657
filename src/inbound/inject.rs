//! Accepts a message that the API injects into one route as if it had arrived by mail (contract 4.5).

use std::net::{IpAddr, Ipv4Addr};

use mail_builder::MessageBuilder;
use mail_builder::headers::address::Address;

use super::Inbound;
use super::receive::{AcceptedMessage, Checks, ReceiveError};
use super::recipients::{AccountRecipient, Recipient};
use crate::clock::Timestamp;
use crate::id::{DomainRowId, random_base62};
use crate::mail::address::{Mailbox, ReversePath};
use crate::mail::envelope::{Envelope, Peer};
use crate::outbound::submit::sender::Sender;
use crate::store::blobs::pending::MailData;
use crate::store::webhooks::routes::RouteRow;

/// Parts of an injected message.
#[derive(Clone, Debug)]
pub(crate) struct Injection {
    /// Sender, in the envelope and in the header.
    pub(crate) from: Mailbox,
    /// Display name of the sender.
    pub(crate) from_name: Option<String>,
    /// The recipient.
    pub(crate) to: Mailbox,
    pub(crate) subject: Option<String>,
    /// Plain text body.
    pub(crate) text: Option<String>,
    /// HTML body.
    pub(crate) html: Option<String>,
}

impl Inbound {
    /// Accepts the message for this one route; `domain` is the recipient's. The message is signed for its sender, as a
    /// forward route needs it; nothing of its sender is verified.
    ///
    /// # Errors
    /// Nothing was stored.
    pub(crate) async fn inject(
        &self,
        injection: Injection,
        sender: Option<Sender>,
        route: RouteRow,
        domain: DomainRowId,
    ) -> Result<AcceptedMessage, ReceiveError> {
        if self.is_full() {
            return Err(ReceiveError::StorageFull("the disk was found full".to_owned()));
        }
        let mut data = injection.compose(&self.shared.config.hostname, self.shared.clock.now())?;
        let checks = Checks::Injected { from_is_own: sender.is_some() };
        if let Some(sender) = sender {
            let signed = tokio::task::spawn_blocking(move || {
                let signature = sender.keys.sign(&data).map_err(ReceiveError::storage)?;
                data.splice(..0, signature.into_bytes());
                Ok::<_, ReceiveError>(data)
            });
            data = signed.await.map_err(ReceiveError::storage)??;
        }
        let peer = Peer {
            address: IpAddr::V4(Ipv4Addr::LOCALHOST),
            helo: self.shared.config.hostname.clone(),
            esmtp: true,
            tls: None,
        };
        let plain = AccountRecipient::without_routes(injection.to, route.account_id, Some(domain));
        let routes = self.shared.directory.matching_of(vec![route], &plain.mailbox.canonical_for_routes()).await;
        let recipient = AccountRecipient { routes: routes.map_err(ReceiveError::storage)?, ..plain };
        let envelope = Envelope {
            reverse_path: ReversePath::Mailbox(injection.from),
            recipients: vec![Recipient::Account(recipient)],
            smtputf8: true,
            eight_bit: true,
        };
        self.receive_checked(&peer, envelope, MailData::Memory(data), checks).await
    }
}

impl Injection {
    fn compose(&self, hostname: &str, now: Timestamp) -> Result<Vec<u8>, ReceiveError> {
        let from = Address::new_address(self.from_name.clone(), self.from.to_string());
        let mut message = MessageBuilder::new()
            .from(from)
            .to(self.to.to_string())
            .message_id(format!("{}@{hostname}", random_base62(22)))
            .date(now.as_secs());
        if let Some(subject) = &self.subject {
            message = message.subject(subject.as_str());
        }
        if let Some(text) = &self.text {
            message = message.text_body(text.as_str());
        }
        if let Some(html) = &self.html {
            message = message.html_body(html.as_str());
        }
        if self.text.is_none() && self.html.is_none() {
            message = message.text_body("");
        }
        // Fails only if writing to memory fails.
        message.write_to_vec().map_err(ReceiveError::storage)
    }
}
