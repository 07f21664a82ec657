//! `mailkite export` and `mailkite import` as an operator uses them: every octet comes back in all three formats,
//! beside a running server and without one, and nothing is run for what was imported.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use mailkite::testing::clock::{Clock, Timestamp};
use serde_json::{Value, json};

use crate::support::server::Server;
use crate::support::smtp::SmtpClient;

const FORMATS: [&str; 3] = ["mbox", "maildir", "jsonl"];
const DAY: Duration = Duration::from_secs(86_400);

/// Runs a command on a data directory; returns true when it succeeded, and its output.
async fn run(data_dir: &Path, arguments: &[&str]) -> (bool, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_mailkite"));
    command.args(arguments).arg("--data-dir").arg(data_dir);
    let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    let text = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
    (output.status.success(), text)
}

async fn good(data_dir: &Path, arguments: &[&str]) -> String {
    let (succeeded, said) = run(data_dir, arguments).await;
    assert!(succeeded, "{arguments:?}: {said}");
    said
}

async fn refused(data_dir: &Path, arguments: &[&str], why: &str) {
    let (succeeded, said) = run(data_dir, arguments).await;
    assert!(!succeeded && said.contains(why), "{arguments:?}: {said}");
}

async fn import(data_dir: &Path, source: &Path, format: &str, account: &str) -> String {
    good(data_dir, &["import", source.to_str().unwrap(), "--format", format, "--account", account]).await
}

/// Mails that a careless writer would change, each with a text that names it in its subject.
fn mails() -> Vec<(i64, Vec<u8>)> {
    let large = [b"Subject: large\r\n\r\n".to_vec(), vec![b'x'; 25 * 1024 * 1024 - 18]].concat();
    let bodies: Vec<Vec<u8>> = vec![
        b"Subject: plain\r\nMessage-ID: <1@b.test>\r\nTo: x@inbox.test\r\n\r\nHi\r\n".to_vec(),
        b"Subject: eight bits\r\n\r\n\xff\xfe caf\xc3\xa9 \xe9\r\n".to_vec(),
        b"Subject: LF alone\n\nHi\nthere\n".to_vec(),
        b"Subject: mixed\r\n\nHi\r\n\nthere\r".to_vec(),
        b"Subject: From\r\n\r\nFrom here\r\n>From there\r\n>>From\r\nFrom a@b.test Thu Jul  2 00:00:05 2026\r\n"
            .to_vec(),
        b"From the start\r\nSubject: x\r\n\r\n\r\n\r\n".to_vec(),
        b"Subject: NUL\r\n\r\na\0b\0\0\r\n".to_vec(),
        b"Subject: no end".to_vec(),
        b"Subject: file\r\nContent-Type: application/pdf; name=a.pdf\r\n\r\n%PDF\r\n".to_vec(),
        large,
    ];
    let now = Clock::System.now().as_millis();
    (1..).zip(bodies).map(|(number, data)| ((now / 1000 - number * 3600) * 1000, data)).collect()
}

fn json_lines(mails: &[(i64, Vec<u8>)]) -> String {
    let line = |(at, data): &(i64, Vec<u8>)| {
        let message = json!({"received_at": at, "mail_from": "a@b.test", "to_addr": "x@inbox.test"});
        json!({"message": message, "raw": STANDARD.encode(data)}).to_string() + "\n"
    };
    mails.iter().map(line).collect()
}

/// Reads an export in JSON Lines: the octets by their time, and the messages.
fn read_lines(path: &Path) -> (BTreeMap<i64, Vec<u8>>, Vec<Value>) {
    let text = fs::read_to_string(path).unwrap();
    let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let octets = |line: &Value| {
        let at = line["message"]["received_at"].as_i64().unwrap();
        (at, STANDARD.decode(line["raw"].as_str().unwrap()).unwrap())
    };
    (lines.iter().map(octets).collect(), lines)
}

