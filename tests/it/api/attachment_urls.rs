//! Files that are named by their URL and come in a content coding (contract 7.2, 8.1).

use std::io::Write as _;
use std::sync::Arc;

use flate2::Compression;
use flate2::write::{DeflateEncoder, GzEncoder, ZlibEncoder};
use mailkite::testing::net::dns::Resolver;
use mailkite::testing::net::egress::{Egress, FILE_LIMITS, FetchError, Fetched, Guard, Policy, fetch_file};
use rustls::RootCertStore;
use serde_json::json;

use crate::support::receiver::{Receiver, Reply, client_config, raw_peer};
use crate::support::server::Server;

fn file() -> Vec<u8> {
    let mut file = b"%PDF-1.7 ".to_vec();
    file.extend((0..200_000_u32).flat_map(|number| (number / 7).to_le_bytes()));
    file
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn zlib(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = ZlibEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn deflate(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = DeflateEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// "brotli, as a file" in brotli, without compression: one metablock as it stands (RFC 7932 §9.2).
const BROTLI: &[u8] = b"\x0b\x08\x80brotli, as a file\x03";

async fn fetch(kind: &'static str, coding: &'static str, sent: Vec<u8>) -> Result<Fetched, FetchError> {
    let reply = Reply::status(200).header("content-type", kind).header("content-encoding", coding).body(sent);
    let mut receiver = Receiver::start(move |_| reply.clone()).await;
    let fetched = fetch_url(&receiver.url()).await;
    assert_eq!(receiver.next_request().await.header("accept-encoding"), "identity");
    fetched
}

async fn fetch_url(url: &str) -> Result<Fetched, FetchError> {
    let policy = Policy { allow_localhost: true, ..Policy::default() };
    let guard = Guard { policy: policy.clone(), ..Guard::default() };
    let egress = Egress::new(guard, &client_config(RootCertStore::empty()), Arc::new(Resolver::new(&[]).unwrap()));
    fetch_file(&egress, &policy, url, FILE_LIMITS).await
}

#[tokio::test]
async fn a_transfer_coding_that_nobody_asked_for_gives_no_file() {
    let sent = gzip(b"file");
    let chunked = [format!("{:x}\r\n", sent.len()).as_bytes(), &sent, b"\r\n0\r\n\r\n"].concat();
    for (coding, body, file) in [
        ("gzip, chunked", &chunked, None),
        ("GZIP\r\nTransfer-Encoding: chunked", &chunked, None),
        ("x-gzip", &sent, None),
        ("chunked", &chunked, Some(&sent)),
        ("Chunked", &chunked, Some(&sent)),
        ("identity", &sent, Some(&sent)),
    ] {
        let head = format!("HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nTransfer-Encoding: {coding}\r\n\r\n");
        let peer = raw_peer([head.as_bytes(), body].concat()).await;
        let fetched = fetch_url(&format!("http://{peer}/a.txt")).await.map(|fetched| fetched.bytes);
        assert_eq!(fetched, file.cloned().ok_or(FetchError::TransferCoding), "{coding}");
    }
}

#[tokio::test]
async fn a_content_coding_is_undone() {
    for (coding, sent) in [
        ("gzip", gzip(&file())),
        ("x-gzip", gzip(&file())),
        ("GZIP", gzip(&file())),
        ("identity, gzip", gzip(&file())),
        ("gzip", [gzip(&file()[..1000]), gzip(&file()[1000..])].concat()),
        ("deflate", zlib(&file())),
        ("deflate", deflate(&file())),
        ("identity", file()),
        ("", file()),
    ] {
        let fetched = fetch("application/pdf", coding, sent).await.unwrap();
        assert!(fetched.bytes == file(), "{coding}: {} octets", fetched.bytes.len());
        assert_eq!(fetched.content_type.as_deref(), Some("application/pdf"));
    }
    assert_eq!(fetch("text/plain", "br", BROTLI.to_vec()).await.unwrap().bytes, b"brotli, as a file");
    assert_eq!(fetch("text/plain", "gzip", Vec::new()).await.unwrap().bytes, b"");
    assert_eq!(fetch("text/plain", "gzip", gzip(b"")).await.unwrap().bytes, b"");
    // An archive is a file, which some servers call a coding as well.
    let archive = gzip(&file());
    assert!(fetch("application/gzip", "gzip", archive.clone()).await.unwrap().bytes == archive);
    assert!(fetch("application/x-gzip; a=b", "x-gzip", archive.clone()).await.unwrap().bytes == archive);
}

#[tokio::test]
async fn a_coding_that_is_unknown_or_broken_or_becomes_too_much_gives_no_file() {
    for coding in ["zstd", "compress", "gzip, br", "aws-chunked,gzip", "rubbish"] {
        assert_eq!(fetch("text/plain", coding, gzip(b"x")).await, Err(FetchError::Coding), "{coding}");
    }
    let mut flipped = gzip(&file());
    let middle = flipped.len() / 2;
    flipped[middle] ^= 0xff;
    for (coding, sent) in [
        ("gzip", b"not gzip at all".to_vec()),
        ("gzip", gzip(&file())[..5000].to_vec()),
        ("gzip", flipped),
        ("gzip", [gzip(b"x"), b"rest".to_vec()].concat()),
        ("deflate", zlib(&file())[..5000].to_vec()),
        ("deflate", b"\xff\xff\xff".to_vec()),
        ("br", BROTLI[..9].to_vec()),
        ("br", b"\xff\xff\xff\xff".to_vec()),
        // Much more than what is sent can honestly become.
        ("gzip", gzip(&vec![0; 24 << 20])),
    ] {
        let fetched = fetch("text/plain", coding, sent).await.map(|fetched| fetched.bytes.len());
        assert!(matches!(fetched, Err(FetchError::Undecodable(_))), "{coding}: {fetched:?}");
    }
    // More than a file may have, of what compresses a little.
    let large: Vec<u8> =
        (0..1_700_000_u32).flat_map(|number| number.wrapping_mul(number).to_le_bytes().repeat(4)).collect();
    assert!(large.len() > 26_214_400);
    assert_eq!(fetch("text/plain", "gzip", gzip(&large)).await, Err(FetchError::TooLarge));
    assert!(fetch("text/plain", "gzip", gzip(&vec![0; 1 << 20])).await.is_ok(), "little may be all zeros");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_encoded_file_is_uploaded_and_attached_decoded_or_refused_in_words() {
    let reply = Reply::status(200).header("content-type", "application/pdf");
    let good = reply.clone().header("content-encoding", "gzip").body(gzip(&file()));
    let bad = reply.header("content-encoding", "zstd").body("x");
    let receiver =
        Receiver::start(move |request| if request.path.ends_with("bad") { bad.clone() } else { good.clone() });
    let receiver = receiver.await;
    let server = Server::start().await;
    let owner = server.owner().await;
    let url = receiver.url();
    let made = owner.post("/v1/attachments", json!({"url": url, "filename": "a.pdf"})).await.expect(201);
    assert_eq!(made["size"], file().len());
    let send = json!({"from": "hi@inbox.test", "to": "b@inbox.test", "subject": "s", "text": "x",
        "attachments": [{"filename": "a.pdf", "url": url}]});
    let id = owner.post("/v1/send", send.clone()).await.expect(202)["id"].as_str().unwrap().to_owned();
    let detail = owner.get(&format!("/api/messages/{id}")).await.expect(200);
    assert_eq!(detail["attachments"][0]["size"], file().len());

    let url = format!("{url}?bad");
    for (path, mut body) in [("/v1/attachments", json!({})), ("/v1/send", send)] {
        body["url"] = json!(url);
        body["attachments"] = json!([{"filename": "a.pdf", "url": url}]);
        let refused = owner.post(path, body).await;
        refused.expect_error(400, "attachment_fetch_failed");
        let sentence = refused.expect(400)["error"].as_str().unwrap().to_owned();
        assert!(sentence.contains("content coding"), "{sentence}");
    }
    server.stop_with_any_jobs().await;
}
