//! `mailkite serve` as a child process: its log, its signals.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncBufReadExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStderr, Command};
use tokio::time::timeout;

use super::promises::Doors;

/// How long the process may take for anything.
const DEADLINE: Duration = Duration::from_secs(30);

/// `mailkite serve` as a process.
pub(crate) struct Served {
    pub child: Child,
    log: Lines<BufReader<ChildStderr>>,
    pub smtp: SocketAddr,
    pub http: SocketAddr,
    /// With STARTTLS.
    pub submission: SocketAddr,
}

impl Served {
    /// Starts it in a folder, with the certificate of `cert.pem` and `key.pem` there if there is one.
    pub(crate) async fn start(folder: &Path) -> Self {
        Self::start_with(folder, "").await
    }

    /// As [`Self::start`], with more sections of configuration.
    pub(crate) async fn start_with(folder: &Path, sections: &str) -> Self {
        Self::start_in(folder, sections, &[]).await
    }

    /// As [`Self::start_with`], with more environment.
    pub(crate) async fn start_in(folder: &Path, sections: &str, environment: &[(&str, String)]) -> Self {
        let config = configure(folder, sections);
        let mut child = Command::new(env!("CARGO_BIN_EXE_mailkite"))
            .args(["serve", "--config"])
            .arg(config)
            .env_remove("RUST_LOG")
            .envs(environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let log = BufReader::new(child.stderr.take().unwrap()).lines();
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let mut served = Self { child, log, smtp: any, http: any, submission: any };
        let address = |line: serde_json::Value| line["address"].as_str().unwrap().parse().unwrap();
        served.smtp = address(served.said("receiving mail").await);
        served.http = address(served.said("serving the API").await);
        if sections.contains("[submission]") {
            served.submission = address(served.said("taking submissions").await);
        }
        served
    }

    /// Where it takes things; its submission only if `sections` configured one.
    pub(crate) const fn doors(&self) -> Doors {
        Doors { smtp: self.smtp, submission: self.submission, http: self.http }
    }

    /// The process, and the lines of its log as they come.
    pub(crate) fn watched(self) -> (Child, Arc<Mutex<Vec<String>>>) {
        let said = Arc::new(Mutex::new(Vec::new()));
        let (mut log, lines) = (self.log, Arc::clone(&said));
        tokio::spawn(async move {
            while let Ok(Some(line)) = log.next_line().await {
                lines.lock().unwrap().push(line);
            }
        });
        (self.child, said)
    }

    /// The next log line with this text in its message.
    pub(crate) async fn said(&mut self, text: &str) -> serde_json::Value {
        let found = async {
            loop {
                let line = self.log.next_line().await.unwrap().unwrap_or_else(|| panic!("it ended before {text:?}"));
                let line: serde_json::Value = serde_json::from_str(&line).unwrap();
                if line["message"].as_str().unwrap().contains(text) {
                    return line;
                }
            }
        };
        timeout(DEADLINE, found).await.unwrap_or_else(|_| panic!("never said {text:?}"))
    }

    /// The process alone, whose log nobody reads any more.
    pub(crate) fn unattended(self) -> Child {
        let mut log = self.log;
        tokio::spawn(async move { while log.next_line().await.is_ok_and(|line| line.is_some()) {} });
        self.child
    }

    /// Sends a signal and goes on.
    pub(crate) fn signal(&self, signal: Signal) {
        let id = i32::try_from(self.child.id().unwrap()).unwrap();
        kill_process(Pid::from_raw(id).unwrap(), signal).unwrap();
    }
}

/// Writes the configuration of a folder, with the certificate of `cert.pem` and `key.pem` there if there is one.
pub(crate) fn configure(folder: &Path, sections: &str) -> PathBuf {
    let has_certificate = folder.join("cert.pem").exists();
    let tls = if has_certificate { "[tls]\ncert_file = \"cert.pem\"\nkey_file = \"key.pem\"\n" } else { "" };
    let metrics = if sections.contains("[metrics]") { "" } else { "[metrics]\nlisten = \"off\"\n" };
    let submission =
        if sections.contains("[submission]") { "" } else { "[submission]\nlisten = []\nlisten_tls = []\n" };
    let http = if sections.contains("[http]") { "" } else { "[http]\nlisten = [\"127.0.0.1:0\"]\n" };
    let config = format!(
        "hostname = \"mx.mailkite.test\"\npublic_url = \"https://mx.mailkite.test\"\ndata_dir = \"data\"\n\
         [log]\nlevel = \"info\"\nformat = \"json\"\n{tls}\
         [smtp]\nlisten = [\"{any}\"]\n{http}{metrics}{submission}{sections}",
        any = "127.0.0.1:0"
    );
    let path = folder.join("mailkite.toml");
    std::fs::write(&path, config).unwrap();
    path
}
