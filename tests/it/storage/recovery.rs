//! A data directory that lost what was promised from it does not start as another server, and nothing in it is removed.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, SystemTime};

use mailkite::testing::clock::Clock;
use mailkite::testing::retention::Retention;
use mailkite::testing::store::blobs::objects::Objects;

use crate::support::audit::{assert_audited, audit};
use crate::support::database::open_database;
use crate::support::dev_process::{DevProcess, failed_start};
use crate::support::machine::copy_folder;
use crate::support::receiver::{Receiver, Reply};
use crate::support::server::Server;
use crate::support::smtp::SmtpClient;

const DATABASE: &str = "mailkite.db";
const WAL: &str = "mailkite.db-wal";

/// Runs the command; returns true when it succeeded, and its output.
fn recover(data_dir: &Path, arguments: &[&str]) -> (bool, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_mailkite"));
    let output = command.arg("recover").args(arguments).arg("--data-dir").arg(data_dir).output().unwrap();
    let text = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
    (output.status.success(), text)
}

/// Counts the object files, wherever they were moved.
fn objects(data_dir: &Path) -> usize {
    fn count(folder: &Path) -> usize {
        let entries = fs::read_dir(folder).unwrap().map(Result::unwrap);
        entries.map(|entry| if entry.path().is_dir() { count(&entry.path()) } else { 1 }).sum()
    }
    count(&data_dir.join("objects"))
}

async fn send(process: &DevProcess, count: usize, from: usize) {
    let mut client = SmtpClient::connect_and_greet(process.smtp).await;
    for number in from..from + count {
        let text = format!(
            "From: ada@example.com\r\nSubject: {number}\r\n\r\n{}",
            "A line of a large mail, again and again.\r\n".repeat(if number % 2 == 0 { 2_000 } else { 1 })
        );
        assert_eq!(client.mail("ada@example.com", &["a@inbox.test"], text).await.code, 250);
    }
}

/// Damage done to a copy of the data directory; `older` is another copy, made while half of the mail had come.
type Harm = fn(&Path, &Path);

const HARMS: &[(&str, Harm)] = &[
    ("the WAL is gone", |dir, _| fs::remove_file(dir.join(WAL)).unwrap()),
    ("the WAL is empty", |dir, _| fs::write(dir.join(WAL), "").unwrap()),
    ("the WAL is cut in half", |dir, _| {
        let bytes = fs::read(dir.join(WAL)).unwrap();
        fs::write(dir.join(WAL), &bytes[..bytes.len() / 2]).unwrap();
    }),
    ("the WAL lacks its last octets", |dir, _| {
        let bytes = fs::read(dir.join(WAL)).unwrap();
        fs::write(dir.join(WAL), &bytes[..bytes.len() - 9_000]).unwrap();
    }),
    ("the head of the WAL is damaged", |dir, _| {
        let mut bytes = fs::read(dir.join(WAL)).unwrap();
        bytes[17] ^= 0xff;
        fs::write(dir.join(WAL), bytes).unwrap();
    }),
    ("an octet in the middle of the WAL is damaged", |dir, _| {
        let mut bytes = fs::read(dir.join(WAL)).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        fs::write(dir.join(WAL), bytes).unwrap();
    }),
    ("the WAL is an older one", |dir, older| {
        fs::copy(older.join(WAL), dir.join(WAL)).unwrap();
    }),
    ("database and WAL are older", |dir, older| {
        for name in [DATABASE, WAL] {
            fs::copy(older.join(name), dir.join(name)).unwrap();
        }
    }),
    ("the database is empty", |dir, _| fs::write(dir.join(DATABASE), "").unwrap()),
    ("the database is gone", |dir, _| fs::remove_file(dir.join(DATABASE)).unwrap()),
    ("database, WAL and lock are gone", |dir, _| {
        for name in [DATABASE, WAL, "mailkite.lock"] {
            fs::remove_file(dir.join(name)).unwrap();
        }
    }),
    ("the mark is damaged", |dir, _| fs::write(dir.join("mailkite.mark"), [0xa5; 1024]).unwrap()),
];

