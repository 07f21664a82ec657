//! The JSON of `email.received` (contract 9.6): a closed set of keys in a fixed order.
//!
//! Pure: it borrows what the caller loaded and writes bytes. The same input gives the same bytes, which keeps the
//! payload of every attempt and replay identical (contract 9.5). Large contents can be left out and inserted in their
//! place by [`crate::webhook::attempt::payload`].

use std::borrow::Cow;
use std::{fmt, io};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::{Serialize, Serializer};
use serde_json::ser::Formatter;

use crate::clock::Timestamp;
use crate::id::MessageId;
use crate::mail::mime::{Decoder, Encoding};

/// Octets of an attachment that are decoded at a time.
const PIECE: usize = 16 * 1024;
/// Placeholder for omitted contents: no JSON written here has a control character.
const GAP: u8 = 0;

/// A received message as its webhook reports it.
#[derive(Clone, Debug)]
pub struct EmailReceived<'a> {
    /// The message id, which is also the event's id.
    pub id: &'a MessageId,
    /// `from_addr` of contract 5.2 and its display name.
    pub from: Party<'a>,
    /// The single envelope recipient.
    pub to: Party<'a>,
    /// Decoded subject.
    pub subject: Option<&'a str>,
    /// Plain text body; null for mail that has only HTML.
    pub text: Option<Text<'a>>,
    /// HTML body.
    pub html: Option<Text<'a>>,
    /// First id of In-Reply-To, else the message's own Message-ID, with angle brackets.
    pub thread_id: Option<&'a str>,
    /// Time of acceptance.
    pub received_at: Timestamp,
    /// Authentication and spam verdicts on arrival.
    pub auth: Auth<'a>,
    /// Ordered by index.
    pub attachments: &'a [Attachment<'a>],
}

/// A body of the message.
#[derive(Clone, Copy, Debug)]
pub enum Text<'a> {
    /// The complete text.
    Whole(&'a str),
    /// Left out; see [`EmailReceived::split_at_placeholders`].
    Streamed,
}

/// A mailbox with its display name; an empty name counts as absent.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Party<'a> {
    /// `local@domain`.
    pub address: &'a str,
    /// Display name.
    #[serde(skip_serializing_if = "no_name")]
    pub name: Option<&'a str>,
}

/// Verdicts on arrival, each null if the check was not requested.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Auth<'a> {
    /// SPF (RFC 7208).
    pub(crate) spf: Option<&'a str>,
    /// DKIM (RFC 6376).
    pub(crate) dkim: Option<&'a str>,
    /// DMARC (RFC 7489).
    pub(crate) dmarc: Option<&'a str>,
    /// `ham` or `spam`.
    pub(crate) spam: Option<&'a str>,
}

/// An attachment of the message.
#[derive(Clone, Debug)]
pub struct Attachment<'a> {
    /// Zero-based index within the message.
    pub index: u32,
    /// File name given in the mail.
    pub filename: Option<&'a str>,
    /// Media type.
    pub content_type: Option<&'a str>,
    /// Decoded size in bytes.
    pub size: u64,
    /// The bytes, or the place they can be fetched from.
    pub bytes: AttachmentBytes<'a>,
}

/// The bytes of an attachment, or the place they can be fetched from.
#[derive(Clone, Debug)]
pub enum AttachmentBytes<'a> {
    /// A signed link.
    Url(Cow<'a, str>),
    /// Inline in the event, on a domain with zero retention; such an attachment has no id. Holds the encoded body
    /// from the mail, which is decoded while it is written, so that a large one is in memory only once.
    Content(Encoding, &'a [u8]),
    /// Like [`Self::Content`], but left out; see [`EmailReceived::split_at_placeholders`].
    Apart,
}

impl Text<'_> {
    const fn len(self) -> usize {
        match self {
            Self::Whole(text) => text.len(),
            Self::Streamed => 0,
        }
    }
}

impl Serialize for Text<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Whole(text) => serializer.serialize_str(text),
            Self::Streamed => leave_out(serializer),
        }
    }
}

impl Attachment<'_> {
    /// Returns the approximate size of its bytes in JSON.
    fn json_size(&self) -> usize {
        match &self.bytes {
            AttachmentBytes::Url(url) => 256 + url.len(),
            AttachmentBytes::Apart => 256,
            AttachmentBytes::Content(..) => 256 + usize::try_from(self.size).unwrap_or(0) / 3 * 4,
        }
    }
}

impl EmailReceived<'_> {
    /// Returns compact JSON in UTF-8, for an event with nothing left out.
    pub fn to_json(&self) -> Vec<u8> {
        let bodies = self.text.map_or(0, Text::len) + self.html.map_or(0, Text::len);
        let contents: usize = self.attachments.iter().map(Attachment::json_size).sum();
        let mut json = Vec::with_capacity(1024 + bodies + bodies / 8 + contents);
        // Writing strings and numbers into memory cannot fail.
        let written = serde_json::to_writer(&mut json, &self.wire());
        debug_assert!(written.is_ok());
        json
    }

    /// Returns the JSON around the omitted contents, one piece more than there are placeholders. Each gap takes the
    /// contents of a JSON string, without quotation marks, in this order: text, html, attachments.
    pub(crate) fn split_at_placeholders(&self) -> Vec<Vec<u8>> {
        let mut json = Vec::new();
        let written = self.wire().serialize(&mut serde_json::Serializer::with_formatter(&mut json, Gaps));
        debug_assert!(written.is_ok());
        json.split(|byte| *byte == GAP).map(<[u8]>::to_vec).collect()
    }

    fn wire(&self) -> WirePayload<'_> {
        let attachments =
            self.attachments.iter().map(|attachment| WireAttachment::new(self.id, attachment)).collect();
        WirePayload {
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
        }
    }
}

