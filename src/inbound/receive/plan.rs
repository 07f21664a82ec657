//! The rows that a message becomes: the fields that all recipients share, and a plan for each of them.

use std::sync::Arc;

use crate::inbound::recipients::AccountRecipient;
use crate::inbound::route::Route;
use crate::inbound::verify::{Verdicts, Verification};
use crate::mail::mime::{self, Mail, Part};
use crate::store::messages::SpamVerdict;
use crate::store::webhooks::routes::Action;

/// Rows planned for one recipient's message.
pub(super) struct RecipientPlan {
    pub(super) recipient: AccountRecipient,
    pub(super) fingerprint: i64,
    pub(super) routes: Vec<Arc<Route>>,
    /// Number of routes that make a delivery or a dispatch.
    pub(super) runs: usize,
    pub(super) to_name: Option<String>,
    pub(super) trace: String,
    /// The id in our own Received field.
    pub(super) own_id: String,
}

impl RecipientPlan {
    pub(super) fn is_dropped(&self) -> bool {
        self.routes.iter().any(|route| route.row.action == Action::Drop)
    }

    /// Returns the public id of the route that drops the mail.
    pub(super) fn drop_route(&self) -> Option<String> {
        let route = self.routes.iter().find(|route| route.row.action == Action::Drop);
        route.map(|route| route.row.public_id.to_string())
    }

    /// Returns the oldest matching webhook, else the oldest matching route (contract 5.2).
    pub(super) fn route_id(&self) -> Option<String> {
        let webhook = self.routes.iter().find(|route| route.row.action == Action::Webhook);
        webhook.or_else(|| self.routes.first()).map(|route| route.row.public_id.to_string())
    }
}

/// Fields common to the messages of all recipients.
pub(super) struct MessageFields {
    pub(super) mail_from: String,
    pub(super) from_addr: String,
    pub(super) from_name: Option<String>,
    pub(super) subject: Option<String>,
    pub(super) message_id_header: Option<String>,
    pub(super) thread_id: Option<String>,
    pub(super) verdicts: Verdicts,
    pub(super) verification: Verification,
    /// Domain of the author whom every reader finds in From.
    pub(super) author: Option<String>,
    /// True if every reader finds the same fields.
    pub(super) plain_header: bool,
    /// True without Date and Message-ID, so that the same bytes may be another message.
    pub(super) undated: bool,
    pub(super) spam: Option<SpamVerdict>,
    pub(super) truncated: bool,
    pub(super) size: u64,
    pub(super) parts: Vec<Part>,
    pub(super) received_count: usize,
    /// Ids of routes that forwarded it already.
    pub(super) forwarded_by: Vec<String>,
    /// Number of copies that forwarding may still make; `None` is unlimited.
    pub(super) copies: Option<u64>,
}

impl MessageFields {
    /// Returns the fields that the rows need, and the names given in the To field.
    pub(super) fn new(
        mail: Mail,
        mail_from: String,
        hostname: &str,
        verification: Verification,
        spam: Option<SpamVerdict>,
        size: u64,
        (forwarded_by, copies): (Vec<String>, Option<u64>),
    ) -> (Self, Vec<mime::NamedAddress>) {
        let from_addr = mail.sender_address(&mail_from, hostname);
        let author = mail.author_domain().map(str::to_owned);
        let fields = Self {
            from_name: mime::display_name(&mail.header_from, &from_addr).map(str::to_owned),
            from_addr,
            mail_from,
            thread_id: mail.thread_id().map(str::to_owned),
            subject: mail.subject,
            message_id_header: mail.message_id,
            verdicts: verification.verdicts,
            verification,
            author,
            plain_header: false,
            undated: false,
            spam,
            truncated: mail.truncated,
            size,
            parts: mail.attachments,
            received_count: mail.received_count,
            forwarded_by,
            copies,
        };
        (fields, mail.header_to)
    }
}

/// True if the header ends where every reader sees it end, and has one From field: mail forwarded with our name in the
/// envelope must not show another author than the verified one.
pub(super) fn is_plain_header(bytes: &[u8], mail: &Mail) -> bool {
    let end = memchr::memmem::find(bytes, b"\r\n\r\n").map_or(bytes.len(), |end| end + 4);
    let is_read_alike = !mail.header_truncated && !mail.has_stray_lines && mail.body_offset == end;
    is_read_alike && mail.from_fields == 1 && !mail.header_from.is_empty()
}

/// True if nothing in the header distinguishes the message from another one with the same text.
pub(super) fn is_undated(bytes: &[u8]) -> bool {
    let lacks = |name| mime::field_values(bytes, name).iter().all(String::is_empty);
    lacks("Date") && lacks("Message-ID")
}
