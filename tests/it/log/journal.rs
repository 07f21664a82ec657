//! Formats, priorities for journald, lines that stay lines, and a reader who does not read.

use regex::Regex;
use rustix::process::{Pid, Signal, kill_process};

use crate::support::logged_process::{Journal, LoggedProcess, Settings};
use crate::support::serve_process::ServeProcess;
use crate::support::smtp::SmtpClient;
use crate::support::wait::until;

/// The log of a server that accepted a mail, refused another, and heard control characters.
async fn log(format: &'static str, journal: Journal) -> String {
    let server = LoggedProcess::start_as(Settings { format, journal, ..Settings::default() }, "").await;
    let mut client = SmtpClient::connect_and_greet(server.smtp).await;
    let mail = "From: a@example.com\r\nSubject: Hi\r\n\r\nHello\r\n";
    assert_eq!(client.mail("a@example.com", &["hook@inbox.test"], mail).await.code, 250);
    client.expect("MAIL FROM:<\u{1b}[2J\u{85}\u{2028}x\ry\u{7f}>", 501).await;
    server.wait_for(&["mail refused"]).await;
    server.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn lines_for_journald_begin_with_their_priority_and_have_no_time() {
    let text = log("auto", Journal::Stderr).await;
    let line = Regex::new(r"^<[3467]> *(ERROR|WARN|INFO|DEBUG) \S").unwrap();
    assert!(text.lines().all(|text| line.is_match(text)), "{text}");
    assert!(text.contains("<6> INFO mail accepted peer=127.0.0.1 via=\"mx\" session="), "{text}");
    assert!(text.contains("from=\"a@example.com\" to=\"hook@inbox.test\""), "{text}");
    let json = log("json", Journal::Stderr).await;
    assert!(json.lines().all(|line| line.starts_with("<6>{") || line.starts_with("<4>{")), "{json}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_is_not_journalds_gets_no_priority() {
    for journal in [Journal::None, Journal::Another] {
        let text = log("auto", journal).await;
        assert!(text.lines().all(|line| serde_json::from_str::<serde_json::Value>(line).is_ok()), "{text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_character_of_a_client_ends_a_line_or_steers_a_terminal() {
    for (format, journal) in [("human", Journal::None), ("human", Journal::Stderr), ("json", Journal::None)] {
        let text = log(format, journal).await;
        let refused = text.lines().filter(|line| line.contains("mail refused")).count();
        assert_eq!(refused, 1, "{text}");
        let unsafe_character = |c: char| c != '\n' && (c.is_control() || c == '\u{2028}');
        assert!(!text.contains(unsafe_character), "{text:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_nobody_reads_holds_nothing_up_and_loses_whole_lines() {
    const SESSIONS: usize = 160;
    const RECIPIENTS: usize = 48;
    let folder = tempfile::tempdir().unwrap();
    let server = ServeProcess::start(folder.path()).await;
    // Refused recipients with long names, of which the log says all.
    let long = "x".repeat(60);
    let domain = format!("{long}.{long}.{long}.test");
    let recipient = format!("RCPT TO:<{long}@{domain}>\r\n");
    let mut refused = 0;
    for _ in 0..SESSIONS {
        let mut client = SmtpClient::connect(server.smtp).await;
        client.expect(&format!("EHLO {domain}"), 250).await;
        client.expect(&format!("MAIL FROM:<{long}@{domain}>"), 250).await;
        client.send(recipient.repeat(RECIPIENTS)).await;
        for _ in 0..RECIPIENTS {
            assert_eq!(client.reply().await.code, 550);
            refused += 1;
        }
    }
    let (mut child, log) = server.into_child_and_log();
    let lines = || log.lock().unwrap().iter().filter(|line| line.contains("recipient refused")).count();
    until(async || lines() > 0).await;
    kill_process(Pid::from_raw(i32::try_from(child.id().unwrap()).unwrap()).unwrap(), Signal::TERM).unwrap();
    child.wait().await.unwrap();
    until(async || log.lock().unwrap().iter().any(|line| line.contains("stopped"))).await;
    assert!(lines() < refused, "{} of {refused} lines waited", lines());
    for line in log.lock().unwrap().iter() {
        assert!(serde_json::from_str::<serde_json::Value>(line).is_ok(), "{line}");
    }
}
