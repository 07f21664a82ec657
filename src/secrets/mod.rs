//! Secrets: the master key file, sealing at rest, derived keys, tokens and their hashes.
//!
//! A copy of the database alone reveals no secret; a copy of the whole data directory does, so it is 0700. It may use
//! `id`, `clock` and `fair_semaphore`. A new derived key or token belongs here, and then `mailkite rotate-key` must say
//! what becomes of it; passwords, session tokens, signed links and the next master key have files of their own.

pub(crate) mod next;
pub(crate) mod passwords;
pub(crate) mod session_tokens;
pub(crate) mod signed_links;

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::{digest, hkdf};

use crate::clock::Timestamp;
use crate::id::{fill_random, random_base36, random_base62};

/// The file name of the master key in the data directory.
pub(crate) const FILE_NAME: &str = "master.key";
const KEY_LEN: usize = 32;

/// The reasons why the master key cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SecretsError {
    /// Others can read it.
    #[error("{0} can be read by others; run: chmod 600 {0}")]
    TooOpen(String),
    /// It does not have 32 octets.
    #[error("{0} is not a master key: it should have 32 octets; restore it from a backup, it cannot be recreated")]
    Malformed(String),
    /// It is missing beside a database that was sealed with it.
    #[error(
        "{0} is missing, but there is a database whose secrets only it opens: put it back from a backup; \
         to start without them, use an empty data directory"
    )]
    Lost(String),
    /// The database's secrets were sealed with another one.
    #[error(
        "{0} is not the key that this database's secrets were sealed with: put the right one back from a backup; \
         without it no webhook can be signed and no mail can be sent"
    )]
    Foreign(String),
    /// Reading or writing it failed.
    #[error("{0}: {1}")]
    Io(String, std::io::Error),
    /// The sealed data was changed, or sealed with another key or for another purpose.
    #[error("a sealed secret does not open with this master key")]
    Unsealable,
}

/// A derived key of a master key that was replaced: what it made is accepted for its lifetime.
#[derive(Clone, Copy)]
pub struct FormerKey {
    /// The key.
    pub key: [u8; KEY_LEN],
    /// Time at which the master key was replaced.
    pub replaced_at: Timestamp,
}

/// Seals and opens secrets; its `Debug` output reveals nothing.
pub struct Secrets {
    sealing: LessSafeKey,
    root: hkdf::Prk,
}

impl fmt::Debug for Secrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secrets(…)")
    }
}

/// The length of a key, for HKDF.
struct KeyLength;

impl hkdf::KeyType for KeyLength {
    fn len(&self) -> usize {
        KEY_LEN
    }
}

impl Secrets {
    /// Reads the master key of a data directory; creates it at the first start.
    ///
    /// # Errors
    /// It is too open, malformed, unreadable, or missing beside a database.
    pub fn open(data_dir: &Path) -> Result<Self, SecretsError> {
        let path = data_dir.join(FILE_NAME);
        if !path.exists() && !Self::are_lost(data_dir)? {
            create(data_dir, &path).map_err(|error| SecretsError::Io(path.display().to_string(), error))?;
        }
        Self::read(data_dir)
    }

    /// Reads the master key of a data directory and never creates one.
    ///
    /// # Errors
    /// As [`Secrets::open`].
    pub(crate) fn read(data_dir: &Path) -> Result<Self, SecretsError> {
        let path = data_dir.join(FILE_NAME);
        if !path.exists() && Self::are_lost(data_dir)? {
            return Err(SecretsError::Lost(path.display().to_string()));
        }
        Self::from_file(&path)
    }

    /// Reads a master key from a file.
    ///
    /// # Errors
    /// It is too open, malformed or unreadable.
    pub(crate) fn from_file(path: &Path) -> Result<Self, SecretsError> {
        let name = path.display().to_string();
        check_mode(path)?;
        let bytes = fs::read(path).map_err(|error| SecretsError::Io(name.clone(), error))?;
        let key: [u8; KEY_LEN] = bytes.try_into().map_err(|_| SecretsError::Malformed(name))?;
        Self::from_key(&key)
    }

