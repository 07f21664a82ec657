//! A message as the API takes it: addresses and options first, the content once the account may send.

use std::collections::HashSet;

use super::sender::Submitter;
use super::signed::CompleteMail;
use crate::clock::Timestamp;
use crate::mail::address::Mailbox;
use crate::mail::header_value::message_ids;
use crate::mail::mailbox_list::NamedMailbox;
use crate::outbound::message::compose::{Attachment, ComposeError, Content, compose_last};

/// A message to be sent, without its content.
#[derive(Clone, Debug)]
pub(crate) struct Submission {
    pub(crate) submitter: Submitter,
    pub(crate) from: NamedMailbox,
    pub(crate) to: Vec<NamedMailbox>,
    pub(crate) cc: Vec<NamedMailbox>,
    /// Recipients that appear in no header field.
    pub(crate) bcc: Vec<NamedMailbox>,
    pub(crate) reply_to: Vec<NamedMailbox>,
    /// Message-ID it replies to, with angle brackets.
    pub(crate) in_reply_to: Option<String>,
    /// Custom header fields; a Message-ID or Date among them replaces the one that is set here.
    pub(crate) headers: Vec<(String, String)>,
    /// JSON object.
    pub(crate) metadata: Option<String>,
    /// Time of sending; `None` for now.
    pub(crate) scheduled_at: Option<Timestamp>,
}

/// The content of a submission.
#[derive(Clone, Debug)]
pub(crate) struct SubmissionContent {
    pub(crate) subject: String,
    pub(crate) html: Option<String>,
    pub(crate) text: Option<String>,
    pub(crate) attachments: Vec<Attachment>,
}

impl Submission {
    /// Creates a submission without recipients, to be sent now.
    pub(crate) const fn new(submitter: Submitter, from: NamedMailbox) -> Self {
        Self {
            submitter,
            from,
            to: Vec::new(),
            cc: Vec::new(),
            bcc: Vec::new(),
            reply_to: Vec::new(),
            in_reply_to: None,
            headers: Vec::new(),
            metadata: None,
            scheduled_at: None,
        }
    }

    /// Returns every envelope recipient once, whatever its spelling, in the order To, Cc, Bcc.
    pub(super) fn recipients(&self) -> Vec<Mailbox> {
        let mut seen = HashSet::new();
        let fields = self.to.iter().chain(&self.cc).chain(&self.bcc);
        fields.map(|one| &one.mailbox).filter(|one| seen.insert(one.canonical())).cloned().collect()
    }

    /// Composes the message; `new_message_id` is its Message-ID unless its custom headers have one.
    pub(super) fn complete(
        self,
        content: SubmissionContent,
        new_message_id: String,
        now: Timestamp,
    ) -> Result<CompleteMail, ComposeError> {
        let Self { from, to, cc, reply_to, in_reply_to, mut headers, scheduled_at, .. } = self;
        let SubmissionContent { subject, html, text, attachments } = content;
        let own_id = headers.extract_if(.., |(name, _)| name.eq_ignore_ascii_case("Message-ID")).last();
        let message_id = own_id.map_or(new_message_id, |(_, message_id)| message_id);
        let date = scheduled_at.unwrap_or(now);
        let has_attachments = !attachments.is_empty();
        let mut content = Content {
            from,
            to,
            cc,
            reply_to,
            subject,
            text,
            html,
            in_reply_to,
            headers,
            attachments,
            message_id: message_id.clone(),
            date,
        };
        let data = compose_last(&mut content)?;
        let shown = |one: NamedMailbox| (one.mailbox.to_string(), one.name);
        let in_reply_to = content.headers.iter().rfind(|(name, _)| name.eq_ignore_ascii_case("In-Reply-To"));
        let in_reply_to = in_reply_to.map(|(_, value)| value.clone()).or(content.in_reply_to);
        let thread_id = in_reply_to.and_then(|ids| message_ids(&ids).ok()?.into_iter().next());
        Ok(CompleteMail {
            data,
            from_addr: content.from.mailbox.to_string(),
            from_name: content.from.name,
            header_to: content.to.into_iter().chain(content.cc).map(shown).collect(),
            subject: Some(content.subject),
            thread_id: thread_id.or_else(|| Some(message_id.clone())),
            message_id_header: Some(message_id),
            has_attachments,
        })
    }
}
