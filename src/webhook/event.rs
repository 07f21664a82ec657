//! The JSON of `email.received` (contract 9.6): a closed set of keys in a fixed order.
//!
//! Pure: it borrows what the caller loaded and writes bytes. The same input gives the same bytes, which is what keeps
//! the payload of every attempt and replay identical (contract 9.5).

use std::borrow::Cow;
use std::fmt;

use base64::display::Base64Display;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::{Serialize, Serializer};

use crate::clock::Timestamp;
use crate::id::MessageId;
use crate::mail::mime::{Decoder, Encoding};
use crate::memory;

/// How much of an attachment is decoded at a time.
const PIECE: usize = 16 * 1024;

/// A received message as its webhook tells it.
#[derive(Clone, Debug)]
pub struct EmailReceived<'a> {
    /// The message, which is also the event's id.
    pub id: &'a MessageId,
    /// `from_addr` of contract 5.2 and its display name.
    pub from: Party<'a>,
    /// The one envelope recipient.
    pub to: Party<'a>,
    /// Decoded subject.
    pub subject: Option<&'a str>,
    /// Plain text body; null for mail that has only HTML.
    pub text: Option<&'a str>,
    /// HTML body.
    pub html: Option<&'a str>,
    /// First id of In-Reply-To, else the own Message-ID, brackets kept.
    pub thread_id: Option<&'a str>,
    /// When it was accepted.
    pub received_at: Timestamp,
    /// Verdicts on arrival.
    pub auth: Auth<'a>,
    /// In the order of their index.
    pub attachments: &'a [Attachment<'a>],
}

/// A mailbox with its display name; an empty name counts as none.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Party<'a> {
    /// `local@domain`.
    pub address: &'a str,
    /// Display name.
    #[serde(skip_serializing_if = "no_name")]
    pub name: Option<&'a str>,
}

/// Verdicts on arrival, each null when it was not asked for.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Auth<'a> {
    /// SPF (RFC 7208).
    pub spf: Option<&'a str>,
    /// DKIM (RFC 6376).
    pub dkim: Option<&'a str>,
    /// DMARC (RFC 7489).
    pub dmarc: Option<&'a str>,
    /// `ham` or `spam`.
    pub spam: Option<&'a str>,
}

/// An attachment of the message.
#[derive(Clone, Debug)]
pub struct Attachment<'a> {
    /// Zero-based index within the message.
    pub index: u32,
    /// File name as the mail gives it.
    pub filename: Option<&'a str>,
    /// Media type.
    pub content_type: Option<&'a str>,
    /// Decoded size in bytes.
    pub size: u64,
    /// Where its bytes are.
    pub bytes: AttachmentBytes<'a>,
}

/// Where an attachment's bytes are.
#[derive(Clone, Debug)]
pub enum AttachmentBytes<'a> {
    /// Behind a signed link.
    Url(Cow<'a, str>),
    /// In the event itself, on a domain that stores nothing; such an attachment has no id. The encoded body as it stands
    /// in the mail: it is decoded while it is written, so that a large one is in memory once.
    Content(Encoding, &'a [u8]),
}

impl Attachment<'_> {
    /// About how much JSON its bytes make.
    fn json_size(&self) -> usize {
        match &self.bytes {
            AttachmentBytes::Url(url) => 256 + url.len(),
            AttachmentBytes::Content(..) => 256 + usize::try_from(self.size).unwrap_or(0) / 3 * 4,
        }
    }
}

impl EmailReceived<'_> {
    /// Compact JSON in UTF-8.
    pub fn to_json(&self) -> Vec<u8> {
        let attachments =
            self.attachments.iter().map(|attachment| WireAttachment::new(self.id, attachment)).collect();
        let wire = Wire {
            id: self.id,
            r#type: "email.received",
            from: self.from,
            to: [self.to],
            subject: self.subject,
            text: self.text,
            html: self.html,
            thread_id: self.thread_id,
            received_at: self.received_at,
            received_at_iso: self.received_at.iso(),
            auth: self.auth,
            attachments,
        };
        let bodies = self.text.map_or(0, str::len) + self.html.map_or(0, str::len);
        let contents: usize = self.attachments.iter().map(Attachment::json_size).sum();
        let mut json = Vec::with_capacity(memory::returned(1024 + bodies + bodies / 8 + contents));
        // Writing strings and numbers into memory has no error to report.
        let written = serde_json::to_writer(&mut json, &wire);
        debug_assert!(written.is_ok());
        json
    }
}

