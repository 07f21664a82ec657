//! The DKIM keys of a domain: made with it, sealed at rest.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use ring::signature::{Ed25519KeyPair, KeyPair as _};
use rsa::pkcs8::{EncodePrivateKey as _, EncodePublicKey as _};
use rsa::{RsaPrivateKey, RsaPublicKey};
use tokio::sync::Semaphore;

use crate::secrets::Secrets;
use crate::store::dkim_keys::NewDkimKey;

/// What private keys are sealed for.
pub const PURPOSE: &str = "dkim-key";
/// RFC 8301 §3.2: at least 1024, should be 2048.
const RSA_BITS: usize = 2048;

/// A pair could not be made.
#[derive(Clone, Debug, thiserror::Error)]
#[error("a DKIM key could not be made: {0}")]
pub struct KeyError(String);

/// Makes pairs, one at a time: each takes a core for a good part of a second.
#[derive(Debug)]
pub struct KeyMaker {
    turn: Semaphore,
}

impl Default for KeyMaker {
    fn default() -> Self {
        Self { turn: Semaphore::new(1) }
    }
}

impl KeyMaker {
    /// An RSA-2048 and an Ed25519 pair, their private halves sealed.
    ///
    /// # Errors
    /// The libraries could not make one.
    pub async fn make(&self, secrets: &Secrets) -> Result<Vec<NewDkimKey>, KeyError> {
        let _turn = self.turn.acquire().await.map_err(|error| KeyError(error.to_string()))?;
        let made = tokio::task::spawn_blocking(|| Ok::<_, KeyError>((rsa_pair()?, ed25519_pair()?)));
        let ((rsa, rsa_public), (ed, ed_public)) = made.await.map_err(|error| KeyError(error.to_string()))??;
        let key = |algorithm, private: &[u8], public_key| NewDkimKey {
            algorithm,
            private_sealed: secrets.seal(PURPOSE, private),
            public_key,
        };
        Ok(vec![key("rsa", &rsa, rsa_public), key("ed25519", &ed, ed_public)])
    }
}

/// PKCS #8 of the private half; the public one as RFC 6376 §3.6.1 has it in practice, a SubjectPublicKeyInfo.
fn rsa_pair() -> Result<(Vec<u8>, String), KeyError> {
    let failed = |error: &dyn std::fmt::Display| KeyError(error.to_string());
    let private = RsaPrivateKey::new(&mut rsa::rand_core::OsRng, RSA_BITS).map_err(|error| failed(&error))?;
    let public = RsaPublicKey::from(&private).to_public_key_der().map_err(|error| failed(&error))?;
    let private = private.to_pkcs8_der().map_err(|error| failed(&error))?;
    Ok((private.as_bytes().to_vec(), BASE64.encode(public.as_bytes())))
}

/// RFC 8463 §4.2: the public half is the bare 32 bytes.
fn ed25519_pair() -> Result<(Vec<u8>, String), KeyError> {
    let failed = |_| KeyError("Ed25519".to_owned());
    let private = Ed25519KeyPair::generate_pkcs8(&ring::rand::SystemRandom::new()).map_err(failed)?;
    let pair = Ed25519KeyPair::from_pkcs8(private.as_ref()).map_err(|error| KeyError(error.to_string()))?;
    Ok((private.as_ref().to_vec(), BASE64.encode(pair.public_key().as_ref())))
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests may panic")]

    use super::*;

    #[test]
    fn public_keys_have_the_form_that_verifiers_read() {
        let (private, public) = rsa_pair().unwrap();
        assert!(public.starts_with("MIIBIjANBgkqhkiG9w0BAQEFAAOCAQ8A"), "a SubjectPublicKeyInfo of 2048 bits");
        assert!(ring::rsa::KeyPair::from_pkcs8(&private).is_ok());
        let (private, public) = ed25519_pair().unwrap();
        assert_eq!(BASE64.decode(public).unwrap().len(), 32);
        assert!(Ed25519KeyPair::from_pkcs8(&private).is_ok());
    }
}
