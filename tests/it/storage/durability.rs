//! The promise of a 250, kept by the real binary: over kill -9, in the order of its system calls, with a damaged
//! database.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use regex::Regex;
use tokio::sync::Notify;
use tokio::time::timeout;

use crate::support::audit::{assert_audited, assert_ledger};
use crate::support::database::{assert_sound, open_database};
use crate::support::dev_process::{DevProcess, failed_start, http_get};
use crate::support::machine::skip;
use crate::support::receiver::{Receiver, Reply};
use crate::support::server::message;
use crate::support::smtp::SmtpClient;

const CYCLES: usize = 20;
const SESSIONS: usize = 8;

/// A mail of a kind chosen by its number: mostly small, some with an attachment, some too large for a row.
fn numbered(number: usize) -> (String, String) {
    let subject = format!("load-{number}");
    let head = format!("From: Ada <ada@example.com>\r\nSubject: {subject}\r\n");
    let text = match number % 10 {
        3 => format!("{head}\r\n{}", "A line of a large mail, again and again.\r\n".repeat(2_500)),
        7 => format!(
            "{head}MIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n\r\nSee below.\r\n\
             --b\r\nContent-Type: text/csv\r\nContent-Disposition: attachment; filename=n.csv\r\n\r\n{number},1\r\n--b--\r\n"
        ),
        _ => format!("{head}\r\nNumber {number}.\r\n"),
    };
    (subject, text)
}

/// Mails that the server acknowledged to the clients.
#[derive(Default)]
struct Ledger {
    next: AtomicUsize,
    acknowledged: Mutex<Vec<String>>,
    /// The replies that acknowledged them.
    replies: Mutex<Vec<String>>,
    refused: Mutex<Vec<String>>,
    changed: Notify,
}

impl Ledger {
    async fn until_acknowledged(&self, count: usize) {
        loop {
            let changed = self.changed.notified();
            if self.acknowledged.lock().unwrap().len() >= count {
                return;
            }
            changed.await;
        }
    }
}