#[tokio::test(flavor = "multi_thread")]
async fn what_lost_acknowledged_mail_does_not_start_until_the_operator_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let (data_dir, older) = (folder.path().join("data"), folder.path().join("older"));
    let receiver = Receiver::start(|_| Reply::status(503)).await;
    let process = DevProcess::start(&data_dir, &receiver.url()).await;
    send(&process, 10, 0).await;
    copy_folder(&data_dir, &older);
    send(&process, 20, 10).await;
    process.kill().await;
    let stored = objects(&data_dir);
    assert!(stored >= 15, "{stored}");
    for (number, (what, harm)) in HARMS.iter().enumerate() {
        let dir = folder.path().join(number.to_string());
        copy_folder(&data_dir, &dir);
        harm(&dir, &older);
        let said = failed_start(&dir).await;
        assert!(said.contains("mailkite recover"), "{what}: no way out: {said}");
        let (good, told) = recover(&dir, &[]);
        assert!(!good && told.contains("--accept-loss") && told.contains("nothing was changed"), "{what}: {told}");
        assert_eq!(objects(&dir), stored, "{what}");
        // Put back, it starts: refusing has changed nothing.
        if number % 4 == 0 {
            for name in [DATABASE, WAL, "mailkite.lock"] {
                fs::copy(data_dir.join(name), dir.join(name)).unwrap();
            }
            let (good, told) = recover(&dir, &[]);
            assert!(good && told.contains("nothing"), "{what}: {told}");
            DevProcess::start(&dir, &receiver.url()).await.terminate().await;
            assert_audited(&dir);
            let count: i64 =
                open_database(&dir).query_row("SELECT count(*) FROM message", [], |row| row.get(0)).unwrap();
            assert_eq!(count, 30, "{what}");
        }

        // The other way: with the loss accepted it starts, and every object is still there.
        let dir = folder.path().join(format!("accepted-{number}"));
        copy_folder(&data_dir, &dir);
        harm(&dir, &older);
        let (good, told) = recover(&dir, &["--accept-loss"]);
        assert!(good, "{what}: {told}");
        assert_eq!(objects(&dir), stored, "{what}");
        DevProcess::start(&dir, &receiver.url()).await.terminate().await;
        assert_eq!(objects(&dir), stored, "{what}");
        let (good, said) = audit(&dir, &[]);
        assert!(good && said.contains("every file has a row"), "{what}: {said}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_of_an_earlier_day_is_refused_after_an_orderly_end() {
    let folder = tempfile::tempdir().unwrap();
    let (data_dir, older) = (folder.path().join("data"), folder.path().join("older"));
    let receiver = Receiver::start(|_| Reply::status(200)).await;
    for round in 0..2 {
        let process = DevProcess::start(&data_dir, &receiver.url()).await;
        send(&process, 4, round * 4).await;
        process.terminate().await;
        if round == 0 {
            copy_folder(&data_dir, &older);
        }
    }
    fs::copy(older.join(DATABASE), data_dir.join(DATABASE)).unwrap();
    let said = failed_start(&data_dir).await;
    assert!(said.contains("is older") && said.contains("mailkite recover"), "{said}");
    let (good, said) = recover(&data_dir, &["--accept-loss"]);
    assert!(good && said.contains("2 objects were moved"), "{said}");
    DevProcess::start(&data_dir, &receiver.url()).await.terminate().await;
    assert_audited(&data_dir);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_lost_nothing_starts_whoever_looked_at_it_meanwhile() {
    let folder = tempfile::tempdir().unwrap();
    let data_dir = folder.path().join("data");
    let receiver = Receiver::start(|_| Reply::status(200)).await;
    for round in 0..4 {
        let process = DevProcess::start(&data_dir, &receiver.url()).await;
        send(&process, 4, round * 4).await;
        process.kill().await;
        match round {
            // Whoever closes it last moves the WAL into the file and removes it.
            0 => {
                let database = open_database(&data_dir);
                database.query_row("SELECT count(*) FROM message", [], |row| row.get::<_, i64>(0)).unwrap();
                drop(database);
                assert!(!data_dir.join(WAL).exists());
            }
            1 => assert_audited(&data_dir),
            2 => assert!(recover(&data_dir, &[]).0),
            // An installation of an earlier version has none.
            _ => fs::remove_file(data_dir.join("mailkite.mark")).unwrap(),
        }
    }
    DevProcess::start(&data_dir, &receiver.url()).await.terminate().await;
    assert!(data_dir.join("mailkite.mark").exists());
    assert_audited(&data_dir);
    let count: i64 =
        open_database(&data_dir).query_row("SELECT count(*) FROM message", [], |row| row.get(0)).unwrap();
    assert_eq!(count, 16);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_process_is_refused_whatever_becomes_of_the_lock_file() {
    let folder = tempfile::tempdir().unwrap();
    let data_dir = folder.path().join("data");
    let receiver = Receiver::start(|_| Reply::status(200)).await;
    let process = DevProcess::start(&data_dir, &receiver.url()).await;
    send(&process, 2, 0).await;
    for _ in 0..2 {
        let said = failed_start(&data_dir).await;
        assert!(said.contains("in use by another mailkite process"), "{said}");
        drop(fs::remove_file(data_dir.join("mailkite.lock")));
    }
    send(&process, 2, 2).await;
    process.terminate().await;
    DevProcess::start(&data_dir, &receiver.url()).await.terminate().await;
    assert_audited(&data_dir);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_sweep_leaves_many_files_without_a_row_where_they_are() {
    let folder = tempfile::tempdir().unwrap();
    let data_dir = folder.path().join("kept");
    let server = Server::start().await;
    let day = server.data_dir().join("objects/2020-01-01");
    fs::create_dir(&day).unwrap();
    let long_ago = SystemTime::now() - Duration::from_secs(7200);
    for number in 0..40 {
        let file = day.join(format!("msg_{number:016}.eml"));
        fs::write(&file, "a mail that the database forgot").unwrap();
        fs::File::options().write(true).open(&file).unwrap().set_modified(long_ago).unwrap();
    }
    let objects = Objects::open(server.data_dir()).unwrap();
    let (db, clock) = (server.db.clone(), Clock::System);
    let retention = Retention { db, objects: objects.clone(), clock: clock.clone(), default_days: 30 };
    assert_eq!(retention.sweep(clock.now()).await.unwrap().orphans, 0);
    assert_eq!((objects.kept_orphans(), fs::read_dir(&day).unwrap().count()), (40, 40));
    copy_folder(server.data_dir(), &data_dir);
    server.stop().await;
    let (good, said) = recover(&data_dir, &["--accept-loss"]);
    assert!(good && said.contains("40 objects were moved"), "{said}");
    assert_eq!(fs::read_dir(data_dir.join("objects/orphaned/2020-01-01")).unwrap().count(), 40);
}
