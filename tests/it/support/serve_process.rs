//! `mailkite serve` as a child process: its log, its signals.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use mailkite::testing::clock::Clock;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;
use tokio::io::{AsyncBufReadExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStderr, Command};
use tokio::time::timeout;

use super::api::Api;
use super::dns::DnsServer;
use super::machine::{memory_kib, reset_peak_memory};
use super::promises::Listeners;
use super::server::Server;

/// Limit for anything the process does.
const DEADLINE: Duration = Duration::from_secs(30);

/// `mailkite serve` as a process.
pub(crate) struct ServeProcess {
    pub child: Child,
    log: Lines<BufReader<ChildStderr>>,
    pub smtp: SocketAddr,
    pub http: SocketAddr,
    /// With STARTTLS.
    pub submission: SocketAddr,
}

impl ServeProcess {
    /// Starts it in a folder, with the certificate of `cert.pem` and `key.pem` there if there is one.
    pub(crate) async fn start(folder: &Path) -> Self {
        Self::start_with(folder, "").await
    }

    /// As [`Self::start`], with more sections of configuration.
    pub(crate) async fn start_with(folder: &Path, sections: &str) -> Self {
        Self::start_in(folder, sections, &[]).await
    }

    /// As [`Self::start_with`], on a data directory that has an owner with inbox.test verified; a client with the
    /// owner's key.
    pub(crate) async fn start_owned(folder: &Path, sections: &str) -> (Self, Api) {
        let data_dir = folder.join("data");
        let seeded = Server::start_with(Clock::System, |config| config.data_dir.clone_from(&data_dir)).await;
        let key = seeded.api_key().await;
        seeded.stop().await;
        let served = Self::start_with(folder, sections).await;
        let owner = Api::anonymous(served.http).with(key);
        (served, owner)
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
        served.smtp = address(served.wait_for_log("receiving mail").await);
        served.http = address(served.wait_for_log("serving the API").await);
        if sections.contains("[submission]") {
            served.submission = address(served.wait_for_log("taking submissions").await);
        }
        served
    }

    /// Signs the owner up with the setup token of the log; a client with the owner's key.
    pub(crate) async fn sign_up_owner(&mut self) -> Api {
        let token = self.wait_for_log("this server has no owner yet").await["setup_token"].clone();
        let account = json!({"email": "ada@acme.test", "password": "correct horse battery", "setupToken": token});
        let anonymous = Api::anonymous(self.http);
        let session = anonymous.post("/api/auth/signup", account).await.expect(201);
        let session = anonymous.with(session["token"].as_str().unwrap());
        let key = session.get("/api/keys").await.expect(200)["key"].as_str().unwrap().to_owned();
        session.with(key)
    }

    /// A figure of `/proc/PID/status` in KiB, as `VmHWM`.
    pub(crate) fn memory_kib(&self, name: &str) -> u64 {
        memory_kib(self.child.id().unwrap(), name)
    }

    /// Starts the peak of resident memory anew.
    pub(crate) fn reset_peak_memory(&self) {
        reset_peak_memory(self.child.id().unwrap());
    }

    /// Its listeners; that of submission only if `sections` configured one.
    pub(crate) const fn listeners(&self) -> Listeners {
        Listeners { smtp: self.smtp, submission: self.submission, http: self.http }
    }

    /// The process, and the lines of its log as they come.
    pub(crate) fn into_child_and_log(self) -> (Child, Arc<Mutex<Vec<String>>>) {
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
    pub(crate) async fn wait_for_log(&mut self, text: &str) -> serde_json::Value {
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
    pub(crate) fn into_child(self) -> Child {
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

/// Adds a domain, publishes its records in DNS and has it verified.
pub(crate) async fn verify_domain(owner: &Api, dns: &DnsServer, domain: &str) {
    let added = owner.post("/api/domains", json!({"domain": domain})).await.expect(201);
    for record in added["dns"].as_array().unwrap() {
        let (name, value) = (record["name"].as_str().unwrap(), record["value"].as_str().unwrap());
        match record["priority"].as_u64() {
            Some(priority) => dns.mx(name, priority.try_into().unwrap(), value),
            None => dns.txt(name, value),
        };
    }
    let checked = owner.post_nothing(&format!("/api/domains/{domain}/verify")).await.expect(200);
    assert_eq!(checked["status"], "verified", "{checked}");
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
