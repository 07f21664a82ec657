//! A file that a request gives, as base64 or by the URL where it lies (contract 7.2, 8.1). Which error a fault becomes
//! is the endpoint's.

use std::borrow::Cow;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;

use crate::egress::{FILE_LIMITS, FetchError, Fetched, Target, fetch_file};
use crate::http::App;
use crate::http::error::Code;
use crate::http::files;
use crate::memory;

/// The largest file, and all files of one message together (contract 1.9).
pub const MAX_BYTES: usize = 26_214_400;

/// Why there is no file.
pub enum FileFault {
    /// The text is no base64.
    Base64,
    /// The URL is refused by its form.
    Url,
    /// It is larger than [`MAX_BYTES`].
    TooLarge,
    /// It could not be fetched; why.
    Fetch(String),
}

/// The octets of a base64 text. Line breaks are let pass, for encoders of mail write them (RFC 2045 §6.8).
pub fn decode(text: &str) -> Result<Vec<u8>, FileFault> {
    let text = text.trim();
    let text = if text.contains(['\r', '\n']) { Cow::Owned(text.replace(['\r', '\n'], "")) } else { text.into() };
    let mut bytes = Vec::with_capacity(memory::returned(base64::decoded_len_estimate(text.len())));
    BASE64.decode_vec(text.as_bytes(), &mut bytes).map_err(|_| FileFault::Base64)?;
    if bytes.len() > MAX_BYTES { Err(FileFault::TooLarge) } else { Ok(bytes) }
}

/// Whether a URL may be fetched, as far as its form tells.
pub fn check_url(app: &App, url: &str) -> Result<(), FileFault> {
    if files::is_own_link(app, url) {
        return Ok(());
    }
    Target::parse(url, &app.webhooks.policy).map(|_| ()).map_err(|_| FileFault::Url)
}

/// The file behind a URL; links of this server are followed inside.
pub async fn fetch(app: &App, url: &str) -> Result<Fetched, FileFault> {
    match files::read_own_link(app, url, MAX_BYTES).await {
        Some(Ok(own)) => return Ok(own),
        Some(Err(error)) if error.code() == Code::AttachmentTooLarge => return Err(FileFault::TooLarge),
        Some(Err(error)) => return Err(FileFault::Fetch(error.code().sentence().to_owned())),
        None => {}
    }
    let fetched = fetch_file(&app.webhooks.egress, &app.webhooks.policy, url, FILE_LIMITS).await;
    fetched.map_err(|error| match error {
        FetchError::Url(_) => FileFault::Url,
        FetchError::TooLarge => FileFault::TooLarge,
        FetchError::Redirect(_) | FetchError::TooManyRedirects | FetchError::Status(_) | FetchError::Egress(_) => {
            FileFault::Fetch(error.to_string())
        }
    })
}
