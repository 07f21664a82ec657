//! Mail of our own with an international header, as a host gets it that knows ASCII headers alone (RFC 6857).

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;

use super::dkim::DomainKeys;
use crate::mail::mime;

/// How that form is made, once a host turns out to want it: it is as large as the mail, and takes a signature.
#[derive(Clone)]
pub struct AsciiForm {
    keys: Arc<DomainKeys>,
}

impl AsciiForm {
    /// Signed by these keys.
    pub(crate) const fn new(keys: Arc<DomainKeys>) -> Self {
        Self { keys }
    }

    /// The mail signed anew with an ASCII header; none where that cannot be written.
    pub(crate) async fn of(&self, data: &Bytes) -> Option<Bytes> {
        let (keys, data) = (Arc::clone(&self.keys), data.clone());
        let made = tokio::task::spawn_blocking(move || {
            let mut mail = mime::with_ascii_header(&data)?;
            let signature = keys.sign(&mail).ok()?;
            mail.splice(..0, signature.into_bytes());
            Some(Bytes::from(mail))
        });
        made.await.ok().flatten()
    }
}

impl fmt::Debug for AsciiForm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AsciiForm")
    }
}
