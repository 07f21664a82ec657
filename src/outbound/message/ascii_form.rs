//! The ASCII form of our own mail with an international header, for hosts without SMTPUTF8 (RFC 6857).

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;

use super::dkim::DomainKeys;
use crate::mail::mime;

/// Generates that form only once a host turns out to need it: it is as large as the mail, and needs a signature.
#[derive(Clone)]
pub struct AsciiForm {
    keys: Arc<DomainKeys>,
}

impl AsciiForm {
    /// Creates a form that is signed by these keys.
    pub(crate) const fn new(keys: Arc<DomainKeys>) -> Self {
        Self { keys }
    }

    /// Returns the mail with an ASCII header, signed anew; `None` where the header cannot be written in ASCII.
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
