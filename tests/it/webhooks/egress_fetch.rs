//! Fetching files by URL: redirects, limits, deadlines (contract 7.2).

use std::time::{Duration, Instant};

use hyper::header::{CONTENT_TYPE, HeaderMap, HeaderValue};
use mailkite::testing::net::egress::{
    BadUrl, EgressError, FILE_LIMITS, FetchError, Fetched, Limits, Policy, Target, fetch_file,
};

use super::egress::{BRIEF, egress, localhost, ok};
use crate::support::receiver::{Received, Receiver, Reply, raw_peer};

async fn fetch(url: &str) -> Result<Fetched, FetchError> {
    fetch_file(&egress(), &localhost(), url, FILE_LIMITS).await
}

/// Redirects `/hook?n` to `?n-1`, and answers `?0` with a file.
fn countdown(request: &Received) -> Reply {
    let left: u32 = request.path.rsplit('?').next().unwrap().parse().unwrap();
    let status = [301, 302, 303, 307, 308][left as usize % 5];
    if left == 0 { ok(request) } else { Reply::redirect(status, &format!("?{}", left - 1)) }
}

#[tokio::test]
async fn a_get_sends_its_headers_and_no_body() {
    let mut receiver = Receiver::start(ok).await;
    let target = Target::parse(&receiver.url(), &localhost()).unwrap();
    let headers = HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static("a/b"))]);
    let answer = egress().get(&target, headers, Limits::default()).await.unwrap();
    assert_eq!((answer.status, answer.body.as_slice()), (200, b"fine".as_slice()));
    let request = receiver.next_request().await;
    assert_eq!((request.method.as_str(), request.header("content-type"), request.body.len()), ("GET", "a/b", 0));
}

#[tokio::test]
async fn a_file_comes_whole_with_its_type_and_the_name_in_its_url() {
    let body: Vec<u8> = (0..3_000_000_u32).map(|at| at as u8).collect();
    let sent = body.clone();
    let script = move |_: &Received| Reply::status(200).header("content-type", "application/pdf").body(sent.clone());
    let mut receiver = Receiver::start(script).await;
    let fetched =
        fetch(&format!("http://{}/a/purchase%20order%C3%A4.pdf?x=1#top", receiver.address())).await.unwrap();
    assert!(fetched.bytes == body, "as sent");
    assert_eq!(fetched.content_type.as_deref(), Some("application/pdf"));
    assert_eq!(fetched.filename.as_deref(), Some("purchase orderä.pdf"));
    let request = receiver.next_request().await;
    assert_eq!((request.method.as_str(), request.path.as_str()), ("GET", "/a/purchase%20order%C3%A4.pdf?x=1"));
    let mut names: Vec<_> = request.headers.keys().map(|name| name.as_str()).collect();
    names.sort_unstable();
    assert_eq!(names, ["accept-encoding", "host", "user-agent"]);
    assert_eq!(request.header("accept-encoding"), "identity");
}

#[tokio::test]
async fn three_redirects_are_followed_and_a_fourth_is_not() {
    let receiver = Receiver::start(countdown).await;
    assert_eq!(fetch(&format!("{}?3", receiver.url())).await.unwrap().bytes, b"fine");
    assert_eq!(receiver.requests().len(), 4);
    assert_eq!(fetch(&format!("{}?4", receiver.url())).await, Err(FetchError::TooManyRedirects));
    assert_eq!(receiver.requests().len(), 8);
}

