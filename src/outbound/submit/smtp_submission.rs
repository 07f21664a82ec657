//! Complete messages submitted over SMTP (RFC 6409): checked, completed, signed, stored.

use super::sender::{SenderError, Submitter};
use super::signed::{CompleteMail, SignedMessage};
use super::{SubmitError, Submitted};
use crate::clock::Timestamp;
use crate::mail::address::{Domain, Mailbox};
use crate::mail::mailbox_list::NamedMailbox;
use crate::mail::mime::{self, Field, Fields, Irreparable, Limits, Mail};
use crate::mail::{date, header_value, message_id};
use crate::outbound::Outbound;
use crate::outbound::message::compose;

/// Fields that occur at most once (RFC 5322 §3.6).
const ONCE: &[&str] =
    &["From", "Sender", "Reply-To", "To", "Cc", "Message-ID", "In-Reply-To", "References", "Subject", "Date"];

/// A submitted message.
pub(crate) struct SmtpSubmission {
    pub(crate) submitter: Submitter,
    /// Envelope sender; `None` if failures are not to be reported.
    pub(crate) reverse_path: Option<Mailbox>,
    /// Envelope recipients.
    pub(crate) recipients: Vec<Mailbox>,
    pub(crate) data: Vec<u8>,
}

/// The reason a submission is refused.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SmtpSubmissionError {
    /// Not exactly one author, or readers may find different ones.
    #[error("not exactly one From field with one mailbox")]
    From,
    /// A repeated field, or one with a NUL.
    #[error("a repeated header, or a NUL in one")]
    Message,
    /// A line that is too long and cannot be repaired.
    #[error(transparent)]
    Irreparable(#[from] Irreparable),
    /// As a message of the API.
    #[error(transparent)]
    Submit(#[from] SubmitError),
}

impl Outbound {
    /// Accepts a message; once this returns, neither a crash nor a power cut loses it.
    ///
    /// # Errors
    /// See [`SmtpSubmissionError`]; nothing was stored.
    pub(crate) async fn submit_smtp(
        &self,
        submission: SmtpSubmission,
        now: Timestamp,
    ) -> Result<Submitted, SmtpSubmissionError> {
        let SmtpSubmission { submitter, reverse_path, recipients, data } = submission;
        let parsed = tokio::task::spawn_blocking(move || {
            let data = mime::repaired(mime::without_stray_lines(data))?;
            Ok::<_, Irreparable>((mime::parse_without_bodies(&data), data))
        });
        let (mail, data) = parsed.await.map_err(|_| SubmitError::Interrupted)??;
        let author = mail.author.as_deref().ok_or(SmtpSubmissionError::From)?;
        let author = Mailbox::parse(author).map_err(|_| SmtpSubmissionError::From)?;
        if author.has_invisible_characters() {
            return Err(SmtpSubmissionError::From);
        }
        let domain = Domain::parse(author.domain().as_str()).map_err(|_| SmtpSubmissionError::From)?;
        let sender = self.sender(&submitter, &domain, now).await.map_err(SubmitError::Sender)?;
        // Mail clients show Sender next to the author, so it is kept only if the account may send from it
        // (RFC 6409 §8.1).
        let sender_field = match mime::field_values(&data, "Sender").as_slice() {
            [only] => match self.sender_field(&submitter, only, now).await {
                Ok(one) => Some(one),
                Err(error @ SubmitError::Sender(SenderError::Store(_))) => return Err(error.into()),
                Err(_) => None,
            },
            _ => None,
        };
        // Reports go only to the author or to an address that the account may send from; otherwise they could be used
        // to send mail to anybody.
        let return_to = match reverse_path {
            None => None,
            Some(path) if path == author || self.sender(&submitter, path.domain(), now).await.is_ok() => Some(path),
            Some(_) => Some(author.clone()),
        };
        let complete = move |new_message_id: String| {
            complete(data, mail, &author, &new_message_id, sender_field, now).ok_or(SmtpSubmissionError::Message)
        };
        let signed = self.sign(&sender, recipients, complete, now).await?;
        Ok(self.accept(SignedMessage { return_to, ..signed }, |_| None, now).await?)
    }
}

/// Removes fields that must not be sent and adds missing ones (RFC 6409 §8); `None` when it cannot be sent as it is.
fn complete(
    mut data: Vec<u8>,
    mut mail: Mail,
    author: &Mailbox,
    new_message_id: &str,
    sender: Option<NamedMailbox>,
    now: Timestamp,
) -> Option<CompleteMail> {
    if mail.header_truncated {
        return None;
    }
    // An invalid Message-ID is replaced: it is useless for threading, and spam filters penalize it.
    if !mime::field_values(&data, "Message-ID")
        .iter()
        .all(|value| message_id::for_own_message(value).as_deref() == Some(value))
    {
        mail.message_id = None;
    }
    let (header, body) = completed_header(&data, &mail, new_message_id, sender, now)?;
    // Replaced in place, as the body may be large.
    data.splice(..body, header);
    let message_id = mail.message_id.unwrap_or_else(|| new_message_id.to_owned());
    let header_to = mail.header_to.into_iter().chain(mail.header_cc).map(|to| (to.address, to.name));
    Some(CompleteMail {
        data,
        from_addr: author.to_string(),
        from_name: mail.header_from.into_iter().next().and_then(|from| from.name),
        header_to: header_to.collect(),
        subject: mail.subject,
        thread_id: mail.in_reply_to.or_else(|| Some(message_id.clone())),
        message_id_header: Some(message_id),
        has_attachments: !mail.attachments.is_empty(),
    })
}

/// Returns the header that a message is sent with, including the empty line, and the offset of its body.
fn completed_header(
    data: &[u8],
    mail: &Mail,
    new_message_id: &str,
    sender: Option<NamedMailbox>,
    now: Timestamp,
) -> Option<(Vec<u8>, usize)> {
    let limits = Limits::default();
    let mut fields = Fields::new(data, 0, &limits);
    let mut seen: Vec<&[u8]> = Vec::new();
    let mut retained = Vec::new();
    let (mut date, mut message_id) = (false, false);
    let mut start = 0;
    while let Some(field) = fields.next(|_| false) {
        let end = fields.body_offset();
        let whole = data.get(start..end).unwrap_or_default();
        start = end;
        // RFC 5322 §4.1: NUL is obsolete syntax, and readers truncate fields at it.
        if whole.contains(&0) {
            return None;
        }
        if is_removed(&field) {
            continue;
        }
        if ONCE.iter().any(|name| field.is(name)) {
            if seen.iter().any(|known| known.eq_ignore_ascii_case(field.name)) {
                return None;
            }
            seen.push(field.name);
        }
        if field.is("Sender") {
            continue;
        }
        date |= field.is("Date");
        message_id |= field.is("Message-ID") && mail.message_id.is_some();
        if field.is("Message-ID") && mail.message_id.is_none() {
            continue;
        }
        retained.extend_from_slice(whole);
    }
    let mut header = Vec::with_capacity(retained.len() + 256);
    if !date {
        header.extend_from_slice(format!("Date: {}\r\n", date::format(now)).as_bytes());
    }
    if !message_id {
        header.extend_from_slice(format!("Message-ID: {new_message_id}\r\n").as_bytes());
    }
    if let Some(sender) = sender {
        // Written anew, so that every reader finds the value that was checked.
        header.extend_from_slice(header_value::mailboxes_field("Sender", [&sender]).ok()?.as_bytes());
    }
    header.extend_from_slice(&retained);
    header.extend_from_slice(b"\r\n");
    Some((header, fields.body_offset().min(data.len())))
}

/// Returns true for a client's field that is private, or that only relaying hosts may write. Received is kept: a host
/// of the client's may have relayed the message first, and loop detection needs it.
fn is_removed(field: &Field<'_>) -> bool {
    let name = String::from_utf8_lossy(field.name);
    let name = name.trim_end();
    name.eq_ignore_ascii_case("Bcc") || (compose::is_of_hosts(name) && !name.eq_ignore_ascii_case("Received"))
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests may panic")]

    use super::*;

    const NOW: Timestamp = Timestamp::from_millis(1_785_196_800_000);

    fn completed(text: &str) -> Option<String> {
        let (data, author) = (text.as_bytes(), Mailbox::parse("a@acme.dev").unwrap());
        complete(data.to_vec(), mime::parse(data), &author, "<new@acme.dev>", None, NOW)
            .map(|done| String::from_utf8(done.data).unwrap())
    }

    #[test]
    fn what_is_missing_is_added_and_what_is_nobodys_business_removed() {
        assert_eq!(
            completed(
                "From: a@acme.dev\r\nBcc: secret@b.test,\r\n other@b.test\r\nSubject: folded\r\n line\r\n\
                 bcc: x@y.test\r\nResent-Bcc: x@y.test\r\nReturn-Path: <z@y.test>\r\nArc-Seal : i=1\r\n\r\nBody\r\n.\r\n"
            )
            .unwrap(),
            "Date: Tue, 28 Jul 2026 00:00:00 +0000\r\nMessage-ID: <new@acme.dev>\r\nFrom: a@acme.dev\r\n\
             Subject: folded\r\n line\r\n\r\nBody\r\n.\r\n"
        );
        let whole = "Date: x\r\nMessage-ID: <own@b.test>\r\nFrom: a@acme.dev\r\n\r\n";
        assert_eq!(completed(whole).unwrap(), whole);
        assert_eq!(
            completed("From: a@acme.dev\r\nDate: x\r\nMessage-ID: <1@b>\r\n").unwrap().matches("\r\n\r\n").count(),
            1
        );
    }

    #[test]
    fn what_cannot_be_sent_as_it_is() {
        for text in [
            "From: a@acme.dev\r\nSubject: 1\r\nsubject: 2\r\n\r\n",
            "From: a@acme.dev\r\nTo: x@y.test\r\nTo: z@y.test\r\n\r\n",
            "From: a@acme.dev\r\nSubject: a\0b\r\n\r\n",
        ] {
            assert_eq!(completed(text), None, "{text:.60}");
        }
    }

    #[test]
    fn what_is_no_message_id_is_replaced() {
        for bad in ["nonsense", "<nonsense>", "a@b.test", "<a b@c.test>", "<a@b.test> <c@d.test>", "<@b>"] {
            let done = completed(&format!("Date: x\r\nMessage-ID: {bad}\r\nFrom: a@acme.dev\r\n\r\n")).unwrap();
            assert!(
                done.contains("Message-ID: <new@acme.dev>\r\n") && done.matches("Message-ID").count() == 1,
                "{done}"
            );
        }
    }
}
