//! Files in a request, as base64 or by URL (contract 7.2, 8.1). Endpoints map [`FileFault`] to error codes of
//! their own.

use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};
use serde::de::{Deserialize, Deserializer, Error, Visitor};
use serde_json::value::RawValue;

use crate::http::AppState;
use crate::http::error::{ApiError, Code};
use crate::http::files::{self, OwnFile};
use crate::http::memory::RequestMemory;
use crate::net::egress::{Allowance, FILE_LIMITS, FetchError, Fetched, Target, fetch_file_within};

/// The largest file, and the sum of all files of one message, in octets (contract 1.9).
pub(crate) const MAX_BYTES: usize = 26_214_400;
/// Base64 is decoded in pieces of this many characters, a multiple of four.
const PIECE: usize = 64 * 1024;

/// Reason why there is no file.
#[derive(Debug)]
pub(crate) enum FileFault {
    /// The text is not base64.
    Base64,
    /// The URL is not allowed.
    Url,
    /// The file or the sum of all files exceeds [`MAX_BYTES`].
    TooLarge,
    /// The file could not be fetched; holds the reason.
    Fetch(String),
    /// There is no memory for it.
    NoMemory(ApiError),
}

/// A base64 file, decoded while its field is deserialized: only one piece is in memory as both text and octets.
#[derive(Debug)]
pub(crate) struct Base64File(pub(crate) Result<Vec<u8>, FileFault>);

impl Base64File {
    /// Returns true for a file without content.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.as_ref().is_ok_and(Vec::is_empty)
    }
}

impl<'de> Deserialize<'de> for Base64File {
    /// A value that is no string is reported as bad base64.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text;
        impl Visitor<'_> for Text {
            type Value = Base64File;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("a string")
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Base64File, E> {
                Ok(Base64File(decode(text)))
            }
        }
        let raw = <&RawValue>::deserialize(deserializer)?.get();
        let read = serde_json::Deserializer::from_str(raw).deserialize_str(Text);
        Ok(read.unwrap_or(Self(Err(FileFault::Base64))))
    }
}

/// Decodes base64. Line breaks and indentation are allowed, as mail encoders and people add them (RFC 2045 §6.8); so
/// are the alphabet for URLs (RFC 4648 §5), missing padding, and the head of a `data:` URL (RFC 2397).
fn decode(text: &str) -> Result<Vec<u8>, FileFault> {
    let text = without_data_head(text.trim())?;
    let is_blank = |byte: u8| matches!(byte, b'\r' | b'\n' | b'\t' | b' ');
    let blanks = text.bytes().filter(|byte| is_blank(*byte)).count();
    let most = (text.len() - blanks).div_ceil(4).saturating_mul(3);
    if most > MAX_BYTES + 2 {
        return Err(FileFault::TooLarge);
    }
    let mut bytes = Vec::with_capacity(most);
    let mut piece = Vec::with_capacity(PIECE.min(text.len()));
    let mut ended = false;
    let mut decode = |piece: &mut Vec<u8>, bytes: &mut Vec<u8>| {
        // Nothing may follow padding, or an incomplete group.
        if ended {
            return Err(FileFault::Base64);
        }
        ended = piece.contains(&b'=') || piece.len() < PIECE;
        let engine = if piece.contains(&b'=') { &STANDARD } else { &STANDARD_NO_PAD };
        engine.decode_vec(&piece, bytes).map_err(|_| FileFault::Base64)?;
        piece.clear();
        Ok(())
    };
    for byte in text.bytes().filter(|byte| !is_blank(*byte)) {
        piece.push(match byte {
            b'-' => b'+',
            b'_' => b'/',
            byte => byte,
        });
        if piece.len() == PIECE {
            decode(&mut piece, &mut bytes)?;
        }
    }
    if !piece.is_empty() {
        decode(&mut piece, &mut bytes)?;
    }
    if bytes.len() > MAX_BYTES { Err(FileFault::TooLarge) } else { Ok(bytes) }
}

/// Removes the head `data:<type>;base64,` of a `data:` URL.
fn without_data_head(text: &str) -> Result<&str, FileFault> {
    if !text.get(..5).is_some_and(|head| head.eq_ignore_ascii_case("data:")) {
        return Ok(text);
    }
    let (head, data) = text.split_once(',').ok_or(FileFault::Base64)?;
    let coding = head.rsplit(';').next().unwrap_or_default().trim();
    if coding.eq_ignore_ascii_case("base64") { Ok(data) } else { Err(FileFault::Base64) }
}

/// The total size of the files of one request, and its reservation of the memory budget.
pub(crate) struct FileTotal {
    memory: RequestMemory,
    /// Octets so far.
    octets: AtomicUsize,
}

impl FileTotal {
    /// Starts with files of `octets` in total, which are in memory.
    pub(crate) const fn new(memory: RequestMemory, octets: usize) -> Self {
        Self { memory, octets: AtomicUsize::new(octets) }
    }

    /// Reserves memory for a file before it is loaded.
    ///
    /// # Errors
    /// The sum is too large, or there is no memory.
    pub(crate) async fn add(&self, octets: usize) -> Result<(), FileFault> {
        let all = self.octets.fetch_add(octets, Ordering::Relaxed).saturating_add(octets);
        if all > MAX_BYTES {
            return Err(FileFault::TooLarge);
        }
        self.memory.hold(encoded_memory(all)).await.map_err(FileFault::NoMemory)
    }
}

