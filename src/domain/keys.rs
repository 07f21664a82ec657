//! The DKIM keys of a domain: generated when it is added, sealed at rest.
//!
//! Generating an RSA pair keeps a core busy for a good part of a second, so a few are generated ahead while no request
//! wants one.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use ring::signature::{Ed25519KeyPair, KeyPair as _};
use rsa::pkcs8::{EncodePrivateKey as _, EncodePublicKey as _};
use rsa::{RsaPrivateKey, RsaPublicKey};

use crate::fair_semaphore::{FairSemaphore, QueueFull};
use crate::secrets::Secrets;
use crate::store::accounts::dkim_keys::Algorithm;
use crate::store::accounts::dkim_keys::NewDkimKey;
pub use crate::store::accounts::dkim_keys::PURPOSE;

/// RFC 8301 §3.2: at least 1024, should be 2048.
const RSA_BITS: usize = 2048;

/// Requests that may wait for a pair.
const MOST_WAITING: usize = 32;
/// RSA pairs generated ahead.
const AHEAD: usize = 8;
/// Idle time before the next pair is generated ahead.
const IDLE: Duration = Duration::from_secs(5);

/// Reason why no pair was generated.
#[derive(Clone, Debug, thiserror::Error)]
pub enum KeyError {
    /// The libraries failed.
    #[error("a DKIM key could not be made: {0}")]
    Failed(String),
    /// Too many requests wait for a pair.
    #[error(transparent)]
    Busy(#[from] QueueFull),
}

/// PKCS #8 of the private key, and the public key as published in DNS.
type Pair = (Vec<u8>, String);

/// Generates key pairs one at a time; callers take turns.
pub struct KeyMaker {
    gate: FairSemaphore,
    ahead: Arc<Mutex<Vec<Pair>>>,
    /// True while a task generates pairs ahead.
    making: Arc<AtomicBool>,
}

impl fmt::Debug for KeyMaker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyMaker").field("gate", &self.gate).finish_non_exhaustive()
    }
}

impl Default for KeyMaker {
    fn default() -> Self {
        Self { gate: FairSemaphore::new(1, MOST_WAITING), ahead: Arc::default(), making: Arc::default() }
    }
}

impl KeyMaker {
    /// Returns an RSA-2048 and an Ed25519 pair with sealed private keys, generated in the turn of `who`.
    ///
    /// # Errors
    /// The libraries could not generate one, or too many requests wait.
    pub async fn make(&self, secrets: &Secrets, who: &str) -> Result<Vec<NewDkimKey>, KeyError> {
        let turn = self.gate.acquire(who).await?;
        let ready = self.ahead.lock().unwrap_or_else(PoisonError::into_inner).pop();
        // The work ends when it is done, not when its caller goes away, and it holds its turn until then.
        let made = tokio::task::spawn_blocking(move || {
            let rsa = ready.map_or_else(rsa_pair, Ok);
            drop(turn);
            Ok::<_, KeyError>((rsa?, ed25519_pair()?))
        });
        let made = made.await.map_err(|error| KeyError::Failed(error.to_string()));
        self.make_ahead();
        let ((rsa, rsa_public), (ed, ed_public)) = made??;
        let key = |algorithm, private: &[u8], public_key| NewDkimKey {
            algorithm,
            private_sealed: secrets.seal(PURPOSE, private),
            public_key,
        };
        Ok(vec![key(Algorithm::Rsa, &rsa, rsa_public), key(Algorithm::Ed25519, &ed, ed_public)])
    }

    /// Returns how many requests wait for their turn, and how many were refused since the start.
    pub(crate) fn figures(&self) -> (usize, u64) {
        self.gate.queue_stats()
    }

    /// Generates RSA pairs ahead, one after the other and only while no request wants one, until there are enough.
    fn make_ahead(&self) {
        if self.making.swap(true, Ordering::Relaxed) {
            return;
        }
        let (gate, ahead, making) = (self.gate.clone(), Arc::clone(&self.ahead), Arc::clone(&self.making));
        tokio::spawn(async move {
            loop {
                tokio::time::sleep(IDLE).await;
                if ahead.lock().unwrap_or_else(PoisonError::into_inner).len() >= AHEAD {
                    break;
                }
                if !gate.is_idle() {
                    continue;
                }
                match tokio::task::spawn_blocking(rsa_pair).await {
                    Ok(Ok(pair)) => ahead.lock().unwrap_or_else(PoisonError::into_inner).push(pair),
                    Ok(Err(_)) | Err(_) => break,
                }
            }
            making.store(false, Ordering::Relaxed);
        });
    }
}

/// Generates PKCS #8 of the private key, and the public key as RFC 6376 §3.6.1 has it in practice: a
/// SubjectPublicKeyInfo.
fn rsa_pair() -> Result<Pair, KeyError> {
    let failed = |error: &dyn std::fmt::Display| KeyError::Failed(error.to_string());
    let private = RsaPrivateKey::new(&mut rsa::rand_core::OsRng, RSA_BITS).map_err(|error| failed(&error))?;
    let public = RsaPublicKey::from(&private).to_public_key_der().map_err(|error| failed(&error))?;
    let private = private.to_pkcs8_der().map_err(|error| failed(&error))?;
    Ok((private.as_bytes().to_vec(), BASE64.encode(public.as_bytes())))
}

/// RFC 8463 §4.2: the public key is published as its bare 32 bytes.
fn ed25519_pair() -> Result<Pair, KeyError> {
    let failed = |_| KeyError::Failed("Ed25519".to_owned());
    let private = Ed25519KeyPair::generate_pkcs8(&ring::rand::SystemRandom::new()).map_err(failed)?;
    let pair = Ed25519KeyPair::from_pkcs8(private.as_ref()).map_err(|error| KeyError::Failed(error.to_string()))?;
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
