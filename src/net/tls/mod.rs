//! TLS: the server's certificate, replaced without a restart, and the roots that outgoing connections trust.
//!
//! `ring` is named explicitly everywhere; nothing relies on a process-wide default provider. `failure` explains
//! failed handshakes.

mod failure;

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, SystemTime};

use rustls::client::WebPkiServerVerifier;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use tokio_util::sync::CancellationToken;
use x509_parser::extensions::GeneralName;

use crate::clock::Timestamp;
use crate::config::Config;
pub(crate) use failure::reason;

/// The reasons why TLS cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read or written.
    #[error("{0}: {1}")]
    Io(String, std::io::Error),
    /// A file holds no certificate or key.
    #[error("{0}: {1}")]
    Pem(String, String),
    /// The certificate and key do not match, or rustls refuses them.
    #[error("certificate {0}: {1}")]
    Certificate(String, String),
}

/// The server's configuration, whose certificate can be replaced.
#[derive(Clone, Debug)]
pub(crate) struct ServerTls {
    config: Arc<ServerConfig>,
    current: Arc<CurrentCertificate>,
}

#[derive(Debug)]
struct CurrentCertificate {
    files: (PathBuf, PathBuf),
    key: RwLock<Arc<CertifiedKey>>,
    /// The state of the files when they were last read, successfully or not.
    seen: Mutex<FileStates>,
}

/// Modification time, size and inode of certificate and key; `None` for a missing file.
type FileStates = [Option<(SystemTime, u64, u64)>; 2];

fn file_states((cert, key): &(PathBuf, PathBuf)) -> FileStates {
    let state = |path: &Path| {
        let metadata = fs::metadata(path).ok()?;
        Some((metadata.modified().ok()?, metadata.len(), metadata.ino()))
    };
    [state(cert), state(key)]
}

impl CurrentCertificate {
    /// Records the present state of the files; returns true if it changed.
    fn record_state(&self) -> bool {
        let now = file_states(&self.files);
        std::mem::replace(&mut *self.seen.lock().unwrap_or_else(PoisonError::into_inner), now) != now
    }
}

impl ResolvesServerCert for CurrentCertificate {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.key.read().unwrap_or_else(PoisonError::into_inner)))
    }
}

/// Facts about a certificate, for display.
#[derive(Clone, Debug)]
pub(crate) struct CertificateFacts {
    /// The DNS names, or the subject if there are none.
    pub(crate) subject: String,
    /// The expiry date.
    pub(crate) not_after: Timestamp,
    pub(crate) self_signed: bool,
}

impl ServerTls {
    /// Describes the certificate in use; `None` if it cannot be parsed.
    pub(crate) fn facts(&self) -> Option<CertificateFacts> {
        let key = Arc::clone(&self.current.key.read().unwrap_or_else(PoisonError::into_inner));
        let (_, certificate) = x509_parser::parse_x509_certificate(key.cert.first()?).ok()?;
        let names = certificate.subject_alternative_name().ok().flatten();
        let names: Vec<String> = names.map_or_else(Vec::new, |names| {
            let dns = names.value.general_names.iter().filter_map(|name| match name {
                GeneralName::DNSName(name) => Some((*name).to_owned()),
                _ => None,
            });
            dns.collect()
        });
        Some(CertificateFacts {
            subject: if names.is_empty() { certificate.subject().to_string() } else { names.join(", ") },
            not_after: Timestamp::from_millis(certificate.validity().not_after.timestamp().saturating_mul(1_000)),
            self_signed: certificate.subject() == certificate.issuer(),
        })
    }

