//! Fetches a file that a client names by URL (contract 7.2): a few redirects, each checked like the first URL; the
//! whole file or an error.

mod coding;

use std::time::Duration;

use hyper::header::{ACCEPT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, HeaderMap, HeaderValue, LOCATION, USER_AGENT};
use hyper::{Method, StatusCode};
use percent_encoding::percent_decode_str;
use tokio::time::timeout;
use url::Url;

use super::body::ReleaseOnDrop;
use super::{BadUrl, Bytes, Egress, EgressError, Limits, Policy, Target, next_data};
use coding::{Coding, check_transfer_coding, decode};

/// The limits of a fetched file (contract 7.2): 10 s in all, redirects included, and 25 MiB.
pub const FILE_LIMITS: Limits = Limits { timeout: Duration::from_secs(10), max_answer_bytes: 26_214_400 };

const MAX_REDIRECTS: usize = 3;
const USER_AGENT_VALUE: &str = concat!("mailkite/", env!("CARGO_PKG_VERSION"));

/// A fetched file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fetched {
    /// The whole file, with its content coding undone.
    pub bytes: Vec<u8>,
    /// The Content-Type as sent; `None` when absent or not text.
    pub content_type: Option<String>,
    /// The last component of the final URL's path, percent-decoded; may contain any bytes.
    pub filename: Option<String>,
}

