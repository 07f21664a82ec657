//! Litestream beside the server: what it restores after the machine is lost is whole and serves.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::process::Signal;

use crate::support::audit::assert_audited;
use crate::support::database::open_database;
use crate::support::machine::skip;
use crate::support::serve_process::ServeProcess;
use crate::support::server::message;
use crate::support::smtp::SmtpClient;
use crate::support::wait::until;

/// As `tests/prepare` installs it.
fn program() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("target/tools/litestream/bin/litestream")
}

/// The configuration of docs/backup.md, with a folder for a replica.
fn configured(folder: &Path) -> std::path::PathBuf {
    let path = folder.join("litestream.yml");
    let (database, replica) = (folder.join("data/mailkite.db"), folder.join("replica"));
    let text = format!(
        "dbs:\n  - path: {}\n    replicas:\n      - type: file\n        path: {}\n",
        database.display(),
        replica.display()
    );
    std::fs::write(&path, text).unwrap();
    path
}

/// Ends the process with the test, by SIGKILL: the machine is lost.
struct Replicating(Child);

impl Drop for Replicating {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// Restores into a folder; returns the subjects of its messages, or `None` when there is nothing to restore yet.
fn restore(config: &Path, folder: &Path) -> Option<Vec<String>> {
    let data = folder.join("data");
    std::fs::create_dir_all(&data).unwrap();
    let restored = data.join("mailkite.db");
    drop(std::fs::remove_file(&restored));
    let done = Command::new(program())
        .args(["restore", "-config"])
        .arg(config)
        .arg("-o")
        .arg(&restored)
        .arg(config.with_file_name("data/mailkite.db"))
        .output()
        .unwrap();
    if !done.status.success() {
        return None;
    }
    let database = open_database(&data);
    let mut statement = database.prepare("SELECT subject FROM message").ok()?;
    let subjects = statement.query_map([], |row| row.get(0)).unwrap();
    Some(subjects.collect::<rusqlite::Result<_>>().unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_litestream_restores_has_every_mail_it_had_copied_and_serves() {
    if !program().exists() {
        return skip("litestream is not installed; tests/prepare does it");
    }
    let folder = tempfile::tempdir().unwrap();
    let (served, _owner) = ServeProcess::start_owned(folder.path(), "").await;
    let config = configured(folder.path());
    let replicating = Command::new(program())
        .args(["replicate", "-config"])
        .arg(&config)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let replicating = Replicating(replicating);
    let mut client = SmtpClient::connect_and_greet(served.smtp).await;
    for number in 0..100 {
        let reply = client.mail("ada@example.com", &["x@inbox.test"], message(&format!("copied {number}"))).await;
        assert_eq!(reply.code, 250);
    }
    let other = tempfile::tempdir().unwrap();
    until(async || {
        tokio::time::sleep(Duration::from_millis(300)).await;
        restore(&config, other.path()).is_some_and(|subjects| subjects.contains(&"copied 99".to_owned()))
    })
    .await;
    // Under load the machine is lost.
    for number in 0..100 {
        let reply = client.mail("ada@example.com", &["x@inbox.test"], message(&format!("late {number}"))).await;
        assert_eq!(reply.code, 250);
    }
    served.signal(Signal::KILL);
    drop(replicating);
    drop(served.into_child().wait().await);
    let subjects = restore(&config, other.path()).unwrap();
    assert!((0..100).all(|number| subjects.contains(&format!("copied {number}"))), "{subjects:?}");
    let data = other.path().join("data");
    std::fs::copy(folder.path().join("data/master.key"), data.join("master.key")).unwrap();
    rustix::fs::chmod(&data, rustix::fs::Mode::RWXU).unwrap();
    assert_audited(&data);
    let served = ServeProcess::start(other.path()).await;
    let mut client = SmtpClient::connect_and_greet(served.smtp).await;
    let reply = client.mail("ada@example.com", &["x@inbox.test"], message("after the loss")).await;
    assert_eq!(reply.code, 250);
}