    /// Loads the configured certificate, or a self-signed one that is made once in the data directory.
    ///
    /// # Errors
    /// A file is missing, unreadable or not a certificate or key.
    pub(crate) fn open(config: &Config) -> Result<Self, TlsError> {
        let files = match (&config.tls.cert_file, &config.tls.key_file) {
            (Some(cert), Some(key)) => {
                if let Some(mode) = open_to_others(key)? {
                    let mode = format!("{mode:o}");
                    tracing::warn!(key = %key.display(), mode, "everybody on this machine can read the private key");
                }
                (cert.clone(), key.clone())
            }
            _ => self_signed(&config.data_dir, &config.hostname)?,
        };
        let seen = Mutex::new(file_states(&files));
        let key = RwLock::new(Arc::new(load(&files.0, &files.1)?));
        let current = Arc::new(CurrentCertificate { files, key, seen });
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let server = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| TlsError::Certificate("versions".into(), error.to_string()))?
            .with_no_client_auth()
            .with_cert_resolver(Arc::clone(&current) as Arc<dyn ResolvesServerCert>);
        Ok(Self { config: Arc::new(server), current })
    }

    /// Returns the configuration for acceptors.
    pub(crate) const fn config(&self) -> &Arc<ServerConfig> {
        &self.config
    }

    /// Returns the configuration for HTTPS, which offers HTTP/2 and HTTP/1.1 (RFC 7301).
    pub(crate) fn https_config(&self) -> Arc<ServerConfig> {
        let mut config = ServerConfig::clone(&self.config);
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Arc::new(config)
    }

    /// Reads the files again for new connections; a faulty certificate changes nothing.
    ///
    /// # Errors
    /// As [`ServerTls::open`].
    pub(crate) fn reload(&self) -> Result<(), TlsError> {
        // Record before reading: a change in between is noticed the next time.
        self.current.record_state();
        let loaded = Arc::new(load(&self.current.files.0, &self.current.files.1)?);
        *self.current.key.write().unwrap_or_else(PoisonError::into_inner) = loaded;
        Ok(())
    }

    /// Reloads if the files changed since they were last read; returns true if they did.
    ///
    /// # Errors
    /// As [`ServerTls::open`], once for each change.
    pub(crate) fn reload_if_changed(&self) -> Result<bool, TlsError> {
        if !self.current.record_state() {
            return Ok(false);
        }
        self.reload().map(|()| true)
    }

    /// Checks the files at this interval and reloads changed ones, until `stop`.
    pub(crate) async fn watch(self, every: Duration, stop: CancellationToken) {
        while stop.run_until_cancelled(tokio::time::sleep(every)).await.is_some() {
            log_reload(self.reload_if_changed());
        }
    }
}

/// Logs the result of a reload.
pub(crate) fn log_reload(reloaded: Result<bool, TlsError>) {
    match reloaded {
        Ok(false) => {}
        Ok(true) => tracing::info!("the certificate was reloaded and is used for new connections"),
        Err(error) => tracing::warn!(%error, "the new certificate cannot be used; the old one stays in use"),
    }
}

/// Loads a certificate chain and its key and checks that they belong together.
///
/// # Errors
/// They cannot be read, or do not match.
pub(crate) fn load(cert: &Path, key: &Path) -> Result<CertifiedKey, TlsError> {
    let name = |path: &Path| path.display().to_string();
    let pem = |path: &Path, error: rustls::pki_types::pem::Error| TlsError::Pem(name(path), error.to_string());
    let chain: Vec<CertificateDer<'static>> =
        CertificateDer::pem_file_iter(cert).and_then(Iterator::collect).map_err(|error| pem(cert, error))?;
    if chain.is_empty() {
        return Err(TlsError::Pem(name(cert), "there is no certificate in it".into()));
    }
    let key_der = PrivateKeyDer::from_pem_file(key).map_err(|error| pem(key, error))?;
    CertifiedKey::from_der(chain, key_der, &rustls::crypto::ring::default_provider())
        .map_err(|error| TlsError::Certificate(name(cert), error.to_string()))
}

/// Returns the mode of a private key that others can read.
///
/// # Errors
/// The file's metadata cannot be read.
pub(crate) fn open_to_others(key: &Path) -> Result<Option<u32>, TlsError> {
    let metadata = fs::metadata(key).map_err(|error| TlsError::Io(key.display().to_string(), error))?;
    let mode = metadata.permissions().mode() & 0o777;
    Ok((mode & 0o007 != 0).then_some(mode))
}

