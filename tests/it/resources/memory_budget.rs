//! Peak memory of the real binary for any request: one budget for all listeners, and memory that is returned.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use futures_util::future::join_all;
use futures_util::{StreamExt as _, stream};
use http_body_util::StreamBody;
use hyper::body::Frame;
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::{Instant, sleep, timeout};

use crate::support::api::{Answer, Api};
use crate::support::serve_process::ServeProcess;
use crate::support::smtp::SmtpClient;

/// Limit of resident memory for any request, in KiB.
const MOST_RESIDENT: u64 = 256 * 1024;
/// Growth over the idle process that is tolerated afterwards, in KiB.
const MOST_KEPT: u64 = 30 * 1024;
const LARGEST_FILE: usize = 26_214_400;
const LARGEST_BODY: usize = 36_700_160;

/// A process with an account that may send from inbox.test.
struct MeasuredServer {
    served: ServeProcess,
    owner: Api,
    idle: u64,
    _folder: tempfile::TempDir,
}

impl MeasuredServer {
    async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        // What is sent goes nowhere: the relay refuses connections.
        let relay = "[outbound.smarthost]\nhost = \"127.0.0.1\"\nport = 1\nsecurity = \"none\"\n";
        let (served, owner) = ServeProcess::start_owned(folder.path(), relay).await;
        owner.get("/v1/me").await.expect(200);
        let mut measured = Self { served, owner, idle: 0, _folder: folder };
        measured.idle = measured.kib("VmRSS");
        measured
    }

    /// A figure of `/proc/PID/status` in KiB.
    fn kib(&self, name: &str) -> u64 {
        self.served.memory_kib(name)
    }

    /// Asserts that the peak of `what` is within the limit and that the memory is returned.
    async fn check(&self, what: &str) {
        let peak = self.kib("VmHWM");
        assert!(peak <= MOST_RESIDENT, "{what}: {} MiB at most", peak / 1024);
        let deadline = Instant::now() + Duration::from_secs(30);
        while self.kib("VmRSS") > self.idle + MOST_KEPT {
            let kept = (self.kib("VmRSS") - self.idle) / 1024;
            assert!(Instant::now() < deadline, "{what}: {kept} MiB were not given back");
            sleep(Duration::from_millis(100)).await;
        }
        println!("{what}: {} MiB idle, {} at most, {} now", self.idle / 1024, peak / 1024, self.kib("VmRSS") / 1024);
        self.served.reset_peak_memory();
    }

    /// The link of an uploaded file.
    async fn upload(&self, octets: usize) -> String {
        let answer = self.owner.send("POST", "/v1/attachments?filename=a.bin", &[], Some(&vec![b'x'; octets])).await;
        answer.expect(201)["url"].as_str().unwrap().to_owned()
    }

    async fn post(&self, path: &str, body: &str) -> Answer {
        let headers = [("content-type", "application/json")];
        self.owner.exchange("POST", path, &headers, Some(body.as_bytes())).await
    }
}

fn message_with(more: Value) -> Value {
    let mut message =
        json!({"from": "hi@inbox.test", "to": "ada@remote.test", "subject": "Large", "text": "See there."});
    message.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    message
}

/// Opens a connection and sends the beginning of a request; the rest never comes.
async fn begin(address: SocketAddr, head: &str, body: &[u8]) -> TcpStream {
    let mut stream = TcpStream::connect(address).await.unwrap();
    drop(stream.write_all(head.as_bytes()).await);
    // Over a limit the server closes.
    drop(timeout(Duration::from_millis(200), stream.write_all(body)).await);
    stream
}

