//! The commands as a newcomer runs them: `dev`, `bench`, `serve`, through the real binary.

use std::net::TcpListener;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};
use tokio::time::timeout;

use crate::support::api::Api;
use crate::support::machine::skip;
use crate::support::receiver::{Receiver, Reply};
use crate::support::server::message;
use crate::support::smtp::SmtpClient;

const DEADLINE: Duration = Duration::from_secs(60);

struct Running {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

fn mailkite(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_mailkite"));
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    command
}

impl Running {
    fn dev(data_dir: &Path, more: &[&str]) -> Self {
        let dir = data_dir.to_str().unwrap();
        let mut arguments = vec!["dev", "--data-dir", dir];
        if !more.contains(&"--smtp") {
            arguments.extend(["--smtp", "127.0.0.1:0"]);
        }
        arguments.extend(["--http", "127.0.0.1:0", "--submission", "127.0.0.1:0"]);
        arguments.extend(more);
        let mut child = mailkite(&arguments).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Self { child, lines }
    }

    async fn line(&mut self) -> String {
        timeout(DEADLINE, self.lines.next_line()).await.unwrap().unwrap().unwrap()
    }

    async fn json(&mut self) -> Value {
        serde_json::from_str(&self.line().await).unwrap()
    }

    /// Reads on until a line contains `part`.
    async fn until(&mut self, part: &str) -> String {
        loop {
            let line = self.line().await;
            if line.contains(part) {
                return line;
            }
        }
    }

    async fn stop(mut self) {
        let id = rustix::process::Pid::from_raw(self.child.id().unwrap().cast_signed()).unwrap();
        rustix::process::kill_process(id, rustix::process::Signal::TERM).unwrap();
        assert!(timeout(DEADLINE, self.child.wait()).await.unwrap().unwrap().success());
    }
}

async fn send(smtp: &str, to: &str, subject: &str) {
    let mut client = SmtpClient::connect_and_greet(smtp.parse().unwrap()).await;
    assert_eq!(client.mail("ada@example.com", &[to], message(subject)).await.code, 250);
}

#[tokio::test]
async fn dev_tells_programs_where_it_is_and_then_every_event() {
    let dir = tempfile::tempdir().unwrap();
    let mut dev = Running::dev(&dir.path().join("data"), &["--json", "--no-sample"]);
    let line = dev.line().await;
    let ready: Value = serde_json::from_str(&line).unwrap();
    let keys: Vec<&String> = ready.as_object().unwrap().keys().collect();
    assert_eq!(keys, ["http", "smtp", "apiKey", "domain", "webhookSecret"]);
    assert_eq!(ready["domain"], "inbox.test");
    send(ready["smtp"].as_str().unwrap(), "hello@inbox.test", "Hi").await;
    let accepted = dev.json().await;
    assert_eq!((&accepted["event"], &accepted["subject"]), (&Value::from("accepted"), &Value::from("Hi")));
    let attempted = dev.json().await;
    assert_eq!(attempted["status"], "delivered", "the built-in receiver takes only what is well signed: {attempted}");
    dev.stop().await;
    let mut again = Running::dev(&dir.path().join("data"), &["--json", "--no-sample"]);
    let second = again.json().await;
    assert_eq!((&second["apiKey"], &second["webhookSecret"]), (&ready["apiKey"], &ready["webhookSecret"]));
    again.stop().await;
}

#[tokio::test]
async fn dev_opens_nothing_of_this_machine_to_pages_of_elsewhere() {
    let dir = tempfile::tempdir().unwrap();
    let mut dev = Running::dev(&dir.path().join("data"), &["--json", "--no-sample"]);
    let ready = dev.json().await;
    let address = |url: &str| url.trim_start_matches("http://").split('/').next().unwrap().parse().unwrap();
    let api = Api::anonymous(address(ready["http"].as_str().unwrap()));
    let owner = api.with(ready["apiKey"].as_str().unwrap());
    let domain = owner.exchange("GET", "/api/domains/inbox.test", &[], None).await.expect(200);
    let receiver = Api::anonymous(address(domain["domain"]["webhookUrl"].as_str().unwrap()));
    let account = br#"{"email":"eve@evil.example","password":"correct horse battery"}"#;
    for (name, value) in [
        ("Origin", "https://evil.example"),
        ("Origin", "null"),
        ("Sec-Fetch-Site", "cross-site"),
        ("Host", "evil.example"),
    ] {
        for (client, path) in [
            (&api, "/api/auth/signup"),
            (&owner, "/v1/attachments"),
            (&owner, "/api/domains/inbox.test/webhook/test"),
            (&receiver, "/"),
        ] {
            let refused = client.exchange("POST", path, &[(name, value)], Some(account)).await;
            assert_eq!(refused.status, 403, "{path} {name}: {value}");
            assert_eq!(refused.header("access-control-allow-origin"), None, "{path} {name}: {value}");
        }
    }
    let unsigned = receiver.exchange("POST", "/", &[], Some(b"{}")).await;
    assert_eq!(unsigned.status, 401, "a program of this machine is heard, and has to sign");
    api.exchange("POST", "/api/auth/signup", &[], Some(account)).await.expect(201);
    dev.stop().await;
}

#[tokio::test]
async fn dev_shows_its_first_mail_and_what_to_do_next() {
    let dir = tempfile::tempdir().unwrap();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let smtp = taken.local_addr().unwrap().to_string();
    let mut dev = Running::dev(&dir.path().join("data"), &["--smtp", &smtp]);
    dev.until("is in use; SMTP uses").await;
    for step in ["accepted", "stored", "signed", "delivered", "verified"] {
        let line = dev.until(step).await;
        assert!(line.contains('✓'), "{line}");
    }
    let swaks = dev.until("swaks --server").await;
    let port = swaks.split("--port ").nth(1).unwrap().split(' ').next().unwrap().to_owned();
    dev.until("Waiting for mail").await;
    send(&format!("127.0.0.1:{port}"), "hello@inbox.test", "A second one").await;
    let line = dev.until("A second one").await;
    assert!(line.contains("200 in"), "{line}");
    dev.stop().await;
}

#[tokio::test]
async fn dev_forwards_to_an_app_and_shows_its_retries() {
    let dir = tempfile::tempdir().unwrap();
    let calls = std::sync::atomic::AtomicUsize::new(0);
    let script = move |_: &_| match calls.fetch_add(1, std::sync::atomic::Ordering::SeqCst) {
        0 => Reply::status(500),
        _ => Reply::status(200),
    };
    let receiver = Receiver::start(script).await;
    let url = receiver.url();
    let mut dev = Running::dev(&dir.path().join("data"), &["--json", "--no-sample", "--forward", &url]);
    let ready = dev.json().await;
    send(ready["smtp"].as_str().unwrap(), "hello@inbox.test", "Hi").await;
    assert_eq!(dev.json().await["event"], "accepted");
    let first = dev.json().await;
    assert_eq!((&first["status"], &first["statusCode"]), (&Value::from("pending"), &Value::from(500)));
    assert!(first["nextAttemptAt"].is_i64(), "{first}");
    let second = dev.json().await;
    assert_eq!((&second["status"], &second["attempt"]), (&Value::from("delivered"), &Value::from(2)));
    dev.stop().await;
}

#[tokio::test]
async fn dev_stays_on_this_machine() {
    let output = mailkite(&["dev", "--http", "0.0.0.0:0"]).output().await.unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("is not a loopback address"));
    let output = mailkite(&["dev", "--forward", "http://example.com/hook"]).output().await.unwrap();
    assert_eq!(output.status.code(), Some(1));
}