/// Serializes a placeholder; nothing else here serializes bytes.
fn leave_out<S: Serializer>(serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_bytes(&[])
}

/// Formats compact JSON in which omitted contents are a string of one [`GAP`].
struct Gaps;

impl Formatter for Gaps {
    fn write_byte_array<W: io::Write + ?Sized>(&mut self, writer: &mut W, _: &[u8]) -> io::Result<()> {
        writer.write_all(&[b'"', GAP, b'"'])
    }
}

fn no_name(name: &Option<&str>) -> bool {
    name.is_none_or(str::is_empty)
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct WirePayload<'a> {
    id: &'a MessageId,
    r#type: &'static str,
    from: Party<'a>,
    to: [Party<'a>; 1],
    subject: Option<&'a str>,
    text: Option<Text<'a>>,
    html: Option<Text<'a>>,
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
            AttachmentBytes::Content(encoding, raw) => (None, None, Some(Content::Inside(*encoding, raw))),
            AttachmentBytes::Apart => (None, None, Some(Content::Apart)),
        };
        let Attachment { filename, content_type, size, .. } = *attachment;
        Self { id, filename, content_type, size, url, content }
    }
}

/// An encoded body that is written as plain base64, a piece at a time.
enum Content<'a> {
    Inside(Encoding, &'a [u8]),
    Apart,
}

impl Serialize for Content<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Inside(..) => serializer.collect_str(self),
            Self::Apart => leave_out(serializer),
        }
    }
}

impl fmt::Display for Content<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self::Inside(encoding, raw) = self else { return Ok(()) };
        let mut file = Base64File::new(*encoding);
        let mut plain = String::new();
        while file.read(raw, &mut plain) {
            f.write_str(&plain)?;
            plain.clear();
        }
        Ok(())
    }
}

/// Converts the encoded body of a part to plain base64, a piece at a time.
pub(crate) struct Base64File {
    /// `None` after the end was decoded.
    decoder: Option<Decoder>,
    /// Octets of the body decoded so far.
    done: usize,
    decoded: Vec<u8>,
}

impl Base64File {
    pub(crate) const fn new(encoding: Encoding) -> Self {
        Self { decoder: Some(Decoder::new(encoding)), done: 0, decoded: Vec::new() }
    }

    /// Appends the next piece of `raw`, which is the same on each call, to `out`; `false` when nothing is left.
    pub(crate) fn read(&mut self, raw: &[u8], out: &mut String) -> bool {
        let Some(decoder) = &mut self.decoder else { return false };
        let rest = raw.get(self.done..).unwrap_or_default();
        let piece = rest.get(..PIECE.min(rest.len())).unwrap_or_default();
        decoder.feed(piece, &mut self.decoded);
        self.done += piece.len();
        let mut ready = self.decoded.len() - self.decoded.len() % 3;
        if piece.is_empty() {
            self.decoder.take().into_iter().for_each(|decoder| decoder.finish(&mut self.decoded));
            ready = self.decoded.len();
        }
        BASE64.encode_string(self.decoded.get(..ready).unwrap_or_default(), out);
        self.decoded.drain(..ready);
        true
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests may panic")]
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
            text: Some(Text::Whole("Does it branch?")),
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
            assert_eq!(Content::Inside(Encoding::Base64, &folded).to_string(), plain, "{size}");
            assert_eq!(Content::Inside(Encoding::Identity, &file).to_string(), plain, "{size}");
        }
        assert_eq!(Content::Inside(Encoding::QuotedPrintable, b"=00=FFa=\r\nb").to_string(), "AP9hYg==");
    }

    #[test]
    fn what_is_left_out_belongs_between_the_pieces_around_it() {
        let id = id();
        let attachment = |bytes| Attachment { index: 0, filename: Some("\0"), content_type: None, size: 4, bytes };
        let whole = [attachment(AttachmentBytes::Content(Encoding::Identity, b"\x00\xffab"))];
        let apart = [attachment(AttachmentBytes::Apart)];
        let event = |text, attachments| EmailReceived {
            subject: Some("\0"),
            text: Some(text),
            html: None,
            ..bare(&id, attachments)
        };
        let around = event(Text::Streamed, &apart).split_at_placeholders();
        assert_eq!(around.len(), 3);
        let joined = [&around[0][..], b"hello", &around[1], b"AP9hYg==", &around[2]].concat();
        assert_eq!(joined, event(Text::Whole("hello"), &whole).to_json());
        assert_eq!(
            event(Text::Whole("hello"), &[]).split_at_placeholders(),
            [event(Text::Whole("hello"), &[]).to_json()]
        );
    }

    #[test]
    fn any_text_stays_valid_json() {
        let id = id();
        let text = "quote \" slash \\ control \u{1} NUL \0 line \u{2028} bidi \u{202e} emoji 🐝";
        let event = EmailReceived { text: Some(Text::Whole(text)), subject: Some(text), ..bare(&id, &[]) };
        let parsed: serde_json::Value = serde_json::from_slice(&event.to_json()).unwrap();
        assert_eq!(parsed.get("text").unwrap(), text);
        assert_eq!(parsed.get("subject").unwrap(), text);
    }
}