#[tokio::test(flavor = "multi_thread")]
async fn files_that_a_message_names_are_summed_before_one_is_read() {
    let measured = MeasuredServer::start().await;
    let link = measured.upload(LARGEST_FILE).await;
    measured.check("an upload").await;
    let files = |count: usize| json!({"attachments": vec![json!({"filename": "a.bin", "url": link}); count]});
    for count in [2, 100] {
        let answer = measured.owner.post("/v1/send", message_with(files(count))).await;
        answer.expect_field(400, "attachment_too_large", "attachments");
    }
    let batch = json!({"recipients": vec![json!({"to": "ada@remote.test"}); 50], "to": null});
    let mut many = message_with(batch);
    many.as_object_mut().unwrap().extend(files(3).as_object().unwrap().clone());
    measured.owner.post("/v1/send/batch", many.clone()).await.expect_field(
        400,
        "attachment_too_large",
        "attachments",
    );
    measured.check("links to a hundred files").await;
    // What fits is sent, for each of fifty, one after the other.
    many["attachments"] = files(1)["attachments"].clone();
    many["recipients"] = json!(vec![json!({"to": "ada@remote.test"}); 3]);
    assert_eq!(measured.owner.post("/v1/send/batch", many).await.expect(200)["sent"], 3);
    measured.check("a batch with a large file").await;
    let sends = join_all((0..6).map(|_| measured.owner.post("/v1/send", message_with(files(1))))).await;
    for answer in &sends {
        assert!([202, 503].contains(&answer.status), "{}", answer.json);
    }
    assert!(sends.iter().any(|answer| answer.status == 202));
    measured.check("large files at once").await;
    let again = measured.owner.post("/v1/attachments", json!({"url": link})).await;
    assert_eq!(again.expect(201)["size"], LARGEST_FILE);
    measured.check("an upload of an upload").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_document_of_many_values_is_refused_and_a_large_text_costs_a_few_times_itself() {
    let measured = MeasuredServer::start().await;
    let filled = |unit: &str| unit.repeat((LARGEST_BODY - 200) / unit.len());
    let bombs = [
        format!("[{}0]", filled("{\"\":0},")),
        format!("{{\"x\":[{}0]}}", filled("{\"\":0},")),
        format!("{{\"to\":[{}0]}}", filled("[],")),
        format!("{{\"metadata\":{{{}\"\":0}}}}", filled("\"a\":0,")),
        format!("{{\"templateData\":{{{}\"\":0}}}}", filled("\"\":\"\",")),
        format!("{{\"attachments\":[{}{{}}]}}", filled("{},")),
        format!("{{{}\"\":0}}", filled("\"\":{},")),
    ];
    for path in ["/v1/send", "/v1/send/batch", "/v1/attachments", "/v1/route"] {
        for bomb in &bombs {
            measured.post(path, bomb).await.expect_error(400, "bad_json");
        }
        measured.check(path).await;
    }
    // Within every limit, with text where a list is expected, and as large as it may be.
    let commas = message_with(json!({"to": ",".repeat(LARGEST_BODY - 300)}));
    measured.owner.post("/v1/send", commas).await.expect_field(400, "too_many_recipients", "to");
    measured.check("a list of nobody").await;
    let text = "\u{e9}".repeat(LARGEST_BODY / 2 - 300);
    measured.owner.post("/v1/send", message_with(json!({"text": text}))).await.expect_error(413, "body_too_large");
    let text = "\u{e9}".repeat(10 << 20);
    measured.owner.post("/v1/send", message_with(json!({"text": text}))).await.expect(202);
    measured.check("a large text").await;
    // A short template that becomes long.
    let data = json!({"text": "{{a}}".repeat(100_000), "templateData": {"a": "x".repeat(100_000)}});
    measured.owner.post("/v1/send", message_with(data)).await.expect_error(413, "body_too_large");
    let batch = json!({
        "recipients": [{"to": "ada@remote.test", "templateData": {"a": "x".repeat(100_000)}}],
        "to": null, "text": "{{a}}".repeat(100_000),
    });
    let answer = measured.owner.post("/v1/send/batch", message_with(batch)).await.expect(200);
    assert_eq!(answer["results"][0]["code"], "body_too_large", "{answer}");
    measured.check("merge tags").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn large_bodies_at_once_wait_for_one_another_or_are_asked_to_come_again() {
    let measured = MeasuredServer::start().await;
    let file = BASE64.encode(vec![7; LARGEST_FILE]);
    let body = message_with(json!({"attachments": [{"filename": "a.bin", "content": file}]})).to_string();
    let answers = join_all((0..8).map(|_| measured.post("/v1/send", &body))).await;
    for answer in &answers {
        assert!([202, 503].contains(&answer.status), "{}", answer.json);
        assert_eq!(answer.status == 503, answer.header("retry-after").is_some());
    }
    assert!(answers.iter().any(|answer| answer.status == 202));
    measured.check("large messages at once").await;
    let file = vec![7; LARGEST_FILE];
    let upload = || measured.owner.exchange("POST", "/v1/attachments?filename=a.bin", &[], Some(&file));
    let answers = join_all((0..8).map(|_| upload())).await;
    assert!(answers.iter().all(|answer| [201, 503].contains(&answer.status)));
    assert!(answers.iter().any(|answer| answer.status == 201));
    measured.check("uploads at once").await;
    // Whoever stops in the middle holds what was sent, for a while; the others still get through.
    let head = format!(
        "POST /v1/send HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {}\r\nContent-Length: {LARGEST_BODY}\r\n\r\n",
        measured.owner.credential.as_deref().unwrap()
    );
    let half = vec![b' '; LARGEST_BODY - 1];
    let _stuck = join_all((0..12).map(|_| begin(measured.served.http, &head, &half))).await;
    measured.owner.get("/v1/me").await.expect(200);
    measured.check_peak("bodies that stop");
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_with_large_texts_are_written_while_they_are_sent() {
    const LINES: usize = 12 << 10;
    let measured = MeasuredServer::start().await;
    let mut mail = b"From: ada@example.com\r\nSubject: Large\r\nContent-Transfer-Encoding: 8bit\r\n\r\n".to_vec();
    // Six octets each in JSON.
    let line = [&[1; 900][..], b"\r\n"].concat();
    (0..LINES).for_each(|_| mail.extend_from_slice(&line));
    let mut client = SmtpClient::connect_and_greet(measured.served.smtp).await;
    assert_eq!(client.mail("ada@example.com", &["hello@inbox.test"], &mail).await.code, 250);
    measured.check("a large mail").await;
    let list = measured.owner.get("/api/messages").await.expect(200);
    let path = format!("/api/messages/{}", list[0]["id"].as_str().unwrap());
    for answer in join_all((0..2).map(|_| measured.owner.exchange("GET", &path, &[], None))).await {
        assert_eq!(answer.status, 200, "{}", answer.json);
        let text = answer.json["message"]["text_body"].as_str().unwrap().as_bytes();
        assert!(text.len() >= LINES * 901 - 1 && text.iter().all(|octet| [1, b'\n'].contains(octet)));
        assert_eq!(answer.json["message"]["subject"], "Large");
    }
    measured.check("details of a large mail").await;
    let raw = format!("{path}/raw");
    for answer in join_all((0..8).map(|_| measured.owner.exchange("GET", &raw, &[], None))).await {
        assert_eq!(answer.status, 200, "{}", answer.json);
        assert_eq!(answer.header("content-length"), Some(mail.len().to_string().as_str()));
        assert!(answer.body.ends_with(&line));
    }
    measured.check("raw copies of a large mail").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_shows_no_credential_holds_little() {
    let measured = MeasuredServer::start().await;
    let head = |length: usize| {
        format!(
            "POST /api/auth/login HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n"
        )
    };
    let answer = measured.owner.exchange("POST", "/api/auth/login", &[], Some(&vec![b' '; 16_385])).await;
    answer.expect_error(413, "body_too_large");
    let mut stuck = Vec::new();
    for (length, sent) in [(1 << 20, (1 << 20) - 1), (16_384, 16_383)] {
        let (head, body) = (head(length), vec![b' '; sent]);
        for _ in 0..4 {
            stuck.push(join_all((0..100).map(|_| begin(measured.served.http, &head, &body))).await);
        }
    }
    measured.check_peak("bodies of nobody");
    // Header fields that never end.
    let fields = format!("GET / HTTP/1.1\r\n{}", "a: b\r\n".repeat(2700));
    stuck.push(join_all((0..100).map(|_| begin(measured.served.http, &fields, &[]))).await);
    measured.check_peak("headers of nobody");
    drop(stuck);
    let (mut connections, mut answers) = (Vec::new(), Vec::new());
    for _ in 0..10 {
        let io = TokioIo::new(TcpStream::connect(measured.served.http).await.unwrap());
        let executor = TokioExecutor::new();
        let (mut sender, connection) = hyper::client::conn::http2::handshake(executor, io).await.unwrap();
        connections.push(tokio::spawn(connection));
        for _ in 0..100 {
            let pieces =
                stream::iter(0..64).map(|_| Ok::<_, Infallible>(Frame::data(Bytes::from(vec![b' '; 16_384]))));
            let body = StreamBody::new(pieces.chain(stream::pending()));
            let request = hyper::Request::post("http://a/api/auth/login").body(body).unwrap();
            let answer = sender.send_request(request);
            answers.push(tokio::spawn(async move { answer.await.map(drop) }));
        }
    }
    // Each is refused, however its body goes on; by then all of them held what they ever do.
    timeout(Duration::from_secs(60), join_all(answers)).await.expect("every request is answered");
    measured.owner.get("/api/health").await.expect(200);
    measured.check_peak("HTTP/2 streams of nobody");
    connections.iter().for_each(tokio::task::JoinHandle::abort);
    drop(connections);
    measured.check("everything of nobody").await;
}

impl MeasuredServer {
    fn check_peak(&self, what: &str) {
        let peak = self.kib("VmHWM");
        println!("{what}: {} MiB idle, {} at most", self.idle / 1024, peak / 1024);
        assert!(peak <= MOST_RESIDENT, "{what}: {} MiB at most", peak / 1024);
    }
}

/// Logs in with a wrong password from this address; returns the status.
async fn log_in_from(place: u8, to: SocketAddr) -> String {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(SocketAddr::from(([127, 0, 1, place], 0))).unwrap();
    let mut stream = socket.connect(to).await.unwrap();
    let body = json!({"email": format!("guess{place}@acme.test"), "password": "correct horse battery"}).to_string();
    let head = format!(
        "POST /api/auth/login HTTP/1.1\r\nHost: {to}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\
         Connection: close\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    String::from_utf8_lossy(&answer).split(' ').nth(1).unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn logins_of_strangers_give_back_what_their_hashes_took() {
    let measured = MeasuredServer::start().await;
    for round in 0..6 {
        let logins = (1..=16).map(|place| log_in_from(round * 16 + place, measured.served.http));
        let statuses = join_all(logins).await;
        assert!(statuses.iter().all(|status| status == "401"), "{statuses:?}");
    }
    measured.check("96 logins, 16 at a time").await;
}