/// Runs a benchmark on the disk of the build, which is a real one.
async fn assert_bench_loses_nothing(arguments: &[&str]) {
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let place = dir.path().to_str().unwrap();
    let arguments = [arguments, &["--json", "--dir", place]].concat();
    let output = timeout(DEADLINE, mailkite(&arguments).output()).await.unwrap().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["lost"], 0);
    assert!(report["fsyncsPerMessage"].as_f64().unwrap() > 0.0);
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0, "it removes what it made");
}

#[tokio::test]
async fn the_benchmark_loses_nothing() {
    assert_bench_loses_nothing(&["bench", "--messages", "300", "--sessions", "4", "--endpoints", "2"]).await;
}

#[tokio::test]
async fn the_benchmark_of_sending_loses_nothing_and_waits_for_no_tarpit() {
    let load = ["--messages", "100", "--clients", "4", "--domains", "2", "--tarpit", "20"];
    assert_bench_loses_nothing(&[&["bench", "send"], load.as_slice()].concat()).await;
}

#[tokio::test]
async fn serve_refuses_a_faulty_configuration_and_serves_a_good_one() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("mailkite.toml");
    std::fs::write(&file, "hostname = \"mail.acme.dev\"\n").unwrap();
    let output = mailkite(&["serve", "--config", file.to_str().unwrap()]).output().await.unwrap();
    assert_eq!(output.status.code(), Some(78));
    assert!(String::from_utf8_lossy(&output.stderr).contains("public_url"));
    let text = format!(
        "hostname = \"mail.acme.dev\"\npublic_url = \"https://mail.acme.dev\"\ndata_dir = \"{}\"\n\
         [smtp]\nlisten = [\"127.0.0.1:0\"]\n[http]\nlisten = [\"127.0.0.1:0\"]\n[metrics]\nlisten = \"127.0.0.1:0\"\n\
         [submission]\nlisten = [\"127.0.0.1:0\"]\nlisten_tls = []\n[log]\nformat = \"json\"\n",
        dir.path().join("data").display()
    );
    std::fs::write(&file, text).unwrap();
    let mut child = mailkite(&["serve", "--config", file.to_str().unwrap()]).spawn().unwrap();
    let mut log = BufReader::new(child.stderr.take().unwrap()).lines();
    let address = loop {
        let line = timeout(DEADLINE, log.next_line()).await.unwrap().unwrap().unwrap();
        let line: Value = serde_json::from_str(&line).unwrap();
        if line["message"] == "receiving mail" {
            break line["address"].as_str().unwrap().to_owned();
        }
    };
    let mut client = SmtpClient::connect_and_greet(address.parse().unwrap()).await;
    client.expect("MAIL FROM:<ada@example.com>", 250).await;
    client.expect("RCPT TO:<a@elsewhere.test>", 550).await;
    let serving = Running { lines: BufReader::new(child.stdout.take().unwrap()).lines(), child };
    serving.stop().await;
}

