//! TLS: the server's certificate, replaced without a restart, and the roots that outgoing connections trust.
//!
//! `ring` is named explicitly everywhere; nothing relies on a process-wide default provider.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, RootCertStore, ServerConfig};

use crate::config::Config;

/// Why TLS cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read or written.
    #[error("{0}: {1}")]
    Io(String, std::io::Error),
    /// A file holds no certificate or key.
    #[error("{0}: {1}")]
    Pem(String, String),
    /// Certificate and key do not fit, or rustls refuses them.
    #[error("certificate {0}: {1}")]
    Certificate(String, String),
}

/// The server's side: a configuration whose certificate can be replaced.
#[derive(Clone, Debug)]
pub struct ServerTls {
    config: Arc<ServerConfig>,
    current: Arc<Current>,
}

#[derive(Debug)]
struct Current {
    files: (PathBuf, PathBuf),
    key: RwLock<Arc<CertifiedKey>>,
}

impl ResolvesServerCert for Current {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.key.read().unwrap_or_else(PoisonError::into_inner)))
    }
}

impl ServerTls {
    /// The configured certificate, or a self-signed one that is made once in the data directory.
    ///
    /// # Errors
    /// A file is missing, unreadable or no certificate or key.
    pub fn open(config: &Config) -> Result<Self, TlsError> {
        let files = match (&config.tls.cert_file, &config.tls.key_file) {
            (Some(cert), Some(key)) => (cert.clone(), key.clone()),
            _ => self_signed(&config.data_dir, &config.hostname)?,
        };
        let key = RwLock::new(Arc::new(load(&files.0, &files.1)?));
        let current = Arc::new(Current { files, key });
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let server = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| TlsError::Certificate("versions".into(), error.to_string()))?
            .with_no_client_auth()
            .with_cert_resolver(Arc::clone(&current) as Arc<dyn ResolvesServerCert>);
        Ok(Self { config: Arc::new(server), current })
    }

    /// What an acceptor is made of.
    pub const fn config(&self) -> &Arc<ServerConfig> {
        &self.config
    }

    /// Reads the files again; new connections get the new certificate, a faulty one changes nothing.
    ///
    /// # Errors
    /// As [`ServerTls::open`].
    pub fn reload(&self) -> Result<(), TlsError> {
        let fresh = Arc::new(load(&self.current.files.0, &self.current.files.1)?);
        *self.current.key.write().unwrap_or_else(PoisonError::into_inner) = fresh;
        Ok(())
    }
}

/// Reads a certificate chain and its key and checks that they belong together.
///
/// # Errors
/// They cannot be read, or do not.
pub fn load(cert: &Path, key: &Path) -> Result<CertifiedKey, TlsError> {
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

/// The paths of the self-signed certificate and its key, made at the first start.
fn self_signed(data_dir: &Path, hostname: &str) -> Result<(PathBuf, PathBuf), TlsError> {
    let folder = data_dir.join("tls");
    let (cert, key) = (folder.join("self-signed.crt"), folder.join("self-signed.key"));
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
    let write = |path: &Path, text: &str| {
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()
    };
    write(&key, &made.signing_key.serialize_pem()).map_err(io(&key))?;
    write(&cert, &made.cert.pem()).map_err(io(&cert))?;
    tracing::info!(certificate = %cert.display(), hostname, "made a self-signed certificate for STARTTLS");
    Ok((cert, key))
}

/// Outgoing TLS: the public roots, and those of `ca_file` besides.
///
/// # Errors
/// The file is missing or holds no certificate.
pub fn client_config(ca_file: Option<&Path>) -> Result<ClientConfig, TlsError> {
    let mut roots = RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
    if let Some(path) = ca_file {
        let pem = |error: String| TlsError::Pem(path.display().to_string(), error);
        let more = CertificateDer::pem_file_iter(path).map_err(|error| pem(error.to_string()))?;
        for certificate in more {
            let certificate = certificate.map_err(|error| pem(error.to_string()))?;
            roots.add(certificate).map_err(|error| pem(error.to_string()))?;
        }
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    Ok(ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| TlsError::Certificate("versions".into(), error.to_string()))?
        .with_root_certificates(roots)
        .with_no_client_auth())
}
