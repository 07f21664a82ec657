//! Content codings of fetched files (RFC 9110 §8.4.1). None is requested, but servers that store a file compressed
//! send it so. The decoded size is bounded, in total and relative to the encoded size.

use std::io::{self, Read};

use flate2::read::{DeflateDecoder, MultiGzDecoder, ZlibDecoder};
use hyper::header::{CONTENT_ENCODING, CONTENT_TYPE, HeaderMap, HeaderName, TRANSFER_ENCODING};
use tokio::sync::Semaphore;

use super::{Allowance, FetchError};

/// Octets decoded before yielding to other tasks.
const PIECE: usize = 64 * 1024;
/// The most that a file may grow …
const MAX_RATIO: usize = 250;
/// … beyond this size: a small file may be all zeros.
const ALWAYS_ALLOWED: usize = 1 << 20;

/// A decoder may need 16 MiB (RFC 7932 §9.1) for any input, so only one runs at a time.
static BROTLI: Semaphore = Semaphore::const_new(1);

/// A content coding that can be decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Coding {
    Gzip,
    Deflate,
    Brotli,
}

impl Coding {
    /// Returns the content coding of a response, if it has one.
    ///
    /// # Errors
    /// It has several, or an unknown one.
    pub(crate) fn of(headers: &HeaderMap) -> Result<Option<Self>, FetchError> {
        let codings = codings(headers, &CONTENT_ENCODING);
        let coding = match codings.as_slice() {
            [] => return Ok(None),
            [one] => match one.as_str() {
                "gzip" | "x-gzip" => Self::Gzip,
                "deflate" => Self::Deflate,
                "br" => Self::Brotli,
                _ => return Err(FetchError::Coding),
            },
            _ => return Err(FetchError::Coding),
        };
        // Servers that take `.gz` for a coding announce it twice; the file is the archive.
        let kind = headers.get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
        let kind = kind.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
        let is_archive = matches!(kind.as_str(), "application/gzip" | "application/x-gzip");
        Ok(Some(coding).filter(|coding| !(is_archive && *coding == Self::Gzip)))
    }

    const fn name(self) -> &'static str {
        match self {
            Self::Gzip => "gzip",
            Self::Deflate => "deflate",
            Self::Brotli => "br",
        }
    }

    fn reader(self, encoded: &[u8]) -> Box<dyn Read + Send + '_> {
        match self {
            Self::Gzip => Box::new(MultiGzDecoder::new(encoded)),
            Self::Deflate if is_zlib(encoded) => Box::new(ZlibDecoder::new(encoded)),
            // RFC 9110 §8.4.1.2: some servers omit the zlib wrapper.
            Self::Deflate => Box::new(DeflateDecoder::new(encoded)),
            Self::Brotli => Box::new(brotli_decompressor::Decompressor::new(encoded, PIECE)),
        }
    }
}

/// Lists the codings of a field in lower case, without those that change nothing.
fn codings(headers: &HeaderMap, field: &HeaderName) -> Vec<String> {
    let fields = headers.get_all(field).iter().map(|field| String::from_utf8_lossy(field.as_bytes()).into_owned());
    let words =
        fields.flat_map(|field| field.split(',').map(|word| word.trim().to_ascii_lowercase()).collect::<Vec<_>>());
    words.filter(|word| !matches!(word.as_str(), "" | "identity")).collect()
}

/// Checks the transfer coding. RFC 9112 §6.1: only chunked may be used without being requested, and the HTTP client
/// decodes it.
///
/// # Errors
/// There is another coding, which the file would be in.
pub(crate) fn check_transfer_coding(headers: &HeaderMap) -> Result<(), FetchError> {
    match codings(headers, &TRANSFER_ENCODING).as_slice() {
        [] => Ok(()),
        [one] if one == "chunked" => Ok(()),
        _ => Err(FetchError::TransferCoding),
    }
}

/// Detects the zlib header. RFC 1950 §2.2: the method is deflate, and the first two octets are a multiple of 31.
fn is_zlib(encoded: &[u8]) -> bool {
    let [method, flags, ..] = encoded else { return false };
    method & 0x0f == 8 && u16::from_be_bytes([*method, *flags]).is_multiple_of(31)
}

/// Decodes a file of up to `max` octets. `allowance` already covers the encoded file; it is asked for the growth.
///
/// # Errors
/// The data is broken or too large, or the allowance is used up.
pub(crate) async fn decode(
    coding: Coding,
    encoded: &[u8],
    max: usize,
    allowance: &impl Allowance,
) -> Result<Vec<u8>, FetchError> {
    if encoded.is_empty() {
        return Ok(Vec::new());
    }
    let broken = |_: io::Error| FetchError::Undecodable(coding.name());
    let limit = encoded.len().saturating_mul(MAX_RATIO).saturating_add(ALWAYS_ALLOWED);
    let _permit = if coding == Coding::Brotli { BROTLI.acquire().await.ok() } else { None };
    let mut reader = coding.reader(encoded);
    let (mut file, mut piece) = (Vec::new(), vec![0; PIECE]);
    let mut taken = encoded.len();
    loop {
        let length = reader.read(&mut piece).map_err(broken)?;
        let Some(read) = piece.get(..length).filter(|read| !read.is_empty()) else { return Ok(file) };
        let whole = file.len() + read.len();
        if whole > max {
            return Err(FetchError::TooLarge);
        }
        if whole > limit {
            return Err(FetchError::Undecodable(coding.name()));
        }
        if whole > taken {
            allowance.take(whole - taken).await?;
            taken = whole;
        }
        file.extend_from_slice(read);
        tokio::task::yield_now().await;
    }
}
