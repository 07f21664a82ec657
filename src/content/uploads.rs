//! Files that clients upload for a limited time (contract 7.2): stored durably, then served by signed link.
//!
//! The HTTP API checks owner, size and origin; `retention` removes the files when their time is over.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::clock::Timestamp;
use crate::id::{AccountRowId, UploadId};
use crate::limits::{Kind, Limits};
use crate::mail::mime::safe_filename;
use crate::secrets::signed_links::Links;
use crate::store::blobs::objects::Objects;
use crate::store::blobs::uncommitted::UncommittedObject;
use crate::store::messages::uploads;
use crate::store::messages::uploads::UploadRow;
use crate::store::{self, Db};

/// Permitted retention of an upload in days; the first is the default.
pub const RETENTION_DAYS: [u32; 4] = [7, 30, 90, 365];

/// Name for a file whose own name has nothing that can be shown.
const NAMELESS: &str = "file";
/// Media type of an upload that has none.
const UNKNOWN_TYPE: &str = "application/octet-stream";
const MAX_CONTENT_TYPE_BYTES: usize = 255;

/// Stores the files of clients.
#[derive(Clone, Debug)]
pub struct Uploads {
    /// Rows of the uploads.
    pub db: Db,
    /// Bytes of the uploads.
    pub objects: Objects,
    /// Signs the links.
    pub links: Arc<Links>,
    /// Limits the number of files of an account.
    pub limits: Arc<Limits>,
}

/// A stored upload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Upload {
    /// `upl_…`.
    pub public_id: UploadId,
    /// The signed link, valid until `expires_at`.
    pub url: String,
    /// File name offered for download.
    pub filename: String,
    /// Media type as served.
    pub content_type: String,
    /// Octets.
    pub size: u64,
    /// Expiry of link and file: a whole second.
    pub expires_at: Timestamp,
}

/// Returns the file name that a client gave: its last path component (contract 7.2).
pub(crate) fn given_name(filename: &str) -> String {
    safe_filename(filename).unwrap_or_else(|| NAMELESS.to_owned())
}

impl Uploads {
    /// Stores `bytes` for the account with row id `account`; once this returns, neither a crash nor a power cut loses
    /// them.
    ///
    /// Of `filename` the last path component counts, without control and bidirectional characters, at most 255 bytes. A
    /// `content_type` that is no media type becomes `application/octet-stream`.
    ///
    /// # Errors
    /// The disk is full or fails. If the outcome is unknown, a restart may find the upload, but nobody has its link.
    pub async fn keep(
        &self,
        account: AccountRowId,
        filename: &str,
        content_type: &str,
        bytes: Bytes,
        retention_days: u32,
        now: Timestamp,
    ) -> store::Result<Upload> {
        let size = bytes.len() as u64;
        // Checked before the bytes are written, and again in the transaction that decides.
        let limits = Arc::clone(&self.limits);
        let admitted = self.db.read(move |connection| {
            limits.admit(connection, account, Kind::Uploads)?;
            limits.admit_bytes(connection, account, size)
        });
        admitted.await?;
        let id = UploadId::new(now);
        let ends = now.plus(Duration::from_secs(u64::from(retention_days) * 86_400)).as_secs();
        let placed = self.keep_object(id.clone(), bytes, now).await?;
        let object = placed.object().clone();
        let row = UploadRow {
            public_id: id,
            account_id: account,
            filename: given_name(filename),
            content_type: media_type(content_type).unwrap_or(UNKNOWN_TYPE).to_owned(),
            size,
            file: object.name,
            checksum: object.checksum,
            created_at: now,
            expires_at: Timestamp::from_millis(ends.saturating_mul(1000)),
        };
        let limits = Arc::clone(&self.limits);
        let stored = self.db.write_naming(vec![placed], move |tx| {
            limits.admit(tx, account, Kind::Uploads)?;
            limits.admit_bytes(tx, account, row.size)?;
            uploads::insert(tx, &row).map(|()| (row, true))
        });
        let row = stored.await?;
        Ok(Upload {
            url: self.links.url(row.public_id.as_str(), 0, ends),
            public_id: row.public_id,
            filename: row.filename,
            content_type: row.content_type,
            size,
            expires_at: row.expires_at,
        })
    }

