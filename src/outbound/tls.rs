//! TLS towards remote hosts: what each rule asks of a certificate.

use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};
use tokio_rustls::TlsConnector;

use super::dane::Tlsa;
use super::{Host, TlsRule};

/// Makes connectors.
#[derive(Clone)]
pub struct ClientTls {
    verified: Arc<ClientConfig>,
    any: Arc<ClientConfig>,
}

impl ClientTls {
    /// Connectors that trust the roots of `verified` where a certificate has to be valid.
    pub fn new(verified: &ClientConfig) -> Self {
        Self {
            verified: Arc::new(verified.clone()),
            any: Arc::new(with_verifier(verified, |provider| Arc::new(AnyCertificate { provider }))),
        }
    }

    /// The connector for a host. Without TLS there is none to make, and it is as for any certificate.
    pub fn connector(&self, host: &Host) -> TlsConnector {
        TlsConnector::from(match &host.tls {
            TlsRule::Opportunistic | TlsRule::Never => Arc::clone(&self.any),
            TlsRule::Verified { .. } => Arc::clone(&self.verified),
            // RFC 7672 §2.2: no usable record means TLS, whatever the certificate.
            TlsRule::Dane(records) if records.is_empty() => Arc::clone(&self.any),
            TlsRule::Dane(records) => {
                let records = Arc::clone(records);
                Arc::new(with_verifier(&self.verified, |provider| Arc::new(DaneCertificate { provider, records })))
            }
        })
    }
}

fn with_verifier(
    like: &ClientConfig,
    verifier: impl FnOnce(Arc<CryptoProvider>) -> Arc<dyn ServerCertVerifier>,
) -> ClientConfig {
    let mut config = like.clone();
    let provider = Arc::clone(config.crypto_provider());
    config.dangerous().set_certificate_verifier(verifier(provider));
    config
}

/// Opportunistic: whoever is at the other end, listeners in between hear nothing.
#[derive(Debug)]
struct AnyCertificate {
    provider: Arc<CryptoProvider>,
}

/// What the TLSA records say (RFC 7672 §3.1).
#[derive(Debug)]
struct DaneCertificate {
    provider: Arc<CryptoProvider>,
    records: Arc<[Tlsa]>,
}

macro_rules! verify_handshakes {
    () => {
        fn verify_tls12_signature(
            &self,
            message: &[u8],
            cert: &CertificateDer<'_>,
            dss: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            let algorithms = &self.provider.signature_verification_algorithms;
            rustls::crypto::verify_tls12_signature(message, cert, dss, algorithms)
        }

        fn verify_tls13_signature(
            &self,
            message: &[u8],
            cert: &CertificateDer<'_>,
            dss: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            let algorithms = &self.provider.signature_verification_algorithms;
            rustls::crypto::verify_tls13_signature(message, cert, dss, algorithms)
        }

        fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
            self.provider.signature_verification_algorithms.supported_schemes()
        }
    };
}

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    verify_handshakes!();
}

