//! The outgoing HTTP client against real peers, well-behaved and hostile.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hyper::Version;
use hyper::body::Bytes;
use hyper::header::{CONTENT_TYPE, HeaderMap, HeaderValue};
use mailkite::testing::net::dns::Resolver;
use mailkite::testing::net::egress::{Answer, Egress, EgressError, Guard, Limits, Policy, Target};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use crate::support::machine::skip;
use crate::support::receiver::{Received, Receiver, Reply, TestCertificate, client_config, raw_peer};

pub(super) const BRIEF: Limits = Limits { timeout: Duration::from_millis(400), max_answer_bytes: 64 * 1024 };

fn resolver() -> Arc<Resolver> {
    Arc::new(Resolver::new(&[]).unwrap())
}

pub(super) fn localhost() -> Policy {
    Policy { allow_localhost: true, ..Policy::default() }
}

pub(super) fn egress_with(tls: &ClientConfig) -> Egress {
    Egress::new(Guard { policy: localhost(), ..Guard::default() }, tls, resolver())
}

pub(super) fn egress() -> Egress {
    egress_with(&client_config(RootCertStore::empty()))
}

async fn post_within(egress: &Egress, url: &str, limits: Limits) -> Result<Answer, EgressError> {
    let target = Target::parse(url, &localhost()).unwrap();
    let headers = HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static("application/json"))]);
    egress.post(&target, headers, Bytes::from_static(b"{\"a\":1}"), limits).await
}

pub(super) async fn post(egress: &Egress, url: &str) -> Result<Answer, EgressError> {
    post_within(egress, url, Limits::default()).await
}

pub(super) fn ok(_: &Received) -> Reply {
    Reply::status(200).header("x-mailkite-ack", "ok").body("fine")
}

#[tokio::test]
async fn a_post_arrives_as_given_and_its_answer_comes_back_whole() {
    let mut receiver = Receiver::start(ok).await;
    let answer = post(&egress(), &format!("{}?a=1&b=%20#part", receiver.url())).await.unwrap();
    assert_eq!((answer.status, answer.body.as_slice(), answer.truncated), (200, b"fine".as_slice(), false));
    assert!(answer.headers.contains(&("x-mailkite-ack".to_owned(), "ok".to_owned())));

    let request = receiver.next_request().await;
    assert_eq!((request.method.as_str(), request.path.as_str()), ("POST", "/hook?a=1&b=%20"));
    assert_eq!(request.json(), serde_json::json!({"a": 1}));
    assert_eq!(request.header("host"), receiver.address().to_string());
    let mut names: Vec<_> = request.headers.keys().map(|name| name.as_str()).collect();
    names.sort_unstable();
    assert_eq!(names, ["content-length", "content-type", "host"], "nothing is added to what was asked for");
}

#[tokio::test]
async fn connections_are_kept_and_used_again() {
    let receiver = Receiver::start(ok).await;
    let egress = egress();
    for _ in 0..5 {
        post(&egress, &receiver.url()).await.unwrap();
    }
    assert_eq!((receiver.requests().len(), receiver.connections()), (5, 1));
    // A peer that closes after an answer costs a new connection, not an attempt.
    let closing = Receiver::start(|_| Reply::status(200).header("connection", "close")).await;
    for _ in 0..3 {
        post(&egress, &closing.url()).await.unwrap();
    }
    let connections: Vec<_> = closing.requests().iter().map(|request| request.connection).collect();
    assert_eq!(connections, [1, 2, 3]);
}

#[tokio::test]
async fn many_posts_at_once_share_one_http2_connection_inside_tls() {
    let certificate = TestCertificate::for_names(&["localhost"]);
    let receiver = Receiver::start_tls(&certificate, ok).await;
    let egress = egress_with(&certificate.client_config());
    let url = receiver.url_with_host("localhost");
    assert_eq!(post(&egress, &url).await.unwrap().body, b"fine");
    let posts = (0..50).map(|_| {
        let (egress, url) = (egress.clone(), url.clone());
        tokio::spawn(async move { post(&egress, &url).await.unwrap().status })
    });
    for status in posts.collect::<Vec<_>>() {
        assert_eq!(status.await.unwrap(), 200);
    }
    assert_eq!((receiver.requests().len(), receiver.connections()), (51, 1));
    assert!(receiver.requests().iter().all(|request| request.version == Version::HTTP_2));
}