    async fn keep_object(&self, id: UploadId, bytes: Bytes, now: Timestamp) -> store::Result<UncommittedObject> {
        let objects = self.objects.clone();
        let writing = tokio::task::spawn_blocking(move || {
            let mut draft = objects.create()?;
            draft.append(&bytes)?;
            objects.commit_upload(draft, &id, now)
        });
        writing.await.unwrap_or(Err(store::Error::Stopped))
    }
}

/// Returns `text` without surrounding white space, if it is a media type with its parameters (RFC 9110 §8.3.1).
fn media_type(text: &str) -> Option<&str> {
    let text = text.trim_matches([' ', '\t']);
    let (essence, mut rest) = match text.find(';') {
        Some(at) => text.split_at_checked(at)?,
        None => (text, ""),
    };
    let (kind, subkind) = essence.trim_end_matches([' ', '\t']).split_once('/')?;
    if text.len() > MAX_CONTENT_TYPE_BYTES || !is_token(kind) || !is_token(subkind) {
        return None;
    }
    while let Some(parameter) = rest.strip_prefix(';') {
        let parameter = parameter.trim_start_matches([' ', '\t']);
        // An empty parameter is allowed, as in `text/plain;`.
        rest =
            if parameter.is_empty() || parameter.starts_with(';') { parameter } else { after_parameter(parameter)? };
        rest = rest.trim_start_matches([' ', '\t']);
    }
    rest.is_empty().then_some(text)
}

/// Returns the rest after `name=token` or `name="text"` (RFC 9110 §5.6.6).
fn after_parameter(text: &str) -> Option<&str> {
    let (name, value) = text.split_once('=')?;
    if !is_token(name) {
        return None;
    }
    let Some(quoted) = value.strip_prefix('"') else {
        let end = value.find([';', ' ', '\t']).unwrap_or(value.len());
        let (token, rest) = value.split_at_checked(end)?;
        return is_token(token).then_some(rest);
    };
    let mut escaped = false;
    for (at, c) in quoted.char_indices() {
        match c {
            _ if escaped && (c == ' ' || c.is_ascii_graphic()) => escaped = false,
            '\\' => escaped = true,
            '"' if !escaped => return quoted.get(at + 1..),
            ' ' | '\t' if !escaped => {}
            _ if !escaped && c.is_ascii_graphic() => {}
            _ => return None,
        }
    }
    None
}

/// RFC 9110 §5.6.2.
fn is_token(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_media_type_is_kept_as_written_and_everything_else_is_none() {
        for text in [
            "text/plain",
            "TEXT/Plain; charset=utf-8",
            "text/plain;charset=\"utf-8\"",
            "text/plain ; a=b ;c=\"d;\\\"e\" ; ",
            "text/plain;;",
            "application/vnd.openxmlformats-officedocument.wordprocessingml.document",
            "multipart/form-data; boundary=----x",
        ] {
            assert_eq!(media_type(text), Some(text.trim()), "{text}");
        }
        assert_eq!(media_type("  a/b\t"), Some("a/b"));
        let long = format!("text/{}", "x".repeat(251));
        for text in [
            "",
            "text",
            "text/",
            "/plain",
            "text/plain/x",
            "text/pla in",
            "text /plain",
            "text/plain; charset",
            "text/plain; charset=",
            "text/plain; =utf-8",
            "text/plain; charset =utf-8",
            "text/plain; charset=\"utf-8",
            "text/plain; charset=\"utf-8\"x",
            "text/plain; charset=\"utf-8\\\"",
            "text/plain charset=utf-8",
            "text/html\r\nset-cookie: a=b",
            "text/html; a=\"\r\n\"",
            "text/h\u{e4}ml",
            "text/html, text/plain",
            long.as_str(),
        ] {
            assert_eq!(media_type(text), None, "{text}");
        }
    }
}