impl ServerCertVerifier for DaneCertificate {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        chain: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        // DANE-EE(3): the record alone decides; neither names nor dates count (RFC 7672 §3.1.1).
        if self.records.iter().any(|record| record.usage == 3 && record.matches(leaf)) {
            return Ok(ServerCertVerified::assertion());
        }
        // DANE-TA(2): a certificate of the chain is the only root, and the name counts (RFC 7672 §3.1.2).
        for anchor in chain {
            if !self.records.iter().any(|record| record.usage == 2 && record.matches(anchor)) {
                continue;
            }
            let mut roots = RootCertStore::empty();
            if roots.add(anchor.clone()).is_err() {
                continue;
            }
            let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&self.provider));
            let Ok(verifier) = verifier.build() else { continue };
            if verifier.verify_server_cert(leaf, chain, name, ocsp, now).is_ok() {
                return Ok(ServerCertVerified::assertion());
            }
        }
        Err(Error::InvalidCertificate(CertificateError::ApplicationVerificationFailure))
    }

    verify_handshakes!();
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests may panic")]

    use ring::digest::{SHA256, digest};
    use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
    use rustls::{ClientConnection, ServerConfig, ServerConnection};

    use super::*;

    struct Issued {
        leaf: CertificateDer<'static>,
        chain: Vec<CertificateDer<'static>>,
        key: Vec<u8>,
    }

    /// A certificate for `name` under a CA of its own.
    fn issue(name: &str) -> (Issued, CertificateDer<'static>) {
        let ca_key = rcgen::KeyPair::generate().unwrap();
        let mut ca = rcgen::CertificateParams::new(Vec::new()).unwrap();
        ca.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let issuer = rcgen::CertifiedIssuer::self_signed(ca, ca_key).unwrap();
        let key = rcgen::KeyPair::generate().unwrap();
        let leaf = rcgen::CertificateParams::new(vec![name.to_owned()]).unwrap().signed_by(&key, &issuer).unwrap();
        let root = issuer.der().clone();
        let issued = Issued {
            leaf: leaf.der().clone(),
            chain: vec![leaf.der().clone(), root.clone()],
            key: key.serialize_der(),
        };
        (issued, root)
    }

    fn shake_hands(rule: TlsRule, roots: &[CertificateDer<'static>], server: &Issued) -> bool {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut store = RootCertStore::empty();
        store.add_parsable_certificates(roots.iter().cloned());
        let verified = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(store)
            .with_no_client_auth();
        let host = Host { name: "mx.test".to_owned(), addresses: Vec::new(), tls: rule };
        let connector = ClientTls::new(&verified).connector(&host);
        let name = ServerName::try_from("mx.test").unwrap();
        let mut client = ClientConnection::new(Arc::clone(connector.config()), name).unwrap();
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(
                server.chain.clone(),
                PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(server.key.clone())),
            )
            .unwrap();
        let mut server = ServerConnection::new(Arc::new(config)).unwrap();
        while client.is_handshaking() || server.is_handshaking() {
            let mut wire = Vec::new();
            while client.wants_write() {
                client.write_tls(&mut wire).unwrap();
            }
            server.read_tls(&mut wire.as_slice()).unwrap();
            if server.process_new_packets().is_err() {
                return false;
            }
            let mut wire = Vec::new();
            while server.wants_write() {
                server.write_tls(&mut wire).unwrap();
            }
            let mut rest = wire.as_slice();
            while !rest.is_empty() {
                client.read_tls(&mut rest).unwrap();
                if client.process_new_packets().is_err() {
                    return false;
                }
            }
        }
        true
    }

    fn tlsa(usage: u8, certificate: &CertificateDer<'_>) -> TlsRule {
        let data = digest(&SHA256, certificate).as_ref().to_vec();
        TlsRule::Dane(Arc::from([Tlsa { usage, selector: 0, matching: 1, data }]))
    }

    #[test]
    fn each_rule_asks_for_what_it_says() {
        let (good, root) = issue("mx.test");
        let (other_name, other_root) = issue("other.test");
        let verified = || TlsRule::Verified { by: "MTA-STS" };
        assert!(shake_hands(TlsRule::Opportunistic, &[], &other_name), "any certificate");
        assert!(shake_hands(verified(), std::slice::from_ref(&root), &good));
        assert!(!shake_hands(verified(), std::slice::from_ref(&other_root), &good), "another root");
        assert!(!shake_hands(verified(), std::slice::from_ref(&other_root), &other_name), "another name");
        assert!(shake_hands(tlsa(3, &good.leaf), &[], &good));
        assert!(shake_hands(tlsa(3, &other_name.leaf), &[], &other_name), "the name does not count");
        assert!(!shake_hands(tlsa(3, &other_name.leaf), &[root.clone()], &good));
        assert!(shake_hands(tlsa(2, &root), &[], &good));
        assert!(!shake_hands(tlsa(2, &other_root), &[], &other_name), "here it does");
        assert!(!shake_hands(tlsa(2, &other_root), &[root.clone()], &good));
        assert!(!shake_hands(tlsa(1, &root), &[root], &good), "usages 0 and 1 do not count");
        assert!(shake_hands(TlsRule::Dane(Arc::from([])), &[], &other_name), "no usable record: any certificate");
    }
}
