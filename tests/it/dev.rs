//! `mailkite dev` and `mailkite bench` as people and scripts meet them: the real binary, its lines, its exit.

use std::net::TcpListener;
use std::path::Path;
use std::process::{Output, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};
use tokio::time::timeout;

use crate::support::receiver::{Receiver, Reply};
use crate::support::smtp::SmtpClient;

const DEADLINE: Duration = Duration::from_secs(30);
const ANY_PORTS: [&str; 4] = ["--http", "127.0.0.1:0", "--smtp", "127.0.0.1:0"];

fn mailkite() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_mailkite"));
    command
        .env_remove("RUST_LOG")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    command
}

async fn output(mut command: Command) -> Output {
    timeout(DEADLINE * 2, command.output()).await.expect("it did not end in time").unwrap()
}

/// A running `mailkite dev`, read line by line.
struct Dev {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
    seen: String,
}

impl Dev {
    /// Its data goes into a directory that it makes itself.
    fn start(dir: &Path, arguments: &[&str]) -> Self {
        let mut child =
            mailkite().arg("dev").arg("--data-dir").arg(dir.join("data")).args(arguments).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Self { child, lines, seen: String::new() }
    }

    async fn line(&mut self) -> String {
        let read = timeout(DEADLINE, self.lines.next_line()).await;
        let Ok(Ok(Some(line))) = read else {
            let mut errors = String::new();
            let stderr = self.child.stderr.take().unwrap();
            drop(timeout(Duration::from_secs(1), { BufReader::new(stderr) }.read_to_string(&mut errors)).await);
            panic!("no further line after:\n{}and on stderr:\n{errors}", self.seen)
        };
        self.seen.push_str(&line);
        self.seen.push('\n');
        line
    }

    async fn json(&mut self) -> Value {
        let line = self.line().await;
        serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line}"))
    }

    /// The next line that contains `wanted`.
    async fn until(&mut self, wanted: &str) -> String {
        loop {
            let line = self.line().await;
            if line.contains(wanted) {
                return line;
            }
        }
    }

    /// SIGINT; it has to end well, and what it said at last is returned.
    async fn interrupt(mut self) -> String {
        let id = Pid::from_raw(i32::try_from(self.child.id().unwrap()).unwrap()).unwrap();
        kill_process(id, Signal::INT).unwrap();
        let mut said = String::new();
        while let Ok(Some(line)) = timeout(DEADLINE, self.lines.next_line()).await.unwrap() {
            said.push_str(&line);
            said.push('\n');
        }
        let mut errors = String::new();
        self.child.stderr.take().unwrap().read_to_string(&mut errors).await.unwrap();
        let status = timeout(DEADLINE, self.child.wait()).await.unwrap().unwrap();
        assert!(status.success(), "{status}: {errors}");
        assert!(errors.is_empty(), "{errors}");
        said
    }
}

fn text<'v>(value: &'v Value, key: &str) -> &'v str {
    value[key].as_str().unwrap_or_else(|| panic!("no {key} in {value}"))
}

async fn send(ready: &Value, subject: &str) {
    send_to(text(ready, "smtp"), subject).await;
}

