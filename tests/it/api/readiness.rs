//! `/api/ready` reports what it checked: a database that cannot commit is detected, whatever the cause.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::database::{assert_sound, open_database};
use crate::support::dev_process::{DevProcess, http_get};
use crate::support::machine::preload;
use crate::support::receiver::{Receiver, Reply};
use crate::support::server::message;
use crate::support::smtp::SmtpClient;

/// Limit for a change to be seen.
const SEEN: Duration = Duration::from_secs(30);

/// Repeats the request until the answer has this status; returns its body.
async fn until_ready_says(process: &DevProcess, wanted: u16) -> Value {
    let deadline = Instant::now() + SEEN;
    loop {
        let (status, head, body) = http_get(&process.http, "/api/ready").await;
        if status == wanted {
            assert_eq!(head.contains("retry-after:"), status == 503, "{head}");
            return serde_json::from_slice(&body).unwrap();
        }
        assert!(Instant::now() < deadline, "still {status} instead of {wanted} after {SEEN:?}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

fn not_ready() -> Value {
    let checks = json!({"storage": false, "smtp": true, "queue": true});
    json!({"ok": false, "checks": checks, "error": "not ready", "code": "not_ready"})
}

fn ready() -> Value {
    json!({"ok": true, "checks": {"storage": true, "smtp": true, "queue": true}})
}

async fn send(process: &DevProcess, subject: &str) -> u16 {
    let mut client = SmtpClient::connect_and_greet(process.smtp).await;
    client.try_mail("ada@example.com", "a@inbox.test", message(subject).as_bytes()).await.unwrap().code
}

async fn stored(data_dir: &Path, process: DevProcess, wanted: u64) {
    process.terminate().await;
    assert_sound(data_dir);
    let count: u64 = open_database(data_dir).query_row("SELECT count(*) FROM message", [], |row| row.get(0)).unwrap();
    assert_eq!(count, wanted);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_lock_of_another_process_is_seen_and_its_end_too() {
    let dir = tempfile::tempdir().unwrap();
    let data_dir = dir.path().join("data");
    let receiver = Receiver::start(|_| Reply::status(200)).await;
    let process = DevProcess::start(&data_dir, &receiver.url()).await;
    assert_eq!(until_ready_says(&process, 200).await, ready());
    let other = open_database(&data_dir);
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    // Nobody waits for a commit yet: the question itself finds out.
    assert_eq!(until_ready_says(&process, 503).await, not_ready());
    assert_eq!(send(&process, "Locked").await, 451);
    // The mail was refused and nothing waits any more; that says nothing good.
    let (status, _, _) = http_get(&process.http, "/api/ready").await;
    assert_eq!(status, 503);
    assert_eq!(http_get(&process.http, "/api/health").await.0, 200);
    other.execute_batch("ROLLBACK").unwrap();
    drop(other);
    assert_eq!(until_ready_says(&process, 200).await, ready());
    assert_eq!(send(&process, "Free").await, 250);
    stored(&data_dir, process, 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_fsync_that_does_not_return_is_seen_and_its_end_too() {
    let dir = tempfile::tempdir().unwrap();
    let Some(library) = preload("fsync.c", dir.path()) else { return };
    let (data_dir, stall) = (dir.path().join("data"), dir.path().join("stall"));
    let receiver = Receiver::start(|_| Reply::status(200)).await;
    let wrapper = ["env", &format!("LD_PRELOAD={library}"), &format!("STALL_SYNC={}", stall.display())];
    let process = DevProcess::start_under(&wrapper, &data_dir, &receiver.url()).await;
    assert_eq!(send(&process, "Before").await, 250);
    assert_eq!(until_ready_says(&process, 200).await, ready());
    fs::write(&stall, b"").unwrap();
    let mut client = SmtpClient::connect_and_greet(process.smtp).await;
    client.envelope("ada@example.com", &["a@inbox.test"]).await;
    client.expect("DATA", 354).await;
    client.send(&format!("{}.\r\n", message("Stalled"))).await;
    assert_eq!(until_ready_says(&process, 503).await, not_ready());
    assert_eq!(http_get(&process.http, "/api/health").await.0, 200);
    let answered = tokio::time::timeout(Duration::from_millis(50), client.reply()).await;
    assert!(answered.is_err(), "nothing is promised before its fsync: {answered:?}");
    fs::remove_file(&stall).unwrap();
    assert_eq!(client.reply().await.code, 250);
    assert_eq!(until_ready_says(&process, 200).await, ready());
    stored(&data_dir, process, 2).await;
}
