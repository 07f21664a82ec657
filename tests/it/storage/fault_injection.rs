//! Commits and system calls that fail at any moment, a restart, and senders that repeat: whatever was promised by 250,
//! 201 or 202 can be read, was posted and was sent.
//!
//! One walk fails the commit of each writer of objects inside this process. The other preloads the real binary with
//! `fixtures/failing_calls.c` and fails single system calls; the whole of it is
//! `cargo test --test it -- --ignored --nocapture every_call`.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use mailkite::testing::app;
use mailkite::testing::clock::Clock;
use mailkite::testing::config::Config;
use mailkite::testing::store::Db;
use mailkite::testing::store::writer::faults::Fault;
use serde_json::json;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::support::api::Api;
use crate::support::audit::assert_ledger;
use crate::support::database::assert_sound;
use crate::support::machine::skip;
use crate::support::promises::{Kind, Listeners, Promises};
use crate::support::serve_process::{ServeProcess, configure};
use crate::support::server::DEADLINE;
use crate::support::smtp::SmtpClient;

/// A server in this process.
struct Running {
    listeners: Listeners,
    db: Db,
    stop: CancellationToken,
    ended: JoinHandle<Result<(), app::StartError>>,
}

impl Running {
    async fn start(folder: &Path, sections: &str) -> Self {
        let config = Config::load(&configure(folder, sections)).unwrap();
        let bound = app::bind(config, Clock::System, &app::Sockets::default()).await.unwrap();
        let listeners = Listeners {
            smtp: bound.smtp_addresses()[0],
            submission: bound.submission_addresses()[0][0],
            http: bound.http_addresses()[0],
        };
        let (db, stop) = (bound.db().clone(), CancellationToken::new());
        Self { listeners, db, ended: tokio::spawn(bound.run(stop.clone())), stop }
    }

