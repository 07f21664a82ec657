//! Full disks: 452, reads go on, nothing is half-stored, and it recovers by itself once there is room.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use mailkite::testing::clock::Clock;
use serde_json::json;

use crate::support::api::Api;
use crate::support::audit::assert_audited;
use crate::support::database::{assert_sound, open_database, orphaned_objects};
use crate::support::dev_process::{DevProcess, http_get};
use crate::support::machine::skip;
use crate::support::receiver::{Receiver, Reply};
use crate::support::serve_process::ServeProcess;
use crate::support::server::{Server, message};
use crate::support::smtp::{SmtpClient, SmtpReply};

/// Limit for mail to be accepted again once there is room.
const RECOVERY: Duration = Duration::from_secs(10);

/// A small file system, unmounted when it is dropped.
struct SmallDisk {
    _dir: tempfile::TempDir,
    path: PathBuf,
}

impl SmallDisk {
    /// Mounts it; `None`, with the test skipped, where that is not permitted.
    fn mount(options: &str) -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("disk");
        fs::create_dir(&path).unwrap();
        let options = format!("mode=0700,{options}");
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", &options, "tmpfs"]).arg(&path).output();
        match mounted {
            Ok(output) if output.status.success() => return Some(Self { _dir: dir, path }),
            Ok(output) => skip(&format!("its small disk: {}", String::from_utf8_lossy(&output.stderr).trim())),
            Err(error) => skip(&format!("its small disk: mount: {error}")),
        }
        None
    }

    /// Fills the file system.
    fn fill(&self) -> PathBuf {
        let filler = self.path.join("filler");
        let mut file = File::create(&filler).unwrap();
        while file.write_all(&[b'x'; 4096]).is_ok() {}
        while file.write_all(b"x").is_ok() {}
        filler
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        drop(Command::new("umount").arg("-l").arg(&self.path).status());
    }
}

/// A mail of about this many octets.
fn sized(subject: &str, size: usize) -> String {
    format!("{}{}", message(subject), "A line of text that fills the mail up.\r\n".repeat(size / 40))
}

/// Sends one mail on a new connection; returns the first reply that is no success, or the last.
async fn attempt(address: std::net::SocketAddr, text: &str) -> SmtpReply {
    let mut client = SmtpClient::connect_and_greet(address).await;
    client.try_mail("ada@example.com", "a@inbox.test", text.as_bytes()).await.unwrap()
}

/// Repeats a mail until it is accepted, as a sender would; fails after the limit.
async fn until_taken(address: std::net::SocketAddr, subject: &str) {
    let deadline = Instant::now() + RECOVERY;
    let mut tries = 0;
    loop {
        let reply = attempt(address, &message(&format!("{subject} {tries}"))).await;
        if reply.code == 250 {
            return;
        }
        assert_eq!(reply.text(), "452 4.3.1 Insufficient storage, please come again");
        assert!(Instant::now() < deadline, "still refused {RECOVERY:?} after there is room again");
        tries += 1;
    }
}

