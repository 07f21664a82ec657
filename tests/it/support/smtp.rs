//! An SMTP client that sends exactly what a test gives it, and reads the replies.
//!
//! It knows no rules beyond the form of replies: commands may be wrong, data may be cut anywhere.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, SignatureScheme};
use tokio::io::{AsyncBufReadExt as _, AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;

/// Limit for a reply.
const DEADLINE: Duration = Duration::from_secs(30);

trait ByteStream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> ByteStream for T {}

/// A whole reply, all of its lines.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SmtpReply {
    pub code: u16,
    /// Each line without its code and separator.
    pub lines: Vec<String>,
}

impl SmtpReply {
    /// The code and the last line, as on the wire.
    pub(crate) fn text(&self) -> String {
        format!("{} {}", self.code, self.lines.last().map_or("", String::as_str))
    }
}

/// One connection.
pub(crate) struct SmtpClient {
    wire: BufReader<Box<dyn ByteStream>>,
    /// The server's own certificate, once encrypted.
    pub certificate: Option<CertificateDer<'static>>,
}

impl SmtpClient {
    /// Connects and reads nothing.
    pub(crate) async fn open(address: SocketAddr) -> Self {
        Self::over(TcpStream::connect(address).await.unwrap())
    }

    /// Connects from another local address, as 127.0.0.2.
    pub(crate) async fn open_from(local: &str, address: SocketAddr) -> Self {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind(SocketAddr::new(local.parse().unwrap(), 0)).unwrap();
        Self::over(socket.connect(address).await.unwrap())
    }

    /// A client over a connection that was opened elsewhere.
    pub(crate) fn over(tcp: TcpStream) -> Self {
        tcp.set_nodelay(true).unwrap();
        Self { wire: BufReader::new(Box::new(tcp)), certificate: None }
    }

    /// Connects and reads the greeting.
    pub(crate) async fn connect(address: SocketAddr) -> Self {
        let mut client = Self::open(address).await;
        let greeting = client.reply().await;
        assert_eq!(greeting.code, 220, "{greeting:?}");
        client
    }

    /// Connects and sends EHLO.
    pub(crate) async fn connect_and_greet(address: SocketAddr) -> Self {
        let mut client = Self::connect(address).await;
        client.expect("EHLO client.test", 250).await;
        client
    }