    /// Waits for its end, which is an error once storage failed.
    async fn end(self) -> Result<(), app::StartError> {
        let ended = timeout(DEADLINE, self.ended).await.unwrap().unwrap();
        // The next one is of this process too.
        timeout(DEADLINE, self.db.close()).await.unwrap();
        ended
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_that_fails_at_any_moment_loses_nothing_that_is_promised_before_or_after() {
    let mut promises = Promises::new().await;
    let folder = tempfile::tempdir().unwrap();
    let data_dir = promises.data_dir(folder.path());
    let sections = promises.sections().to_owned();
    let mut refused = 0;
    for fault in Fault::ALL {
        for kind in Kind::ALL {
            let number = promises.number();
            let server = Running::start(folder.path(), &sections).await;
            server.db.faults().arm(fault);
            let taken = promises.offer(server.listeners, kind, number).await;
            assert!(!server.db.faults().is_armed(), "{kind:?}: no commit came");
            // The engine's first commit may have met the fault instead.
            refused += usize::from(!taken);
            if fault != Fault::Before {
                // It has to be started again, as systemd does.
                let error = server.end().await.unwrap_err();
                assert!(error.to_string().contains("storage failed"), "{error}");
                let again = Running::start(folder.path(), &sections).await;
                assert!(
                    taken || promises.offer(again.listeners, kind, number).await,
                    "{fault:?}: the repeat of {kind:?}"
                );
                again.stop.cancel();
                again.end().await.unwrap();
            } else {
                // A full disk is known for a moment.
                let repeated = async { while !taken && !promises.offer(server.listeners, kind, number).await {} };
                timeout(DEADLINE, repeated).await.unwrap();
                server.stop.cancel();
                server.end().await.unwrap();
            }
        }
    }
    assert_eq!(promises.count(), Fault::ALL.len() * Kind::ALL.len());
    assert!(refused > promises.count() / 2, "{refused} commits failed");
    let ledger = promises.ledger();
    let server = Running::start(folder.path(), &sections).await;
    assert_eq!(promises.find_broken(server.listeners).await, Vec::<String>::new());
    server.stop.cancel();
    server.end().await.unwrap();
    assert_sound(&data_dir);
    assert_ledger(&data_dir, &ledger);
}

/// The calls that fail, and their error.
#[derive(Clone, Copy, Debug)]
struct Failing {
    call: &'static str,
    errno: i32,
    nth: usize,
    /// True when all calls from the nth on fail, false when it alone fails.
    stays: bool,
}

const CALLS: [&str; 7] = ["open", "write", "pwrite", "fsync", "fdatasync", "rename", "ftruncate"];
const EINTR: i32 = 4;
/// EIO, ENOSPC, EINTR, EDQUOT, EMFILE.
const ERRNOS: [i32; 5] = [5, 28, EINTR, 122, 24];

/// Builds the library that fails calls; `None`, with the test skipped, without a C compiler.
fn build(folder: &Path) -> Option<PathBuf> {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/failing_calls.c");
    let library = folder.join("failing_calls.so");
    let built =
        Command::new("cc").args(["-shared", "-fPIC", "-O1", "-o"]).arg(&library).arg(source).arg("-ldl").output();
    match built {
        Ok(output) if output.status.success() => return Some(library),
        Ok(output) => skip(&format!("the fault walk: {}", String::from_utf8_lossy(&output.stderr))),
        Err(error) => skip(&format!("the fault walk: cc: {error}")),
    }
    None
}

impl Failing {
    /// The environment in which it fails below `data_dir`, once the file exists that is returned, and the log of it.
    fn environment(self, library: &Path, data_dir: &Path) -> (Vec<(&'static str, String)>, PathBuf, PathBuf) {
        let text = |path: &Path| path.to_str().unwrap().to_owned();
        let (armed, log) = (data_dir.with_extension("armed"), data_dir.with_extension("failed"));
        let environment = vec![
            ("LD_PRELOAD", text(library)),
            ("FAULT_CALL", self.call.to_owned()),
            ("FAULT_ERRNO", self.errno.to_string()),
            ("FAULT_NTH", self.nth.to_string()),
            ("FAULT_LAST", if self.stays { usize::MAX >> 1 } else { self.nth }.to_string()),
            ("FAULT_BELOW", text(data_dir)),
            ("FAULT_ARMED", text(&armed)),
            ("FAULT_LOG", text(&log)),
        ];
        (environment, armed, log)
    }
}

/// Outcome of one run.
#[derive(Debug, Default)]
struct Came {
    fired: bool,
    /// The process ended by itself.
    ended: bool,
    broken: Vec<String>,
}

/// Runs once: everything is offered once while calls fail, the process is killed, and whatever was refused is repeated.
async fn run(promises: &mut Promises, library: &Path, failing: Failing) -> Came {
    let folder = tempfile::tempdir().unwrap();
    let data_dir = promises.data_dir(folder.path());
    let (environment, armed, log) = failing.environment(library, &data_dir);
    let sections = promises.sections().to_owned();
    let served = ServeProcess::start_in(folder.path(), &sections, &environment).await;
    let listeners = served.listeners();
    let (mut child, said) = served.into_child_and_log();
    std::fs::write(&armed, "").unwrap();
    let mut pending = Vec::new();
    for at in 0..Kind::ALL.len() {
        let kind = Kind::ALL[(at + failing.nth) % Kind::ALL.len()];
        let number = promises.number();
        if !promises.offer(listeners, kind, number).await {
            pending.push((kind, number));
        }
    }
    let mut came = Came { fired: log.exists(), ..Came::default() };
    // A process that stops because of its disk says so and is no success; every other is killed.
    let wait = if pending.is_empty() { Duration::ZERO } else { Duration::from_secs(2) };
    if let Ok(status) = timeout(wait, child.wait()).await {
        came.ended = true;
        let status = status.unwrap();
        assert!(!status.success(), "{failing:?}: {status}");
    }
    drop(child.kill().await);
    let said = said.lock().unwrap().join("\n");
    assert!(!said.contains("panicked"), "{failing:?}: {said}");

    let served = ServeProcess::start_in(folder.path(), &sections, &[]).await;
    let listeners = served.listeners();
    let (mut child, _said) = served.into_child_and_log();
    for (kind, number) in pending {
        if !promises.offer(listeners, kind, number).await {
            came.broken.push(format!("{kind:?}-{number} was not taken by a sound server"));
        }
    }
    let ledger = promises.ledger();
    came.broken.extend(promises.find_broken(listeners).await);
    drop(child.kill().await);
    assert_sound(&data_dir);
    assert_ledger(&data_dir, &ledger);
    came
}

/// Makes the runs and prints their outcomes.
async fn walk(runs: impl Iterator<Item = Failing>) {
    let tools = tempfile::tempdir().unwrap();
    let Some(library) = build(tools.path()) else { return };
    let mut promises = Promises::new().await;
    let (mut made, mut fired, mut ended, mut broken) = (0, 0, 0, Vec::new());
    let mut past: Option<Failing> = None;
    for failing in runs {
        // There are no more such calls than the last time.
        let is_past =
            |past: Failing| (past.call, past.errno, past.stays) == (failing.call, failing.errno, failing.stays);
        if past.is_some_and(is_past) {
            continue;
        }
        let came = run(&mut promises, &library, failing).await;
        made += 1;
        fired += usize::from(came.fired);
        ended += usize::from(came.ended);
        if !came.fired {
            past = Some(failing);
        }
        if !came.broken.is_empty() {
            println!("{failing:?}: {:?}", came.broken);
            broken.extend(came.broken.into_iter().map(|why| format!("{failing:?}: {why}")));
        }
    }
    println!(
        "{made} runs, {fired} with a failed call, {ended} processes ended by themselves, {} broken",
        broken.len()
    );
    assert!(fired > 0, "no call failed");
    assert!(broken.is_empty(), "{broken:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_that_fail_lose_nothing_that_is_promised() {
    let chosen = [
        ("fdatasync", 5, 1, false),
        ("fdatasync", 28, 4, false),
        ("fsync", 5, 1, false),
        ("fsync", 122, 2, false),
        ("pwrite", 28, 6, true),
        ("pwrite", 5, 23, false),
        ("write", 28, 1, false),
        ("rename", 5, 2, false),
        ("open", 24, 1, true),
        ("open", 24, 5, false),
        ("ftruncate", 5, 1, false),
    ];
    walk(chosen.into_iter().map(|(call, errno, nth, stays)| Failing { call, errno, nth, stays })).await;
}

/// Sends mail as fast as it is accepted, until the connection breaks; returns the acknowledged ids.
async fn flood(smtp: std::net::SocketAddr, sender: usize) -> Vec<String> {
    let mut taken = Vec::new();
    let Ok(mut client) = tokio::spawn(SmtpClient::connect_and_greet(smtp)).await else { return taken };
    for number in 0.. {
        let text = format!("From: ada@example.com\r\nSubject: {sender}-{number}\r\n\r\nHello.\r\n");
        match client.try_mail("ada@example.com", "u@acme.test", text.as_bytes()).await {
            Ok(reply) if reply.code == 250 => {
                let id = reply.text().split_whitespace().find(|word| word.starts_with("msg_")).unwrap().to_owned();
                taken.push(id);
            }
            _ => break,
        }
    }
    taken
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_failed_fsync_under_load_the_next_start_always_succeeds_with_all_that_was_promised() {
    let tools = tempfile::tempdir().unwrap();
    let Some(library) = build(tools.path()) else { return };
    let promises = Promises::new().await;
    let (mut ended, mut promised) = (0, 0);
    for nth in 1..=24 {
        let folder = tempfile::tempdir().unwrap();
        let data_dir = promises.data_dir(folder.path());
        let failing = Failing { call: "fdatasync", errno: [5, 28, 122][nth % 3], nth: 3 * nth, stays: false };
        let (mut environment, armed, log) = failing.environment(&library, &data_dir);
        environment.push(("FAULT_NAME", "-wal".to_owned()));
        let served = ServeProcess::start_in(folder.path(), promises.sections(), &environment).await;
        let smtp = served.smtp;
        let (mut child, said) = served.into_child_and_log();
        std::fs::write(&armed, "").unwrap();
        let senders: Vec<_> = (0..6).map(|sender| tokio::spawn(flood(smtp, sender))).collect();
        let status = timeout(DEADLINE, child.wait()).await.unwrap().unwrap();
        assert!(log.exists() && !status.success(), "{failing:?}: {status}");
        ended += 1;
        let mut ledger = String::new();
        for sender in senders {
            let ids = timeout(DEADLINE, sender).await.unwrap().unwrap();
            promised += ids.len();
            ids.iter().for_each(|id| ledger.push_str(&format!("{id}\n")));
        }
        let said = said.lock().unwrap().join("\n");
        assert!(!said.contains("panicked"), "{failing:?}: {said}");
        assert!(std::fs::metadata(data_dir.join("mailkite.db-wal")).is_ok_and(|wal| wal.len() > 0), "{failing:?}");
        // As systemd does it; it has to say that it serves.
        let mut again = ServeProcess::start_in(folder.path(), promises.sections(), &[]).await;
        if nth % 2 == 0 {
            again.signal(rustix::process::Signal::TERM);
            assert!(timeout(DEADLINE, again.child.wait()).await.unwrap().unwrap().success());
        } else {
            again.child.kill().await.unwrap();
        }
        assert_sound(&data_dir);
        assert_ledger(&data_dir, &ledger);
        let mut third = ServeProcess::start_in(folder.path(), promises.sections(), &[]).await;
        third.child.kill().await.unwrap();
    }
    assert_eq!(ended, 24);
    assert!(promised > 500, "{promised}");
}

#[tokio::test(flavor = "multi_thread")]
async fn where_the_database_cannot_be_read_the_api_says_to_come_again() {
    let tools = tempfile::tempdir().unwrap();
    let Some(library) = build(tools.path()) else { return };
    let promises = Promises::new().await;
    let folder = tempfile::tempdir().unwrap();
    let data_dir = promises.data_dir(folder.path());
    let failing = Failing { call: "pread", errno: 5, nth: 1, stays: true };
    let (mut environment, armed, _) = failing.environment(&library, &data_dir);
    environment.push(("FAULT_NAME", "mailkite.db".to_owned()));
    let served = ServeProcess::start_in(folder.path(), promises.sections(), &environment).await;
    let api = Api::anonymous(served.http).with(promises.key.clone());
    let (mut child, said) = served.into_child_and_log();
    let send = json!({"from": "hi@acme.test", "to": "ada@remote.test", "subject": "Hi", "text": "Hello."});
    let batch =
        json!({"from": "hi@acme.test", "subject": "Hi", "text": "Hello.", "recipients": [{"to": "ada@remote.test"}]});
    let file = json!({"filename": "n.txt", "content": "aGVsbG8="});
    let template = json!({"name": "Letter", "subject": "s", "text": "t"});
    let mut refused = 0;
    for round in 0..12 {
        // What was committed meanwhile makes readers read again.
        assert!(takes_template(&api, &template).await, "{round}: {}", said.lock().unwrap().join("\n"));
        std::fs::write(&armed, "").unwrap();
        let asked = [
            api.get("/api/messages").await,
            api.get("/v1/me").await,
            api.get("/api/deliveries").await,
            api.get("/api/overview?range=hour").await,
            api.post("/v1/send", send.clone()).await,
            api.post("/v1/send/batch", batch.clone()).await,
            api.post("/v1/attachments", file.clone()).await,
            api.post("/api/templates", template.clone()).await,
        ];
        std::fs::remove_file(&armed).unwrap();
        for answer in asked {
            if answer.status == 503 {
                assert_eq!(answer.code(), "unavailable");
                assert!(answer.header("retry-after").is_some());
                refused += 1;
            } else {
                assert!(answer.status < 300, "{round}: {} {}", answer.status, answer.json);
            }
        }
    }
    assert!(refused > 20, "{refused}");
    drop(child.kill().await);
    assert_sound(&data_dir);
}

/// Creates a template, with repeats until the failure is over; true when it was accepted.
async fn takes_template(api: &Api, template: &serde_json::Value) -> bool {
    for _ in 0..50 {
        if api.post("/api/templates", template.clone()).await.status == 201 {
            return true;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    false
}

/// Every call, with every error, at every place.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "it takes an hour or more"]
async fn every_call_that_fails_loses_nothing_that_is_promised() {
    let part = std::env::var("FAULT_CALLS").unwrap_or_default();
    let calls = CALLS.into_iter().filter(|call| part.is_empty() || part.split(',').any(|one| one == *call));
    let runs = calls.flat_map(|call| {
        ERRNOS.into_iter().flat_map(move |errno| {
            // A call that is interrupted for ever is made again for ever.
            let cases = [false, true].into_iter().filter(move |stays| !stays || errno != EINTR);
            cases.flat_map(move |stays| {
                let places = (1..=40).chain((45..=400).step_by(7));
                places.map(move |nth| Failing { call, errno, nth, stays })
            })
        })
    });
    walk(runs).await;
}