#[tokio::test]
async fn a_redirect_is_judged_as_its_url_would_have_been() {
    let secret = Receiver::start(ok).await;
    let port = secret.address().port();
    let blocked = FetchError::Egress(EgressError::BlockedAddress);
    for (location, refusal) in [
        (format!("https://127.0.0.2:{port}/"), blocked),
        (format!("https://2130706434:{port}/"), blocked),
        ("https://169.254.169.254/latest/meta-data/".to_owned(), blocked),
        ("https://10.0.0.1/".to_owned(), blocked),
        (format!("http://127.0.0.2:{port}/"), FetchError::Redirect(BadUrl::Scheme)),
        ("http://example.com/".to_owned(), FetchError::Redirect(BadUrl::Scheme)),
        ("file:///etc/passwd".to_owned(), FetchError::Redirect(BadUrl::Scheme)),
        (format!("http://me:secret@127.0.0.1:{port}/"), FetchError::Redirect(BadUrl::UserInfo)),
        ("http://127.0.0.1:25/".to_owned(), FetchError::Redirect(BadUrl::Port)),
        ("https://[/".to_owned(), FetchError::Redirect(BadUrl::Malformed)),
    ] {
        let to = location.clone();
        let receiver = Receiver::start(move |_| Reply::redirect(302, &to)).await;
        assert_eq!(fetch(&receiver.url()).await, Err(refusal), "{location}");
    }
    assert_eq!(secret.connections(), 0);
    let policy = Policy { allow_localhost: false, ..Policy::default() };
    let refused = fetch_file(&egress(), &policy, &secret.url(), FILE_LIMITS).await;
    assert_eq!(refused, Err(FetchError::Url(BadUrl::Scheme)));
}

#[tokio::test]
async fn a_file_over_the_limit_is_an_error_and_not_a_cut_file() {
    let limits = Limits { max_answer_bytes: 100_000, ..FILE_LIMITS };
    for (length, fits) in [(100_000, true), (100_001, false)] {
        let receiver = Receiver::start(move |_| Reply::status(200).body(vec![b'x'; length])).await;
        let fetched = fetch_file(&egress(), &localhost(), &receiver.url(), limits).await;
        assert_eq!(fetched.map(|file| file.bytes.len()), if fits { Ok(length) } else { Err(FetchError::TooLarge) });
    }
    let endless = Receiver::start(|_| Reply::endless()).await;
    assert_eq!(fetch(&endless.url()).await, Err(FetchError::TooLarge));
    // What is announced as too long is not even waited for.
    let address = raw_peer(b"HTTP/1.1 200 OK\r\ncontent-length: 26214401\r\n\r\n").await;
    assert_eq!(fetch(&format!("http://{address}/")).await, Err(FetchError::TooLarge));
}

#[tokio::test]
async fn a_slow_file_ends_at_the_deadline_however_its_time_is_spent() {
    let limits = Limits { timeout: BRIEF.timeout, ..FILE_LIMITS };
    let slow_redirect = |request: &Received| {
        let reply = countdown(request);
        if request.path.ends_with("?0") { reply } else { reply.after(BRIEF.timeout / 2) }
    };
    let chain = Receiver::start(slow_redirect).await;
    let timeout = Err(FetchError::Egress(EgressError::Timeout));
    assert_eq!(fetch_file(&egress(), &localhost(), &format!("{}?3", chain.url()), limits).await, timeout);
    for reply in [Reply::hang(), Reply::dribble(Duration::from_millis(20))] {
        let receiver = Receiver::start(move |_| reply.clone()).await;
        let started = Instant::now();
        assert_eq!(fetch_file(&egress(), &localhost(), &receiver.url(), limits).await, timeout);
        assert!(started.elapsed() >= BRIEF.timeout && started.elapsed() < 5 * BRIEF.timeout);
    }
}

#[tokio::test]
async fn only_status_200_is_a_file_and_only_whole() {
    for status in [201, 204, 206, 300, 302, 304, 401, 404, 500] {
        let receiver = Receiver::start(move |_| Reply::status(status)).await;
        assert_eq!(fetch(&receiver.url()).await, Err(FetchError::Status(status)));
    }
    let broken = Receiver::start(|_| Reply::close_in_body()).await;
    assert_eq!(fetch(&broken.url()).await, Err(FetchError::Egress(EgressError::BadResponse)));
}