#[tokio::test]
async fn a_burst_of_first_posts_over_http2_all_arrive() {
    let certificate = TestCertificate::for_names(&["localhost"]);
    let receiver = Receiver::start_tls(&certificate, ok).await;
    let egress = egress_with(&certificate.client_config());
    let posts = (0..50).map(|_| {
        let (egress, url) = (egress.clone(), receiver.url_with_host("localhost"));
        tokio::spawn(async move { post(&egress, &url).await.map(|answer| answer.status) })
    });
    for status in posts.collect::<Vec<_>>() {
        assert_eq!(status.await.unwrap(), Ok(200));
    }
    assert_eq!(receiver.requests().len(), 50, "and each of them once");
}

#[tokio::test]
async fn a_redirect_is_an_answer_and_is_not_followed() {
    let elsewhere = Receiver::start(ok).await;
    let location = elsewhere.url();
    for status in [301, 302, 303, 307, 308] {
        let location = location.clone();
        let receiver = Receiver::start(move |_| Reply::redirect(status, &location)).await;
        assert_eq!(post(&egress(), &receiver.url()).await.unwrap().status, status);
    }
    assert_eq!(elsewhere.connections(), 0);
}

#[tokio::test]
async fn whatever_takes_too_long_ends_as_timeout_at_the_deadline() {
    let dribble = Duration::from_millis(20);
    for reply in [Reply::hang(), Reply::status(200).after(Duration::from_secs(60)), Reply::dribble(dribble)] {
        let receiver = Receiver::start(move |_| reply.clone()).await;
        let started = Instant::now();
        assert_eq!(post_within(&egress(), &receiver.url(), BRIEF).await, Err(EgressError::Timeout));
        assert!(started.elapsed() >= BRIEF.timeout && started.elapsed() < 5 * BRIEF.timeout);
    }
    // A peer that takes the connection and says nothing, in plain text and where TLS should begin.
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    for scheme in ["http", "https"] {
        let url = format!("{scheme}://{}/", silent.local_addr().unwrap());
        assert_eq!(post_within(&egress(), &url, BRIEF).await, Err(EgressError::Timeout), "{scheme}");
    }
}

#[tokio::test]
async fn a_thousand_hanging_endpoints_do_not_delay_a_healthy_one() {
    raise_descriptor_limit();
    let hanging = Receiver::start(|_| Reply::hang()).await;
    let mut healthy = Receiver::start(ok).await;
    let egress = egress();
    let limits = Limits { timeout: Duration::from_secs(30), ..BRIEF };
    let stuck: Vec<_> = (0..1000)
        .map(|_| {
            let (egress, url) = (egress.clone(), hanging.url());
            tokio::spawn(async move { post_within(&egress, &url, limits).await })
        })
        .collect();
    let mut hanging = hanging;
    for _ in 0..1000 {
        hanging.next_request().await;
    }
    let started = Instant::now();
    post(&egress, &healthy.url()).await.unwrap();
    let arrived = healthy.next_request().await.at;
    assert!(arrived.duration_since(started) < Duration::from_millis(500));
    for task in stuck {
        task.abort();
    }
}

/// Both ends of a thousand connections live in this process.
fn raise_descriptor_limit() {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    let raised = rustix::process::Rlimit { current: limit.maximum, maximum: limit.maximum };
    rustix::process::setrlimit(rustix::process::Resource::Nofile, raised).unwrap();
}