/// Returns the memory for files of this size while a message with them is written: base64 in addition to the octets.
pub(crate) const fn encoded_memory(octets: usize) -> usize {
    octets + octets / 3 * 4 + octets / 24
}

impl Allowance for FileTotal {
    async fn take(&self, octets: usize) -> Result<(), FetchError> {
        self.add(octets).await.map_err(|fault| match fault {
            FileFault::TooLarge => FetchError::TooLarge,
            _ => FetchError::NoMemory,
        })
    }
}

/// Checks a URL by its form, before any look-up.
pub(crate) fn check_url(app: &AppState, url: &str) -> Result<(), FileFault> {
    if files::is_own_link(app, url) {
        return Ok(());
    }
    Target::parse(url, &app.webhooks.policy).map(|_| ()).map_err(|_| FileFault::Url)
}

/// Source of a file whose size is accounted for, if it is known.
pub(crate) enum Located {
    /// A file of this server.
    Own(OwnFile),
    /// A file of another server.
    Remote(String),
}

/// Finds the file behind a URL; the size of a file of this server is reserved.
///
/// # Errors
/// The link is not valid, or the sum is too large. Nothing was read.
pub(crate) async fn locate(app: &AppState, url: String, total: &FileTotal) -> Result<Located, FileFault> {
    let Some(found) = files::find_own_link(app, &url).await else { return Ok(Located::Remote(url)) };
    let file = found.map_err(|error| FileFault::Fetch(error.code().sentence().to_owned()))?;
    total.add(usize::try_from(file.size()).unwrap_or(usize::MAX)).await?;
    Ok(Located::Own(file))
}

/// Loads a file.
///
/// # Errors
/// The file cannot be loaded.
pub(crate) async fn load(app: &AppState, located: Located, total: &FileTotal) -> Result<Fetched, FileFault> {
    let url = match located {
        Located::Own(file) => {
            let read = file.read(app).await;
            return read.map_err(|error| FileFault::Fetch(error.code().sentence().to_owned()));
        }
        Located::Remote(url) => url,
    };
    let (egress, policy) = (&app.webhooks.egress, &app.webhooks.policy);
    fetch_file_within(egress, policy, &url, FILE_LIMITS, total).await.map_err(|error| match error {
        FetchError::Url(_) => FileFault::Url,
        FetchError::TooLarge => FileFault::TooLarge,
        FetchError::NoMemory => FileFault::NoMemory(ApiError::new(Code::Unavailable, error.to_string())),
        FetchError::Redirect(_)
        | FetchError::TooManyRedirects
        | FetchError::Status(_)
        | FetchError::Coding
        | FetchError::TransferCoding
        | FetchError::Undecodable(_)
        | FetchError::Egress(_) => FileFault::Fetch(error.to_string()),
    })
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests may panic")]

    use super::*;

    #[test]
    fn base64_is_decoded_in_pieces_whatever_its_lines_are() {
        let octets: Vec<u8> = (0..200_000_u32).map(|number| number.to_le_bytes()[0]).collect();
        let text = STANDARD.encode(&octets);
        assert_eq!(decode(&text).unwrap(), octets);
        let lines: Vec<&str> = text.as_bytes().chunks(77).map(|line| str::from_utf8(line).unwrap()).collect();
        assert_eq!(decode(&format!(" {}\r\n", lines.join("\r\n"))).unwrap(), octets);
        assert_eq!(decode("").unwrap(), b"");
        let padded = format!("{}AA==", "A".repeat(PIECE - 4));
        assert_eq!(decode(&padded).unwrap().len(), PIECE / 4 * 3 - 2);
        let unpadded = format!("{}AA", "A".repeat(PIECE));
        assert_eq!(decode(&unpadded).unwrap().len(), PIECE / 4 * 3 + 1);
        for (text, octets) in [
            ("AAA", &[0, 0][..]),
            ("AA", &[0]),
            ("AA = =", &[0]),
            ("-_-_", &[0xfb, 0xff, 0xbf]),
            ("+_-/", &[0xfb, 0xff, 0xbf]),
            ("eA\t\r\n ==", b"x"),
            ("e\n\tA", b"x"),
            ("data:text/plain;charset=utf-8;base64,eHl6", b"xyz"),
            ("DATA:;BASE64,eA", b"x"),
            ("data:application/pdf;base64,", b""),
        ] {
            assert_eq!(decode(text).unwrap(), octets, "{text}");
        }
        let more = [format!("{padded}AAAA"), format!("{padded}===="), format!("{unpadded}==AA")];
        let bad = [
            "A",
            "AA=",
            "AA==AA==",
            "A A=",
            "ä",
            "AAAAA",
            "AB",
            "data:text/plain,eHl6",
            "data:eHl6",
            "\u{a0}AAAA\u{b}AA",
        ];
        for bad in bad.into_iter().chain(more.iter().map(String::as_str)) {
            assert!(matches!(decode(bad), Err(FileFault::Base64)), "{bad}");
        }
        assert!(matches!(decode(&"A".repeat(MAX_BYTES / 3 * 4 + 8)), Err(FileFault::TooLarge)));
    }
}
