//! A webhook request: the payload, rebuilt from the stored message, and its headers (contract 9.2 and 9.6).

use crate::store::Connection;
use hyper::HeaderMap;
use hyper::header::{CONTENT_TYPE, HeaderName, HeaderValue, USER_AGENT};

use super::payload::{self, Payload};
use super::signature::{SigningSecrets, sign};
use crate::clock::Timestamp;
use crate::content::{self, Texts};
use crate::id::DeliveryId;
use crate::mail::mime::Part;
use crate::net::egress::Body;
use crate::secrets::signed_links::Links;
use crate::store;
use crate::store::blobs::objects::Objects;
use crate::store::messages::MessageRow;
use crate::store::messages::SpamVerdict;
use crate::store::messages::attachments;
use crate::webhook::events::email_received::{Attachment, AttachmentBytes, Auth, EmailReceived, Party};

/// Mail up to this size is read and posted whole, and uses no share of the memory budget.
pub(crate) const SMALL: usize = 64 * 1024;
/// Attachment links expire seven days after arrival (contract 7.1).
pub(crate) const LINK_SECS: i64 = 604_800;

const USER_AGENT_VALUE: &str = concat!("mailkite/", env!("CARGO_PKG_VERSION"));
const X_SIGNATURE: HeaderName = HeaderName::from_static("x-mailkite-signature");
const X_DELIVERY: HeaderName = HeaderName::from_static("x-mailkite-delivery");
const X_ATTEMPT: HeaderName = HeaderName::from_static("x-mailkite-attempt");
const WEBHOOK_ID: HeaderName = HeaderName::from_static("webhook-id");
const WEBHOOK_TIMESTAMP: HeaderName = HeaderName::from_static("webhook-timestamp");
const WEBHOOK_SIGNATURE: HeaderName = HeaderName::from_static("webhook-signature");

/// Values of the request headers.
#[derive(Clone, Copy)]
pub(crate) struct RequestMeta<'a> {
    pub(crate) delivery: &'a DeliveryId,
    pub(crate) event_id: &'a str,
    /// Attempt number, from 1.
    pub(crate) attempt: u32,
    pub(crate) secrets: SigningSecrets<'a>,
}

/// Returns the headers of a request, signed as of `now`, and its body. Signing a payload that is not held whole takes
/// time and is done without blocking other tasks of the thread; it needs the multi-thread runtime.
pub(crate) fn signed(head: RequestMeta<'_>, payload: Payload, now: Timestamp) -> (HeaderMap, Body) {
    match payload {
        Payload::Whole(bytes) => (headers(head, now, [&bytes]), bytes.into()),
        Payload::Written(_) => {
            let mut length = 0;
            let counted = payload.pieces().inspect(|piece| length += piece.len() as u64);
            let headers = tokio::task::block_in_place(|| headers(head, now, counted));
            (headers, Body::repeatable(length, move || payload.pieces()))
        }
    }
}

fn headers(head: RequestMeta<'_>, now: Timestamp, pieces: impl IntoIterator<Item: AsRef<[u8]>>) -> HeaderMap {
    let signed = sign(&head.secrets, head.event_id, head.attempt, now, pieces);
    let mut headers = HeaderMap::with_capacity(8);
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(USER_AGENT, HeaderValue::from_static(USER_AGENT_VALUE));
    headers.insert(X_ATTEMPT, HeaderValue::from(head.attempt));
    let texts = [
        (X_SIGNATURE, signed.signature.as_str()),
        (X_DELIVERY, head.delivery.as_str()),
        (WEBHOOK_ID, signed.webhook_id.as_str()),
        (WEBHOOK_TIMESTAMP, signed.webhook_timestamp.as_str()),
        (WEBHOOK_SIGNATURE, signed.webhook_signature.as_str()),
    ];
    for (name, text) in texts {
        // Ids, digits, hex and base64 are always valid header values.
        headers.extend(HeaderValue::from_str(text).ok().map(|value| (name, value)));
    }
    headers
}

/// Returns a JSON object of header names and values; the values of a repeated header are joined by commas.
pub(crate) fn headers_json<'a>(pairs: impl Iterator<Item = (&'a str, &'a str)>) -> String {
    let mut object = serde_json::Map::new();
    for (name, value) in pairs {
        match object.get_mut(name) {
            Some(serde_json::Value::String(text)) => {
                text.push_str(", ");
                text.push_str(value);
            }
            _ => drop(object.insert(name.to_owned(), value.into())),
        }
    }
    serde_json::Value::Object(object).to_string()
}

/// Builds the payload of a received message (contract 9.6); `None` when its content is gone. Blocks.
pub(crate) fn payload(
    connection: &Connection,
    objects: &Objects,
    links: &Links,
    message: &MessageRow,
) -> store::Result<Option<Payload>> {
    let Some(source) = content::load(connection, objects, message)? else { return Ok(None) };
    let texts = source.texts(SMALL)?;
    let parts = if message.attachment_count == 0 { Vec::new() } else { attachments::list(connection, message.id)? };
    Ok(Some(payload_of(message, texts, &parts, links)))
}

/// Builds the payload of a received message from its texts and attachments.
pub(crate) fn payload_of(message: &MessageRow, texts: Texts, parts: &[Part], links: &Links) -> Payload {
    let urls: Vec<String> = (0..parts.len())
        .map(|index| {
            let index = u32::try_from(index).unwrap_or(u32::MAX);
            links.url(message.public_id.suffix(), index, message.received_at.as_secs() + LINK_SECS)
        })
        .collect();
    let attachments: Vec<Attachment<'_>> = (0_u32..)
        .zip(parts.iter().zip(&urls))
        .map(|(index, (part, url))| Attachment {
            index,
            filename: part.filename.as_deref(),
            content_type: part.content_type.as_deref(),
            size: part.size,
            bytes: AttachmentBytes::Url(url.as_str().into()),
        })
        .collect();
    let (text, html) = payload::bodies(&texts);
    let event = EmailReceived {
        id: &message.public_id,
        from: Party { address: &message.from_addr, name: message.from_name.as_deref() },
        to: Party { address: &message.to_addr, name: message.to_name.as_deref() },
        subject: message.subject.as_deref(),
        text,
        html,
        thread_id: message.thread_id.as_deref(),
        received_at: message.received_at,
        auth: Auth {
            spf: message.spf.as_deref(),
            dkim: message.dkim.as_deref(),
            dmarc: message.dmarc.as_deref(),
            spam: message.spam_on_arrival.map(SpamVerdict::as_str),
        },
        attachments: &attachments,
    };
    Payload::of(&event, payload::streamed_bodies(&texts))
}