fn no_name(name: &Option<&str>) -> bool {
    name.is_none_or(str::is_empty)
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Wire<'a> {
    id: &'a MessageId,
    r#type: &'static str,
    from: Party<'a>,
    to: [Party<'a>; 1],
    subject: Option<&'a str>,
    text: Option<&'a str>,
    html: Option<&'a str>,
    thread_id: Option<&'a str>,
    received_at: Timestamp,
    received_at_iso: String,
    auth: Auth<'a>,
    attachments: Vec<WireAttachment<'a>>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct WireAttachment<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<String>,
    filename: Option<&'a str>,
    content_type: Option<&'a str>,
    size: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    url: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    content: Option<Content<'a>>,
}

impl<'a> WireAttachment<'a> {
    fn new(message: &MessageId, attachment: &'a Attachment<'a>) -> Self {
        let (id, url, content) = match &attachment.bytes {
            AttachmentBytes::Url(url) => (Some(format!("{message}:{}", attachment.index)), Some(url.as_ref()), None),
            AttachmentBytes::Content(encoding, raw) => (None, None, Some(Content(*encoding, raw))),
        };
        let Attachment { filename, content_type, size, .. } = *attachment;
        Self { id, filename, content_type, size, url, content }
    }
}

/// An encoded body that is written as plain base64, a piece at a time.
struct Content<'a>(Encoding, &'a [u8]);

