//! Explains why TLS with a peer failed, for diagnostics: which name, which date, which issuer.

use std::fmt;
use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{AlertDescription, CertificateError, DigitallySignedStruct, Error, OtherError, SignatureScheme};

use crate::clock::Timestamp;

/// Names of a certificate that are listed; the rest are counted.
const MAX_NAMES: usize = 5;

/// Most characters quoted of a name in a certificate.
const MAX_NAME_CHARS: usize = 120;

/// Returns one sentence for a failed handshake. Anything it quotes of the peer is bounded and printable.
pub(crate) fn reason(error: &Error) -> String {
    match error {
        Error::InvalidCertificate(CertificateError::Other(other)) => other.to_string(),
        Error::InvalidCertificate(error) => certificate_reason(error),
        Error::NoCertificatesPresented => "the host presents no certificate".to_owned(),
        Error::AlertReceived(AlertDescription::HandshakeFailure | AlertDescription::ProtocolVersion) => {
            "the host accepts no TLS version and cipher suite that this server offers (TLS 1.2 and 1.3)".to_owned()
        }
        Error::AlertReceived(alert) => format!("the host answered with the TLS alert {alert:?}"),
        other => other.to_string(),
    }
}

fn certificate_reason(error: &CertificateError) -> String {
    match error {
        CertificateError::NotValidForNameContext { expected, presented } => {
            let expected = expected.to_str();
            match presented.as_slice() {
                [] => format!("the certificate names no host; it must name {expected}"),
                names => format!("the certificate is for {}, not for {expected}", listed(names)),
            }
        }
        CertificateError::ExpiredContext { not_after, .. } => {
            format!("the certificate expired at {}", date(*not_after))
        }
        CertificateError::NotValidYetContext { not_before, .. } => {
            format!("the certificate is not valid before {}", date(*not_before))
        }
        CertificateError::UnknownIssuer => "the issuer of the certificate is not trusted".to_owned(),
        CertificateError::BadEncoding => "the certificate cannot be read".to_owned(),
        CertificateError::BadSignature => "the certificate is not signed by the issuer it names".to_owned(),
        other => format!("the certificate is not valid: {other}"),
    }
}

fn listed(names: &[String]) -> String {
    let shown: Vec<String> = names.iter().take(MAX_NAMES).map(|name| printable(bare(name))).collect();
    match names.len().saturating_sub(MAX_NAMES) {
        0 => shown.join(", "),
        more => format!("{} and {more} more", shown.join(", ")),
    }
}

/// Extracts the name from webpki's `DnsName("mx.example.com")` or `IpAddress(192.0.2.1)`.
fn bare(presented: &str) -> &str {
    let inner = presented.split_once('(').and_then(|(_, rest)| rest.strip_suffix(')'));
    inner.map_or(presented, |inner| inner.trim_matches('"'))
}

fn printable(text: &str) -> String {
    text.chars().take(MAX_NAME_CHARS).map(|char| if char.is_control() { '\u{fffd}' } else { char }).collect()
}

fn date(time: UnixTime) -> String {
    let seconds = i64::try_from(time.as_secs()).unwrap_or(i64::MAX);
    Timestamp::from_millis(seconds.saturating_mul(1_000)).iso()
}

/// The issuer of a certificate whose chain leads to no trusted root.
#[derive(Debug)]
struct UntrustedIssuer {
    issuer: String,
    self_signed: bool,
    /// True if the host sent only its own certificate.
    alone: bool,
}

impl fmt::Display for UntrustedIssuer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.self_signed {
            return f.write_str("the certificate is self-signed");
        }
        write!(f, "the issuer of the certificate, {}, is not trusted", self.issuer)?;
        if self.alone { f.write_str("; the host sends no intermediate certificate") } else { Ok(()) }
    }
}

impl std::error::Error for UntrustedIssuer {}

/// Verifies as WebPKI does, but names an issuer that is not trusted.
#[derive(Debug)]
pub(crate) struct Verifier(pub(crate) Arc<WebPkiServerVerifier>);

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        chain: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.0.verify_server_cert(leaf, chain, name, ocsp, now).map_err(|error| match error {
            Error::InvalidCertificate(CertificateError::UnknownIssuer) => untrusted(leaf, chain).unwrap_or(error),
            other => other,
        })
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.0.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.0.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_verify_schemes()
    }
}

/// Returns `None` if the certificate cannot be parsed.
fn untrusted(leaf: &CertificateDer<'_>, chain: &[CertificateDer<'_>]) -> Option<Error> {
    let (_, certificate) = x509_parser::parse_x509_certificate(leaf).ok()?;
    let issuer = UntrustedIssuer {
        issuer: printable(&certificate.issuer().to_string()),
        self_signed: certificate.subject() == certificate.issuer(),
        alone: chain.is_empty(),
    };
    Some(Error::InvalidCertificate(CertificateError::Other(OtherError(Arc::new(issuer)))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_names_are_counted_and_none_is_long_or_breaks_the_line() {
        let names: Vec<String> = (0..8).map(|n| format!("DnsName(\"mx{n}.test\")")).collect();
        assert_eq!(listed(&names), "mx0.test, mx1.test, mx2.test, mx3.test, mx4.test and 3 more");
        assert_eq!(listed(&["IpAddress(192.0.2.1)".to_owned()]), "192.0.2.1");
        let odd = listed(&[format!("DnsName(\"a\r\n{}\")", "b".repeat(500))]);
        assert_eq!((odd.chars().count(), odd.chars().any(char::is_control)), (MAX_NAME_CHARS, false));
    }
}
