//! Which signatures of a message are checked, and over what: where RFC 6376 leaves a choice or the library another reading.

use mail_auth::common::crypto::HashAlgorithm;
use mail_auth::common::headers::Header;
use mail_auth::dkim::{Canonicalization, DkimError, Signature};
use mail_auth::{AuthenticatedMessage, Error};

use crate::mail::signed_part::without_trailing_blanks;

/// Each signature costs a question and a public-key operation, and the sender says how many there are.
const MAX_SIGNATURES: usize = 5;
/// Fields that one signature may name; each is looked for among all of the message.
const MAX_SIGNED_FIELDS: usize = 1000;

/// Leaves in `message` what is to be checked; `body_offset` is where our own reader finds the body.
pub fn prepare(message: &mut AuthenticatedMessage<'_>, body_offset: usize) {
    correct_relaxed_hashes(message);
    take_partial(message);
    // A line that is no field ends the header for our reader and not for the library: what it would vouch for is not the
    // text that is shown. Such a message has no form that could be signed (RFC 6376 §3.8).
    let same_body = usize::try_from(message.body_offset).is_ok_and(|offset| offset == body_offset);
    if !same_body {
        message.ams_headers.clear();
    }
    // RFC 6376 §6.1.1: a signature that does not cover From says nothing about the author.
    let (covering, others): (Vec<_>, Vec<_>) =
        std::mem::take(&mut message.dkim_headers).into_iter().partition(|header| {
            let names = &header.header.h;
            let covers_from = || names.iter().any(|name| name.eq_ignore_ascii_case("from"));
            same_body && names.len() <= MAX_SIGNED_FIELDS && covers_from()
        });
    let refused = others.into_iter().map(|header| Header::new(header.name, header.value, Error::MissingParameters));
    message.dkim_headers = covering;
    message.dkim_headers.truncate(MAX_SIGNATURES);
    message.errors.extend(refused);
    message.errors.truncate(MAX_SIGNATURES);
}

/// Sets the body hashes that [`without_trailing_blanks`] is about.
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

/// Signatures with `l=` are about the beginning of the body alone, and anybody may add to it; so the library refuses them.
/// One that is about all of the body after all is as good as any (RFC 6376 §8.2): here each has to fit the whole.
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
