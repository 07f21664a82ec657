//! The real binary as a child process: `mailkite dev --json`, its ready line, its signals, its output.

use std::net::SocketAddr;
use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncBufReadExt as _, AsyncRead, BufReader};
use tokio::process::{Child, Command};
use tokio::task::JoinHandle;
use tokio::time::timeout;

/// Limit for anything the process does.
const DEADLINE: Duration = Duration::from_secs(30);

/// A running `mailkite dev`.
pub(crate) struct DevProcess {
    pub smtp: SocketAddr,
    pub http: String,
    pub webhook_secret: String,
    /// From the start of the process to its ready line.
    pub start_took: Duration,
    child: Child,
    output: Arc<Mutex<String>>,
    readers: Vec<JoinHandle<()>>,
}

impl DevProcess {
    /// Starts it on a data directory; webhooks of inbox.test go to `forward`.
    pub(crate) async fn start(data_dir: &Path, forward: &str) -> Self {
        Self::start_under(&[], data_dir, forward).await
    }

    /// As [`Self::start`], with another program and its arguments in front.
    pub(crate) async fn start_under(wrapper: &[&str], data_dir: &Path, forward: &str) -> Self {
        let started = Instant::now();
        let mut child = command(wrapper, data_dir, forward).spawn().unwrap();
        let output = Arc::new(Mutex::new(String::new()));
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        let mut readers =
            vec![tokio::spawn(collect_lines(BufReader::new(child.stderr.take().unwrap()), Arc::clone(&output)))];
        let mut line = String::new();
        let read = timeout(DEADLINE, stdout.read_line(&mut line)).await;
        let start_took = started.elapsed();
        let said = || output.lock().unwrap().clone();
        assert!(read.is_ok(), "not ready within {DEADLINE:?}: {}", said());
        let Ok(ready) = serde_json::from_str::<serde_json::Value>(&line) else {
            panic!("not a ready line: {line:?}, and on stderr: {}", said());
        };
        readers.push(tokio::spawn(collect_lines(stdout, Arc::clone(&output))));
        let text = |key: &str| ready[key].as_str().unwrap_or_else(|| panic!("no {key} in {ready}")).to_owned();
        Self {
            smtp: text("smtp").parse().unwrap(),
            http: text("http"),
            webhook_secret: text("webhookSecret"),
            start_took,
            child,
            output,
            readers,
        }
    }

    /// The process id.
    pub(crate) fn id(&self) -> u32 {
        self.child.id().unwrap()
    }

    /// Kills it and waits for its end.
    pub(crate) async fn kill(mut self) -> String {
        self.child.kill().await.unwrap();
        self.remaining_output().await
    }

    /// Stops it by SIGTERM, which has to succeed; returns its output with the lines of its feed.
    pub(crate) async fn terminate(self) -> String {
        self.signal(Signal::TERM);
        self.terminated().await
    }

    /// Waits for a successful end that was requested already; returns its output.
    pub(crate) async fn terminated(mut self) -> String {
        let status = self.wait().await;
        let said = self.remaining_output().await;
        assert!(status.success(), "{status}: {said}");
        said
    }

    /// Sends a signal and goes on.
    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(Pid::from_raw(i32::try_from(self.id()).unwrap()).unwrap(), signal).unwrap();
    }

    async fn wait(&mut self) -> ExitStatus {
        let ended = timeout(DEADLINE, self.child.wait()).await;
        assert!(ended.is_ok(), "still running {DEADLINE:?} after SIGTERM");
        ended.unwrap().unwrap()
    }

    async fn remaining_output(&mut self) -> String {
        for reader in &mut self.readers {
            reader.await.unwrap();
        }
        let said = self.output.lock().unwrap().clone();
        assert!(!said.contains("panicked"), "{said}");
        said
    }
}

/// Runs it where it has to refuse to start; returns its error output.
pub(crate) async fn failed_start(data_dir: &Path) -> String {
    let output = timeout(DEADLINE, command(&[], data_dir, "http://127.0.0.1:3999/").output()).await;
    assert!(output.is_ok(), "it did not refuse within {DEADLINE:?}");
    let output = output.unwrap().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success(), "it started: {}{said}", String::from_utf8_lossy(&output.stdout));
    assert!(!said.contains("panicked"), "{said}");
    said
}

fn command(wrapper: &[&str], data_dir: &Path, forward: &str) -> Command {
    let mut words: Vec<&str> = wrapper.to_vec();
    words.push(env!("CARGO_BIN_EXE_mailkite"));
    let mut command = Command::new(words[0]);
    command
        .args(&words[1..])
        .args(["dev", "--json", "--no-sample", "--http", "127.0.0.1:0", "--smtp", "127.0.0.1:0"])
        .args(["--submission", "127.0.0.1:0", "--forward", forward, "--data-dir"])
        .arg(data_dir)
        .env_remove("RUST_LOG")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    command
}

async fn collect_lines(mut from: BufReader<impl AsyncRead + Unpin>, output: Arc<Mutex<String>>) {
    let mut line = String::new();
    while from.read_line(&mut line).await.is_ok_and(|length| length > 0) {
        output.lock().unwrap().push_str(&line);
        line.clear();
    }
}

/// The answer to a GET: its status, its head in lower case, its body.
pub(crate) async fn http_get(base: &str, path: &str) -> (u16, String, Vec<u8>) {
    http_get_with(base, path, "").await
}

/// As [`http_get`], with further header lines, each with its CRLF.
pub(crate) async fn http_get_with(base: &str, path: &str, headers: &str) -> (u16, String, Vec<u8>) {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let host = base.trim_start_matches("http://");
    let asked = async {
        let mut tcp = tokio::net::TcpStream::connect(host).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n{headers}Connection: close\r\n\r\n");
        tcp.write_all(request.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        tcp.read_to_end(&mut answer).await.unwrap();
        let end = answer.windows(4).position(|four| four == b"\r\n\r\n").unwrap();
        let head = String::from_utf8_lossy(&answer[..end]).to_lowercase();
        (head[9..12].parse().unwrap(), head, answer[end + 4..].to_vec())
    };
    timeout(DEADLINE, asked).await.unwrap()
}
