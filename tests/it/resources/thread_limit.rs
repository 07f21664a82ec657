//! A system out of threads: the process runs, or ends with a clear error; it never panics.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, BufReader};
use tokio::process::Command;
use tokio::time::timeout;

use crate::support::dev_process::http_get;
use crate::support::machine::preload;
use crate::support::server::message;
use crate::support::smtp::SmtpClient;

const DEADLINE: Duration = Duration::from_secs(30);

/// Starts it where creating the `from`-th to the `to`-th thread fails; true when it ran, and then it has to work.
async fn runs(library: &str, data_dir: &Path, from: usize, to: usize) -> bool {
    let mut child = Command::new(env!("CARGO_BIN_EXE_mailkite"))
        .args(["dev", "--json", "--no-sample", "--http", "127.0.0.1:0", "--smtp", "127.0.0.1:0"])
        .args(["--submission", "127.0.0.1:0", "--forward", "http://127.0.0.1:3999/", "--data-dir"])
        .arg(data_dir)
        .env("LD_PRELOAD", library)
        .env("THREADS_FROM", from.to_string())
        .env("THREADS_TO", to.to_string())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut stdout = BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    timeout(DEADLINE, stdout.read_line(&mut line)).await.unwrap_or_else(|_| panic!("{from}: it hangs")).unwrap();
    let ready = serde_json::from_str::<serde_json::Value>(&line);
    if let Ok(ready) = &ready {
        assert_eq!(http_get(ready["http"].as_str().unwrap(), "/api/health").await.0, 200, "{from}");
        let mut client = SmtpClient::connect_and_greet(ready["smtp"].as_str().unwrap().parse().unwrap()).await;
        let text = format!("{}{}", message("It runs"), "A line of a large mail.\r\n".repeat(8_000));
        assert_eq!(client.mail("ada@example.com", &["a@inbox.test"], text).await.code, 250, "{from}");
        child.kill().await.unwrap();
    }
    let mut said = String::new();
    child.stderr.take().unwrap().read_to_string(&mut said).await.unwrap();
    assert!(!said.contains("panicked"), "{from}: {said}");
    let status = timeout(DEADLINE, child.wait()).await.unwrap().unwrap();
    if ready.is_err() {
        assert_eq!(status.code(), Some(1), "{from}: {status} {said}");
        assert!(said.contains("error: ") && said.contains("thread"), "{from}: no sentence: {said}");
    }
    ready.is_ok()
}

#[tokio::test(flavor = "multi_thread")]
async fn without_threads_it_runs_or_ends_with_a_sentence_and_never_panics() {
    let dir = tempfile::tempdir().unwrap();
    let Some(library) = preload("failing_threads.c", dir.path()) else { return };
    let (mut ran, mut ended) = (0, 0);
    for nth in 1..=40 {
        let data_dir = dir.path().join("data");
        for to in [nth, usize::MAX >> 1] {
            *if runs(&library, &data_dir, nth, to).await { &mut ran } else { &mut ended } += 1;
        }
    }
    assert!(ran >= 40 && ended > 5, "{ran} ran, {ended} ended");
}