#[tokio::test]
async fn an_answer_that_breaks_off_or_is_no_http_is_a_bad_response() {
    for reply in [Reply::close_before_headers(), Reply::close_in_body()] {
        let receiver = Receiver::start(move |_| reply.clone()).await;
        assert_eq!(post(&egress(), &receiver.url()).await, Err(EgressError::BadResponse));
        assert_eq!(receiver.requests().len(), 1, "it is not silently repeated");
    }
    for bytes in [
        b"".as_slice(),
        b"220 mail.example ESMTP\r\n",
        b"HTTP/1.1 999999 OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nshort",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nab",
    ] {
        let address = raw_peer(bytes).await;
        let result = post(&egress(), &format!("http://{address}/")).await;
        assert_eq!(result, Err(EgressError::BadResponse), "{}", String::from_utf8_lossy(bytes));
    }
}

#[tokio::test]
async fn a_header_section_without_end_is_a_bad_response() {
    let flood: &'static [u8] = format!("HTTP/1.1 200 OK\r\nx: {}", "y".repeat(300_000)).leak().as_bytes();
    let address = raw_peer(flood).await;
    assert_eq!(post(&egress(), &format!("http://{address}/")).await, Err(EgressError::BadResponse));
}

#[tokio::test]
async fn a_body_that_ends_with_its_connection_is_complete() {
    let address = raw_peer(b"HTTP/1.0 200 OK\r\n\r\nold style").await;
    assert_eq!(post(&egress(), &format!("http://{address}/")).await.unwrap().body, b"old style");

    // Inside TLS too, though the peer leaves without close_notify; but not where a length was promised.
    let certificate = TestCertificate::for_names(&["127.0.0.1"]);
    let egress = egress_with(&certificate.client_config());
    let address = abrupt_tls_peer(&certificate, b"HTTP/1.0 200 OK\r\n\r\nold style").await;
    assert_eq!(post(&egress, &format!("https://{address}/")).await.unwrap().body, b"old style");
    let address = abrupt_tls_peer(&certificate, b"HTTP/1.1 200 OK\r\ncontent-length: 20\r\n\r\nold style").await;
    assert_eq!(post(&egress, &format!("https://{address}/")).await, Err(EgressError::BadResponse));
}

async fn abrupt_tls_peer(certificate: &TestCertificate, bytes: &'static [u8]) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let acceptor = certificate.acceptor(&[b"http/1.1"]);
    tokio::spawn(async move {
        let (tcp, _) = listener.accept().await.unwrap();
        let mut tls = acceptor.accept(tcp).await.unwrap();
        let mut request = vec![0; 4096];
        let _length = tls.read(&mut request).await.unwrap();
        tls.write_all(bytes).await.unwrap();
        tls.flush().await.unwrap();
        // The TCP connection ends in order, the TLS session does not.
        tls.get_mut().0.shutdown().await.unwrap();
        let _length = tls.get_mut().0.read(&mut request).await;
    });
    address
}

#[tokio::test]
async fn a_silent_http2_endpoint_times_out_and_leaves_the_others_on_its_connection_alone() {
    let certificate = TestCertificate::for_names(&["localhost"]);
    let script = |request: &Received| if request.path.contains("hang") { Reply::hang() } else { ok(request) };
    let receiver = Receiver::start_tls(&certificate, script).await;
    let egress = egress_with(&certificate.client_config());
    let url = receiver.url_with_host("localhost");
    post(&egress, &url).await.unwrap();
    let hanging = format!("{url}?hang");
    let (stuck, fine) = tokio::join!(post_within(&egress, &hanging, BRIEF), post_within(&egress, &url, BRIEF));
    assert_eq!((stuck, fine.unwrap().status), (Err(EgressError::Timeout), 200));
    assert_eq!(post(&egress, &url).await.unwrap().status, 200);
    assert_eq!(receiver.connections(), 1);
}

#[tokio::test]
async fn a_large_body_is_posted_whole() {
    let mut receiver = Receiver::start(ok).await;
    let target = Target::parse(&receiver.url(), &localhost()).unwrap();
    let body = Bytes::from(vec![b'x'; 8 * 1024 * 1024]);
    egress().post(&target, HeaderMap::new(), body.clone(), Limits::default()).await.unwrap();
    assert!(receiver.next_request().await.body == body);
}