    /// Sends bytes as they are, at once.
    pub(crate) async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.try_send(bytes.as_ref()).await.unwrap();
    }

    /// As [`Self::send`], where the other side may have closed.
    pub(crate) async fn try_send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.wire.get_mut().write_all(bytes).await?;
        self.wire.get_mut().flush().await
    }

    /// The next reply.
    pub(crate) async fn reply(&mut self) -> SmtpReply {
        self.try_reply().await.expect("the connection ended where a reply was due")
    }

    /// The next reply; an error when the connection ends first.
    pub(crate) async fn try_reply(&mut self) -> io::Result<SmtpReply> {
        let mut lines = Vec::new();
        loop {
            let line = self.line().await?;
            let code = line.get(..3).and_then(|code| code.parse().ok());
            let Some(code) = code else { return Err(io::Error::other(format!("not a reply: {line:?}"))) };
            lines.push(line.get(4..).unwrap_or("").to_owned());
            if line.as_bytes().get(3) != Some(&b'-') {
                return Ok(SmtpReply { code, lines });
            }
        }
    }

    /// The next line, without its CRLF.
    pub(crate) async fn line(&mut self) -> io::Result<String> {
        let mut line = Vec::new();
        let read = timeout(DEADLINE, self.wire.read_until(b'\n', &mut line)).await;
        assert!(read.is_ok(), "no reply within {DEADLINE:?}");
        read.unwrap()?;
        let text = line.strip_suffix(b"\r\n").ok_or(io::ErrorKind::UnexpectedEof)?;
        Ok(String::from_utf8_lossy(text).into_owned())
    }

    /// Sends a command line and returns its reply.
    pub(crate) async fn command(&mut self, line: &str) -> SmtpReply {
        self.send(format!("{line}\r\n")).await;
        self.reply().await
    }

    /// Sends a command line and checks the code of its reply.
    pub(crate) async fn expect(&mut self, line: &str, code: u16) -> SmtpReply {
        let reply = self.command(line).await;
        assert_eq!(reply.code, code, "{line}: {reply:?}");
        reply
    }

    /// MAIL and RCPT, all accepted; what follows is DATA.
    pub(crate) async fn envelope(&mut self, from: &str, to: &[&str]) {
        self.expect(&format!("MAIL FROM:<{from}>"), 250).await;
        for to in to {
            self.expect(&format!("RCPT TO:<{to}>"), 250).await;
        }
    }

    /// A transaction; returns the reply to its data. `message` has CRLF line ends; dots are stuffed here.
    pub(crate) async fn mail(&mut self, from: &str, to: &[&str], message: impl AsRef<[u8]>) -> SmtpReply {
        self.envelope(from, to).await;
        self.expect("DATA", 354).await;
        self.send(data(message.as_ref())).await;
        self.reply().await
    }

    /// A transaction in two writes, as a client with PIPELINING does it; returns the reply to its data.
    ///
    /// An error means that nothing is known of the message.
    pub(crate) async fn try_mail(&mut self, from: &str, to: &str, message: &[u8]) -> io::Result<SmtpReply> {
        self.try_send(format!("MAIL FROM:<{from}>\r\nRCPT TO:<{to}>\r\nDATA\r\n").as_bytes()).await?;
        let mut refused = None;
        for wanted in [250, 250, 354] {
            let reply = self.try_reply().await?;
            if reply.code != wanted {
                refused.get_or_insert(reply);
            }
        }
        if let Some(reply) = refused {
            return Ok(reply);
        }
        self.try_send(&data(message)).await?;
        self.try_reply().await
    }

    /// Upgrades to TLS without checking the certificate: MX clients do not.
    pub(crate) async fn starttls(mut self) -> Self {
        self.expect("STARTTLS", 220).await;
        self.into_tls().await
    }

    /// The TLS handshake alone, after the 220.
    pub(crate) async fn into_tls(self) -> Self {
        let connector = tokio_rustls::TlsConnector::from(Arc::new(any_certificate()));
        let name = ServerName::try_from("mx.mailkite.test").unwrap();
        let wire = timeout(DEADLINE, connector.connect(name, self.wire.into_inner())).await.unwrap().unwrap();
        let certificate = wire.get_ref().1.peer_certificates().map(|chain| chain[0].clone().into_owned());
        Self { wire: BufReader::new(Box::new(wire)), certificate }
    }

    /// True when the server closes the connection without sending anything more.
    pub(crate) async fn is_closed(&mut self) -> bool {
        let mut rest = Vec::new();
        match timeout(DEADLINE, self.wire.read_to_end(&mut rest)).await {
            Ok(Ok(_)) => rest.is_empty(),
            // A reset is an end too: something we sent was never read.
            Ok(Err(_)) => true,
            Err(_) => false,
        }
    }
}

/// Mail data as it goes on the wire: dots stuffed, the end marked (RFC 5321 §4.5.2).
pub(crate) fn data(message: &[u8]) -> Vec<u8> {
    let mut wire = Vec::with_capacity(message.len() + 64);
    for line in message.split_inclusive(|byte| *byte == b'\n') {
        if line.starts_with(b".") {
            wire.push(b'.');
        }
        wire.extend_from_slice(line);
    }
    if !wire.ends_with(b"\r\n") && !wire.is_empty() {
        wire.extend_from_slice(b"\r\n");
    }
    wire.extend_from_slice(b".\r\n");
    wire
}

/// A client that checks no certificate.
pub(crate) fn any_certificate() -> ClientConfig {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier = Arc::new(AnyCertificate(Arc::clone(&provider)));
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    builder.dangerous().with_custom_certificate_verifier(verifier).with_no_client_auth()
}

#[derive(Debug)]
struct AnyCertificate(Arc<CryptoProvider>);

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, signed, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, signed, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
