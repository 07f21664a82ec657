//! DKIM signatures (RFC 6376): RSA, plus Ed25519 (RFC 8463).
//!
//! Every field that may occur once is signed once more than it occurs, so that none can be added in transit
//! (RFC 6376 §8.15): readers use the first of several, a signature covers the last.

use mail_auth::common::crypto::{Algorithm, Ed25519Key, RsaKey, Sha256, SigningKey};
use mail_auth::common::headers::{HeaderWriter as _, Writable};
use mail_auth::dkim::{Canonicalization, DkimSigner};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};

use crate::mail::signed_part::without_trailing_blanks;

/// Fields that may occur once (RFC 5322 §3.6, RFC 2045, RFC 2183, RFC 2369, RFC 8058).
const SIGNED: &[&str] = &[
    "From",
    "Sender",
    "Reply-To",
    "To",
    "Cc",
    "Subject",
    "Date",
    "Message-ID",
    "In-Reply-To",
    "References",
    "MIME-Version",
    "Content-Type",
    "Content-Transfer-Encoding",
    "Content-Disposition",
    "Content-ID",
    "Content-Description",
    "Content-Language",
    "List-Id",
    "List-Help",
    "List-Subscribe",
    "List-Unsubscribe",
    "List-Unsubscribe-Post",
    "List-Post",
    "List-Owner",
    "List-Archive",
];

/// A mail that could not be signed, or unusable keys.
#[derive(Debug, thiserror::Error)]
#[error("DKIM: {0}")]
pub struct SignError(String);

impl From<mail_auth::Error> for SignError {
    fn from(error: mail_auth::Error) -> Self {
        Self(error.to_string())
    }
}

/// A private key and the selector that its public key is published under.
#[derive(Clone, Copy)]
pub struct PrivateKey<'k> {
    /// Left of `._domainkey`.
    pub selector: &'k str,
    /// PKCS #8 form.
    pub pkcs8: &'k [u8],
}

/// The keys that sign for a domain, each with its selector.
pub struct DomainKeys {
    domain: String,
    rsa: (String, RsaKey<Sha256>),
    ed25519: Option<(String, Ed25519Key)>,
}

/// A borrowed key, since the signer takes ownership of its key.
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
    /// Loads the keys of `domain`, an A-label.
    ///
    /// # Errors
    /// A key cannot be parsed.
    pub fn new(domain: &str, rsa: PrivateKey<'_>, ed25519: Option<PrivateKey<'_>>) -> Result<Self, SignError> {
        let parsed = RsaKey::from_key_der(PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(rsa.pkcs8)))?;
        let rsa = (rsa.selector.to_owned(), parsed);
        let ed25519 = match ed25519 {
            Some(key) => Some((key.selector.to_owned(), Ed25519Key::from_pkcs8_maybe_unchecked_der(key.pkcs8)?)),
            None => None,
        };
        Ok(Self { domain: domain.to_owned(), rsa, ed25519 })
    }

    /// Returns the fields to prepend to a mail: `DKIM-Signature: …`, once or twice. Takes the time of an RSA
    /// signature.
    ///
    /// # Errors
    /// The mail has no header that could be signed.
    pub fn sign(&self, mail: &[u8]) -> Result<String, SignError> {
        let mail = without_trailing_blanks(mail);
        let present = field_names(mail);
        let times = |name: &str| present.iter().filter(|one| one.eq_ignore_ascii_case(name)).count() + 1;
        let fields: Vec<&str> = SIGNED.iter().flat_map(|name| std::iter::repeat_n(*name, times(name))).collect();
        let mut signatures = String::new();
        if let Some((selector, key)) = &self.ed25519 {
            signatures.push_str(&self.field(key, selector, &fields, mail)?);
        }
        let (selector, key) = &self.rsa;
        signatures.push_str(&self.field(key, selector, &fields, mail)?);
        Ok(signatures)
    }

    /// Returns the signing domain.
    pub(crate) fn domain(&self) -> &str {
        &self.domain
    }

    /// Returns the selector of the RSA key.
    pub(crate) fn rsa_selector(&self) -> &str {
        &self.rsa.0
    }

    /// Returns the RSA signature of these octets.
    ///
    /// # Errors
    /// The key cannot sign.
    pub(crate) fn sign_rsa(&self, input: &[u8]) -> Result<Vec<u8>, SignError> {
        Ok(self.rsa.1.sign(input)?)
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

/// Returns the names of a mail's header fields.
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
        let rsa = PrivateKey { selector: "mailkite", pkcs8: rsa.as_bytes() };
        let ed25519 = PrivateKey { selector: "mailkite-ed", pkcs8: ed25519.as_ref() };
        DomainKeys::new("acme.dev", rsa, Some(ed25519)).unwrap()
    }

    #[test]
    fn every_field_that_may_stand_once_is_signed_once_more_than_it_occurs() {
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
            for name in SIGNED.iter().map(|name| name.to_lowercase()) {
                let present = ["from", "to", "subject", "date", "message-id", "list-unsubscribe"];
                let wanted = if present.contains(&name.as_str()) { 2 } else { 1 };
                assert_eq!(count(&name), wanted, "{name} in {signed}");
            }
        }
        assert!(signatures.contains("a=ed25519-sha256") && signatures.contains("a=rsa-sha256"));
        assert!(signatures.contains("s=mailkite-ed;") && signatures.contains("s=mailkite;"));
        assert!(signatures.ends_with("\r\n") && !signatures.contains(" l="));
    }
}