fn stored(data_dir: &Path) -> i64 {
    open_database(data_dir).query_row("SELECT count(*) FROM message", [], |row| row.get(0)).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_is_reported_as_452_reads_go_on_and_it_recovers_by_itself() {
    let Some(disk) = SmallDisk::mount("size=24m") else { return };
    let mut receiver = Receiver::start(|_| Reply::status(200)).await;
    let data_dir = disk.path.join("data");
    let server = Server::start_with(Clock::System, |config| config.data_dir.clone_from(&data_dir)).await;
    server.webhook(&receiver.url()).await;
    let mut acknowledged = 0;
    for (subject, size) in [("small", 0), ("large", 200_000)] {
        assert_eq!(attempt(server.smtp, &sized(subject, size)).await.code, 250);
        acknowledged += 1;
    }
    for round in 0..2 {
        let filler = disk.fill();
        for (kind, size) in [("small", 0), ("large", 100_000), ("larger", 1_000_000)] {
            let mut reply = attempt(server.smtp, &sized(&format!("{kind} {round}"), size)).await;
            // A little room may be left inside the files that exist.
            for again in 0..200 {
                if reply.code != 250 {
                    break;
                }
                acknowledged += 1;
                reply = attempt(server.smtp, &sized(&format!("{kind} {round} {again}"), size)).await;
            }
            assert_eq!(reply.text(), "452 4.3.1 Insufficient storage, please come again", "{kind}");
        }
        // Known to be full, it says so before the data.
        let mut client = SmtpClient::connect_and_greet(server.smtp).await;
        client.expect("MAIL FROM:<ada@example.com>", 250).await;
        let reply = client.expect("RCPT TO:<a@inbox.test>", 452).await;
        assert!(reply.lines[0].starts_with("4.3.1 "), "{reply:?}");
        assert_eq!(server.query::<i64>("SELECT count(*) FROM message").await, acknowledged, "reads go on");
        let ready = server.anonymous().get("/api/ready").await;
        assert_eq!((ready.status, &ready.json["checks"]["storage"]), (503, &serde_json::json!(false)));
        fs::remove_file(filler).unwrap();
        until_taken(server.smtp, &format!("after {round}")).await;
        acknowledged += 1;
        assert_eq!(attempt(server.smtp, &sized(&format!("large after {round}"), 200_000)).await.code, 250);
        acknowledged += 1;
    }
    // A webhook whose settlement met the full disk is repeated after its lease; each has been made once by now.
    let mut subjects = HashSet::new();
    while i64::try_from(subjects.len()).unwrap() < acknowledged {
        subjects.insert(receiver.next_request().await.json()["subject"].as_str().unwrap().to_owned());
    }
    server.stop_with_any_jobs().await;
    assert_eq!(stored(&data_dir), acknowledged);
    assert_eq!(orphaned_objects(&data_dir), Vec::<String>::new());
}

/// A mail of about this many octets that does not compress.
fn incompressible(subject: &str, size: usize) -> String {
    let mut seed =
        subject.bytes().fold(0x9e37_79b9_7f4a_7c15_u64, |seed, byte| (seed ^ u64::from(byte)) << 5 | seed >> 59);
    let mut text = message(subject);
    while text.len() < size {
        for _ in 0..4 {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            text.push_str(&format!("{:016x}", seed.rotate_left(17) ^ seed >> 29));
        }
        text.push_str("\r\n");
    }
    text
}

#[tokio::test(flavor = "multi_thread")]
async fn a_small_disk_is_filled_by_mail_and_not_by_the_log_of_the_database() {
    const DISK: u64 = 40 << 20;
    let Some(disk) = SmallDisk::mount("size=40m") else { return };
    let mut receiver = Receiver::start(|_| Reply::status(200)).await;
    let data_dir = disk.path.join("data");
    let server = Server::start_with(Clock::System, |config| config.data_dir.clone_from(&data_dir)).await;
    server.webhook(&receiver.url()).await;
    let ballast = disk.path.join("ballast");
    fs::write(&ballast, vec![b'x'; 8 << 20]).unwrap();
    let mut acknowledged = 0;
    let mut stored_octets = 0;
    loop {
        let text = incompressible(&format!("mail {acknowledged}"), 30_000);
        let reply = attempt(server.smtp, &text).await;
        if reply.code != 250 {
            assert_eq!(reply.text(), "452 4.3.1 Insufficient storage, please come again");
            break;
        }
        acknowledged += 1;
        stored_octets += text.len() as u64 / 2;
        assert!(stored_octets < DISK, "more is stored than there is room for");
        receiver.next_request().await;
    }
    let log = fs::metadata(data_dir.join("mailkite.db-wal")).unwrap().len();
    assert!(log < DISK / 8, "the log holds {log} octets of a disk of {DISK}");
    assert!(stored_octets > DISK / 4, "only {stored_octets} octets of mail found room on a disk of {DISK}");
    fs::remove_file(&ballast).unwrap();
    until_taken(server.smtp, "after").await;
    acknowledged += 1;
    receiver.next_request().await;
    // And on and on, as far as the room goes.
    for number in 0..60 {
        let reply = attempt(server.smtp, &incompressible(&format!("more {number}"), 30_000)).await;
        assert_eq!(reply.code, 250, "{reply:?}");
        acknowledged += 1;
        receiver.next_request().await;
    }
    server.stop_with_any_jobs().await;
    assert_eq!(stored(&data_dir), acknowledged);
    assert_eq!(orphaned_objects(&data_dir), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_holds_the_log_of_the_database_back_is_named_and_shown() {
    let Some(disk) = SmallDisk::mount("size=60m") else { return };
    let token = "a-token-of-thirty-two-characters";
    let sections = format!("[metrics]\nlisten = \"off\"\ntoken = \"{token}\"\n");
    let mut served = ServeProcess::start_with(&disk.path, &sections).await;
    let api = Api::anonymous(served.http);
    let setup = served.wait_for_log("this server has no owner yet").await["setup_token"].clone();
    let account = json!({"email": "ada@inbox.test", "password": "correct horse battery", "setupToken": setup});
    let session = api.post("/api/auth/signup", account).await.expect(201)["token"].as_str().unwrap().to_owned();
    let owner = api.with(session);
    let in_use = async || {
        let metrics = api.with(token).exchange("GET", "/metrics", &[], None).await;
        let metrics = String::from_utf8(metrics.body).unwrap();
        let octets = metrics.lines().find_map(|line| line.strip_prefix("mailkite_wal_bytes ")).unwrap();
        octets.parse::<f64>().unwrap()
    };
    let template = json!({"name": "Letter", "subject": "s", "text": "t"});
    let made = owner.post("/api/templates", template.clone()).await.expect(201);
    let path = format!("/api/templates/{}", made["id"].as_str().unwrap());
    let write = async |number: usize| {
        let mut template = template.clone();
        template["text"] = BASE64.encode(incompressible(&format!("template {number}"), 60_000)).into();
        owner.put(&path, template).await.expect(200);
    };

    // Another process, such as a copy that takes hours.
    let script = "import sqlite3, sys\nread = sqlite3.connect(sys.argv[1])\nread.execute('BEGIN')\n\
                  read.execute('SELECT count(*) FROM message').fetchone()\nprint(flush=True)\nsys.stdin.read()";
    let mut reader = Command::new("python3")
        .args(["-c", script])
        .arg(disk.path.join("data/mailkite.db"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    BufReader::new(reader.stdout.as_mut().unwrap()).read_line(&mut String::new()).unwrap();
    let mut number = 0;
    while in_use().await < 10_000_000.0 {
        write(number).await;
        number += 1;
        assert!(number < 300, "{} octets", in_use().await);
    }
    let logged = served.wait_for_log("the database's log is large").await;
    let named = logged["others"].as_str().unwrap().to_owned();
    assert!(named.contains(&format!("({})", reader.id())), "{named}");

    drop(reader.stdin.take());
    assert!(reader.wait().unwrap().success());
    let deadline = Instant::now() + RECOVERY;
    while in_use().await > 5_000_000.0 {
        write(number).await;
        number += 1;
        assert!(Instant::now() < deadline, "{} octets without a reader", in_use().await);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn on_a_full_disk_sending_says_when_to_try_again_and_deleting_makes_room() {
    let Some(disk) = SmallDisk::mount("size=24m") else { return };
    let data_dir = disk.path.join("data");
    let server = Server::start_with(Clock::System, |config| config.data_dir.clone_from(&data_dir)).await;
    let owner = server.owner().await;
    let mut ids = Vec::new();
    for number in 0..6 {
        let reply = attempt(server.smtp, &incompressible(&format!("old {number}"), 1_000_000)).await;
        assert_eq!(reply.code, 250, "{reply:?}");
        ids.push(reply.text().split_whitespace().find(|word| word.starts_with("msg_")).unwrap().to_owned());
    }
    let _filler = disk.fill();
    let content = BASE64.encode(incompressible("file", 200_000));
    let send = json!({"from": "hi@inbox.test", "to": "ada@remote.test", "subject": "Hi", "text": "See below.",
        "attachments": [{"filename": "n.txt", "content": content}]});
    let file = json!({"filename": "n.txt", "content": content});
    for (path, body) in [("/v1/send", &send), ("/v1/attachments", &file)] {
        let refused = owner.post(path, body.clone()).await;
        assert_eq!((refused.status, refused.code()), (503, "unavailable"), "{path} {}", refused.json);
        let seconds: u64 = refused.header("retry-after").unwrap().parse().unwrap();
        assert!((1..=3600).contains(&seconds), "{path} {seconds}");
    }
    while attempt(server.smtp, &message(&format!("more {}", ids.len()))).await.code == 250 {
        ids.push("a little room is left in the files that exist".to_owned());
    }
    for id in ids.iter().filter(|id| id.starts_with("msg_")) {
        owner.delete(&format!("/api/messages/{id}")).await.expect(200);
    }
    until_taken(server.smtp, "after").await;
    owner.post("/v1/send", send).await.expect(202);
    owner.post("/v1/attachments", file).await.expect(201);
    server.stop_with_any_jobs().await;
    assert_sound(&data_dir);
    assert_audited(&data_dir);
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_kill_on_a_full_disk_it_starts_and_deleting_makes_room_for_mail() {
    let Some(disk) = SmallDisk::mount("size=24m") else { return };
    let (folder, data_dir) = (tempfile::tempdir().unwrap(), disk.path.join("data"));
    fs::DirBuilder::new().mode(0o700).create(&data_dir).unwrap();
    symlink(&data_dir, folder.path().join("data")).unwrap();
    let mut served = ServeProcess::start(folder.path()).await;
    let setup = served.wait_for_log("this server has no owner yet").await["setup_token"].clone();
    let mut login = json!({"email": "ada@inbox.test", "password": "correct horse battery", "setupToken": setup});
    Api::anonymous(served.http).post("/api/auth/signup", login.clone()).await.expect(201);
    served.signal(rustix::process::Signal::TERM);
    assert!(served.child.wait().await.unwrap().success());

    // This one makes inbox.test the owner's.
    let receiver = Receiver::start(|_| Reply::status(503)).await;
    let process = DevProcess::start(&data_dir, &receiver.url()).await;
    let mut ids = Vec::new();
    for number in 0..6 {
        let reply = attempt(process.smtp, &incompressible(&format!("old {number}"), 1_000_000)).await;
        assert_eq!(reply.code, 250, "{reply:?}");
        ids.push(reply.text().split_whitespace().find(|word| word.starts_with("msg_")).unwrap().to_owned());
    }
    let filler = disk.fill();
    for number in 0.. {
        if attempt(process.smtp, &sized(&format!("more {number}"), 10_000)).await.code != 250 {
            break;
        }
    }
    process.kill().await;
    // Whatever it gave back is taken by others meanwhile.
    let mut file = File::options().append(true).open(&filler).unwrap();
    while file.write_all(b"x").is_ok() {}

    let mut served = ServeProcess::start(folder.path()).await;
    login.as_object_mut().unwrap().remove("setupToken");
    let session = Api::anonymous(served.http).post("/api/auth/login", login).await.expect(200);
    let owner = Api::anonymous(served.http).with(session["token"].as_str().unwrap());
    assert!(owner.get("/api/messages").await.expect(200).as_array().unwrap().len() >= ids.len());
    let reply = attempt(served.smtp, &sized("refused", 100_000)).await;
    assert_eq!(reply.text(), "452 4.3.1 Insufficient storage, please come again");
    for id in &ids {
        owner.delete(&format!("/api/messages/{id}")).await.expect(200);
    }
    until_taken(served.smtp, "after").await;
    served.signal(rustix::process::Signal::TERM);
    assert!(served.child.wait().await.unwrap().success());
    assert_sound(&data_dir);
    assert_audited(&data_dir);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_without_inodes_refuses_what_needs_a_file_and_takes_the_rest() {
    let Some(disk) = SmallDisk::mount("size=64m,nr_inodes=100") else { return };
    let data_dir = disk.path.join("data");
    let server = Server::start_with(Clock::System, |config| config.data_dir.clone_from(&data_dir)).await;
    assert_eq!(attempt(server.smtp, &message("before")).await.code, 250);
    let fillers = disk.path.join("fillers");
    fs::create_dir(&fillers).unwrap();
    let mut count = 0;
    while File::create(fillers.join(count.to_string())).is_ok() {
        count += 1;
    }
    let reply = attempt(server.smtp, &sized("large", 1_000_000)).await;
    assert_eq!(reply.text(), "452 4.3.1 Insufficient storage, please come again");
    fs::remove_dir_all(&fillers).unwrap();
    until_taken(server.smtp, "after").await;
    assert_eq!(attempt(server.smtp, &sized("large", 1_000_000)).await.code, 250);
    server.stop().await;
    assert_eq!(stored(&data_dir), 3);
    assert_eq!(orphaned_objects(&data_dir), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_size_limit_is_met_like_a_full_disk() {
    let dir = tempfile::tempdir().unwrap();
    let data_dir = dir.path().join("data");
    let receiver = Receiver::start(|_| Reply::status(200)).await;
    // 2 MiB for every file, the log of the database included; only the soft limit.
    let wrapper = ["prlimit", "--fsize=2097152:unlimited"];
    let process = DevProcess::start_under(&wrapper, &data_dir, &receiver.url()).await;
    let mut acknowledged = 0;
    let reply = attempt(process.smtp, &sized("too large", 4_000_000)).await;
    assert_eq!(reply.text(), "452 4.3.1 Insufficient storage, please come again");
    until_taken(process.smtp, "small").await;
    acknowledged += 1;
    // Until the log of the database is at the limit.
    let mut reply = attempt(process.smtp, &message("more")).await;
    while reply.code == 250 {
        acknowledged += 1;
        assert!(acknowledged < 5_000, "the limit has no effect");
        reply = attempt(process.smtp, &sized(&format!("more {acknowledged}"), 40_000)).await;
    }
    assert_eq!(reply.text(), "452 4.3.1 Insufficient storage, please come again");
    assert_eq!(http_get(&process.http, "/api/health").await.0, 200);
    let raised = Command::new("prlimit").args(["--fsize=unlimited", "--pid", &process.id().to_string()]).status();
    assert!(raised.unwrap().success());
    until_taken(process.smtp, "after").await;
    acknowledged += 1;
    assert_eq!(attempt(process.smtp, &sized("large after", 4_000_000)).await.code, 250);
    acknowledged += 1;
    process.terminate().await;
    assert_sound(&data_dir);
    assert_audited(&data_dir);
    assert_eq!(stored(&data_dir), acknowledged);
    assert_eq!(orphaned_objects(&data_dir), Vec::<String>::new());
}