#[tokio::test]
async fn only_64_kib_of_an_answer_are_read() {
    let receiver = Receiver::start(|_| Reply::endless()).await;
    let answer = post(&egress(), &receiver.url()).await.unwrap();
    assert_eq!((answer.body.len(), answer.truncated), (64 * 1024, true));

    let exact = Receiver::start(|_| Reply::status(200).body(vec![b'x'; 64 * 1024])).await;
    let answer = post(&egress(), &exact.url()).await.unwrap();
    assert_eq!((answer.body.len(), answer.truncated), (64 * 1024, false));
}

#[tokio::test]
async fn tls_needs_a_trusted_certificate_for_the_host() {
    let certificate = TestCertificate::for_names(&["localhost"]);
    let receiver = Receiver::start_tls(&certificate, ok).await;
    let stranger = egress();
    assert_eq!(post(&stranger, &receiver.url_with_host("localhost")).await, Err(EgressError::Tls));
    let trusting = egress_with(&certificate.client_config());
    assert_eq!(post(&trusting, &receiver.url()).await, Err(EgressError::Tls), "127.0.0.1 is not in the certificate");
    assert_eq!(receiver.requests().len(), 0);

    let plain = Receiver::start(ok).await;
    let url = format!("https://{}/", plain.address());
    assert_eq!(post(&trusting, &url).await, Err(EgressError::Tls), "a peer without TLS");
}

#[tokio::test]
async fn a_closed_port_is_a_connect_error_and_an_unknown_name_a_dns_error() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    drop(listener);
    assert_eq!(post(&egress(), &url).await, Err(EgressError::Connect));
    let unknown = format!("https://{}.invalid/", "a".repeat(70));
    assert_eq!(post(&egress(), &unknown).await, Err(EgressError::Dns));
}

#[tokio::test]
async fn localhost_is_tried_under_both_of_its_addresses() {
    let Ok(listener) = TcpListener::bind("[::1]:0").await else {
        return skip("this machine has no IPv6");
    };
    let port = listener.local_addr().unwrap().port();
    let accepted = tokio::spawn(async move { listener.accept().await.unwrap() });
    let result = post_within(&egress(), &format!("http://localhost:{port}/"), BRIEF).await;
    assert_eq!(result, Err(EgressError::Timeout), "connected, but never answered");
    accepted.await.unwrap();
}

#[tokio::test]
async fn a_refused_address_is_never_connected_to() {
    let receiver = Receiver::start(ok).await;
    let port = receiver.address().port();
    let tls = client_config(RootCertStore::empty());
    let closed = Egress::new(Guard::default(), &tls, resolver());
    for host in ["127.0.0.1", "localhost", "[::1]", "2130706433", "0x7f.1", "[::ffff:127.0.0.1]", "0.0.0.0", "[::]"] {
        let url = format!("https://{host}:{port}/");
        assert_eq!(post(&closed, &url).await, Err(EgressError::BlockedAddress), "{host}");
    }
    assert_eq!(receiver.connections(), 0);
}

#[tokio::test]
async fn our_own_listeners_are_refused_under_every_address_of_this_machine() {
    let receiver = Receiver::start(ok).await;
    let port = receiver.address().port();
    let policy = Policy { allow_networks: vec!["0.0.0.0/0".parse().unwrap()], ..localhost() };
    let tls = client_config(RootCertStore::empty());
    let own = |own: SocketAddr| Guard { policy: policy.clone(), own_listeners: vec![own] };
    for listener in [receiver.address(), SocketAddr::from(([0, 0, 0, 0], port))] {
        let egress = Egress::new(own(listener), &tls, resolver());
        assert_eq!(post(&egress, &receiver.url()).await, Err(EgressError::BlockedAddress), "{listener}");
    }
    assert_eq!(receiver.requests().len(), 0);
}
