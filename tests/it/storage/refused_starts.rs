//! Starts that only the operator can help: refused with the way out and with 78, which systemd does not repeat.

use std::fs;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::process::{Command, Output};

use tempfile::TempDir;

use crate::support::api::Api;
use crate::support::database::open_database;
use crate::support::serve_process::{ServeProcess, configure};
use crate::support::server::message;
use crate::support::smtp::SmtpClient;

/// A folder whose data directory has an owner and twenty messages; nothing serves it.
async fn served_before() -> (TempDir, Api) {
    let folder = tempfile::tempdir().unwrap();
    let (served, owner) = ServeProcess::start_owned(folder.path(), "").await;
    let mut client = SmtpClient::connect_and_greet(served.smtp).await;
    for number in 0..20 {
        let reply = client.mail("ada@example.com", &["x@inbox.test"], message(&format!("number {number}"))).await;
        assert_eq!(reply.code, 250);
    }
    served.signal(rustix::process::Signal::TERM);
    assert!(served.into_child().wait().await.unwrap().success());
    (folder, owner)
}

fn run(folder: &Path, command: &str) -> (Option<i32>, String) {
    let config = configure(folder, "");
    let output = Command::new(env!("CARGO_BIN_EXE_mailkite")).args([command, "--config"]).arg(config).output();
    let Output { status, stdout, stderr } = output.unwrap();
    (status.code(), String::from_utf8([stdout, stderr].concat()).unwrap())
}

/// Overwrites the first page of a table.
fn damage(folder: &Path, table: &str) {
    let data = folder.join("data");
    let database = open_database(&data);
    let page: u64 =
        database.query_row("SELECT rootpage FROM sqlite_schema WHERE name = ?1", [table], |row| row.get(0)).unwrap();
    let size: u64 = database.query_row("PRAGMA page_size", [], |row| row.get(0)).unwrap();
    drop(database);
    let file = fs::File::options().write(true).open(data.join("mailkite.db")).unwrap();
    file.write_all_at(&[0x5a; 512], (page - 1) * size).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_master_key_of_another_database_is_refused_by_check_and_serve() {
    let (folder, _owner) = served_before().await;
    let key = folder.path().join("data/master.key");
    let right = fs::read(&key).unwrap();
    fs::write(&key, [7; 32]).unwrap();
    let sentence = "master.key is not the key that this database's secrets were sealed with: put the right one back";
    let (code, said) = run(folder.path(), "check");
    assert!(code == Some(1) && said.contains("✗ master key") && said.contains(sentence), "{code:?} {said}");
    let (code, said) = run(folder.path(), "serve");
    assert!(code == Some(78) && said.contains(sentence), "{code:?} {said}");
    fs::write(&key, right).unwrap();
    let (code, said) = run(folder.path(), "check");
    assert!(code == Some(0) && said.contains("✓ master key"), "{code:?} {said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_master_key_of_another_database_is_refused_by_commands_without_a_server() {
    let (folder, _owner) = served_before().await;
    fs::write(folder.path().join("data/master.key"), [7; 32]).unwrap();
    let config = configure(folder.path(), "");
    let command = ["user", "sign-in-link", "owner@inbox.invalid", "--config"];
    let output = Command::new(env!("CARGO_BIN_EXE_mailkite")).args(command).arg(config).output().unwrap();
    let said = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
    assert!(!output.status.success() && said.contains("master.key is not the key that"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn it_is_refused_before_there_is_an_account_too() {
    let folder = tempfile::tempdir().unwrap();
    let mut served = ServeProcess::start(folder.path()).await;
    served.wait_for_log("this server has no owner yet").await;
    served.signal(rustix::process::Signal::TERM);
    assert!(served.into_child().wait().await.unwrap().success());
    fs::write(folder.path().join("data/master.key"), [7; 32]).unwrap();
    let (code, said) = run(folder.path(), "serve");
    assert!(code == Some(78) && said.contains("master.key is not the key that"), "{code:?} {said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_database_is_told_by_check_and_by_the_mail_it_cannot_take() {
    let (folder, _owner) = served_before().await;
    damage(folder.path(), "message");
    let (code, said) = run(folder.path(), "check");
    let way_out = "restore a backup, or save what can still be read: sqlite3";
    assert!(code == Some(1) && said.contains("mailkite.db is damaged (") && said.contains(way_out), "{said}");
    let mut served = ServeProcess::start(folder.path()).await;
    let mut client = SmtpClient::connect_and_greet(served.smtp).await;
    client.expect("MAIL FROM:<ada@example.com>", 250).await;
    client.expect("RCPT TO:<x@inbox.test>", 451).await;
    let line = served.wait_for_log("the directory could not be read").await;
    let error = line["error"].as_str().unwrap();
    assert!(error.contains("the file is damaged, or its disk fails: run mailkite check"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_run_that_could_not_read_the_database_all_of_it_is_checked_before_it_is_served() {
    let (folder, _owner) = served_before().await;
    let suspected = folder.path().join("data/mailkite.check");
    fs::write(&suspected, "").unwrap();
    let mut served = ServeProcess::start(folder.path()).await;
    served.signal(rustix::process::Signal::TERM);
    served.wait_for_log("stopped").await;
    assert!(served.into_child().wait().await.unwrap().success());
    assert!(!suspected.exists(), "it was whole");
    damage(folder.path(), "attachment");
    fs::write(&suspected, "").unwrap();
    for _ in 0..2 {
        let (code, said) = run(folder.path(), "serve");
        assert!(code == Some(78) && said.contains("mailkite.db is damaged ("), "{code:?} {said}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_database_of_a_newer_version_is_refused() {
    let (folder, _owner) = served_before().await;
    open_database(&folder.path().join("data")).pragma_update(None, "user_version", 99).unwrap();
    let sentence = "was written by a newer mailkite (schema 99, this one knows";
    for (command, wanted) in [("check", 1), ("serve", 78)] {
        let (code, said) = run(folder.path(), command);
        assert!(code == Some(wanted) && said.contains(sentence), "{command}: {code:?} {said}");
    }
}
