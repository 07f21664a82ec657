//! TLSA records: their requirements on a certificate (RFC 6698, RFC 7672).

use ring::digest::{SHA256, SHA512, digest};
use rustls::pki_types::CertificateDer;

/// A TLSA record.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Tlsa {
    /// Certificate usage; only 2 (DANE-TA) and 3 (DANE-EE) count for SMTP (RFC 7672 §3.1).
    pub usage: u8,
    /// 0: the whole certificate; 1: its public key.
    pub selector: u8,
    /// 0: exact; 1: SHA-256; 2: SHA-512.
    pub matching: u8,
    /// The value to match.
    pub data: Vec<u8>,
}

impl Tlsa {
    /// Returns true if the record is usable; others are ignored (RFC 7672 §3.1.3).
    pub(crate) fn is_usable(&self) -> bool {
        let length = match self.matching {
            0 => !self.data.is_empty(),
            1 => self.data.len() == 32,
            2 => self.data.len() == 64,
            _ => false,
        };
        matches!(self.usage, 2 | 3) && self.selector <= 1 && length
    }

    /// Returns true if a certificate matches the record.
    pub(crate) fn matches(&self, certificate: &CertificateDer<'_>) -> bool {
        let key;
        let selected: &[u8] = match self.selector {
            0 => certificate,
            1 => match webpki_spki(certificate) {
                Some(found) => {
                    key = found;
                    &key
                }
                None => return false,
            },
            _ => return false,
        };
        match self.matching {
            0 => selected == self.data,
            1 => digest(&SHA256, selected).as_ref() == self.data,
            2 => digest(&SHA512, selected).as_ref() == self.data,
            _ => false,
        }
    }
}

/// Returns the complete SubjectPublicKeyInfo of a certificate.
fn webpki_spki(certificate: &CertificateDer<'_>) -> Option<Vec<u8>> {
    let parsed = rustls::server::ParsedCertificate::try_from(certificate).ok()?;
    Some(parsed.subject_public_key_info().to_vec())
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests may panic")]

    use super::*;

    #[test]
    fn every_selector_and_matching() {
        let key = rcgen::KeyPair::generate().unwrap();
        let made = rcgen::CertificateParams::new(vec!["mx.test".to_owned()]).unwrap().self_signed(&key).unwrap();
        let certificate = made.der();
        let spki = rcgen::PublicKeyData::subject_public_key_info(&key);
        for (selector, whole) in [(0, certificate.to_vec()), (1, spki)] {
            for (matching, data) in [
                (0, whole.clone()),
                (1, digest(&SHA256, &whole).as_ref().to_vec()),
                (2, digest(&SHA512, &whole).as_ref().to_vec()),
            ] {
                let record = Tlsa { usage: 3, selector, matching, data: data.clone() };
                assert!(record.is_usable() && record.matches(certificate), "{selector} {matching}");
                let mut changed = data;
                *changed.first_mut().unwrap() ^= 1;
                assert!(!Tlsa { data: changed, ..record }.matches(certificate), "{selector} {matching}");
            }
        }
    }

    #[test]
    fn unknown_kinds_are_not_usable() {
        let good = Tlsa { usage: 3, selector: 1, matching: 1, data: vec![0; 32] };
        assert!(good.is_usable());
        for bad in [
            Tlsa { usage: 0, ..good.clone() },
            Tlsa { usage: 1, ..good.clone() },
            Tlsa { selector: 2, ..good.clone() },
            Tlsa { matching: 3, ..good.clone() },
            Tlsa { matching: 2, ..good.clone() },
            Tlsa { matching: 0, data: Vec::new(), ..good },
        ] {
            assert!(!bad.is_usable(), "{bad:?}");
        }
    }
}