/// The command under a heading, with its continued lines.
fn command_under(prose: &str, heading: &str) -> String {
    let after = prose.split_once(heading).unwrap_or_else(|| panic!("no {heading:?} in:\n{prose}")).1;
    after.lines().skip(1).take_while(|line| !line.trim().is_empty()).map(|line| format!("{line}\n")).collect()
}

/// Runs a command as pasted into a shell; returns its output, or `None` where its program is not installed.
async fn paste(command: &str) -> Option<Vec<u8>> {
    let program = if command.contains("swaks") { "swaks" } else { "curl" };
    let path = std::env::var_os("PATH").unwrap_or_default();
    if !std::env::split_paths(&path).any(|dir| dir.join(program).exists()) {
        skip(&format!("{program} is not installed, its lines were not tried"));
        return None;
    }
    let mut shell = Command::new("sh");
    shell.args(["-c", command]).stdin(Stdio::null()).kill_on_drop(true);
    let output = timeout(DEADLINE, shell.output()).await.unwrap().unwrap();
    assert!(output.status.success(), "{command}: {output:?}");
    Some(output.stdout)
}

#[tokio::test]
async fn what_dev_says_to_do_next_works_as_pasted_and_fits_80_columns() {
    let dir = tempfile::tempdir().unwrap();
    let mut dev = Running::dev(&dir.path().join("data"), &[]);
    let mut prose = String::new();
    while !prose.contains("Ctrl-C") {
        prose += &dev.line().await;
        prose.push('\n');
    }
    // The paths of this test's data directory and binary are as long as they are.
    let ours = |line: &&str| !line.contains("  data") && !line.contains(" --forward ");
    for line in prose.lines().filter(ours) {
        assert!(line.chars().count() <= 80, "wider than 80 columns: {line}");
        assert!(!line.contains('\u{1b}'), "colour where no terminal is: {line:?}");
    }
    for heading in ["Send it a mail", "or with curl"] {
        if paste(&command_under(&prose, heading)).await.is_some() {
            let line = dev.until("200 in").await;
            assert!(line.contains("you@example.com → hello ") && line.contains(" Hi "), "{line}");
        }
    }
    if let Some(listed) = paste(&command_under(&prose, "See what arrived")).await {
        let listed: Value = serde_json::from_slice(&listed).unwrap();
        assert!(listed.as_array().unwrap().iter().any(|row| row["subject"] == "Your first mail"), "{listed}");
    }
    for heading in ["Send one from it", "or as a mail program"] {
        if paste(&command_under(&prose, heading)).await.is_some() {
            let line = dev.until("captured").await;
            assert!(line.contains("hello → you@example.com ") && line.contains("Re: Hi"), "{line}");
        }
    }
    dev.stop().await;
}

#[tokio::test]
async fn dev_names_a_mail_at_each_attempt_and_lets_no_mail_command_the_terminal() {
    let dir = tempfile::tempdir().unwrap();
    let receiver =
        Receiver::start(|request| Reply::status(if request.header("x-mailkite-attempt") == "1" { 500 } else { 200 }))
            .await;
    let mut dev = Running::dev(&dir.path().join("data"), &["--no-sample", "--forward", &receiver.url()]);
    let mail = dev.until("  mail").await;
    let smtp = mail.split_whitespace().nth(1).unwrap().to_owned();
    send(&smtp, "hello@inbox.test", "Engi\u{1b}[31mne \u{202e}\u{9b}31m").await;
    for (mark, outcome) in [("✗", "500, again in"), ("✓", "attempt 2")] {
        let line = dev.until(mark).await;
        assert!(line.contains("ada@example.com → hello ") && line.contains(outcome), "{line}");
        assert!(line.contains("Engi") && line.chars().count() <= 80, "{line}");
        assert!(!line.contains(['\u{1b}', '\u{9b}', '\u{202e}']), "{line:?}");
    }
    dev.stop().await;
}

#[tokio::test]
async fn one_process_at_a_time_has_a_data_directory() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let mut dev = Running::dev(&data, &["--json", "--no-sample"]);
    dev.line().await;
    let mut second = Running::dev(&data, &["--json", "--no-sample"]);
    assert_eq!(timeout(DEADLINE, second.lines.next_line()).await.unwrap().unwrap(), None);
    assert_eq!(timeout(DEADLINE, second.child.wait()).await.unwrap().unwrap().code(), Some(1));
    dev.stop().await;
}