async fn send_to(smtp: &str, subject: &str) {
    let mut client = SmtpClient::greeted(smtp.parse().unwrap()).await;
    let mail = format!("From: ada@example.com\r\nSubject: {subject}\r\n\r\nDoes it branch?\r\n");
    let reply = client.mail("ada@example.com", &["hello@inbox.test"], mail).await;
    assert_eq!(reply.code, 250, "{reply:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_script_reads_the_ready_line_and_then_a_line_for_each_event() {
    let dir = tempfile::tempdir().unwrap();
    let mut dev = Dev::start(dir.path(), &[&ANY_PORTS[..], &["--json"]].concat());
    let ready = dev.json().await;
    let keys: Vec<&String> = ready.as_object().unwrap().keys().collect();
    assert_eq!(keys, ["http", "smtp", "apiKey", "domain", "webhookSecret"]);
    assert_eq!(text(&ready, "domain"), "inbox.test");
    for subject in ["Your first mail", "Engine question"] {
        if subject == "Engine question" {
            send(&ready, subject).await;
        }
        let accepted = dev.json().await;
        assert_eq!((text(&accepted, "event"), text(&accepted, "subject")), ("accepted", subject));
        assert_eq!(accepted["deliveries"], 1);
        let attempted = dev.json().await;
        assert_eq!((text(&attempted, "event"), text(&attempted, "status")), ("attempted", "delivered"));
        assert_eq!(attempted["statusCode"], 200, "the built-in receiver found both signatures right");
        assert_eq!(attempted["messageId"], accepted["messageId"]);
    }
    assert_eq!(dev.interrupt().await, "");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_app_of_ones_own_gets_the_webhooks_and_its_failures_are_seen() {
    let receiver =
        Receiver::start(|request| Reply::status(if request.header("x-mailkite-attempt") == "1" { 500 } else { 200 }))
            .await;
    let dir = tempfile::tempdir().unwrap();
    let url = receiver.url();
    let forward = [&ANY_PORTS[..], &["--no-sample", "--forward", url.as_str()]].concat();
    let mut dev = Dev::start(dir.path(), &[&forward[..], &["--json"]].concat());
    let other = tempfile::tempdir().unwrap();
    let mut prose = Dev::start(other.path(), &forward);
    let smtp = prose.until("  mail").await.split_whitespace().nth(1).unwrap().to_owned();
    prose.until("Ctrl-C").await;
    send_to(&smtp, "Told in prose").await;
    let ready = dev.json().await;
    send(&ready, "Told in JSON").await;

    assert_eq!(text(&dev.json().await, "event"), "accepted");
    let first = dev.json().await;
    assert_eq!(
        (text(&first, "status"), &first["statusCode"], &first["attempt"]),
        ("pending", &500.into(), &1.into())
    );
    assert!(first["nextAttemptAt"].is_i64());
    assert_eq!(text(&first, "url"), url);
    let second = dev.json().await;
    assert_eq!((text(&second, "status"), &second["statusCode"]), ("delivered", &200.into()));
    assert_eq!(second["attempt"], 2);

    let failed = prose.until("✗").await;
    assert!(failed.contains("Told in prose") && failed.contains("500") && failed.contains("again in"), "{failed}");
    let delivered = prose.until("✓").await;
    assert!(delivered.contains("Told in prose") && delivered.contains("attempt 2"), "{delivered}");
    dev.interrupt().await;
    prose.interrupt().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_and_secret_survive_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let arguments = [&ANY_PORTS[..], &["--json", "--no-sample"]].concat();
    let mut first = Dev::start(dir.path(), &arguments);
    let before = first.json().await;
    first.interrupt().await;
    let mut second = Dev::start(dir.path(), &arguments);
    let after = second.json().await;
    assert_eq!(before["apiKey"], after["apiKey"]);
    assert_eq!(before["webhookSecret"], after["webhookSecret"]);
    send(&after, "Still here").await;
    assert_eq!(text(&second.json().await, "event"), "accepted");
    assert_eq!(text(&second.json().await, "status"), "delivered");
    second.interrupt().await;
}

/// Collects the command under a heading, its continued lines joined as a shell joins them.
fn command_under(prose: &str, heading: &str) -> String {
    let after = prose.split_once(heading).unwrap_or_else(|| panic!("no {heading:?} in:\n{prose}")).1;
    after.lines().skip(1).take_while(|line| !line.trim().is_empty()).map(|line| format!("{line}\n")).collect()
}

/// Runs a pasted command if its program is there.
async fn paste(command: &str) -> Option<Output> {
    let program = if command.contains("swaks") { "swaks" } else { "curl" };
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path).any(|dir| dir.join(program).exists());
    if !found {
        eprintln!("{program} is not installed; this part is skipped");
        return None;
    }
    let mut shell = Command::new("sh");
    shell.args(["-c", command]).kill_on_drop(true);
    let output = output(shell).await;
    assert!(output.status.success(), "{command}: {output:?}");
    Some(output)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_terminal_shows_a_verified_first_mail_and_commands_that_work() {
    let dir = tempfile::tempdir().unwrap();
    let mut dev = Dev::start(dir.path(), &ANY_PORTS);
    dev.until("Ctrl-C").await;
    let prose = dev.seen.clone();
    for step in ["✓ accepted", "✓ stored", "✓ signed", "✓ delivered", "✓ verified"] {
        assert!(prose.contains(step), "{step} in:\n{prose}");
    }
    assert!(!prose.contains(['✗', '\u{1b}']), "{prose}");
    for line in prose.lines() {
        assert!(line.chars().count() <= 80, "wider than 80 columns: {line}");
    }

    let swaks = command_under(&prose, "Send a mail");
    let words: Vec<&str> = swaks.split_whitespace().collect();
    let after = |option: &str| words[words.iter().position(|word| *word == option).unwrap() + 1];
    let mut client = SmtpClient::greeted(format!("{}:{}", after("--server"), after("--port")).parse().unwrap()).await;
    let hostile = "Subject: a\u{1b}[31mb\u{202e}c \u{9b}31m\r\n\r\nx\r\n";
    client.mail(after("--from"), &[after("--to")], hostile).await;
    let line = dev.until("✓").await;
    assert!(line.contains("you@example.com") && line.contains("hello"), "{line}");
    assert!(!line.contains(['\u{1b}', '\u{9b}', '\u{202e}']), "{line:?}");

    for heading in ["Send a mail", "or with curl"] {
        if paste(&command_under(&prose, heading)).await.is_some() {
            assert!(dev.until("✓").await.contains("Hi"), "{heading}");
        }
    }
    if let Some(listed) = paste(&command_under(&prose, "See what arrived")).await {
        let listed: Value = serde_json::from_slice(&listed.stdout).unwrap();
        assert!(listed.as_array().unwrap().iter().any(|row| row["subject"] == "Your first mail"), "{listed}");
    }
    assert!(dev.interrupt().await.contains("Stopped"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_taken_port_gives_way_to_the_next_free_one() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let wanted = address.to_string();
    let dir = tempfile::tempdir().unwrap();
    let mut dev = Dev::start(dir.path(), &["--http", "127.0.0.1:0", "--smtp", &wanted, "--no-sample"]);
    let mail = dev.until("  mail").await;
    dev.until(&format!("port {} is taken", address.port())).await;
    let smtp = mail.split_whitespace().nth(1).unwrap();
    let port: u16 = smtp.rsplit_once(':').unwrap().1.parse().unwrap();
    assert!(port > address.port(), "{mail}");
    send_to(smtp, "On the next port").await;
    dev.until("On the next port").await;
    dev.interrupt().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn only_loopback_and_one_process_for_a_data_directory() {
    let dir = tempfile::tempdir().unwrap();
    for option in ["--http", "--smtp"] {
        let mut command = mailkite();
        command.args(["dev", option, "0.0.0.0:0", "--data-dir"]).arg(dir.path().join("none"));
        let refused = output(command).await;
        let said = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert_eq!(refused.status.code(), Some(1));
        assert!(said.contains("not a loopback address"), "{said}");
        assert!(!dir.path().join("none").exists());
    }
    let arguments = [&ANY_PORTS[..], &["--json", "--no-sample"]].concat();
    let mut dev = Dev::start(dir.path(), &arguments);
    dev.json().await;
    let mut command = mailkite();
    command.arg("dev").args(&arguments).arg("--data-dir").arg(dir.path().join("data"));
    let refused = output(command).await;
    assert_eq!(refused.status.code(), Some(1), "{refused:?}");
    assert!(refused.stdout.is_empty());
    dev.interrupt().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_small_benchmark_loses_nothing_and_leaves_nothing() {
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let mut command = mailkite();
    command.args(["bench", "--messages", "200", "--sessions", "8", "--json", "--dir"]).arg(dir.path());
    let measured = output(command).await;
    let said = String::from_utf8_lossy(&measured.stderr).into_owned();
    assert!(measured.status.success(), "{said}");
    let report: Value = serde_json::from_slice(&measured.stdout).unwrap();
    assert_eq!((&report["messages"], &report["lost"]), (&200.into(), &0.into()));
    for figure in ["acceptedPerSecond", "deliveredPerSecond", "ceilingPerSecond", "peakRssMib", "fsyncsPerMessage"] {
        assert!(report[figure].as_f64().unwrap() > 0.0, "{figure}: {report}");
    }
    for times in ["acceptMs", "mailToWebhookMs"] {
        assert!(report[times]["p50"].as_f64().unwrap() <= report[times]["p99"].as_f64().unwrap(), "{report}");
    }
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0, "the scratch directory is removed");
}
