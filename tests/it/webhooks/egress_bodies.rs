//! Request bodies that are made in pieces while they are sent.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use hyper::Version;
use hyper::body::Bytes;
use hyper::header::HeaderMap;
use mailkite::testing::net::egress::{Body, Egress, EgressError, Limits, Target};
use tokio::net::TcpListener;
use tokio::sync::oneshot;

use super::egress::{BRIEF, egress, egress_with, localhost, ok};
use crate::support::receiver::{Receiver, TestCertificate, raw_peer};

const PIECE: usize = 64 * 1024;

/// Pieces of a body, each filled with its number, that signal when they are dropped.
struct Pieces {
    count: usize,
    made: Arc<AtomicUsize>,
    _given_up: oneshot::Sender<()>,
}

impl Pieces {
    /// Returns the pieces, the count of those produced, and a channel that closes when they are dropped.
    fn new(count: usize) -> (Self, Arc<AtomicUsize>, oneshot::Receiver<()>) {
        let (sender, given_up) = oneshot::channel();
        let made = Arc::new(AtomicUsize::new(0));
        (Self { count, made: Arc::clone(&made), _given_up: sender }, made, given_up)
    }
}

impl Iterator for Pieces {
    type Item = Bytes;

    fn next(&mut self) -> Option<Bytes> {
        let number = self.made.load(Ordering::SeqCst);
        (number < self.count).then(|| {
            self.made.store(number + 1, Ordering::SeqCst);
            vec![number.to_le_bytes()[0]; PIECE].into()
        })
    }
}

async fn post_pieces(
    egress: &Egress,
    url: &str,
    length: usize,
    pieces: Pieces,
    limits: Limits,
) -> Result<u16, EgressError> {
    let target = Target::parse(url, &localhost()).unwrap();
    let body = Body::pieces(length as u64, pieces);
    egress.post(&target, HeaderMap::new(), body, limits).await.map(|answer| answer.status)
}

#[tokio::test]
async fn a_body_made_in_pieces_arrives_with_its_length_in_both_versions() {
    let certificate = TestCertificate::for_names(&["localhost"]);
    let mut plain = Receiver::start(ok).await;
    let mut tls = Receiver::start_tls(&certificate, ok).await;
    let egress = egress_with(&certificate.client_config());
    let urls = [plain.url(), tls.url_with_host("localhost")];
    for (receiver, url) in [&mut plain, &mut tls].into_iter().zip(urls) {
        let posted = post_pieces(&egress, &url, 40 * PIECE, Pieces::new(40).0, Limits::default()).await;
        assert_eq!(posted, Ok(200));
        let request = receiver.next_request().await;
        assert_eq!(request.header("content-length"), (40 * PIECE).to_string());
        assert_eq!(request.header("transfer-encoding"), "");
        let wanted: Vec<u8> = (0..40).flat_map(|number| [number; PIECE]).collect();
        assert!(request.body == wanted);
    }
    assert_eq!(tls.requests()[0].version, Version::HTTP_2);
}

#[tokio::test]
async fn a_peer_that_reads_nothing_costs_few_pieces_and_none_after_the_deadline() {
    let certificate = TestCertificate::for_names(&["localhost"]);
    let egress = egress_with(&certificate.client_config());
    let deaf = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = deaf.local_addr().unwrap().port();
    let acceptor = certificate.acceptor(&[b"h2"]);
    tokio::spawn(async move {
        let (plain, _) = deaf.accept().await.unwrap();
        let (tls, _) = deaf.accept().await.unwrap();
        let tls = acceptor.accept(tls).await.unwrap();
        std::future::pending::<()>().await;
        drop((plain, tls));
    });
    for scheme in ["http", "https"] {
        let (pieces, made, given_up) = Pieces::new(16 * 1024);
        let url = format!("{scheme}://localhost:{port}/");
        let limits = Limits { timeout: Duration::from_secs(1), ..BRIEF };
        assert_eq!(post_pieces(&egress, &url, 16 * 1024 * PIECE, pieces, limits).await, Err(EgressError::Timeout));
        let ended = tokio::time::timeout(Duration::from_secs(5), given_up).await;
        assert!(ended.is_ok(), "{scheme}: the pieces are still held");
        let made = made.load(Ordering::SeqCst);
        assert!((1..500).contains(&made), "{scheme}: {made} pieces were made for a peer that reads none");
    }
}

#[tokio::test]
async fn an_answer_that_comes_before_the_whole_body_was_read_counts() {
    let peer = raw_peer(b"HTTP/1.1 413 Content Too Large\r\ncontent-length: 0\r\n\r\n").await;
    let (url, pieces) = (format!("http://{peer}/"), Pieces::new(400).0);
    let posted = post_pieces(&egress(), &url, 400 * PIECE, pieces, Limits::default()).await;
    assert_eq!(posted, Ok(413));
}

#[tokio::test]
async fn a_body_in_pieces_goes_to_another_connection_when_the_kept_one_was_closed() {
    let egress = egress();
    let peer = raw_peer(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
    for _ in 0..20 {
        let (url, pieces) = (format!("http://{peer}/"), Pieces::new(1).0);
        assert_eq!(post_pieces(&egress, &url, PIECE, pieces, Limits::default()).await, Ok(200));
    }
}

#[tokio::test]
async fn pieces_of_another_length_than_was_said_are_never_a_whole_request() {
    let receiver = Receiver::start(ok).await;
    for (length, count) in [(2 * PIECE, 1), (PIECE / 2, 1)] {
        let posted = post_pieces(&egress(), &receiver.url(), length, Pieces::new(count).0, Limits::default()).await;
        assert_eq!(posted, Err(EgressError::BadResponse));
    }
    assert!(receiver.requests().is_empty());
}