    /// Returns true if the master key is missing beside a database that was sealed with it.
    ///
    /// # Errors
    /// The directory cannot be read.
    pub(crate) fn are_lost(data_dir: &Path) -> Result<bool, SecretsError> {
        let io = |error| SecretsError::Io(data_dir.display().to_string(), error);
        Ok(!data_dir.join(FILE_NAME).exists() && has_database(data_dir).map_err(io)?)
    }

    fn from_key(key: &[u8; KEY_LEN]) -> Result<Self, SecretsError> {
        let root = hkdf::Salt::new(hkdf::HKDF_SHA256, b"mailkite").extract(key);
        let sealing =
            UnboundKey::new(&CHACHA20_POLY1305, &derive(&root, b"seal")).map_err(|_| SecretsError::Unsealable)?;
        Ok(Self { sealing: LessSafeKey::new(sealing), root })
    }

    /// Encrypts a secret; it can be opened for the same purpose only.
    pub fn seal(&self, purpose: &str, plaintext: &[u8]) -> Vec<u8> {
        let mut nonce = [0_u8; NONCE_LEN];
        fill_random(&mut nonce);
        let mut sealed = nonce.to_vec();
        let mut text = plaintext.to_vec();
        let aad = Aad::from(purpose.as_bytes());
        match self.sealing.seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), aad, &mut text) {
            Ok(()) => sealed.append(&mut text),
            // Only a text of 256 GiB is too long to seal; an empty result never opens.
            Err(_) => sealed.clear(),
        }
        sealed
    }

    /// Decrypts a secret.
    ///
    /// # Errors
    /// It was changed, or sealed with another key or for another purpose.
    pub fn open_sealed(&self, purpose: &str, sealed: &[u8]) -> Result<Vec<u8>, SecretsError> {
        let (nonce, text) = sealed.split_first_chunk::<NONCE_LEN>().ok_or(SecretsError::Unsealable)?;
        let mut text = text.to_vec();
        let aad = Aad::from(purpose.as_bytes());
        let plain = self
            .sealing
            .open_in_place(Nonce::assume_unique_for_key(*nonce), aad, &mut text)
            .map_err(|_| SecretsError::Unsealable)?;
        Ok(plain.to_vec())
    }

    /// Checks that this is the key of `data_dir`'s database, by one of the secrets in it if there is any.
    ///
    /// # Errors
    /// It is another one.
    pub(crate) fn check_fits(&self, data_dir: &Path, sample: Option<(&str, Vec<u8>)>) -> Result<(), SecretsError> {
        let foreign = |_| SecretsError::Foreign(data_dir.join(FILE_NAME).display().to_string());
        let Some((purpose, sealed)) = sample else { return Ok(()) };
        self.open_sealed(purpose, &sealed).map(drop).map_err(foreign)
    }

    /// Decrypts a secret that is text, as [`Secrets::open_sealed`] does.
    ///
    /// # Errors
    /// As [`Secrets::open_sealed`].
    pub fn open_text(&self, purpose: &str, sealed: &[u8]) -> Result<String, SecretsError> {
        String::from_utf8(self.open_sealed(purpose, sealed)?).map_err(|_| SecretsError::Unsealable)
    }

    /// Returns the key that signs session tokens.
    pub fn session_key(&self) -> [u8; KEY_LEN] {
        derive(&self.root, b"session")
    }

    /// Returns the key that signs attachment links (contract 7.1).
    pub fn link_key(&self) -> [u8; KEY_LEN] {
        derive(&self.root, b"link")
    }

    /// Returns the key of the fingerprints for duplicate suppression.
    pub(crate) fn fingerprint_key(&self) -> [u8; KEY_LEN] {
        derive(&self.root, b"fingerprint")
    }

    /// Returns the key that authenticates our own envelope senders.
    pub(crate) fn return_path_key(&self) -> [u8; KEY_LEN] {
        derive(&self.root, b"return path")
    }
}

fn derive(root: &hkdf::Prk, purpose: &[u8]) -> [u8; KEY_LEN] {
    let mut key = [0_u8; KEY_LEN];
    // Fails only for outputs beyond 255 hashes.
    let filled = root.expand(&[purpose], KeyLength).and_then(|okm| okm.fill(&mut key));
    debug_assert!(filled.is_ok());
    key
}

