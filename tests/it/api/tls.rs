//! HTTPS beside HTTP, and a certificate that is replaced while connections go on.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use http_body_util::{BodyExt as _, Empty};
use hyper::body::Bytes;
use mailkite::testing::clock::Clock;
use rustix::process::Signal;
use rustls::pki_types::{CertificateDer, ServerName};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::support::dev_process::http_get;
use crate::support::machine::own_address;
use crate::support::serve_process::ServeProcess;
use crate::support::server::{DEADLINE, Server};
use crate::support::smtp::{SmtpClient, any_certificate};

/// An HTTPS connection that offers these protocols.
async fn https(address: SocketAddr, protocols: &[&str]) -> TlsStream<TcpStream> {
    let mut config = any_certificate();
    config.alpn_protocols = protocols.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
    let tcp = TcpStream::connect(address).await.unwrap();
    let name = ServerName::try_from("mx.mailkite.test").unwrap();
    timeout(DEADLINE, TlsConnector::from(Arc::new(config)).connect(name, tcp)).await.unwrap().unwrap()
}

fn certificate(stream: &TlsStream<TcpStream>) -> CertificateDer<'static> {
    stream.get_ref().1.peer_certificates().unwrap()[0].clone().into_owned()
}

/// The status of a GET on a connection that stays open; the answer must have a length.
async fn status(stream: &mut TlsStream<TcpStream>, path: &str) -> u16 {
    let request = format!("GET {path} HTTP/1.1\r\nHost: mx.mailkite.test\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    stream.flush().await.unwrap();
    let mut answer = Vec::new();
    let read = async {
        loop {
            stream.read_buf(&mut answer).await.unwrap();
            let text = String::from_utf8_lossy(&answer).to_lowercase();
            let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
            let length = head.split("content-length: ").nth(1).unwrap().lines().next().unwrap();
            if body.len() == length.parse::<usize>().unwrap() {
                return head[9..12].parse().unwrap();
            }
        }
    };
    timeout(DEADLINE, read).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn one_port_speaks_http_and_https_in_both_versions() {
    let server = Server::start().await;
    assert_eq!(http_get(&format!("http://{}", server.http), "/api/health").await.0, 200);

    for (offered, agreed) in [(&["http/1.1"][..], Some("http/1.1")), (&[][..], None)] {
        let mut stream = https(server.http, offered).await;
        assert_eq!(stream.get_ref().1.alpn_protocol(), agreed.map(str::as_bytes));
        assert_eq!(status(&mut stream, "/api/health").await, 200);
        assert_eq!(status(&mut stream, "/api/ready").await, 200, "the connection stays open");
    }

    let stream = https(server.http, &["http/1.1", "h2"]).await;
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]), "the server prefers it");
    let executor = hyper_util::rt::TokioExecutor::new();
    let io = hyper_util::rt::TokioIo::new(stream);
    let (mut sender, connection) = hyper::client::conn::http2::handshake(executor, io).await.unwrap();
    let running = tokio::spawn(connection);
    for _ in 0..2 {
        let request = hyper::Request::get("https://mx.mailkite.test/api/health").body(Empty::<Bytes>::new()).unwrap();
        let answer = timeout(DEADLINE, sender.send_request(request)).await.unwrap().unwrap();
        assert_eq!((answer.status().as_u16(), answer.version()), (200, hyper::Version::HTTP_2));
        assert_eq!(answer.into_body().collect().await.unwrap().to_bytes(), r#"{"ok":true}"#);
    }
    drop(sender);
    running.await.unwrap().unwrap();
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn from_another_machine_the_api_wants_https() {
    let Some(address) = own_address() else { return };
    let server = Server::start_with(Clock::System, |config| config.http.listen = vec![(address, 0).into()]).await;
    let (refused, _, body) = http_get(&format!("http://{}", server.http), "/v1/me").await;
    assert_eq!(
        (refused, serde_json::from_slice::<serde_json::Value>(&body).unwrap()["code"].as_str()),
        (403, Some("https_required"))
    );
    assert_eq!(status(&mut https(server.http, &["http/1.1"]).await, "/api/health").await, 200);
    // Whoever looks after the server may have no certificate to check it by.
    assert_eq!(http_get(&format!("http://{}", server.http), "/api/health").await.0, 200);
    server.stop().await;
}

async fn encrypted_smtp(served: &ServeProcess) -> SmtpClient {
    let mut client = SmtpClient::connect_and_greet(served.smtp).await.starttls().await;
    client.expect("EHLO client.test", 250).await;
    client
}

/// Writes a new certificate and its key.
fn renew(folder: &Path) -> CertificateDer<'static> {
    let made = rcgen::generate_simple_self_signed(["mx.mailkite.test".to_owned()]).unwrap();
    std::fs::write(folder.join("cert.pem"), made.cert.pem()).unwrap();
    std::fs::write(folder.join("key.pem"), made.signing_key.serialize_pem()).unwrap();
    made.cert.der().clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn sighup_replaces_the_certificate_and_no_connection_notices() {
    let folder = tempfile::tempdir().unwrap();
    let first = renew(folder.path());
    let mut served = ServeProcess::start(folder.path()).await;
    let mut old_smtp = encrypted_smtp(&served).await;
    let mut old_https = https(served.http, &["http/1.1"]).await;
    assert_eq!((old_smtp.certificate.as_ref(), certificate(&old_https)), (Some(&first), first.clone()));

    let second = renew(folder.path());
    served.signal(Signal::HUP);
    served.wait_for_log("the certificate was reloaded").await;
    assert_eq!(encrypted_smtp(&served).await.certificate, Some(second.clone()));
    assert_eq!(certificate(&https(served.http, &["http/1.1"]).await), second);

    std::fs::write(folder.path().join("cert.pem"), "-----BEGIN CERTIFICATE-----\n").unwrap();
    served.signal(Signal::HUP);
    served.wait_for_log("the new certificate cannot be used").await;
    assert_eq!(encrypted_smtp(&served).await.certificate, Some(second.clone()));
    assert_eq!(certificate(&https(served.http, &["http/1.1"]).await), second);

    old_smtp.expect("NOOP", 250).await;
    assert_eq!(status(&mut old_https, "/api/health").await, 200);
    drop(old_https);
    served.signal(Signal::TERM);
    assert!(timeout(DEADLINE, served.child.wait()).await.unwrap().unwrap().success());
}
