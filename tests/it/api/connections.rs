//! Connection limits: many connections of one address lock out no other address and no known client of their own.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use futures_util::future::join_all;
use mailkite::testing::clock::Clock;
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;

use crate::support::api::Api;
use crate::support::serve_process::ServeProcess;
use crate::support::server::Server;

const STUCK: &str = "POST /api/auth/login HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n{";

async fn connect(server: SocketAddr, from: IpAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(SocketAddr::new(from, 0)).unwrap();
    socket.connect(server).await.unwrap()
}

/// Opens this many connections that send one octet of a body and no more.
async fn stick(server: SocketAddr, count: usize) -> Vec<TcpStream> {
    let mut stuck = Vec::with_capacity(count);
    while stuck.len() < count {
        let begin = async |_| {
            let mut stream = TcpStream::connect(server).await.unwrap();
            drop(stream.write_all(STUCK.as_bytes()).await);
            stream
        };
        stuck.extend(join_all((0..50.min(count - stuck.len())).map(begin)).await);
    }
    stuck
}

/// Makes a request from this address; returns the status line.
async fn status(server: SocketAddr, from: IpAddr, request: &str) -> String {
    let exchange = async {
        let mut stream = connect(server, from).await;
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        drop(stream.read_to_end(&mut answer).await);
        String::from_utf8_lossy(&answer).chars().take(12).collect()
    };
    timeout(Duration::from_secs(30), exchange).await.expect("an answer")
}

fn get(path: &str, credential: &str) -> String {
    format!(
        "GET {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {credential}\r\nConnection: close\r\n\r\n"
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn thousands_of_stuck_connections_keep_nobody_out() {
    mailkite::testing::process::host::raise_file_limit();
    let count = usize::try_from(mailkite::testing::process::host::file_limit() / 2).unwrap().min(2450);
    let folder = tempfile::tempdir().unwrap();
    let (served, owner) = ServeProcess::start_owned(folder.path(), "").await;
    let key = owner.credential.unwrap();
    let stuck = stick(served.http, count).await;
    let login = json!({"email": "nobody@example.com", "password": "correct horse battery"}).to_string();
    let login = format!(
        "POST /api/auth/login HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{login}",
        login.len()
    );
    for from in [[127, 0, 0, 2], [127, 0, 0, 1]].map(|octets| IpAddr::V4(Ipv4Addr::from(octets))) {
        assert_eq!(status(served.http, from, &get("/api/health", "")).await, "HTTP/1.1 200", "{from}");
        assert_eq!(status(served.http, from, &get("/v1/me", &key)).await, "HTTP/1.1 200", "{from}");
        assert_eq!(status(served.http, from, &login).await, "HTTP/1.1 401", "{from}");
    }
    assert_eq!(stuck.len(), count);
}

#[tokio::test(flavor = "multi_thread")]
async fn at_the_cap_of_an_address_old_strangers_go_and_who_is_known_stays() {
    const CAP: usize = 20;
    let token = "a token of the metrics";
    let server = Server::start_with(Clock::System, |config| {
        config.http.max_connections_per_address = CAP;
        config.metrics.token = Some(token.to_owned());
    })
    .await;
    let owner = server.owner().await;
    let key = owner.credential.clone().unwrap();
    let here = IpAddr::V4(Ipv4Addr::LOCALHOST);
    let mut known = connect(server.http, here).await;
    let ask = get("/v1/me", &key).replace("Connection: close\r\n", "");
    let mut answer = [0; 4096];
    known.write_all(ask.as_bytes()).await.unwrap();
    assert!(known.read(&mut answer).await.unwrap() > 0);
    let stuck = stick(server.http, 3 * CAP).await;
    Api::anonymous(server.http).get("/api/health").await.expect(200);
    // The known one is still there, although it was idle.
    known.write_all(ask.as_bytes()).await.unwrap();
    let length = known.read(&mut answer).await.unwrap();
    assert!(String::from_utf8_lossy(&answer[..length]).starts_with("HTTP/1.1 200"));
    let mut gone = 0;
    for mut stream in stuck {
        let mut answer = Vec::new();
        let ended = timeout(Duration::from_millis(100), stream.read_to_end(&mut answer)).await;
        gone += usize::from(ended.is_ok());
    }
    assert!(gone >= 2 * CAP, "{gone} of {} were closed", 3 * CAP);
    let figures = Api::anonymous(server.http).with(token).exchange("GET", "/metrics", &[], None).await;
    let figures = String::from_utf8(figures.body).unwrap();
    let figure = |name: &str| -> u64 {
        let line = figures.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.unwrap_or_else(|| panic!("{name} is not in:\n{figures}")).parse().unwrap()
    };
    assert!(figure("mailkite_http_displaced_total") >= 2 * CAP as u64);
    assert!(figure("mailkite_http_connections") <= CAP as u64);
    assert_eq!(figure("mailkite_http_connections_refused_total"), 0);
    assert_eq!(figure("mailkite_memory_budget_bytes"), 192 << 20);
    for door in ["smtp", "parsing", "anonymous", "api", "webhooks", "sending"] {
        assert_eq!(figure(&format!("mailkite_memory_refused_total{{door=\"{door}\"}}")), 0);
        assert!(figure(&format!("mailkite_memory_held_bytes{{door=\"{door}\"}}")) <= 192 << 20);
    }
}