/// The reasons why a file was not fetched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FetchError {
    /// The form of the URL is refused: 400 `bad_url`. Nothing was sent.
    #[error(transparent)]
    Url(#[from] BadUrl),
    /// A redirect leads to a URL that would be refused as the first one.
    #[error("a redirect leads to a URL that is not accepted: {0}")]
    Redirect(BadUrl),
    /// More than three redirects.
    #[error("there are more than three redirects")]
    TooManyRedirects,
    /// A status other than 200.
    #[error("the response has status {0}")]
    Status(u16),
    /// The body is longer than the limit: 400 `attachment_too_large`.
    #[error("the file is too large")]
    TooLarge,
    /// An unknown content coding, or several.
    #[error("the file is sent in a content coding other than gzip, deflate and br")]
    Coding,
    /// A transfer coding other than chunked.
    #[error("the file is sent in a transfer coding that was not requested")]
    TransferCoding,
    /// The data does not match its content coding, or decodes to far too much.
    #[error("the file is sent in the content coding {0} and cannot be decoded")]
    Undecodable(&'static str),
    /// Out of memory budget for now: 503 `unavailable`.
    #[error("there is no memory for the file at the moment")]
    NoMemory,
    /// No response, or an incomplete one.
    #[error(transparent)]
    Egress(#[from] EgressError),
}

/// A bound that several files share.
pub(crate) trait Allowance: Sync {
    /// Takes this many octets before they are read; may wait for memory.
    fn take(&self, octets: usize) -> impl Future<Output = Result<(), FetchError>> + Send;
}

/// No bound but the file's own.
struct Unshared;

impl Allowance for Unshared {
    async fn take(&self, _: usize) -> Result<(), FetchError> {
        Ok(())
    }
}

/// Fetches the file at `url` through `egress`, whose guard checks every connection; `policy` checks the form of every
/// URL.
///
/// Sends no credentials and requests no content coding; one that is used all the same is undone, because it is not
/// part of the file (RFC 9110 §8.4). The file may have `limits.max_answer_bytes`, both as sent and decoded.
///
/// # Errors
/// There is no file, it exceeds the limit, or it is incomplete after `limits.timeout`.
pub async fn fetch_file(egress: &Egress, policy: &Policy, url: &str, limits: Limits) -> Result<Fetched, FetchError> {
    fetch_file_within(egress, policy, url, limits, &Unshared).await
}

/// Fetches a file as [`fetch_file`] does, within an allowance shared with others: its announced length is taken
/// before its first octet is read.
///
/// # Errors
/// As [`fetch_file`], or those of the allowance.
pub(crate) async fn fetch_file_within(
    egress: &Egress,
    policy: &Policy,
    url: &str,
    limits: Limits,
    allowance: &impl Allowance,
) -> Result<Fetched, FetchError> {
    let target = Target::parse(url, policy)?;
    let fetched = timeout(limits.timeout, follow(egress, policy, target, limits.max_answer_bytes, allowance));
    fetched.await.unwrap_or(Err(FetchError::Egress(EgressError::Timeout)))
}

async fn follow(
    egress: &Egress,
    policy: &Policy,
    mut target: Target,
    max_bytes: usize,
    allowance: &impl Allowance,
) -> Result<Fetched, FetchError> {
    for _ in 0..=MAX_REDIRECTS {
        let headers = HeaderMap::from_iter([
            (USER_AGENT, HeaderValue::from_static(USER_AGENT_VALUE)),
            (ACCEPT_ENCODING, HeaderValue::from_static("identity")),
        ]);
        let (parts, mut incoming) = egress
            .open(Method::GET, &target, headers, Bytes::new().into(), &mut ReleaseOnDrop::default())
            .await?
            .into_parts();
        if is_redirect(parts.status)
            && let Some(location) = parts.headers.get(LOCATION)
        {
            target = redirected(&target, location, policy).map_err(FetchError::Redirect)?;
            continue;
        }
        if parts.status != StatusCode::OK {
            return Err(FetchError::Status(parts.status.as_u16()));
        }
        check_transfer_coding(&parts.headers)?;
        let coding = Coding::of(&parts.headers)?;
        let announced = announced_length(&parts.headers);
        if announced.is_some_and(|length| length > max_bytes) {
            return Err(FetchError::TooLarge);
        }
        let mut bytes = Vec::with_capacity(announced.unwrap_or(0));
        allowance.take(announced.unwrap_or(0)).await?;
        let mut taken = announced.unwrap_or(0);
        while let Some(data) = next_data(&parts.headers, &mut incoming).await? {
            let length = bytes.len().saturating_add(data.len());
            if length > max_bytes {
                return Err(FetchError::TooLarge);
            }
            if length > taken {
                allowance.take(length - taken).await?;
                taken = length;
            }
            bytes.extend_from_slice(&data);
        }
        if let Some(coding) = coding {
            bytes = decode(coding, &bytes, max_bytes, allowance).await?;
        }
        let content_type = parts.headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).map(str::to_owned);
        return Ok(Fetched { bytes, content_type, filename: filename(&target) });
    }
    Err(FetchError::TooManyRedirects)
}

/// RFC 9110 §15.4: the statuses that redirect to one other URL.
fn is_redirect(status: StatusCode) -> bool {
    matches!(status.as_u16(), 301 | 302 | 303 | 307 | 308)
}

/// Resolves a redirect. RFC 9110 §10.2.2: the location may be relative to the requested URL.
fn redirected(from: &Target, location: &HeaderValue, policy: &Policy) -> Result<Target, BadUrl> {
    let location = str::from_utf8(location.as_bytes()).map_err(|_| BadUrl::Malformed)?;
    let base = Url::parse(&from.uri().to_string()).map_err(|_| BadUrl::Malformed)?;
    let next = base.join(location).map_err(|_| BadUrl::Malformed)?;
    Target::parse(next.as_str(), policy)
}

/// Returns the Content-Length; one that does not fit a number exceeds every limit.
fn announced_length(headers: &HeaderMap) -> Option<usize> {
    let digits = headers.get(CONTENT_LENGTH)?.to_str().ok()?;
    Some(digits.parse().unwrap_or(usize::MAX))
}

fn filename(target: &Target) -> Option<String> {
    let last = target.uri().path().rsplit('/').next().filter(|name| !name.is_empty())?;
    Some(percent_decode_str(last).decode_utf8_lossy().into_owned())
}
