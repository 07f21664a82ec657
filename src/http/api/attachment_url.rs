//! A file that a request gives, as base64 or by the URL where it lies (contract 7.2, 8.1). Which error a fault becomes
//! is the endpoint's.

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

/// The largest file, and all files of one message together (contract 1.9).
pub(crate) const MAX_BYTES: usize = 26_214_400;
/// Base64 is decoded in pieces of so many characters, a multiple of four.
const PIECE: usize = 64 * 1024;

/// Why there is no file.
#[derive(Debug)]
pub(crate) enum FileFault {
    /// The text is no base64.
    Base64,
    /// The URL is refused by its form.
    Url,
    /// It is larger than [`MAX_BYTES`], or all are together.
    TooLarge,
    /// It could not be fetched; why.
    Fetch(String),
    /// There is no memory for it.
    NoMemory(ApiError),
}

/// A file as base64, decoded while its field is read: text and octets never stand side by side, beyond a piece.
#[derive(Debug)]
pub(crate) struct Base64File(pub(crate) Result<Vec<u8>, FileFault>);

impl Base64File {
    /// Whether it is a file without content.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.as_ref().is_ok_and(Vec::is_empty)
    }
}

impl<'de> Deserialize<'de> for Base64File {
    /// What is no text is no base64 either.
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

/// The octets of a base64 text. It may be broken into lines and indented, for encoders of mail and people do so (RFC 2045
/// §6.8), be of the alphabet for URLs (RFC 4648 §5), lack its padding, and have the head of a `data:` URL (RFC 2397).
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
        // Padding ends the text, and so does its lack.
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

/// What stands behind `data:<type>;base64,`; all of a text that does not begin so.
fn without_data_head(text: &str) -> Result<&str, FileFault> {
    if !text.get(..5).is_some_and(|head| head.eq_ignore_ascii_case("data:")) {
        return Ok(text);
    }
    let (head, data) = text.split_once(',').ok_or(FileFault::Base64)?;
    let coding = head.rsplit(';').next().unwrap_or_default().trim();
    if coding.eq_ignore_ascii_case("base64") { Ok(data) } else { Err(FileFault::Base64) }
}

/// What the files of one request may have together, and hold of the memory budget while they are loaded.
pub(crate) struct Together {
    memory: RequestMemory,
    /// Octets of them so far.
    octets: AtomicUsize,
}

impl Together {
    /// Beside files of `octets`, which are in memory.
    pub(crate) const fn new(memory: RequestMemory, octets: usize) -> Self {
        Self { memory, octets: AtomicUsize::new(octets) }
    }

    /// Takes room for so many octets more, before they are loaded.
    ///
    /// # Errors
    /// All together are too large, or there is no memory.
    pub(crate) async fn add(&self, octets: usize) -> Result<(), FileFault> {
        let all = self.octets.fetch_add(octets, Ordering::Relaxed).saturating_add(octets);
        if all > MAX_BYTES {
            return Err(FileFault::TooLarge);
        }
        self.memory.hold(written(all)).await.map_err(FileFault::NoMemory)
    }
}

/// What files of so many octets take while a message with them is written: each stands in base64 beside its octets.
pub(crate) const fn written(octets: usize) -> usize {
    octets + octets / 3 * 4 + octets / 24
}

impl Allowance for Together {
    async fn take(&self, octets: usize) -> Result<(), FetchError> {
        self.add(octets).await.map_err(|fault| match fault {
            FileFault::TooLarge => FetchError::TooLarge,
            _ => FetchError::NoMemory,
        })
    }
}

/// Whether a URL may be fetched, as far as its form tells.
pub(crate) fn check_url(app: &AppState, url: &str) -> Result<(), FileFault> {
    if files::is_own_link(app, url) {
        return Ok(());
    }
    Target::parse(url, &app.webhooks.policy).map(|_| ()).map_err(|_| FileFault::Url)
}

/// Where a file is to come from, once it is known how large it is if that can be known.
pub(crate) enum Located {
    /// A file of this server.
    Own(OwnFile),
    /// Somewhere else.
    Remote(String),
}

/// Where the file behind a URL is; a link of this server is looked up, and its size taken of what the files may have.
///
/// # Errors
/// The link is not valid, or all are too large together. Nothing was read.
pub(crate) async fn locate(app: &AppState, url: String, together: &Together) -> Result<Located, FileFault> {
    let Some(found) = files::find_own_link(app, &url).await else { return Ok(Located::Remote(url)) };
    let file = found.map_err(|error| FileFault::Fetch(error.code().sentence().to_owned()))?;
    together.add(usize::try_from(file.size()).unwrap_or(usize::MAX)).await?;
    Ok(Located::Own(file))
}

/// Loads a file.
///
/// # Errors
/// It cannot be had.
pub(crate) async fn load(app: &AppState, located: Located, together: &Together) -> Result<Fetched, FileFault> {
    let url = match located {
        Located::Own(file) => {
            let read = file.read(app).await;
            return read.map_err(|error| FileFault::Fetch(error.code().sentence().to_owned()));
        }
        Located::Remote(url) => url,
    };
    let (egress, policy) = (&app.webhooks.egress, &app.webhooks.policy);
    fetch_file_within(egress, policy, &url, FILE_LIMITS, together).await.map_err(|error| match error {
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
