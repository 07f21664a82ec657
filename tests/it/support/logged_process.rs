//! `mailkite serve` as a child process whose log goes to a file, in any format.

use std::fs::File;
use std::net::SocketAddr;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use mailkite::testing::clock::Clock;
use regex::Regex;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tokio::process::{Child, Command};
use tokio::time::timeout;

use super::api::Api;
use super::serve_process::configure;
use super::server::{DEADLINE, Server};
use super::wait::until;

/// The stream that `JOURNAL_STREAM` names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Journal {
    None,
    Stderr,
    Another,
}

/// The section `[log]`, and what stderr is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Settings {
    pub level: &'static str,
    pub format: &'static str,
    pub journal: Journal,
}

impl Default for Settings {
    fn default() -> Self {
        Self { level: "info", format: "json", journal: Journal::None }
    }
}

/// `mailkite serve`, with an owner who has inbox.test verified.
pub(crate) struct LoggedProcess {
    child: Child,
    log: PathBuf,
    pub smtp: SocketAddr,
    pub http: SocketAddr,
    pub submission: SocketAddr,
    /// A client with the owner's key.
    pub owner: Api,
    _folder: tempfile::TempDir,
}

impl LoggedProcess {
    /// Starts it with JSON lines.
    pub(crate) async fn start(sections: &str) -> Self {
        Self::start_as(Settings::default(), sections).await
    }

    /// Starts it with another log.
    pub(crate) async fn start_as(settings: Settings, sections: &str) -> Self {
        let Settings { level, format, journal } = settings;
        let folder = tempfile::tempdir().unwrap();
        let data_dir = folder.path().join("data");
        let seeded = Server::start_with(Clock::System, |config| config.data_dir.clone_from(&data_dir)).await;
        let key = seeded.api_key().await;
        seeded.stop().await;
        let submission = "[submission]\nlisten = [\"127.0.0.1:0\"]\nlisten_tls = []\n";
        let config = configure(folder.path(), &format!("{submission}{sections}"));
        let text = std::fs::read_to_string(&config).unwrap();
        let asked = format!("level = \"{level}\"\nformat = \"{format}\"\n");
        std::fs::write(&config, text.replace("level = \"info\"\nformat = \"json\"\n", &asked)).unwrap();
        let log = folder.path().join("log");
        let file = File::create(&log).unwrap();
        let stat = file.metadata().unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_mailkite"));
        command.args(["serve", "--config"]).arg(config).env_remove("RUST_LOG").env_remove("JOURNAL_STREAM");
        match journal {
            Journal::None => {}
            Journal::Stderr => drop(command.env("JOURNAL_STREAM", format!("{}:{}", stat.dev(), stat.ino()))),
            Journal::Another => drop(command.env("JOURNAL_STREAM", format!("{}:{}", stat.dev(), stat.ino() + 1))),
        }
        let child = command.stdin(Stdio::null()).stderr(file).kill_on_drop(true).spawn().unwrap();
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let owner = Api::anonymous(any).with(key);
        let mut started = Self { child, log, smtp: any, http: any, submission: any, owner, _folder: folder };
        started.smtp = started.address("receiving mail").await;
        started.http = started.address("serving the API").await;
        started.submission = started.address("taking submissions").await;
        started.owner.address = started.http;
        started
    }

    /// The address in the line with this message.
    async fn address(&self, message: &str) -> SocketAddr {
        let line = Regex::new(&format!("{message}\\W+address\\W+([0-9.:]+)")).unwrap();
        until(async || line.is_match(&self.text())).await;
        line.captures(&self.text()).unwrap()[1].parse().unwrap()
    }

    /// The log so far.
    pub(crate) fn text(&self) -> String {
        read(&self.log)
    }

    /// Waits for a line that has all of these texts.
    pub(crate) async fn wait_for(&self, texts: &[&str]) {
        let has = |line: &str| texts.iter().all(|text| line.contains(text));
        let found = timeout(DEADLINE, until(async || self.text().lines().any(has))).await;
        assert!(found.is_ok(), "no line with {texts:?}");
    }

    /// Stops it and returns its whole log.
    pub(crate) async fn stop(mut self) -> String {
        let id = i32::try_from(self.child.id().unwrap()).unwrap();
        kill_process(Pid::from_raw(id).unwrap(), Signal::TERM).unwrap();
        let status = timeout(DEADLINE, self.child.wait()).await.unwrap().unwrap();
        let text = self.text();
        assert!(status.success(), "{status}: {text}");
        text
    }
}

fn read(path: &Path) -> String {
    String::from_utf8(std::fs::read(path).unwrap()).unwrap()
}

/// The lines of a JSON log with this message.
pub(crate) fn lines(log: &str, message: &str) -> Vec<Value> {
    let lines = log.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    lines.filter(|line| line["message"] == message).collect()
}

/// The only line of a JSON log with this message and these fields.
#[track_caller]
pub(crate) fn only(log: &str, message: &str, fields: &Value) -> Value {
    let all = lines(log, message);
    let fits = |line: &&Value| fields.as_object().unwrap().iter().all(|(name, value)| &line[name] == value);
    let mut found: Vec<Value> = all.iter().filter(fits).cloned().collect();
    assert_eq!(found.len(), 1, "{message} with {fields} among {all:#?}");
    found.remove(0)
}