fn has_database(data_dir: &Path) -> std::io::Result<bool> {
    for entry in fs::read_dir(data_dir)? {
        let entry = entry?;
        if entry.path().extension().is_some_and(|extension| extension == "db") && entry.metadata()?.len() > 0 {
            return Ok(true);
        }
    }
    Ok(false)
}

fn create(data_dir: &Path, path: &Path) -> std::io::Result<()> {
    let mut key = [0_u8; KEY_LEN];
    fill_random(&mut key);
    // Written to a temporary file and renamed, so that a crash leaves no partial key.
    let temporary = path.with_extension("new");
    drop(fs::remove_file(&temporary));
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary)?;
    file.write_all(&key)?;
    file.sync_all()?;
    fs::rename(&temporary, path)?;
    File::open(data_dir)?.sync_all()
}

/// Refuses a master key that others can read.
///
/// # Errors
/// They can, or its metadata cannot be read.
pub(crate) fn check_mode(path: &Path) -> Result<(), SecretsError> {
    let name = path.display().to_string();
    let mode = fs::metadata(path).map_err(|error| SecretsError::Io(name.clone(), error))?.permissions().mode();
    if mode & 0o077 == 0 { Ok(()) } else { Err(SecretsError::TooOpen(name)) }
}

/// Creates an API key (contract 1.4).
pub fn new_api_key() -> String {
    format!("mk_live_{}", random_base62(40))
}

/// Creates a setup token: 32 characters `[0-9a-z]` (contract 1.4).
pub(crate) fn new_setup_token() -> String {
    random_base36(32)
}

/// Creates a webhook signing secret (contract 1.4).
pub fn new_webhook_secret() -> String {
    let mut key = [0_u8; KEY_LEN];
    fill_random(&mut key);
    format!("whsec_{}", BASE64.encode(key))
}

/// Returns the SHA-256 under which a key or token is stored.
pub fn token_hash(token: &str) -> [u8; 32] {
    let mut hash = [0_u8; 32];
    for (slot, byte) in hash.iter_mut().zip(digest::digest(&digest::SHA256, token.as_bytes()).as_ref()) {
        *slot = *byte;
    }
    hash
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests may panic")]

    use super::*;

    #[test]
    fn a_sealed_secret_opens_for_its_purpose_and_key_alone() {
        let dir = tempfile::tempdir().unwrap();
        let secrets = Secrets::open(dir.path()).unwrap();
        let sealed = secrets.seal("route-secret", b"whsec_x");
        assert_eq!(Secrets::open(dir.path()).unwrap().open_sealed("route-secret", &sealed).unwrap(), b"whsec_x");
        assert!(secrets.open_sealed("api-key", &sealed).is_err());
        let other = tempfile::tempdir().unwrap();
        assert!(Secrets::open(other.path()).unwrap().open_sealed("route-secret", &sealed).is_err());
    }

    #[test]
    fn a_master_key_that_others_read_or_that_is_cut_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        Secrets::open(dir.path()).unwrap();
        let path = dir.path().join(FILE_NAME);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        assert!(matches!(Secrets::open(dir.path()), Err(SecretsError::TooOpen(_))));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        fs::write(&path, b"short").unwrap();
        assert!(matches!(Secrets::open(dir.path()), Err(SecretsError::Malformed(_))));
    }

    #[test]
    fn no_new_master_key_is_made_beside_a_database() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("mailkite.db"), "").unwrap();
        Secrets::open(dir.path()).unwrap();
        fs::write(dir.path().join("mailkite.db"), "x").unwrap();
        Secrets::open(dir.path()).unwrap();
        fs::remove_file(dir.path().join(FILE_NAME)).unwrap();
        assert!(matches!(Secrets::open(dir.path()), Err(SecretsError::Lost(_))));
        assert!(!dir.path().join(FILE_NAME).exists());
    }

    #[test]
    fn keys_and_secrets_have_the_contracts_form() {
        assert_eq!(new_api_key().len(), "mk_live_".len() + 40);
        assert_eq!(new_webhook_secret().len(), "whsec_".len() + 44);
    }
}
