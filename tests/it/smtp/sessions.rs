//! SMTP sessions over real sockets: every dialog of `tests/dialogs`, and what a script cannot say.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use mailkite::testing::clock::Clock;
use tokio::task::JoinSet;

use crate::support::dialog;
use crate::support::receiver::{Receiver, Reply};
use crate::support::server::{Server, message};
use crate::support::smtp::SmtpClient;

#[tokio::test(flavor = "multi_thread")]
async fn every_dialog_goes_as_it_is_written() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/dialogs");
    let mut running = JoinSet::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        if let Some(name) = name.strip_suffix(".txt").map(str::to_owned) {
            let script = fs::read_to_string(&path).unwrap();
            running.spawn(async move { dialog::run(&name, &script).await });
        }
    }
    assert!(running.len() >= 30);
    let mut failed = Vec::new();
    while let Some(ended) = running.join_next().await {
        failed.extend(ended.err().map(|error| error.to_string()));
    }
    assert!(failed.is_empty(), "{}", failed.join("\n\n"));
}

/// The gauge of open sessions as `/metrics` shows it.
async fn sessions_shown(server: &Server) -> u64 {
    let metrics = server.anonymous().with("a token of sixteen").exchange("GET", "/metrics", &[], None).await;
    let text = String::from_utf8(metrics.body).unwrap();
    text.lines().find_map(|line| line.strip_prefix("mailkite_smtp_sessions ")).unwrap().parse().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_gauge_of_sessions_counts_those_that_are_open() {
    let server = Server::start_with(Clock::System, |config| {
        config.metrics.token = Some("a token of sixteen".to_owned());
    })
    .await;
    assert_eq!(sessions_shown(&server).await, 0);
    let mut sessions = Vec::new();
    for open in 1..=3 {
        sessions.push(SmtpClient::connect_and_greet(server.smtp).await);
        assert_eq!(sessions_shown(&server).await, open);
    }
    drop(sessions);
    let deadline = Instant::now() + Duration::from_secs(10);
    while sessions_shown(&server).await > 0 {
        assert!(Instant::now() < deadline, "closed sessions still count as open");
        tokio::task::yield_now().await;
    }
    server.stop().await;
}

/// Sends a transaction up to its data in one segment and reads the replies.
pub(super) async fn in_data(address: SocketAddr) -> SmtpClient {
    let mut client = SmtpClient::connect_and_greet(address).await;
    client.envelope("ada@example.com", &["a@inbox.test"]).await;
    client.expect("DATA", 354).await;
    client
}

#[tokio::test(flavor = "multi_thread")]
async fn the_end_of_data_is_found_whatever_segments_it_comes_in() {
    let server = Server::start().await;
    let wire = b"Subject: split\r\n\r\n..stuffed\r\nend\r\n.\r\nNOOP\r\n";
    let mut running = JoinSet::new();
    for cut in 1..wire.len() {
        let address = server.smtp;
        running.spawn(async move {
            let mut client = in_data(address).await;
            let (head, tail) = wire.split_at(cut);
            // The ids make each a mail of its own; the write in between has left before the next begins.
            client.send(format!("X-Cut: {cut}\r\n")).await;
            for piece in [head, tail] {
                client.send(piece).await;
                tokio::task::yield_now().await;
            }
            assert_eq!(client.reply().await.code, 250, "cut at {cut}");
            assert_eq!(client.reply().await.text(), "250 2.0.0 Ok", "the command behind the data, cut at {cut}");
        });
    }
    while let Some(ended) = running.join_next().await {
        ended.unwrap();
    }
    let sizes: i64 = server.query("SELECT count(DISTINCT size) FROM message").await;
    assert_eq!(sizes, 2, "one for cuts of one digit, one for two");
    assert_eq!(server.query::<i64>("SELECT count(*) FROM message").await, i64::try_from(wire.len()).unwrap() - 1);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bare_newline_is_refused_whatever_segments_it_comes_in_and_inside_tls() {
    let server = Server::start().await;
    for ending in ["\n.\n", "\n.\r\n", "\r\n.\n", "\r.\r\n", "\r\r\n.\r\n"] {
        for tls in [false, true] {
            let wire = format!("Subject: smuggled{ending}MAIL FROM:<eve@example.com>\r\nRCPT TO:<b@inbox.test>\r\n");
            let mut client = SmtpClient::connect_and_greet(server.smtp).await;
            if tls {
                client = client.starttls().await;
                client.expect("EHLO client.test", 250).await;
            }
            client.envelope("ada@example.com", &["a@inbox.test"]).await;
            client.expect("DATA", 354).await;
            for byte in wire.as_bytes() {
                // The server may close before all of it is sent.
                if client.try_send(&[*byte]).await.is_err() {
                    break;
                }
            }
            if let Ok(reply) = client.try_reply().await {
                assert_eq!(reply.text(), "554 5.6.0 Bare CR or LF in message data", "{ending:?}");
            }
            assert!(client.is_closed().await, "{ending:?}");
        }
    }
    assert_eq!(server.query::<i64>("SELECT count(*) FROM message").await, 0);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_refusal_of_a_bare_newline_arrives_although_the_client_goes_on_sending() {
    let server = Server::start().await;
    let mut client = in_data(server.smtp).await;
    let mut wire = b"Subject: long\r\n\r\nbare\nnewline\r\n".to_vec();
    wire.extend_from_slice(&b"and much more text behind it\r\n".repeat(40_000));
    // Sent while the server already wants to close.
    drop(client.try_send(&wire).await);
    let reply = client.try_reply().await.expect("the refusal was lost in a reset");
    assert_eq!(reply.text(), "554 5.6.0 Bare CR or LF in message data");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mail_of_25_mib_is_taken_and_one_octet_more_is_not() {
    let mut receiver = Receiver::start(|_| Reply::status(200)).await;
    let server = Server::start().await;
    server.webhook(&receiver.url()).await;
    let head = "Subject: large\r\n\r\n";
    let line = format!("{}\r\n", "x".repeat(98));
    let lines = (26_214_400 - head.len()) / line.len();
    let rest = 26_214_400 - head.len() - lines * line.len();
    let exact = format!("{head}{}{}\r\n", line.repeat(lines), "y".repeat(rest - 2));
    assert_eq!(exact.len(), 26_214_400);
    let mut client = SmtpClient::connect_and_greet(server.smtp).await;
    assert_eq!(client.mail("ada@example.com", &["a@inbox.test"], &exact).await.code, 250);
    let more = format!("X{exact}");
    let reply = client.mail("ada@example.com", &["a@inbox.test"], &more).await;
    assert_eq!(reply.text(), "552 5.3.4 Message too large");
    assert_eq!(client.mail("ada@example.com", &["a@inbox.test"], message("After")).await.code, 250);
    let subjects = [receiver.next_request().await, receiver.next_request().await]
        .map(|request| request.json()["subject"].as_str().unwrap().to_owned());
    assert!(subjects.contains(&"large".to_owned()) && subjects.contains(&"After".to_owned()));
    assert_eq!(server.query::<i64>("SELECT max(size) FROM message").await, 26_214_400);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_stored_is_what_was_sent_octet_by_octet() {
    let server = Server::start().await;
    let mut every_octet: Vec<u8> = (0..=255_u8).filter(|byte| *byte != b'\r' && *byte != b'\n').collect();
    every_octet.extend_from_slice(b"\r\n.\r\n..\r\n \r\n\r\n");
    let mut text = b"Subject: octets\r\n\r\n".to_vec();
    for _ in 0..400 {
        text.extend_from_slice(&every_octet);
    }
    let mut client = SmtpClient::connect_and_greet(server.smtp).await;
    assert_eq!(client.mail("ada@example.com", &["a@inbox.test"], &text).await.code, 250);
    let file: String = server.query("SELECT file FROM mail_data").await;
    let stored = fs::read(server.data_dir().join("objects").join(file)).unwrap();
    assert!(stored == text, "the object differs from what was sent");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_address_cannot_take_all_sessions_and_others_still_get_in() {
    let server = Server::start_with(Clock::System, |config| config.smtp.max_sessions_per_address = 5).await;
    let mut held = Vec::new();
    for _ in 0..5 {
        held.push(SmtpClient::connect(server.smtp).await);
    }
    let mut sixth = SmtpClient::open(server.smtp).await;
    assert_eq!(sixth.reply().await.text(), "421 4.7.0 Too many connections, please come again");
    assert!(sixth.is_closed().await);
    let mut honest = SmtpClient::open_from("127.0.0.2", server.smtp).await;
    assert_eq!(honest.reply().await.code, 220);
    honest.expect("QUIT", 221).await;
    // One that leaves makes room.
    let mut leaving = held.pop().unwrap();
    leaving.expect("QUIT", 221).await;
    assert!(leaving.is_closed().await);
    let mut next = SmtpClient::open(server.smtp).await;
    let mut greeting = next.reply().await;
    while greeting.code == 421 {
        next = SmtpClient::open(server.smtp).await;
        greeting = next.reply().await;
    }
    assert_eq!(greeting.code, 220);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn at_the_global_cap_a_connection_is_asked_to_come_again() {
    let server = Server::start_with(Clock::System, |config| config.smtp.max_sessions = 3).await;
    let mut held = Vec::new();
    for _ in 0..3 {
        held.push(SmtpClient::connect(server.smtp).await);
    }
    let mut more = SmtpClient::open_from("127.0.0.3", server.smtp).await;
    assert_eq!(more.reply().await.code, 421);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn at_a_stop_idle_sessions_get_a_421_and_a_mail_in_data_is_still_stored() {
    let server = Server::start().await;
    let mut idle = SmtpClient::connect_and_greet(server.smtp).await;
    let mut busy = in_data(server.smtp).await;
    busy.send("Subject: caught\r\n\r\nHalf of").await;
    server.begin_stop();
    assert_eq!(idle.reply().await.text(), "421 4.3.2 Shutting down, please come again");
    assert!(idle.is_closed().await);
    busy.send(" it.\r\n.\r\n").await;
    assert_eq!(busy.reply().await.code, 250);
    assert_eq!(busy.reply().await.code, 421);
    assert!(busy.is_closed().await);
    assert_eq!(server.query::<String>("SELECT subject FROM message").await, "caught");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_proxy_header_names_the_peer_and_is_required_of_a_proxy() {
    let server = Server::start_with(Clock::System, |config| {
        config.dev = true;
        config.smtp.proxy_protocol_from = vec!["127.0.0.0/8".parse().unwrap()];
        config.smtp.max_sessions_per_address = 2;
    })
    .await;
    let v1 = b"PROXY TCP4 192.0.2.7 198.51.100.1 4711 25\r\n".to_vec();
    let mut v2 = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c".to_vec();
    v2.extend_from_slice(&[192, 0, 2, 8, 198, 51, 100, 1, 0x12, 0x67, 0, 25]);
    for (header, peer) in [(&v1, "192.0.2.7"), (&v2, "192.0.2.8")] {
        for split in [1, header.len() / 2, header.len() - 1] {
            let mut client = SmtpClient::open(server.smtp).await;
            let (head, tail) = header.split_at(split);
            client.send(head).await;
            tokio::task::yield_now().await;
            client.send(tail).await;
            assert_eq!(client.reply().await.code, 220);
            client.expect("EHLO client.test", 250).await;
            let text = message(&format!("from {peer} {split}"));
            assert_eq!(client.mail("ada@example.com", &["a@inbox.test"], text).await.code, 250);
            client.expect("QUIT", 221).await;
            assert!(client.is_closed().await);
        }
    }
    let traced: i64 = server
        .query("SELECT count(*) FROM message WHERE instr(trace, '[' || substr(subject, 6, 9) || ']') > 0")
        .await;
    assert_eq!(traced, 6, "Received names the peer behind the proxy");

    // Behind the proxy too, one address has only so many sessions.
    let mut held = Vec::new();
    for code in [220, 220, 421] {
        let mut client = SmtpClient::open(server.smtp).await;
        client.send(b"PROXY TCP4 192.0.2.9 198.51.100.1 4711 25\r\n").await;
        assert_eq!(client.reply().await.code, code);
        held.push(client);
    }
    for junk in [&b"EHLO client.test\r\n"[..], b"PROXY TCP4 not an address\r\n", b"\r\n\r\n\0\r\nQUIT\nxxxxxxxxxxxx"]
    {
        let mut client = SmtpClient::open(server.smtp).await;
        client.send(junk).await;
        assert!(client.is_closed().await, "{:?}", String::from_utf8_lossy(junk));
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_proxies_configured_a_proxy_header_is_an_unknown_command() {
    let server = Server::start().await;
    let mut client = SmtpClient::connect(server.smtp).await;
    client.expect("PROXY TCP4 192.0.2.7 198.51.100.1 4711 25", 500).await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_vanishes_in_data_leaves_nothing() {
    let server = Server::start().await;
    for length in [10, 300_000] {
        let mut client = in_data(server.smtp).await;
        client.send(vec![b'x'; length]).await;
        drop(client);
    }
    let mut probe = SmtpClient::connect_and_greet(server.smtp).await;
    assert_eq!(probe.mail("ada@example.com", &["a@inbox.test"], message("Probe")).await.code, 250);
    let data_dir = server.data_dir().to_owned();
    assert_eq!(server.query::<i64>("SELECT count(*) FROM message").await, 1);
    let drafts = || fs::read_dir(data_dir.join("objects/tmp")).unwrap().count();
    let deadline = Instant::now() + Duration::from_secs(10);
    while drafts() > 0 {
        assert!(Instant::now() < deadline, "{} drafts are left", drafts());
        tokio::task::yield_now().await;
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_storm_of_connections_leaves_an_honest_client_served_within_a_second() {
    let server = Server::start_with(Clock::System, |config| config.smtp.max_sessions_per_address = 20).await;
    let address = server.smtp;
    let mut storm = JoinSet::new();
    for _ in 0..4 {
        storm.spawn(async move {
            let mut held = Vec::new();
            for _ in 0..200 {
                held.push(SmtpClient::open(address).await);
            }
            held
        });
    }
    let mut held = Vec::new();
    let started = Instant::now();
    let mut honest = SmtpClient::open_from("127.0.0.9", address).await;
    assert_eq!(honest.reply().await.code, 220);
    honest.expect("EHLO client.test", 250).await;
    assert_eq!(honest.mail("ada@example.com", &["a@inbox.test"], message("Honest")).await.code, 250);
    assert!(started.elapsed() < Duration::from_secs(1), "{:?}", started.elapsed());
    while let Some(client) = storm.join_next().await {
        held.push(client.unwrap());
    }
    server.stop().await;
}

/// Collects every reply of a session, without the ids of mails.
async fn replies(address: SocketAddr, pieces: &[&[u8]]) -> Vec<String> {
    let mut client = SmtpClient::open(address).await;
    for piece in pieces {
        client.send(*piece).await;
        tokio::task::yield_now().await;
    }
    let mut lines = Vec::new();
    while let Ok(line) = client.line().await {
        lines.push(line.split(" msg_").next().unwrap().to_owned());
    }
    lines
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_is_answered_the_same_whatever_segments_it_comes_in() {
    let server = Server::start_with(Clock::System, |config| config.smtp.max_sessions_per_address = 1_000).await;
    let wire =
        b"EHLO client.test\r\nMAIL FROM:<ada@example.com>\r\nRCPT TO:<x@example.com>\r\nRCPT TO:<a@inbox.test>\r\n\
        DATA\r\nSubject: x\r\n\r\n..\r\nQUIT\r\n.\r\nNOOP\r\nBOGUS\r\nMAIL FROM:<>\r\nRSET\r\nDATA2\r\nQUIT\r\n";
    let whole = replies(server.smtp, &[wire]).await;
    let codes: Vec<&str> =
        whole.iter().map(|line| line.get(..4).unwrap()).filter(|code| !code.ends_with('-')).collect();
    let expected = "220 250 250 550 250 354 250 250 500 250 250 500 221 ";
    assert_eq!(codes.concat(), expected);
    let mut running = JoinSet::new();
    for cut in 1..wire.len() {
        let (address, whole) = (server.smtp, whole.clone());
        running.spawn(async move {
            let (head, tail) = wire.split_at(cut);
            assert_eq!(replies(address, &[head, tail]).await, whole, "cut at {cut}");
        });
    }
    while let Some(ended) = running.join_next().await {
        ended.unwrap();
    }
    let octets: Vec<&[u8]> = wire.chunks(1).collect();
    assert_eq!(replies(server.smtp, &octets).await, whole);
    server.stop().await;
}