/// Returns the paths of the self-signed certificate for `hostname` and its key, made at the first start.
fn self_signed(data_dir: &Path, hostname: &str) -> Result<(PathBuf, PathBuf), TlsError> {
    let folder = data_dir.join("tls");
    let file = |ending: &str| folder.join(format!("self-signed-{hostname}.{ending}"));
    let (cert, key) = (file("crt"), file("key"));
    if cert.exists() && key.exists() {
        return Ok((cert, key));
    }
    let made = rcgen::generate_simple_self_signed(vec![hostname.to_owned()])
        .map_err(|error| TlsError::Certificate(hostname.to_owned(), error.to_string()))?;
    let io = |path: &Path| {
        let name = path.display().to_string();
        move |error| TlsError::Io(name, error)
    };
    fs::DirBuilder::new().recursive(true).mode(0o700).create(&folder).map_err(io(&folder))?;
    // If the process ends between the two files, an old certificate would not match the new key.
    drop(fs::remove_file(&cert));
    write_private(&key, &made.signing_key.serialize_pem()).map_err(io(&key))?;
    write_private(&cert, &made.cert.pem()).map_err(io(&cert))?;
    tracing::info!(certificate = %cert.display(), hostname, "made a self-signed certificate for STARTTLS and HTTPS");
    Ok((cert, key))
}

/// Writes to a temporary file and renames it, so that a crash leaves no partial file for the next start.
fn write_private(path: &Path, text: &str) -> std::io::Result<()> {
    let temporary = path.with_extension("new");
    drop(fs::remove_file(&temporary));
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(&temporary, path)?;
    path.parent().map_or(Ok(()), |folder| fs::File::open(folder)?.sync_all())
}

/// Creates the outgoing configuration: the public roots, and those of `ca_file`.
///
/// # Errors
/// The file is missing or holds no certificate.
pub fn client_config(ca_file: Option<&Path>) -> Result<ClientConfig, TlsError> {
    let mut roots = RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
    if let Some(path) = ca_file {
        let pem = |error: String| TlsError::Pem(path.display().to_string(), error);
        let more = CertificateDer::pem_file_iter(path).map_err(|error| pem(error.to_string()))?;
        let public = roots.len();
        for certificate in more {
            let certificate = certificate.map_err(|error| pem(error.to_string()))?;
            roots.add(certificate).map_err(|error| pem(error.to_string()))?;
        }
        if roots.len() == public {
            return Err(pem("there is no certificate in it".into()));
        }
    }
    trusting(roots)
}

