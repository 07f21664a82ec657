//! Content of stored messages, and the files that clients upload. Bytes are stored once: text and html are no columns
//! but are parsed from the raw copy on each request, and when the raw copy is removed after seven days, [`archive`]
//! keeps the parts that the API still returns. The folder uses `store`, the `mail` formats and, for uploads, `limits`
//! and `secrets`; reading and archiving a message belongs here, uploaded files in `uploads`, and removal by age in
//! `retention`.

pub(crate) mod rebuild;
pub(crate) mod uploads;

use crate::store::Connection;
use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::mail::mime::{self, Headers, LocatedText};
use crate::store::blobs::objects::{Damage, Objects};
use crate::store::messages::MessageRow;
use crate::store::messages::mail_data;
use crate::store::messages::mail_data::StoredMailData;
use crate::store::{self, Error};

const ZSTD_LEVEL: i32 = 3;
/// Twice the text, html and headers of a message of the largest size.
const MAX_ARCHIVE_BYTES: usize = 128 * 1024 * 1024;

/// The readable parts of a message.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Bodies {
    pub(crate) text: Option<String>,
    pub(crate) html: Option<String>,
}

/// The readable parts of a message for callers that need not hold them whole.
#[derive(Debug)]
pub(crate) enum Texts {
    /// The decoded parts.
    Decoded(Bodies),
    /// Positions of the plain text body and the HTML body in the mail data.
    Placed(Option<LocatedText>, Option<LocatedText>),
}

/// The parts kept once the raw copy is gone.
#[derive(Debug, Serialize, Deserialize)]
struct ArchivedContent {
    #[serde(flatten)]
    readable: Bodies,
    headers: String,
}

/// Content of a message, by the place it was found in.
#[derive(Debug)]
pub(crate) enum StoredContent {
    /// The mail data as received.
    Raw(Vec<u8>),
    /// JSON of the parts kept of it.
    Archived(Vec<u8>),
}

/// Loads the content of a message, or `None` if it was dropped. Blocks.
///
/// # Errors
/// [`Error::Damaged`] is an error of this message alone.
pub(crate) fn load(
    connection: &Connection,
    objects: &Objects,
    message: &MessageRow,
) -> store::Result<Option<StoredContent>> {
    if let Some(raw) = message.mail_data_id {
        return match mail_data::find(connection, raw)? {
            Some(StoredMailData::Inline(bytes)) => Ok(Some(StoredContent::Raw(bytes))),
            Some(StoredMailData::File(object)) => Ok(Some(StoredContent::Raw(objects.read_all(&object)?))),
            None => Err(Error::Damaged { name: format!("in the row {raw}"), what: Damage::Missing }),
        };
    }
    let Some(body) = &message.body else { return Ok(None) };
    let archived = zstd::bulk::decompress(body, MAX_ARCHIVE_BYTES).map_err(|_| Error::Corrupt("message body"))?;
    Ok(Some(StoredContent::Archived(archived)))
}

impl StoredContent {
    /// Returns the readable parts.
    ///
    /// # Errors
    /// [`Error::Corrupt`] if the archived parts cannot be read.
    pub(crate) fn readable(&self) -> store::Result<Bodies> {
        match self {
            Self::Raw(bytes) => {
                let mail = mime::parse(bytes);
                Ok(Bodies { text: mail.text, html: mail.html })
            }
            Self::Archived(json) => Ok(read_archive(json)?.readable),
        }
    }

    /// Returns the readable parts: decoded if the mail data has at most `largest` octets, else by position.
    ///
    /// # Errors
    /// As for [`Self::readable`].
    pub(crate) fn texts(self, largest: usize) -> store::Result<Texts> {
        match self {
            Self::Raw(bytes) if bytes.len() > largest => {
                let bytes = Bytes::from(bytes);
                let parsed = mime::parse_streaming(&bytes);
                let (mut text, mut html) = (parsed.text, parsed.html);
                let used: usize = text.iter().chain(&html).map(LocatedText::encoded_len).sum();
                // Most of such a message is attachments, which have links.
                if used < bytes.len() / 2 {
                    text.iter_mut().chain(&mut html).for_each(LocatedText::detach);
                }
                Ok(Texts::Placed(text, html))
            }
            source => source.readable().map(Texts::Decoded),
        }
    }

    /// Returns the header fields as contract 5.4 shows them, those of `trace` first: a JSON object in a string.
    ///
    /// # Errors
    /// [`Error::Corrupt`] if the archived parts cannot be read.
    pub(crate) fn headers_json(&self, trace: &str) -> store::Result<String> {
        let headers = match self {
            Self::Raw(bytes) => Headers::read(bytes),
            Self::Archived(json) => {
                Headers::parse(&read_archive(json)?.headers).ok_or(Error::Corrupt("message body"))?
            }
        };
        Ok(headers.after_trace(trace).to_json())
    }
}

fn read_archive(json: &[u8]) -> store::Result<ArchivedContent> {
    serde_json::from_slice(json).map_err(|_| Error::Corrupt("message body"))
}

/// Packs the parts of a message that outlive its raw copy.
///
/// # Errors
/// They cannot be packed.
pub(crate) fn archive(raw: &[u8]) -> store::Result<Vec<u8>> {
    let mail = mime::parse(raw);
    let readable = Bodies { text: mail.text, html: mail.html };
    let archived = ArchivedContent { readable, headers: Headers::read(raw).to_json() };
    let json = serde_json::to_vec(&archived).map_err(|_| Error::Corrupt("message body"))?;
    zstd::bulk::compress(&json, ZSTD_LEVEL).map_err(|error| Error::io("packing a message body", error))
}