/// Sends until the connection breaks.
async fn load(address: std::net::SocketAddr, ledger: Arc<Ledger>) {
    let mut client = SmtpClient::connect_and_greet(address).await;
    loop {
        let (subject, text) = numbered(ledger.next.fetch_add(1, Ordering::SeqCst));
        match client.try_mail("ada@example.com", "load@inbox.test", text.as_bytes()).await {
            Ok(reply) if reply.code == 250 => {
                ledger.replies.lock().unwrap().push(reply.text());
                ledger.acknowledged.lock().unwrap().push(subject);
                ledger.changed.notify_one();
            }
            Ok(reply) => ledger.refused.lock().unwrap().push(format!("{subject}: {reply:?}")),
            Err(_) => return,
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn twenty_kills_under_load_lose_nothing_that_was_acknowledged() {
    let dir = tempfile::tempdir().unwrap();
    let data_dir = dir.path().join("data");
    let mut receiver = Receiver::start(|_| Reply::status(200)).await;
    let ledger = Arc::new(Ledger::default());
    let mut restarts = Vec::new();
    for cycle in 0..CYCLES {
        let process = DevProcess::start(&data_dir, &receiver.url()).await;
        if cycle > 0 {
            restarts.push(process.start_took);
        }
        let sessions: Vec<_> = (0..SESSIONS).map(|_| tokio::spawn(load(process.smtp, Arc::clone(&ledger)))).collect();
        // A different moment each time, from a few mails to some hundred.
        let wanted = ledger.acknowledged.lock().unwrap().len() + 5 + (cycle * 37) % 150;
        assert!(timeout(Duration::from_secs(60), ledger.until_acknowledged(wanted)).await.is_ok(), "no progress");
        process.kill().await;
        for session in sessions {
            session.await.unwrap();
        }
    }
    // Half of them, because a busy machine may hold up any single one; `mailkite bench` measures the real figure.
    restarts.sort_unstable();
    let median = restarts[restarts.len() / 2];
    assert!(median < Duration::from_secs(1), "restarts took {restarts:?}");
    let refused = ledger.refused.lock().unwrap().clone();
    assert!(refused.is_empty(), "{refused:?}");

    let acknowledged: HashSet<String> = ledger.acknowledged.lock().unwrap().iter().cloned().collect();
    let last = DevProcess::start(&data_dir, &receiver.url()).await;
    let mut bodies: HashMap<String, String> = HashMap::new();
    let port = Regex::new(r"(127\.0\.0\.1|localhost):\d+").unwrap();
    let mut missing = acknowledged.clone();
    let deadline = Instant::now() + Duration::from_secs(120);
    while !missing.is_empty() {
        let left = deadline.saturating_duration_since(Instant::now());
        let Ok(request) = timeout(left, receiver.next_request()).await else {
            panic!("{} of {} acknowledged mails never reached the receiver", missing.len(), acknowledged.len());
        };
        missing.remove(request.json()["subject"].as_str().unwrap());
        // `public_url`, which names the port, is another one after each restart of this test.
        let body = port.replace_all(std::str::from_utf8(&request.body).unwrap(), "").into_owned();
        let first = bodies.entry(request.header("webhook-id").to_owned()).or_insert_with(|| body.clone());
        assert_eq!(*first, body, "a repeated delivery has other bytes");
    }
    last.terminate().await;

    assert_sound(&data_dir);
    let said = assert_ledger(&data_dir, &ledger.replies.lock().unwrap().join("\n"));
    assert!(said.contains("delivered"), "{said}");
    let stored = stored_subjects(&data_dir);
    let lost: Vec<_> = acknowledged.iter().filter(|subject| stored.get(*subject) != Some(&1)).collect();
    assert!(lost.is_empty(), "acknowledged, but not stored exactly once: {lost:?}");
    let twice: Vec<_> = stored.iter().filter(|(_, count)| **count > 1).collect();
    assert!(twice.is_empty(), "{twice:?}");
    println!("{} mails acknowledged over {CYCLES} kills; restarts took {restarts:?}", acknowledged.len());
}

fn stored_subjects(data_dir: &Path) -> HashMap<String, u64> {
    let connection = open_database(data_dir);
    let mut statement = connection.prepare("SELECT subject, count(*) FROM message GROUP BY subject").unwrap();
    let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).unwrap();
    rows.map(Result::unwrap).collect()
}

/// A system call in the trace of several threads: where it began and where it ended.
struct Call {
    began: usize,
    ended: usize,
    text: String,
}

/// Parses the output of `strace -f`: a call that another thread interrupts takes two lines.
fn calls(trace: &str) -> Vec<Call> {
    let line = Regex::new(r"^(\d+) +(.*)$").unwrap();
    let resumed = Regex::new(r"^<\.\.\. (\w+) resumed>").unwrap();
    let mut calls: Vec<Call> = Vec::new();
    let mut open: HashMap<String, usize> = HashMap::new();
    for (number, text) in trace.lines().enumerate() {
        let Some(found) = line.captures(text) else { continue };
        let (thread, text) = (found[1].to_owned(), found[2].to_owned());
        if resumed.is_match(&text) {
            if let Some(index) = open.remove(&thread) {
                calls[index].ended = number;
            }
        } else if text.ends_with("<unfinished ...>") {
            open.insert(thread, calls.len());
            calls.push(Call { began: number, ended: usize::MAX, text });
        } else {
            calls.push(Call { began: number, ended: number, text });
        }
    }
    calls
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_is_synced_before_250_is_said() {
    if Command::new("strace").arg("-V").output().is_err() {
        skip("strace is not installed");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let (data_dir, trace_file) = (dir.path().join("data"), dir.path().join("trace"));
    let receiver = Receiver::start(|_| Reply::status(200)).await;
    let traced = "trace=openat,write,writev,sendto,sendmsg,pwrite64,fsync,fdatasync,rename,renameat,renameat2";
    let wrapper = ["strace", "-D", "-f", "-y", "-s", "40", "-e", traced, "-o", trace_file.to_str().unwrap()];
    let process = DevProcess::start_under(&wrapper, &data_dir, &receiver.url()).await;
    let mut client = SmtpClient::connect_and_greet(process.smtp).await;
    let (_, large) = numbered(3);
    let reply = client.mail("ada@example.com", &["a@inbox.test"], large).await;
    let large_id = reply.text().rsplit(' ').next().unwrap().to_owned();
    assert!(large_id.starts_with("msg_"), "{reply:?}");
    let reply = client.mail("ada@example.com", &["a@inbox.test"], message("Small")).await;
    let small_id = reply.text().rsplit(' ').next().unwrap().to_owned();
    client.expect("QUIT", 221).await;
    drop(client);
    process.terminate().await;

    let calls = calls(&fs::read_to_string(&trace_file).unwrap());
    let find = |what: &str, pattern: &str, after: usize, before: usize| -> usize {
        let pattern = Regex::new(pattern).unwrap();
        let mut fitting = calls.iter().filter(|call| call.began > after && call.ended < before);
        let found = fitting.find(|call| pattern.is_match(&call.text));
        found.unwrap_or_else(|| panic!("{what}: no {pattern} in its place between {after} and {before}")).ended
    };
    let said = |id: &str| {
        let text = format!("\"250 2.0.0 Ok: {}", &id[..id.len().min(20)]);
        let found = calls.iter().find(|call| call.text.contains(&text));
        found.unwrap_or_else(|| panic!("the trace does not show {text}")).began
    };
    let (large_said, small_said) = (said(&large_id), said(&small_id));

    let name = regex::escape(&large_id);
    let written = find("mail data", r"^(write|pwrite64)\(\d+<[^>]*/objects/tmp/", 0, large_said);
    let synced = find("mail data", r"^(fsync|fdatasync)\(\d+<[^>]*/objects/tmp/", written, large_said);
    let renamed = find("object", &format!(r"^rename\w*\(.*/objects/tmp/.*{name}\.eml"), synced, large_said);
    let folder = find("folder", r"^fsync\(\d+<[^>]*/objects/\d{4}-\d\d-\d\d>", renamed, large_said);
    let logged = find("commit", r"^pwrite64\(\d+<[^>]*/mailkite\.db-wal>", folder, large_said);
    find("commit", r"^(fsync|fdatasync)\(\d+<[^>]*/mailkite\.db-wal>", logged, large_said);

    let logged = find("commit", r"^pwrite64\(\d+<[^>]*/mailkite\.db-wal>", large_said, small_said);
    find("commit", r"^(fsync|fdatasync)\(\d+<[^>]*/mailkite\.db-wal>", logged, small_said);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_process_on_the_same_data_is_refused_and_the_first_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let data_dir = dir.path().join("data");
    let mut receiver = Receiver::start(|_| Reply::status(200)).await;
    let first = DevProcess::start(&data_dir, &receiver.url()).await;
    let said = failed_start(&data_dir).await;
    assert!(said.contains("in use by another mailkite process"), "{said}");
    let mut client = SmtpClient::connect_and_greet(first.smtp).await;
    assert_eq!(client.mail("ada@example.com", &["a@inbox.test"], message("Still here")).await.code, 250);
    let request = receiver.next_request().await;
    let body = std::str::from_utf8(&request.body).unwrap();
    assert!(mailkite_sdk::verify_webhook(request.header("x-mailkite-signature"), body, &first.webhook_secret));
    first.terminate().await;
}

/// A data directory with one large and one small mail in it.
async fn used_data_dir(data_dir: &Path) {
    let mut receiver = Receiver::start(|_| Reply::status(200)).await;
    let process = DevProcess::start(data_dir, &receiver.url()).await;
    let mut client = SmtpClient::connect_and_greet(process.smtp).await;
    for text in [numbered(3).1, message("Small")] {
        assert_eq!(client.mail("ada@example.com", &["a@inbox.test"], text).await.code, 250);
        receiver.next_request().await;
    }
    process.terminate().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_of_a_newer_version_is_refused_with_a_way_out_and_left_untouched() {
    let dir = tempfile::tempdir().unwrap();
    let data_dir = dir.path().join("data");
    used_data_dir(&data_dir).await;
    let connection = open_database(&data_dir);
    connection.pragma_update(None, "user_version", 9_999).unwrap();
    drop(connection);
    let before = fs::read(data_dir.join("mailkite.db")).unwrap();
    let said = failed_start(&data_dir).await;
    assert!(said.contains("newer mailkite") && said.contains("restore a backup"), "{said}");
    assert!(fs::read(data_dir.join("mailkite.db")).unwrap() == before, "it was changed");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_or_damaged_database_is_never_replaced_by_an_empty_one() {
    let dir = tempfile::tempdir().unwrap();
    let data_dir = dir.path().join("data");
    used_data_dir(&data_dir).await;
    let database = data_dir.join("mailkite.db");
    // After an orderly end the database is one file.
    let wal = data_dir.join("mailkite.db-wal");
    assert_eq!(fs::metadata(&wal).map_or(0, |found| found.len()), 0);
    for side in [wal, data_dir.join("mailkite.db-shm")] {
        drop(fs::remove_file(side));
    }
    let whole = fs::read(&database).unwrap();
    for (what, bytes) in [
        ("empty", Vec::new()),
        ("another file", b"This is not a database, whatever its name says.".repeat(40)),
        ("cut off", whole[..whole.len() / 2].to_vec()),
    ] {
        fs::write(&database, &bytes).unwrap();
        let said = failed_start(&data_dir).await;
        assert!(said.contains("mailkite.db"), "{what}: it does not say which file: {said}");
        assert!(said.contains("restore a backup"), "{what}: no way out: {said}");
        assert!(fs::read(&database).unwrap() == bytes, "{what}: it was changed");
    }
    fs::remove_file(&database).unwrap();
    let said = failed_start(&data_dir).await;
    assert!(said.contains("mailkite.db"), "missing: it does not say which file: {said}");
    fs::write(&database, &whole).unwrap();
    let receiver = Receiver::start(|_| Reply::status(200)).await;
    DevProcess::start(&data_dir, &receiver.url()).await.terminate().await;
    assert_sound(&data_dir);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_object_is_an_isolated_error() {
    let dir = tempfile::tempdir().unwrap();
    let data_dir = dir.path().join("data");
    used_data_dir(&data_dir).await;
    let connection = open_database(&data_dir);
    let file: String =
        connection.query_row("SELECT file FROM mail_data WHERE file IS NOT NULL", [], |row| row.get(0)).unwrap();
    drop(connection);
    fs::remove_file(data_dir.join("objects").join(file)).unwrap();
    let mut receiver = Receiver::start(|_| Reply::status(200)).await;
    let process = DevProcess::start(&data_dir, &receiver.url()).await;
    assert_eq!(http_get(&process.http, "/api/health").await.0, 200);
    let mut client = SmtpClient::connect_and_greet(process.smtp).await;
    assert_eq!(client.mail("ada@example.com", &["a@inbox.test"], message("After")).await.code, 250);
    assert_eq!(receiver.next_request().await.json()["subject"], "After");
    process.terminate().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sigterm_during_data_stores_the_mail_or_says_421() {
    let dir = tempfile::tempdir().unwrap();
    let data_dir = dir.path().join("data");
    let receiver = Receiver::start(|_| Reply::status(200)).await;
    let process = DevProcess::start(&data_dir, &receiver.url()).await;
    let mut clients = Vec::new();
    for _ in 0..4 {
        let mut client = SmtpClient::connect_and_greet(process.smtp).await;
        client.envelope("ada@example.com", &["a@inbox.test"]).await;
        client.expect("DATA", 354).await;
        client.send("Subject: caught\r\n\r\nHalf of the").await;
        clients.push(client);
    }
    process.signal(rustix::process::Signal::TERM);
    let mut stored = 0;
    for (index, mut client) in clients.into_iter().enumerate() {
        if client.try_send(format!(" mail {index}.\r\n.\r\n").as_bytes()).await.is_err() {
            continue;
        }
        match client.try_reply().await {
            Ok(reply) if reply.code == 250 => stored += 1,
            Ok(reply) => assert_eq!(reply.code, 421),
            Err(_) => {}
        }
    }
    process.terminated().await;
    assert_sound(&data_dir);
    assert_audited(&data_dir);
    assert_eq!(stored_subjects(&data_dir).get("caught").copied().unwrap_or(0), stored);
}

#[tokio::test(flavor = "multi_thread")]
async fn signals_that_mean_nothing_here_end_nothing() {
    use rustix::process::Signal;
    let dir = tempfile::tempdir().unwrap();
    let data_dir = dir.path().join("data");
    let mut receiver = Receiver::start(|_| Reply::status(200)).await;
    let process = DevProcess::start(&data_dir, &receiver.url()).await;
    for (signal, subject) in [(Signal::USR1, "One"), (Signal::USR2, "Two")] {
        process.signal(signal);
        let mut client = SmtpClient::connect_and_greet(process.smtp).await;
        assert_eq!(client.mail("ada@example.com", &["a@inbox.test"], message(subject)).await.code, 250);
        assert_eq!(receiver.next_request().await.json()["subject"], subject);
    }
    process.terminate().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_nobody_reads_stops_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let (data_dir, pipe) = (dir.path().join("data"), dir.path().join("log"));
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    // Open at both ends, so that nobody waits for a reader; and never read, so that 64 KiB fill it.
    let _stalled = fs::OpenOptions::new().read(true).write(true).open(&pipe).unwrap();
    let mut receiver = Receiver::start(|_| Reply::status(200)).await;
    let redirected = format!("RUST_LOG=trace exec \"$0\" \"$@\" 2>{}", pipe.display());
    let process = DevProcess::start_under(&["sh", "-c", &redirected], &data_dir, &receiver.url()).await;
    let mut client = SmtpClient::connect_and_greet(process.smtp).await;
    for number in 0..50 {
        let subject = format!("Number {number}");
        assert_eq!(client.mail("ada@example.com", &["a@inbox.test"], message(&subject)).await.code, 250);
        assert_eq!(receiver.next_request().await.json()["subject"], subject);
    }
    assert_eq!(http_get(&process.http, "/api/ready").await.0, 200);
    process.terminate().await;
    assert_sound(&data_dir);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_cannot_be_written_stops_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let data_dir = dir.path().join("data");
    let mut receiver = Receiver::start(|_| Reply::status(200)).await;
    // Every thread has something to say, and nowhere to say it.
    let wrapper = ["sh", "-c", "RUST_LOG=trace exec \"$0\" \"$@\" 2>/dev/full"];
    let process = DevProcess::start_under(&wrapper, &data_dir, &receiver.url()).await;
    let mut client = SmtpClient::connect_and_greet(process.smtp).await;
    for subject in ["One", "Two"] {
        assert_eq!(client.mail("ada@example.com", &["a@inbox.test"], message(subject)).await.code, 250);
        assert_eq!(receiver.next_request().await.json()["subject"], subject);
    }
    assert_eq!(http_get(&process.http, "/api/ready").await.0, 200);
    process.terminate().await;
    assert_sound(&data_dir);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_database_is_closed_to_others_whatever_the_umask() {
    use std::os::unix::fs::PermissionsExt as _;
    let dir = tempfile::tempdir().unwrap();
    let data_dir = dir.path().join("data");
    let receiver = Receiver::start(|_| Reply::status(200)).await;
    let process =
        DevProcess::start_under(&["sh", "-c", "umask 000; exec \"$0\" \"$@\""], &data_dir, &receiver.url()).await;
    for name in ["mailkite.db", "mailkite.db-wal", "mailkite.db-shm", "mailkite.lock", "master.key"] {
        let mode = fs::metadata(data_dir.join(name)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{name}");
    }
    process.terminate().await;
}