/// Creates an outgoing configuration that trusts `roots` alone. [`reason`] explains its errors.
///
/// # Errors
/// There is no root.
pub(crate) fn trusting(roots: RootCertStore) -> Result<ClientConfig, TlsError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider))
        .build()
        .map_err(|error| TlsError::Certificate("roots".into(), error.to_string()))?;
    // `Verifier` only changes the errors of the WebPKI verifier.
    Ok(ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| TlsError::Certificate("versions".into(), error.to_string()))?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(failure::Verifier(verifier)))
        .with_no_client_auth())
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests may panic")]

    use rustls::pki_types::ServerName;
    use rustls::{ClientConnection, ServerConnection};

    use super::*;

    fn config(data_dir: &Path, hostname: &str) -> Config {
        Config { data_dir: data_dir.to_owned(), hostname: hostname.to_owned(), ..Config::default() }
    }

    fn leaf(server: &ServerTls) -> CertificateDer<'static> {
        server.current.key.read().unwrap().cert.first().unwrap().clone()
    }

    /// Performs a handshake in memory; returns the client's error if it refuses the server.
    fn shake_hands(client: ClientConfig, server: &ServerTls, name: &'static str) -> Result<(), rustls::Error> {
        let mut client = ClientConnection::new(Arc::new(client), ServerName::try_from(name).unwrap()).unwrap();
        let mut server = ServerConnection::new(Arc::clone(server.config())).unwrap();
        while client.is_handshaking() || server.is_handshaking() {
            let mut wire = Vec::new();
            client.write_tls(&mut wire).unwrap();
            server.read_tls(&mut wire.as_slice()).unwrap();
            server.process_new_packets().unwrap();
            wire.clear();
            server.write_tls(&mut wire).unwrap();
            client.read_tls(&mut wire.as_slice()).unwrap();
            client.process_new_packets()?;
        }
        Ok(())
    }

    #[test]
    fn the_self_signed_certificate_is_made_once_for_a_host_and_kept_private() {
        let dir = tempfile::tempdir().unwrap();
        let first = leaf(&ServerTls::open(&config(dir.path(), "mx.example.com")).unwrap());
        assert_eq!(leaf(&ServerTls::open(&config(dir.path(), "mx.example.com")).unwrap()), first);
        assert_ne!(leaf(&ServerTls::open(&config(dir.path(), "mail.example.com")).unwrap()), first);
        for entry in fs::read_dir(dir.path().join("tls")).unwrap() {
            assert_eq!(entry.unwrap().metadata().unwrap().permissions().mode() & 0o777, 0o600);
        }
    }

    #[test]
    fn a_client_trusts_the_roots_of_the_ca_file_besides_the_public_ones() {
        let dir = tempfile::tempdir().unwrap();
        let server = ServerTls::open(&config(dir.path(), "mx.example.com")).unwrap();
        let trusting = || client_config(Some(&server.current.files.0)).unwrap();
        shake_hands(trusting(), &server, "mx.example.com").unwrap();
        assert!(shake_hands(trusting(), &server, "other.example.com").is_err());
        assert!(shake_hands(client_config(None).unwrap(), &server, "mx.example.com").is_err());
        let key = server.current.files.1.clone();
        assert!(client_config(Some(&key)).unwrap_err().to_string().contains("no certificate"));
    }

    #[test]
    fn a_renewed_certificate_is_taken_and_a_faulty_one_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let server = ServerTls::open(&config(dir.path(), "mx.example.com")).unwrap();
        let first = leaf(&server);
        let (cert, key) = server.current.files.clone();
        let renewed = rcgen::generate_simple_self_signed(["mx.example.com".to_owned()]).unwrap();
        fs::write(&cert, renewed.cert.pem()).unwrap();
        assert!(server.reload().is_err(), "the certificate does not fit the old key");
        assert_eq!(leaf(&server), first);
        fs::write(&key, renewed.signing_key.serialize_pem()).unwrap();
        server.reload().unwrap();
        assert_eq!(leaf(&server), *renewed.cert.der());
    }

    #[tokio::test]
    async fn changed_files_are_found_without_being_asked_and_faulty_ones_are_told_once() {
        let dir = tempfile::tempdir().unwrap();
        let server = ServerTls::open(&config(dir.path(), "mx.example.com")).unwrap();
        let (cert, key) = server.current.files.clone();
        assert!(!server.reload_if_changed().unwrap());
        fs::write(&cert, "-----BEGIN").unwrap();
        assert!(server.reload_if_changed().is_err());
        assert!(!server.reload_if_changed().unwrap(), "told already");
        fs::remove_file(&cert).unwrap();
        assert!(server.reload_if_changed().is_err());
        assert!(!server.reload_if_changed().unwrap());

        let stop = CancellationToken::new();
        let watching = tokio::spawn(server.clone().watch(Duration::from_millis(1), stop.clone()));
        let renewed = rcgen::generate_simple_self_signed(["mx.example.com".to_owned()]).unwrap();
        fs::write(&cert, renewed.cert.pem()).unwrap();
        fs::write(&key, renewed.signing_key.serialize_pem()).unwrap();
        let taken = async {
            while leaf(&server) != *renewed.cert.der() {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(30), taken).await.unwrap();
        stop.cancel();
        watching.await.unwrap();
    }
}