#[tokio::test(flavor = "multi_thread")]
async fn every_octet_comes_back_in_all_three_formats() {
    let folder = tempfile::tempdir().unwrap();
    let mails = mails();
    let wanted: BTreeMap<i64, Vec<u8>> = mails.iter().cloned().collect();
    let source = folder.path().join("source.jsonl");
    fs::write(&source, json_lines(&mails)).unwrap();

    let first = Server::start().await;
    first.webhook("http://127.0.0.1:9/hook").await;
    let (data_dir, account) = (first.data_dir().to_owned(), "owner@inbox.invalid");
    let said = import(&data_dir, &source, "jsonl", account).await;
    assert_eq!(said, "10 mails were stored, 0 the account had already.\n");
    let said = import(&data_dir, &source, "jsonl", account).await;
    assert_eq!(said, "0 mails were stored, 10 the account had already.\n");
    let listed = first.owner().await.get("/api/messages?domain=inbox.test").await.expect(200);
    assert_eq!(listed.as_array().unwrap().len(), 10);
    let newest = &listed[0];
    assert_eq!((&newest["received_at"], &newest["status"]), (&json!(mails[0].0), &json!("received")));
    assert_eq!((&newest["mail_from"], &newest["to_addr"]), (&json!("a@b.test"), &json!("x@inbox.test")));
    assert_eq!(first.query::<i64>("SELECT count(*) FROM delivery").await, 0, "history runs no route");
    assert_eq!(first.query::<i64>("SELECT count(*) FROM attachment").await, 1);
    for format in FORMATS {
        let exported = folder.path().join(format);
        let path = exported.to_str().unwrap();
        let said = good(&data_dir, &["export", path, "--format", format]).await;
        assert!(said.starts_with("10 mails were exported (26.2 MB)."), "{said}");
        refused(&data_dir, &["export", path, "--format", format], "choose").await;
        let said = import(&data_dir, &exported, format, account).await;
        assert_eq!(said, "0 mails were stored, 10 the account had already.\n", "{format}");
        let second = Server::start().await;
        let said = import(second.data_dir(), &exported, format, account).await;
        assert_eq!(said, "10 mails were stored, 0 the account had already.\n", "{format}");
        let again = folder.path().join(format!("{format}.again"));
        good(second.data_dir(), &["export", again.to_str().unwrap(), "--format", "jsonl"]).await;
        let (octets, _) = read_lines(&again);
        assert!(octets.keys().eq(wanted.keys()), "{format}: {:?} {:?}", octets.keys(), wanted.keys());
        for (at, data) in &octets {
            assert!(data == &wanted[at], "{format}: {}", String::from_utf8_lossy(&data[..data.len().min(200)]));
        }
        second.stop().await;
    }
    first.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_export_chooses_by_account_domain_time_and_direction() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start().await;
    let data_dir = server.data_dir().to_owned();
    server.other_account("third.test", "http://127.0.0.1:9/").await;
    let mut client = SmtpClient::connect_and_greet(server.smtp).await;
    for to in ["x@third.test", "y@inbox.test"] {
        let mail = format!("From: a@b.test\r\nTo: {to}\r\nSubject: Hi\r\n\r\nHi\r\n");
        assert_eq!(client.mail("a@b.test", &[to], mail).await.code, 250);
    }
    let count = async |options: &[&str]| {
        let name = folder.path().join("out.jsonl");
        fs::remove_file(&name).ok();
        let arguments = [&["export", name.to_str().unwrap(), "--format", "jsonl"], options].concat();
        good(&data_dir, &arguments).await;
        read_lines(&name).1.len()
    };
    assert_eq!(count(&[]).await, 2);
    assert_eq!(count(&["--account", "owner@third.test"]).await, 1);
    assert_eq!(count(&["--domain", "inbox.test"]).await, 1);
    assert_eq!(count(&["--direction", "in", "--since", "2020-01-01"]).await, 2);
    assert_eq!(count(&["--direction", "out"]).await, 0);
    assert_eq!(count(&["--until", "2020-01-01T00:00:00Z"]).await, 0);
    let owner = server.owner().await;
    let listed = owner.get("/api/messages?domain=inbox.test").await.expect(200);
    let raw = owner.get(&format!("/api/messages/{}/raw", listed[0]["id"].as_str().unwrap())).await;
    let name = folder.path().join("one.jsonl");
    good(&data_dir, &["export", name.to_str().unwrap(), "--format", "jsonl", "--domain", "inbox.test"]).await;
    let (octets, lines) = read_lines(&name);
    assert_eq!(octets.values().next().unwrap(), &raw.body);
    let detail = owner.get(&format!("/api/messages/{}", listed[0]["id"].as_str().unwrap())).await.expect(200);
    assert_eq!(lines[0]["message"], detail["message"], "as the API tells it");
    let said = good(&data_dir, &["export", "-", "--format", "mbox", "--domain", "inbox.test"]).await;
    assert!(said.starts_with("From a@b.test ") && said.contains("\nFrom: a@b.test\r\n"), "{said}");
    refused(&data_dir, &["export", "-", "--format", "maildir"], "is a directory").await;
    refused(&data_dir, &["export", "-", "--format", "mbox", "--account", "x@y.test"], "no account has").await;
    refused(&data_dir, &["export", "-", "--format", "mbox", "--domain", "y.test"], "has the domain y.test").await;
    refused(&data_dir, &["export", "-", "--format", "mbox", "--since", "soon"], "write a date such as").await;
    server.stop_with_any_jobs().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn mail_without_its_raw_copy_is_made_again() {
    let folder = tempfile::tempdir().unwrap();
    let clock = Clock::manual(Timestamp::from_millis(1_785_196_800_000));
    let server = Server::start_with(clock.clone(), |_| {}).await;
    let mut client = SmtpClient::connect_and_greet(server.smtp).await;
    let mail =
        "From: Zo\u{eb} <a@b.test>\r\nTo: y@inbox.test\r\nSubject: Hi\r\nMessage-ID: <1@b.test>\r\n\r\nHello\r\n";
    assert_eq!(client.mail("a@b.test", &["y@inbox.test"], mail).await.code, 250);
    clock.advance(8 * DAY);
    server.sweep().await;
    let name = folder.path().join("out");
    let said = good(server.data_dir(), &["export", name.to_str().unwrap(), "--format", "maildir"]).await;
    assert!(said.contains("1 of them are older than seven days"), "{said}");
    let entry = fs::read_dir(name.join("cur")).unwrap().next().unwrap().unwrap();
    assert!(entry.file_name().to_str().unwrap().starts_with("1785196800.M000_msg_"), "{entry:?}");
    let text = fs::read_to_string(entry.path()).unwrap();
    for line in ["From: Zo\u{eb} <a@b.test>\r\n", "Subject: Hi\r\n", "Message-Id: <1@b.test>\r\n", "Hello"] {
        assert!(text.contains(line), "{line} in {text}");
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_import_keeps_to_limits_and_says_what_it_left_out() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start_with(Clock::System, |config| config.limits.storage_bytes = 100_000).await;
    let data_dir = server.data_dir().to_owned();
    server.other_account("third.test", "http://127.0.0.1:9/").await;
    let now = Clock::System.now().as_millis();
    let mail = |number: i64, octets: usize| {
        let head = format!("To: x@third.test\r\nSubject: {number}\r\n\r\n");
        (now - number * 1000, [head.into_bytes(), vec![b'x'; octets]].concat())
    };
    let source = folder.path().join("source");
    let mails: Vec<_> = (1..=3).map(|number| mail(number, 40_000)).collect();
    fs::write(&source, json_lines(&mails)).unwrap();
    let arguments = ["import", source.to_str().unwrap(), "--format", "jsonl", "--account", "owner@third.test"];
    let (succeeded, said) = run(&data_dir, &arguments).await;
    assert!(
        !succeeded && said.contains("2 mails were stored") && said.contains("has reached its storage limit"),
        "{said}"
    );
    let (_, said) = run(&data_dir, &arguments).await;
    assert!(said.contains("0 mails were stored, 2 the account had already"), "{said}");

    let month = 40 * 86_400_000;
    fs::write(&source, json_lines(&[(now - month, b"Subject: old\r\n\r\n".to_vec())]) + "{\"raw\":null}\n").unwrap();
    let said = import(&data_dir, &source, "jsonl", "owner@inbox.invalid").await;
    assert!(said.starts_with("0 mails were stored") && said.contains("1 were left out: they are older"), "{said}");
    assert!(said.contains("1 were left out: they come without their octets"), "{said}");
    let owner = |more: &[&'static str]| {
        let source = source.to_str().unwrap().to_owned();
        let more: Vec<String> = more.iter().map(|&word| word.to_owned()).collect();
        move || [vec!["import".to_owned(), source], more].concat()
    };
    for (more, why) in [
        (&["--format", "jsonl", "--account", "x@y.test"][..], "no account has the address x@y.test"),
        (&["--format", "jsonl", "--account", "owner@inbox.invalid", "--domain", "y.test"], "has no domain y.test"),
        (&["--format", "mbox", "--account", "owner@inbox.invalid"], "this is no mbox file"),
        (&["--format", "maildir", "--account", "owner@inbox.invalid"], "is no maildir"),
    ] {
        let arguments = owner(more)();
        refused(&data_dir, &arguments.iter().map(String::as_str).collect::<Vec<_>>(), why).await;
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_import_works_without_a_server_and_is_whole_after_a_start() {
    let folder = tempfile::tempdir().unwrap();
    let data_dir = folder.path().join("data");
    Server::start_with(Clock::System, |config| config.data_dir.clone_from(&data_dir)).await.stop().await;
    let source = folder.path().join("source.mbox");
    let large = "x".repeat(100_000);
    let mail = |number: usize| format!("From - Thu Jul  2 00:00:05 2099\nTo: {number}@inbox.test\n\n{large}\n\n");
    fs::write(&source, (0..100).map(mail).collect::<String>()).unwrap();
    let said = import(&data_dir, &source, "mbox", "owner@inbox.invalid").await;
    assert_eq!(said, "100 mails were stored, 0 the account had already.\n");
    let server = Server::start_unowned(Clock::System, |config| config.data_dir.clone_from(&data_dir)).await;
    assert_eq!(server.query::<i64>("SELECT count(*) FROM message WHERE domain_id IS NOT NULL").await, 100);
    assert_eq!(server.query::<i64>("SELECT count(DISTINCT to_addr) FROM message").await, 100);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_maildir_whose_folder_is_a_link_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start().await;
    let (maildir, secret) = (folder.path().join("maildir"), folder.path().join("secret"));
    fs::create_dir(&maildir).unwrap();
    fs::create_dir(&secret).unwrap();
    fs::write(secret.join("shadow"), "root:secret\n").unwrap();
    std::os::unix::fs::symlink(&secret, maildir.join("cur")).unwrap();
    let command = ["import", maildir.to_str().unwrap(), "--format", "maildir", "--account", "owner@inbox.invalid"];
    refused(server.data_dir(), &command, "is no maildir").await;
    server.stop().await;
}
