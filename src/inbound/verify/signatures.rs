//! Selects the signatures of a message to verify, and the data they cover, where RFC 6376 leaves a choice or the
//! library reads it differently.

use mail_auth::common::crypto::HashAlgorithm;
use mail_auth::common::headers::Header;
use mail_auth::dkim::{Canonicalization, DkimError, Signature};
use mail_auth::{AuthenticatedMessage, Error};

use crate::mail::mime::{Fields, Limits};
use crate::mail::signed_part::without_trailing_blanks;

/// Each signature costs a DNS query and a public-key operation, and the sender controls their number.
const MAX_SIGNATURES: usize = 5;
/// So do the seals of a chain (RFC 8617 §4.2.1 allows fifty); real mail has a few.
const MAX_SEALS: usize = 10;
/// Maximum number of fields that one signature may name; each is searched for among all fields of the message.
const MAX_SIGNED_FIELDS: usize = 1000;

/// Fields that may occur once in a header (RFC 5322 §3.6, RFC 2045, RFC 2183) and determine what a reader is shown.
/// Readers take the first of several, a signature covers the last (RFC 6376 §8.15).
const ONCE: &[&str] = &[
    "from",
    "sender",
    "reply-to",
    "to",
    "cc",
    "bcc",
    "date",
    "subject",
    "message-id",
    "in-reply-to",
    "references",
    "mime-version",
    "content-type",
    "content-transfer-encoding",
    "content-disposition",
    "content-id",
    "content-description",
    "content-language",
    "content-location",
];

/// Reduces `message` to the signatures to verify; `body_offset` is the start of the body as our own reader finds it,
/// and `has_stray_lines` is true if that found lines in the header that are no field. Returns true if every reader
/// finds the same header as ours.
pub(crate) fn prepare(message: &mut AuthenticatedMessage<'_>, body_offset: usize, has_stray_lines: bool) -> bool {
    correct_relaxed_hashes(message);
    take_partial(message);
    // Our reader skips a line that is no field, others end the header there: the signed text is not the text that is
    // shown. Such a message has no form that could be signed (RFC 6376 §3.8).
    let same_body = usize::try_from(message.body_offset).is_ok_and(|offset| offset == body_offset);
    let repeated = if same_body && !has_stray_lines { repeated(message) } else { None };
    let covers_what_is_read = |names: &[String]| {
        let named = |field: &str| names.iter().filter(|name| name.eq_ignore_ascii_case(field)).count();
        repeated.as_ref().is_some_and(|repeated| repeated.iter().all(|(field, times)| named(field) >= *times))
    };
    // The newest seal of a chain covers the message in its present form.
    if !message
        .ams_headers
        .iter()
        .max_by_key(|seal| seal.header.i)
        .is_some_and(|seal| covers_what_is_read(&seal.header.h))
    {
        message.ams_headers.clear();
    }
    // RFC 6376 §6.1.1: a signature that does not cover From proves nothing about the author.
    let (covering, others): (Vec<_>, Vec<_>) =
        std::mem::take(&mut message.dkim_headers).into_iter().partition(|header| {
            let names = &header.header.h;
            let covers_from = || names.iter().any(|name| name.eq_ignore_ascii_case("from"));
            names.len() <= MAX_SIGNED_FIELDS && covers_from() && covers_what_is_read(names)
        });
    let refused = others.into_iter().map(|header| Header::new(header.name, header.value, Error::MissingParameters));
    message.dkim_headers = covering;
    message.dkim_headers.truncate(MAX_SIGNATURES);
    message.errors.extend(refused);
    message.errors.truncate(MAX_SIGNATURES);
    repeated.is_some()
}

/// True if a chain of seals is longer than the number verified.
pub(crate) const fn has_too_many_seals(message: &AuthenticatedMessage<'_>) -> bool {
    message.as_headers.len() > MAX_SEALS
}

/// Returns the fields of [`ONCE`] that occur more than once, with their counts. `None` if the library finds other
/// fields than our own reader, such as a field with a blank before its colon: a signature over one reading proves
/// nothing about the other.
fn repeated(message: &AuthenticatedMessage<'_>) -> Option<Vec<(&'static str, usize)>> {
    let limits = Limits::default();
    let mut fields = Fields::new(message.raw_message, 0, &limits);
    let mut read = [0_usize; ONCE.len()];
    let place = |name: &[u8]| ONCE.iter().position(|field| name.eq_ignore_ascii_case(field.as_bytes()));
    let count = |counts: &mut [usize; ONCE.len()], name: &[u8]| {
        if let Some(times) = place(name).and_then(|at| counts.get_mut(at)) {
            *times += 1;
        }
    };
    while let Some(field) = fields.next(|_| false) {
        count(&mut read, field.name);
    }
    let mut found = [0_usize; ONCE.len()];
    for (name, _) in &message.headers {
        count(&mut found, name);
    }
    let repeated = || ONCE.iter().copied().zip(read).filter(|(_, times)| *times > 1).collect();
    (read == found).then(repeated)
}

/// Corrects the body hashes as described at [`without_trailing_blanks`].
fn correct_relaxed_hashes(message: &mut AuthenticatedMessage<'_>) {
    let (signed, rest) = message.raw_message.split_at(without_trailing_blanks(message.raw_message).len());
    if !rest.iter().any(|byte| matches!(byte, b' ' | b'\t')) {
        return;
    }
    let Some(corrected) = AuthenticatedMessage::parse(signed) else { return };
    for (found, right) in message.body_hashes.iter_mut().zip(corrected.body_hashes) {
        if found.0 == Canonicalization::Relaxed {
            *found = right;
        }
    }
}

/// Accepts signatures with `l=` that cover the whole body. `l=` signs the beginning of the body alone, and anybody may
/// append to it, so the library refuses all of them; one that covers the entire body after all is as good as any (RFC
/// 6376 §8.2).
fn take_partial(message: &mut AuthenticatedMessage<'_>) {
    let (partial, errors): (Vec<_>, Vec<_>) = std::mem::take(&mut message.errors)
        .into_iter()
        .partition(|header| matches!(header.header, Error::Dkim(DkimError::SignatureLength)));
    message.errors = errors;
    for header in partial.into_iter().take(MAX_SIGNATURES) {
        let Ok(signature) = Signature::parse(header.value) else { continue };
        let (canonicalization, algorithm) = (signature.cb, HashAlgorithm::from(signature.a));
        let is_that = |hash: &(Canonicalization, HashAlgorithm, u64, Vec<u8>)| {
            hash.0 == canonicalization && hash.1 == algorithm && hash.2 == 0
        };
        if !message.body_hashes.iter().any(is_that) {
            let hash = whole_body_hash(message, canonicalization, algorithm);
            message.body_hashes.push((canonicalization, algorithm, 0, hash));
        }
        message.dkim_headers.push(Header::new(header.name, header.value, Signature { l: 0, ..signature }));
    }
}

fn whole_body_hash(
    message: &AuthenticatedMessage<'_>,
    canonicalization: Canonicalization,
    algorithm: HashAlgorithm,
) -> Vec<u8> {
    let signed = match canonicalization {
        Canonicalization::Relaxed => without_trailing_blanks(message.raw_message),
        Canonicalization::Simple => message.raw_message,
    };
    let start = usize::try_from(message.body_offset).unwrap_or(usize::MAX);
    let body = signed.get(start..).unwrap_or_default();
    algorithm.hash(canonicalization.canonical_body(body, 0)).as_ref().to_vec()
}
