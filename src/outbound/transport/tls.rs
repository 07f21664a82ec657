//! TLS to remote hosts: the certificate checks of each rule.

use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{Resumption, WebPkiServerVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error, OtherError, RootCertStore, SignatureScheme,
};
use tokio_rustls::TlsConnector;

use super::dane::Tlsa;
use crate::outbound::{Host, TlsRule};

/// Creates connectors.
#[derive(Clone)]
pub struct ClientTls {
    verified: Arc<ClientConfig>,
    any: Arc<ClientConfig>,
}

impl ClientTls {
    /// Creates connectors that trust the roots of `verified` where a certificate has to be valid.
    pub fn new(verified: &ClientConfig) -> Self {
        // A clone shares the session cache of its original, so each rule gets its own.
        let mut verified = verified.clone();
        verified.resumption = Resumption::default();
        let any = with_verifier(&verified, Resumption::default(), |provider| Arc::new(AnyCertificate { provider }));
        Self { verified: Arc::new(verified), any: Arc::new(any) }
    }

    /// Returns the connector for a host. For a host without TLS, which needs none, it is the one that accepts any
    /// certificate.
    pub(crate) fn connector(&self, host: &Host) -> TlsConnector {
        TlsConnector::from(match &host.tls {
            TlsRule::Opportunistic | TlsRule::Never => Arc::clone(&self.any),
            TlsRule::Verified { .. } => Arc::clone(&self.verified),
            // RFC 7672 §2.2: without usable records TLS is required, with any certificate.
            TlsRule::Dane(records) if records.is_empty() => Arc::clone(&self.any),
            TlsRule::Dane(records) => {
                let records = Arc::clone(records);
                let verifier =
                    |provider| Arc::new(DaneCertificate { provider, records }) as Arc<dyn ServerCertVerifier>;
                // Records change, so a session resumed from earlier ones would prove nothing.
                Arc::new(with_verifier(&self.verified, Resumption::disabled(), verifier))
            }
        })
    }
}

fn with_verifier(
    like: &ClientConfig,
    resumption: Resumption,
    verifier: impl FnOnce(Arc<CryptoProvider>) -> Arc<dyn ServerCertVerifier>,
) -> ClientConfig {
    let mut config = like.clone();
    config.resumption = resumption;
    let provider = Arc::clone(config.crypto_provider());
    config.dangerous().set_certificate_verifier(verifier(provider));
    config
}

/// Opportunistic: accepts any certificate, which still protects against passive eavesdropping.
#[derive(Debug)]
struct AnyCertificate {
    provider: Arc<CryptoProvider>,
}

/// Verifies by TLSA records (RFC 7672 §3.1).
#[derive(Debug)]
struct DaneCertificate {
    provider: Arc<CryptoProvider>,
    records: Arc<[Tlsa]>,
}