impl Serialize for Content<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl fmt::Display for Content<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut decoder = Decoder::new(self.0);
        let mut decoded = Vec::with_capacity(2 * PIECE);
        for piece in self.1.chunks(PIECE) {
            decoder.feed(piece, &mut decoded);
            let whole = decoded.len() - decoded.len() % 3;
            if let Some(whole) = decoded.get(..whole) {
                fmt::Display::fmt(&Base64Display::new(whole, &BASE64), f)?;
            }
            decoded.drain(..whole);
        }
        decoder.finish(&mut decoded);
        fmt::Display::fmt(&Base64Display::new(&decoded, &BASE64), f)
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests may panic")]
    use super::*;

    fn id() -> MessageId {
        MessageId::parse("msg_2Hk9QpVn4tLdA1B2").unwrap()
    }

    fn bare<'a>(id: &'a MessageId, attachments: &'a [Attachment<'a>]) -> EmailReceived<'a> {
        EmailReceived {
            id,
            from: Party { address: "ada@example.com", name: None },
            to: Party { address: "support@acme.dev", name: Some("") },
            subject: None,
            text: None,
            html: None,
            thread_id: None,
            received_at: Timestamp::from_millis(0),
            auth: Auth::default(),
            attachments,
        }
    }

    #[test]
    fn the_example_of_the_contract_comes_out_byte_for_byte() {
        let attachments = [Attachment {
            index: 0,
            filename: Some("po.pdf"),
            content_type: Some("application/pdf"),
            size: 18213,
            bytes: AttachmentBytes::Url("https://mail.acme.dev/att/2Hk9QpVn4tLdA1B2/0?exp=1785801600&sig=05".into()),
        }];
        let id = id();
        let event = EmailReceived {
            from: Party { address: "ada@example.com", name: Some("Ada Lovelace") },
            to: Party { address: "support@acme.dev", name: Some("Support") },
            subject: Some("Engine question"),
            text: Some("Does it branch?"),
            thread_id: Some("<CA+1@example.com>"),
            received_at: Timestamp::from_millis(1_785_196_800_000),
            auth: Auth { spf: Some("pass"), dkim: Some("pass"), dmarc: Some("pass"), spam: Some("ham") },
            ..bare(&id, &attachments)
        };
        let expected = concat!(
            r#"{"id":"msg_2Hk9QpVn4tLdA1B2","type":"email.received","#,
            r#""from":{"address":"ada@example.com","name":"Ada Lovelace"},"#,
            r#""to":[{"address":"support@acme.dev","name":"Support"}],"#,
            r#""subject":"Engine question","text":"Does it branch?","html":null,"#,
            r#""threadId":"<CA+1@example.com>","receivedAt":1785196800000,"#,
            r#""receivedAtIso":"2026-07-28T00:00:00.000Z","#,
            r#""auth":{"spf":"pass","dkim":"pass","dmarc":"pass","spam":"ham"},"#,
            r#""attachments":[{"id":"msg_2Hk9QpVn4tLdA1B2:0","filename":"po.pdf","contentType":"application/pdf","#,
            r#""size":18213,"url":"https://mail.acme.dev/att/2Hk9QpVn4tLdA1B2/0?exp=1785801600&sig=05"}]}"#
        );
        assert_eq!(String::from_utf8(event.to_json()).unwrap(), expected);
    }

    #[test]
    fn absent_values_are_null_but_an_absent_or_empty_name_is_absent() {
        let expected = concat!(
            r#"{"id":"msg_2Hk9QpVn4tLdA1B2","type":"email.received","from":{"address":"ada@example.com"},"#,
            r#""to":[{"address":"support@acme.dev"}],"subject":null,"text":null,"html":null,"threadId":null,"#,
            r#""receivedAt":0,"receivedAtIso":"1970-01-01T00:00:00.000Z","#,
            r#""auth":{"spf":null,"dkim":null,"dmarc":null,"spam":null},"attachments":[]}"#
        );
        assert_eq!(String::from_utf8(bare(&id(), &[]).to_json()).unwrap(), expected);
    }

    #[test]
    fn an_attachment_in_the_event_itself_has_content_and_no_id() {
        let attachments = [Attachment {
            index: 0,
            filename: None,
            content_type: None,
            size: 4,
            bytes: AttachmentBytes::Content(Encoding::Identity, b"\x00\xffab"),
        }];
        let json = String::from_utf8(bare(&id(), &attachments).to_json()).unwrap();
        let expected = r#""attachments":[{"filename":null,"contentType":null,"size":4,"content":"AP9hYg=="}]}"#;
        assert!(json.ends_with(expected), "{json}");
    }

    #[test]
    fn an_attachment_of_any_size_and_encoding_comes_out_as_plain_base64() {
        use base64::Engine as _;
        for size in [0, 1, 2, 3, PIECE - 1, PIECE, PIECE + 1, 3 * PIECE + 2] {
            let file: Vec<u8> = (0..size).map(|at| u8::try_from(at % 251).unwrap()).collect();
            let plain = BASE64.encode(&file);
            let lines: Vec<&[u8]> = plain.as_bytes().chunks(76).collect();
            let folded = lines.join(&b"\r\n"[..]);
            assert_eq!(Content(Encoding::Base64, &folded).to_string(), plain, "{size}");
            assert_eq!(Content(Encoding::Identity, &file).to_string(), plain, "{size}");
        }
        assert_eq!(Content(Encoding::QuotedPrintable, b"=00=FFa=\r\nb").to_string(), "AP9hYg==");
    }

    #[test]
    fn any_text_stays_valid_json() {
        let id = id();
        let text = "quote \" slash \\ control \u{1} NUL \0 line \u{2028} bidi \u{202e} emoji 🐝";
        let event = EmailReceived { text: Some(text), subject: Some(text), ..bare(&id, &[]) };
        let parsed: serde_json::Value = serde_json::from_slice(&event.to_json()).unwrap();
        assert_eq!(parsed.get("text").unwrap(), text);
        assert_eq!(parsed.get("subject").unwrap(), text);
    }
}
