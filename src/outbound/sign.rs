//! DKIM signatures (RFC 6376): RSA, and Ed25519 beside it (RFC 8463).
//!
//! The fields that people see are signed once more than they occur, so that none can be added on the way
//! (RFC 6376 §8.15).

use mail_auth::common::crypto::{Algorithm, Ed25519Key, RsaKey, Sha256, SigningKey};
use mail_auth::common::headers::{HeaderWriter as _, Writable};
use mail_auth::dkim::{Canonicalization, DkimSigner};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};

use crate::domain::records::{SELECTOR_ED25519, SELECTOR_RSA};
use crate::mail::signed_part::without_trailing_blanks;

/// Each name stands as often as it is signed: twice covers the one field there is, and that there is no other.
const SIGNED: &[&str] =
    &["From", "From", "To", "To", "Subject", "Subject", "Date", "Date", "Message-ID", "Message-ID"];
/// Signed where they are present.
const SIGNED_IF_PRESENT: &[&str] = &[
    "Cc",
    "Reply-To",
    "In-Reply-To",
    "References",
    "MIME-Version",
    "Content-Type",
    "Content-Transfer-Encoding",
    "List-Unsubscribe",
    "List-Unsubscribe-Post",
];

/// A mail that could not be signed, or keys that cannot.
#[derive(Debug, thiserror::Error)]
#[error("DKIM: {0}")]
pub struct SignError(String);

impl From<mail_auth::Error> for SignError {
    fn from(error: mail_auth::Error) -> Self {
        Self(error.to_string())
    }
}

/// The keys that sign for a domain.
pub struct DomainKeys {
    domain: String,
    rsa: RsaKey<Sha256>,
    ed25519: Option<Ed25519Key>,
}

/// A key in use; the signer wants one of its own.
struct Lent<'k, K>(&'k K);

impl<K: SigningKey> SigningKey for Lent<'_, K> {
    type Hasher = K::Hasher;

    fn sign(&self, input: impl Writable) -> mail_auth::Result<Vec<u8>> {
        self.0.sign(input)
    }

    fn algorithm(&self) -> Algorithm {
        self.0.algorithm()
    }
}

impl DomainKeys {
    /// Keys of `domain`, an A-label, from their PKCS #8 forms.
    ///
    /// # Errors
    /// One of them cannot be read.
    pub fn new(domain: &str, rsa_pkcs8: &[u8], ed25519_pkcs8: Option<&[u8]>) -> Result<Self, SignError> {
        let rsa = RsaKey::from_key_der(PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(rsa_pkcs8)))?;
        let ed25519 = ed25519_pkcs8.map(Ed25519Key::from_pkcs8_maybe_unchecked_der).transpose()?;
        Ok(Self { domain: domain.to_owned(), rsa, ed25519 })
    }

    /// The fields to put before a mail: `DKIM-Signature: …`, once or twice. Costs an RSA signature's time.
    ///
    /// # Errors
    /// The mail has no header that could be signed.
    pub fn sign(&self, mail: &[u8]) -> Result<String, SignError> {
        let mail = without_trailing_blanks(mail);
        let present = field_names(mail);
        let optional =
            SIGNED_IF_PRESENT.iter().filter(|name| present.iter().any(|one| one.eq_ignore_ascii_case(name)));
        let fields: Vec<&str> = SIGNED.iter().chain(optional).copied().collect();
        let mut signatures = String::new();
        if let Some(key) = &self.ed25519 {
            signatures.push_str(&self.field(key, SELECTOR_ED25519, &fields, mail)?);
        }
        signatures.push_str(&self.field(&self.rsa, SELECTOR_RSA, &fields, mail)?);
        Ok(signatures)
    }

    fn field<K: SigningKey>(
        &self,
        key: &K,
        selector: &str,
        fields: &[&str],
        mail: &[u8],
    ) -> Result<String, SignError> {
        let signer = DkimSigner::from_key(Lent(key))
            .domain(self.domain.as_str())
            .selector(selector)
            .headers(fields.iter().copied())
            .header_canonicalization(Canonicalization::Relaxed)
            .body_canonicalization(Canonicalization::Relaxed);
        Ok(signer.sign(mail)?.to_header())
    }
}

/// The names of a mail's fields.
fn field_names(mail: &[u8]) -> Vec<&str> {
    let mut names = Vec::new();
    for line in mail.split_inclusive(|byte| *byte == b'\n') {
        if line.iter().all(|byte| matches!(byte, b'\r' | b'\n')) {
            break;
        }
        let end = line.iter().position(|byte| matches!(byte, b':' | b' ' | b'\t'));
        let name = end.and_then(|end| line.get(..end)).and_then(|name| std::str::from_utf8(name).ok());
        names.extend(name.filter(|name| !name.is_empty()));
    }
    names
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests may panic")]

    use ring::signature::Ed25519KeyPair;
    use rsa::pkcs8::EncodePrivateKey as _;

    use super::*;

    const MAIL: &[u8] =
        b"From: a@acme.dev\r\nTo: b@c.test\r\nSubject: Hi\r\nDate: Tue, 28 Jul 2026 00:00:00 +0000\r\n\
        Message-ID: <1@acme.dev>\r\nList-Unsubscribe: <https://acme.dev>\r\n\r\nBody\r\n";

    fn keys() -> DomainKeys {
        let rsa = rsa::RsaPrivateKey::new(&mut rsa::rand_core::OsRng, 2048).unwrap().to_pkcs8_der().unwrap();
        let ed25519 = Ed25519KeyPair::generate_pkcs8(&ring::rand::SystemRandom::new()).unwrap();
        DomainKeys::new("acme.dev", rsa.as_bytes(), Some(ed25519.as_ref())).unwrap()
    }

    #[test]
    fn the_fields_that_people_see_are_signed_once_more_than_they_occur() {
        let signatures = keys().sign(MAIL).unwrap().to_lowercase();
        let fields: Vec<String> = signatures
            .split("dkim-signature:")
            .skip(1)
            .map(|one| one.replace(char::is_whitespace, ""))
            .map(|one| one.split("h=").nth(1).unwrap().split(';').next().unwrap().to_owned())
            .collect();
        assert_eq!(fields.len(), 2);
        for signed in fields {
            let count = |name: &str| signed.split(':').filter(|one| *one == name).count();
            assert!(["from", "to", "subject", "date", "message-id"].iter().all(|name| count(name) == 2), "{signed}");
            assert_eq!((count("list-unsubscribe"), count("cc")), (1, 0), "{signed}");
        }
        assert!(signatures.contains("a=ed25519-sha256") && signatures.contains("a=rsa-sha256"));
        assert!(signatures.contains("s=mailkite-ed;") && signatures.contains("s=mailkite;"));
        assert!(signatures.ends_with("\r\n") && !signatures.contains(" l="));
    }
}