#[derive(Debug, thiserror::Error)]
#[error("the certificate matches none of the TLSA records")]
struct NoTlsaMatch;

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
        // DANE-EE(3): only the record counts; names and dates are ignored (RFC 7672 §3.1.1).
        if self.records.iter().any(|record| record.usage == 3 && record.matches(leaf)) {
            return Ok(ServerCertVerified::assertion());
        }
        let mut failure = Error::InvalidCertificate(CertificateError::Other(OtherError(Arc::new(NoTlsaMatch))));
        // DANE-TA(2): a certificate of the chain is the only root, and the name is checked (RFC 7672 §3.1.2).
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
            match verifier.verify_server_cert(leaf, chain, name, ocsp, now) {
                Ok(verified) => return Ok(verified),
                Err(Error::InvalidCertificate(CertificateError::UnknownIssuer)) => {}
                // The issuer is the right one, so the name or the date is wrong.
                Err(error) => failure = error,
            }
        }
        Err(failure)
    }

    verify_handshakes!();
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests may panic")]

    use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, PublicKeyData as _};
    use ring::digest::{SHA256, digest};
    use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
    use rustls::server::ResolvesServerCert;
    use rustls::sign::CertifiedKey;
    use rustls::{ClientConnection, HandshakeKind, ProtocolVersion, ServerConfig, ServerConnection};

    use super::*;

    /// The certificate chain and key that a host presents.
    struct Shown {
        chain: Vec<CertificateDer<'static>>,
        key: KeyPair,
    }

    /// A defect of a certificate.
    #[derive(Clone, Copy, PartialEq)]
    enum Flaw {
        None,
        OtherName,
        Expired,
    }

    struct Authority {
        issuer: CertifiedIssuer<'static, KeyPair>,
        /// Its own certificate first, then its issuers.
        chain: Vec<CertificateDer<'static>>,
    }

    fn authority_params() -> CertificateParams {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params
    }

    impl Authority {
        fn new() -> Self {
            let issuer = CertifiedIssuer::self_signed(authority_params(), KeyPair::generate().unwrap()).unwrap();
            let chain = vec![issuer.der().clone()];
            Self { issuer, chain }
        }

        fn below(&self) -> Self {
            let mut params = authority_params();
            params.distinguished_name.push(rcgen::DnType::CommonName, "below");
            let issuer = CertifiedIssuer::signed_by(params, KeyPair::generate().unwrap(), &self.issuer).unwrap();
            let chain = [vec![issuer.der().clone()], self.chain.clone()].concat();
            Self { issuer, chain }
        }

        fn own(&self) -> &CertificateDer<'static> {
            self.chain.first().unwrap()
        }

        fn issue(&self, flaw: Flaw) -> Shown {
            let name = if flaw == Flaw::OtherName { "other.test" } else { "mx.test" };
            let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
            if flaw == Flaw::Expired {
                params.not_after = rcgen::date_time_ymd(2020, 1, 1);
            }
            let key = KeyPair::generate().unwrap();
            let leaf = params.signed_by(&key, &self.issuer).unwrap();
            Shown { chain: [vec![leaf.der().clone()], self.chain.clone()].concat(), key }
        }
    }

    fn self_signed() -> Shown {
        let key = KeyPair::generate().unwrap();
        let made = CertificateParams::new(vec!["mx.test".to_owned()]).unwrap().self_signed(&key).unwrap();
        Shown { chain: vec![made.der().clone()], key }
    }

    impl Shown {
        fn leaf(&self) -> &CertificateDer<'static> {
            self.chain.first().unwrap()
        }

        /// Returns the same certificates, presented with another key.
        fn stolen(&self) -> Self {
            Self { chain: self.chain.clone(), key: KeyPair::generate().unwrap() }
        }

        fn server(&self, version: ProtocolVersion) -> Arc<ServerConfig> {
            let provider = Arc::new(rustls::crypto::ring::default_provider());
            let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(self.key.serialize_der()));
            // Unlike `with_single_cert`, this does not check that certificate and key match.
            let shown = CertifiedKey::new(self.chain.clone(), provider.key_provider.load_private_key(key).unwrap());
            let versions = rustls::ALL_VERSIONS.iter().copied().filter(|one| one.version == version);
            let config = ServerConfig::builder_with_provider(provider)
                .with_protocol_versions(&versions.collect::<Vec<_>>())
                .unwrap()
                .with_no_client_auth()
                .with_cert_resolver(Arc::new(Always(Arc::new(shown))));
            Arc::new(config)
        }
    }

    #[derive(Debug)]
    struct Always(Arc<CertifiedKey>);

    impl ResolvesServerCert for Always {
        fn resolve(&self, _: rustls::server::ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
            Some(Arc::clone(&self.0))
        }
    }

    fn trusting(root: Option<&Authority>) -> ClientTls {
        let config = match root {
            Some(root) => {
                let mut roots = RootCertStore::empty();
                roots.add(root.own().clone()).unwrap();
                crate::net::tls::trusting(roots)
            }
            None => crate::net::tls::client_config(None),
        };
        ClientTls::new(&config.unwrap())
    }

    /// Transfers the output of one side to the other; an error is the reason the other side rejects it.
    macro_rules! carry {
        ($from:expr, $to:expr) => {{
            let mut wire = Vec::new();
            while $from.wants_write() {
                $from.write_tls(&mut wire).unwrap();
            }
            let mut rest = wire.as_slice();
            let mut taken = Ok(());
            while taken.is_ok() && !rest.is_empty() {
                $to.read_tls(&mut rest).unwrap();
                taken = $to.process_new_packets().map(drop).map_err(|error| crate::net::tls::reason(&error));
            }
            taken
        }};
    }

    /// Runs a handshake; an error is the reason of the side that rejects it.
    fn shake_hands(tls: &ClientTls, rule: &TlsRule, server: &Arc<ServerConfig>) -> Result<HandshakeKind, String> {
        let host = Host { name: "mx.test".to_owned(), preference: 0, addresses: Vec::new(), tls: rule.clone() };
        let config = Arc::clone(tls.connector(&host).config());
        let mut client = ClientConnection::new(config, ServerName::try_from("mx.test").unwrap()).unwrap();
        let mut server = ServerConnection::new(Arc::clone(server)).unwrap();
        while client.is_handshaking() || server.is_handshaking() || client.wants_write() || server.wants_write() {
            carry!(client, server)?;
            carry!(server, client)?;
        }
        Ok(client.handshake_kind().unwrap())
    }

    fn record(usage: u8, selector: u8, selected: &[u8]) -> Tlsa {
        Tlsa { usage, selector, matching: 1, data: digest(&SHA256, selected).as_ref().to_vec() }
    }

    fn tlsa(usage: u8, certificate: &CertificateDer<'_>) -> TlsRule {
        TlsRule::Dane(Arc::from([record(usage, 0, certificate)]))
    }

    const VERIFIED: TlsRule = TlsRule::Verified { by: "MTA-STS" };

    /// Returns true if the handshake succeeds, in both TLS versions.
    fn agree(root: Option<&Authority>, rule: &TlsRule, shown: &Shown) -> bool {
        let tls = trusting(root);
        let [two, three] = [ProtocolVersion::TLSv1_2, ProtocolVersion::TLSv1_3]
            .map(|version| shake_hands(&tls, rule, &shown.server(version)).is_ok());
        assert_eq!(two, three, "{rule:?}");
        two
    }

    /// Returns the client's reason for rejecting the handshake.
    fn refusal(root: Option<&Authority>, rule: &TlsRule, shown: &Shown) -> String {
        shake_hands(&trusting(root), rule, &shown.server(ProtocolVersion::TLSv1_3)).unwrap_err()
    }

    #[test]
    fn opportunistic_tls_takes_any_certificate_but_not_another_key() {
        let root = Authority::new();
        let shown = [self_signed(), root.issue(Flaw::None), root.issue(Flaw::OtherName), root.issue(Flaw::Expired)];
        for rule in [TlsRule::Opportunistic, TlsRule::Dane(Arc::from([]))] {
            for shown in &shown {
                assert!(agree(None, &rule, shown), "{rule:?}");
                assert!(!agree(None, &rule, &shown.stolen()), "{rule:?}");
            }
        }
    }

    #[test]
    fn verified_tls_wants_a_known_root_the_name_and_a_date() {
        let (root, other) = (Authority::new(), Authority::new());
        let good = root.issue(Flaw::None);
        assert!(agree(Some(&root), &VERIFIED, &good));
        assert!(agree(Some(&root), &VERIFIED, &root.below().issue(Flaw::None)));
        assert!(!agree(Some(&other), &VERIFIED, &good), "another root");
        assert!(!agree(Some(&root), &VERIFIED, &self_signed()));
        assert!(!agree(Some(&root), &VERIFIED, &root.issue(Flaw::OtherName)));
        assert!(!agree(Some(&root), &VERIFIED, &root.issue(Flaw::Expired)));
        assert!(!agree(Some(&root), &VERIFIED, &good.stolen()));
    }

    #[test]
    fn a_refusal_says_which_name_date_or_issuer() {
        let (root, other) = (Authority::new(), Authority::new());
        let middle = root.below();
        for rule in [VERIFIED, tlsa(2, middle.own())] {
            let said = refusal(Some(&root), &rule, &middle.issue(Flaw::OtherName));
            assert_eq!(said, "the certificate is for other.test, not for mx.test", "{rule:?}");
            let said = refusal(Some(&root), &rule, &middle.issue(Flaw::Expired));
            assert_eq!(said, "the certificate expired at 2020-01-01T00:00:00.000Z", "{rule:?}");
        }
        assert_eq!(refusal(None, &VERIFIED, &self_signed()), "the certificate is self-signed");
        let mut unsent = middle.issue(Flaw::None);
        let said = refusal(None, &VERIFIED, &unsent);
        assert_eq!(said, "the issuer of the certificate, CN=below, is not trusted");
        unsent.chain.truncate(1);
        let said = refusal(Some(&root), &VERIFIED, &unsent);
        let alone = "; the host sends no intermediate certificate";
        assert_eq!(said, format!("the issuer of the certificate, CN=below, is not trusted{alone}"));
        for rule in [tlsa(3, root.own()), tlsa(2, other.own())] {
            assert_eq!(refusal(None, &rule, &unsent), "the certificate matches none of the TLSA records");
        }
    }

    #[test]
    fn dane_ee_names_the_certificate_or_its_key_and_nothing_else_counts() {
        let root = Authority::new();
        let others = root.issue(Flaw::None);
        for shown in [self_signed(), root.issue(Flaw::OtherName), root.issue(Flaw::Expired)] {
            let by_key = record(3, 1, &shown.key.subject_public_key_info());
            assert!(agree(None, &tlsa(3, shown.leaf()), &shown));
            assert!(agree(None, &TlsRule::Dane(Arc::from([by_key.clone()])), &shown));
            let one_of_two = TlsRule::Dane(Arc::from([record(3, 0, others.leaf()), by_key]));
            assert!(agree(None, &one_of_two, &shown), "while a key is replaced, both are named");
            assert!(!agree(None, &tlsa(3, shown.leaf()), &shown.stolen()));
            assert!(!agree(Some(&root), &tlsa(3, others.leaf()), &shown));
        }
        assert!(!agree(Some(&root), &tlsa(3, self_signed().leaf()), &others), "a known root does not help");
        assert!(!agree(None, &tlsa(3, root.own()), &others), "only the host's own certificate");
        assert!(!agree(Some(&root), &tlsa(1, others.leaf()), &others), "usages 0 and 1 do not count");
    }

    #[test]
    fn dane_ta_names_an_authority_whose_certificates_have_to_be_valid() {
        let (root, other) = (Authority::new(), Authority::new());
        let middle = root.below();
        let by_key = record(2, 1, &root.issuer.key().subject_public_key_info());
        let good = middle.issue(Flaw::None);
        for rule in [tlsa(2, root.own()), tlsa(2, middle.own()), TlsRule::Dane(Arc::from([by_key]))] {
            assert!(agree(None, &rule, &good));
            assert!(!agree(None, &rule, &good.stolen()));
            assert!(!agree(None, &rule, &middle.issue(Flaw::OtherName)), "the name counts");
            assert!(!agree(None, &rule, &middle.issue(Flaw::Expired)), "and so does the date");
        }
        assert!(!agree(Some(&root), &tlsa(2, other.own()), &good));
        let mut unsent = middle.issue(Flaw::None);
        unsent.chain.truncate(2);
        assert!(agree(None, &tlsa(2, middle.own()), &unsent));
        assert!(!agree(Some(&root), &tlsa(2, root.own()), &unsent), "an authority that is not shown is not known");
        let mut foreign = other.issue(Flaw::None);
        foreign.chain.extend(root.chain.clone());
        assert!(!agree(None, &tlsa(2, root.own()), &foreign), "it is shown, but has not issued this");
    }

    #[test]
    fn a_session_is_taken_up_again_under_the_rule_that_made_it_alone() {
        let root = Authority::new();
        let good = root.issue(Flaw::None);
        for version in [ProtocolVersion::TLSv1_2, ProtocolVersion::TLSv1_3] {
            let (tls, server) = (trusting(Some(&root)), good.server(version));
            for rule in [TlsRule::Opportunistic, VERIFIED] {
                assert_eq!(shake_hands(&tls, &rule, &server), Ok(HandshakeKind::Full), "{rule:?} {version:?}");
                assert_eq!(shake_hands(&tls, &rule, &server), Ok(HandshakeKind::Resumed), "{rule:?} {version:?}");
            }
            for _ in 0..2 {
                let rule = tlsa(3, good.leaf());
                assert_eq!(shake_hands(&tls, &rule, &server), Ok(HandshakeKind::Full), "{version:?}");
            }
        }
    }
}
