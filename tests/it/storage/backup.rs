//! `mailkite backup`, `verify` and `restore`: what was acknowledged before a backup is in it, and comes back.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::support::audit::{assert_audited, assert_ledger};
use crate::support::database::{assert_sound, open_database};
use crate::support::machine::skip;
use crate::support::promises::{Kind, Promises};
use crate::support::serve_process::{ServeProcess, configure};
use crate::support::smtp::SmtpClient;

const DEADLINE: Duration = Duration::from_secs(30);

/// Runs a command on a path; returns true when it succeeded, and its output.
fn run(command: &str, path: &Path, arguments: &[&str]) -> (bool, String) {
    let output =
        Command::new(env!("CARGO_BIN_EXE_mailkite")).arg(command).arg(path).args(arguments).output().unwrap();
    (output.status.success(), String::from_utf8([output.stdout, output.stderr].concat()).unwrap())
}

/// Makes a backup; returns its report.
#[track_caller]
fn back_up(data_dir: &Path, dest: &Path, arguments: &[&str]) -> Value {
    let arguments = [&["--json", "--data-dir", data_dir.to_str().unwrap()], arguments].concat();
    let (good, said) = run("backup", dest, &arguments);
    assert!(good, "{said}");
    serde_json::from_str(&said).unwrap_or_else(|error| panic!("{error}: {said}"))
}

#[track_caller]
fn assert_verified(path: &Path) -> String {
    let (good, said) = run("verify", path, &[]);
    assert!(good && !said.contains('✗'), "{said}");
    said
}

/// Lists the names in a folder.
fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// Finds all files below a folder.
fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
        if entry.path().is_dir() { found.extend(files(&entry.path())) } else { found.push(entry.path()) }
    }
    found.sort();
    found
}

fn mail(number: usize) -> String {
    let line = format!("A line of mail {number}, again and again.\r\n");
    format!(
        "From: ada@example.com\r\nSubject: {number}\r\n\r\n{}",
        line.repeat(if number.is_multiple_of(2) { 2_000 } else { 1 })
    )
}

/// A data directory that was in use, with a few mails of which every second one is an object.
async fn used_data_dir(folder: &Path, mails: usize) -> PathBuf {
    let data_dir = folder.join("data");
    let (mut served, _) = ServeProcess::start_owned(folder, "").await;
    let mut client = SmtpClient::connect_and_greet(served.smtp).await;
    for number in 0..mails {
        assert_eq!(client.mail("ada@example.com", &["a@inbox.test"], mail(number)).await.code, 250);
    }
    served.child.kill().await.unwrap();
    data_dir
}

/// Senders that deliver mail to load@acme.test until they are stopped.
struct Load {
    stop: Arc<AtomicBool>,
    accepted: Arc<AtomicUsize>,
    senders: Vec<tokio::task::JoinHandle<()>>,
}

impl Load {
    fn start(smtp: std::net::SocketAddr) -> Self {
        let (stop, accepted) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let sender = |number: usize| {
            let (stop, accepted) = (Arc::clone(&stop), Arc::clone(&accepted));
            tokio::spawn(async move {
                let mut client = SmtpClient::connect_and_greet(smtp).await;
                let mut next = 1_000_000 * (number + 1);
                while !stop.load(Ordering::Relaxed) {
                    next += 1;
                    assert_eq!(client.mail("ada@example.com", &["load@acme.test"], mail(next)).await.code, 250);
                    accepted.fetch_add(1, Ordering::Relaxed);
                    if next.is_multiple_of(40) {
                        client = SmtpClient::connect_and_greet(smtp).await;
                    }
                }
            })
        };
        let senders = (0..4).map(sender).collect();
        Self { stop, accepted, senders }
    }

    async fn until_accepted(&self, count: usize) {
        let deadline = Instant::now() + DEADLINE;
        while self.accepted.load(Ordering::Relaxed) < count {
            assert!(Instant::now() < deadline, "the load does not get through");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    async fn end(self) {
        self.stop.store(true, Ordering::Relaxed);
        for sender in self.senders {
            sender.await.unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_acknowledged_before_a_backup_under_load_is_restored_with_its_content() {
    let folder = tempfile::tempdir().unwrap();
    let mut promises = Promises::new().await;
    let data_dir = promises.data_dir(folder.path());
    let mut served = ServeProcess::start_with(folder.path(), promises.sections()).await;
    for _ in 0..2 {
        for kind in Kind::ALL {
            let number = promises.number();
            assert!(promises.offer(served.listeners(), kind, number).await, "{kind:?}");
        }
    }
    let ledger = promises.ledger();
    let load = Load::start(served.smtp);
    load.until_accepted(100).await;
    let dest = folder.path().join("backups");
    let (from, to) = (data_dir.clone(), dest.clone());
    let made = tokio::task::spawn_blocking(move || back_up(&from, &to, &["--with-key"])).await.unwrap();
    let before = load.accepted.load(Ordering::Relaxed);
    load.until_accepted(before + 50).await;
    load.end().await;
    served.child.kill().await.unwrap();
    assert!(made["messages"].as_u64().unwrap() >= 100 && made["objects"].as_u64().unwrap() >= 50, "{made}");
    assert_eq!(made["damaged"], serde_json::json!([]), "{made}");
    // The server's own files are as they were.
    assert_audited(&data_dir);
    assert_verified(&dest);
    let other = tempfile::tempdir().unwrap();
    let restored = other.path().join("data");
    let (good, said) = run("restore", &dest, &["--data-dir", restored.to_str().unwrap()]);
    assert!(good && said.contains("mailkite audit"), "{said}");
    assert_sound(&restored);
    assert_ledger(&restored, &ledger);
    // It starts as it is, and everything can be read by the API.
    let again = ServeProcess::start_with(other.path(), promises.sections()).await;
    let broken = promises.find_broken(again.listeners()).await;
    assert!(broken.is_empty(), "{broken:#?}");
    assert_verified(&dest);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_beside_the_data_links_its_objects_and_a_later_one_adds_only_what_is_new() {
    let folder = tempfile::tempdir().unwrap();
    let data_dir = used_data_dir(folder.path(), 10).await;
    let dest = folder.path().join("backups");
    let first = back_up(&data_dir, &dest, &[]);
    assert_eq!((&first["objects"], &first["linked"], &first["copied"]), (&5.into(), &5.into(), &0.into()), "{first}");
    let first = PathBuf::from(first["path"].as_str().unwrap());
    for file in files(&first.join("objects")) {
        let live = data_dir.join(file.strip_prefix(&first).unwrap());
        assert_eq!(fs::metadata(&file).unwrap().ino(), fs::metadata(live).unwrap().ino(), "{}", file.display());
    }
    for path in [&dest, &first, &first.join("objects")] {
        assert_eq!(fs::metadata(path).unwrap().mode() & 0o777, 0o700, "{}", path.display());
    }
    for file in files(&first) {
        assert_eq!(fs::metadata(&file).unwrap().mode() & 0o777, 0o600, "{}", file.display());
    }
    // What retention removes later stays in the backup.
    fs::remove_dir_all(data_dir.join("objects")).unwrap();
    assert_verified(&first);
}

#[tokio::test(flavor = "multi_thread")]
async fn on_another_file_system_objects_are_copied_once() {
    let Ok(other) = tempfile::tempdir_in("/dev/shm") else { return skip("/dev/shm") };
    let folder = tempfile::tempdir().unwrap();
    if fs::metadata(other.path()).unwrap().dev() == fs::metadata(folder.path()).unwrap().dev() {
        return skip("/dev/shm is the same file system");
    }
    let data_dir = used_data_dir(folder.path(), 10).await;
    let dest = other.path().join("backups");
    let first = back_up(&data_dir, &dest, &[]);
    assert_eq!((&first["linked"], &first["copied"]), (&0.into(), &5.into()), "{first}");
    let second = back_up(&data_dir, &dest, &[]);
    assert_eq!((&second["reused"], &second["copied"]), (&5.into(), &0.into()), "{second}");
    let [first, second] = [first, second].map(|made| PathBuf::from(made["path"].as_str().unwrap()));
    for file in files(&second.join("objects")) {
        let before = first.join(file.strip_prefix(&second).unwrap());
        assert_eq!(fs::metadata(&file).unwrap().ino(), fs::metadata(before).unwrap().ino(), "{}", file.display());
    }
    assert_verified(&first);
    // An object that is damaged in the data directory is taken from the backup before.
    let object = files(&data_dir.join("objects")).remove(0);
    fs::write(&object, "short").unwrap();
    let third = back_up(&data_dir, &dest, &["--keep", "2"]);
    assert_eq!((&third["reused"], &third["olderRemoved"]), (&5.into(), &1.into()), "{third}");
    assert_verified(Path::new(third["path"].as_str().unwrap()));
    assert!(!first.exists() && second.exists());
    // In no backup before, it is reported, and nothing older is removed.
    let away = other.path().join("elsewhere");
    let arguments = ["--data-dir", data_dir.to_str().unwrap(), "--keep", "1"];
    let (good, said) = run("backup", &away, &arguments);
    assert!(!good && said.contains("1 object is missing or damaged") && said.contains("mailkite audit"), "{said}");
    let (good, said) = run("verify", &away, &[]);
    assert!(!good && said.contains("✗ mail") && said.contains("is missing"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn so_many_backups_are_kept_and_what_interrupted_ones_left_goes() {
    let folder = tempfile::tempdir().unwrap();
    let data_dir = used_data_dir(folder.path(), 4).await;
    let dest = folder.path().join("backups");
    fs::create_dir_all(dest.join(".partial-2026-01-01T000000.000Z/objects")).unwrap();
    fs::create_dir_all(dest.join("notes of mine")).unwrap();
    let mut made: Vec<String> = (0..4)
        .map(|_| {
            back_up(&data_dir, &dest, &["--keep", "2"])["path"]
                .as_str()
                .unwrap()
                .rsplit('/')
                .next()
                .unwrap()
                .to_owned()
        })
        .collect();
    let kept = made.split_off(2);
    assert_eq!(names(&dest), [kept, vec!["notes of mine".to_owned()]].concat());
    assert_verified(&dest);
}

#[tokio::test(flavor = "multi_thread")]
async fn verify_names_the_part_that_was_changed() {
    let folder = tempfile::tempdir().unwrap();
    let data_dir = used_data_dir(folder.path(), 6).await;
    let dest = folder.path().join("backups");
    let whole = PathBuf::from(back_up(&data_dir, &dest, &["--with-key"])["path"].as_str().unwrap());
    let said = assert_verified(&whole);
    for check in ["manifest", "files", "database", "mail", "uploads", "rows", "counts", "key"] {
        assert!(said.contains(&format!("✓ {check}")), "{check}: {said}");
    }
    let object = files(&whole.join("objects")).remove(0);
    let object = object.strip_prefix(&whole).unwrap().to_str().unwrap();
    let other_key = folder.path().join("other.key");
    fs::copy(whole.join("master.key"), &other_key).unwrap();
    fs::write(&other_key, [7; 32]).unwrap();
    for (name, at, found) in [
        (object, 900, "✗ mail"),
        ("mailkite.db", 40_000, "✗ files"),
        ("manifest.json", 200, "✗ manifest"),
        ("master.key", 3, "✗ key"),
    ] {
        let path = whole.join(name);
        let bytes = fs::read(&path).unwrap();
        let mut changed = bytes.clone();
        changed[at] ^= 1;
        // Another file: the present one may be a link.
        fs::remove_file(&path).unwrap();
        fs::write(&path, &changed).unwrap();
        fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
        let (good, said) = run("verify", &whole, &[]);
        assert!(!good && said.contains(found), "{name}: {said}");
        assert!(name != object || said.contains(object), "{said}");
        let to = folder.path().join("restored");
        let (good, said) = run("restore", &whole, &["--data-dir", to.to_str().unwrap()]);
        assert!(!good && !to.exists(), "{name}: {said}");
        fs::write(&path, bytes).unwrap();
    }
    fs::remove_file(whole.join(object)).unwrap();
    let (good, said) = run("verify", &whole, &[]);
    assert!(!good && said.contains("is missing"), "{said}");
    let (good, said) = run("verify", &whole, &["--key", other_key.to_str().unwrap()]);
    assert!(!good && said.contains("is not the key of this database"), "{said}");
    // What is left can be restored nevertheless, if that is asked for.
    let to = folder.path().join("restored");
    let (good, said) = run("restore", &whole, &["--accept-loss", "--data-dir", to.to_str().unwrap()]);
    assert!(good, "{said}");
    assert_eq!(files(&to.join("objects")).len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_that_is_killed_leaves_nothing_that_looks_whole() {
    let Ok(other) = tempfile::tempdir_in("/dev/shm") else { return skip("/dev/shm") };
    let folder = tempfile::tempdir().unwrap();
    let data_dir = used_data_dir(folder.path(), 60).await;
    let dest = other.path().join("backups");
    for until in [0, 1, 10, 25] {
        let mut child = Command::new(env!("CARGO_BIN_EXE_mailkite"))
            .arg("backup")
            .arg(&dest)
            .arg("--data-dir")
            .arg(&data_dir)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let deadline = Instant::now() + DEADLINE;
        let partial = || {
            let names = fs::read_dir(&dest).into_iter().flatten().flatten();
            names.map(|entry| entry.path()).find(|path| path.to_str().unwrap().contains("/.partial-"))
        };
        let copied = |path: PathBuf| {
            let days = fs::read_dir(path.join("objects")).into_iter().flatten().flatten();
            days.map(|day| fs::read_dir(day.path()).into_iter().flatten().count()).sum::<usize>()
        };
        while child.try_wait().unwrap().is_none() && partial().is_none_or(|path| copied(path) < until) {
            assert!(Instant::now() < deadline);
        }
        child.kill().unwrap();
        child.wait().unwrap();
        for name in names(&dest).iter().filter(|name| !name.starts_with(".partial-")) {
            assert_verified(&dest.join(name));
        }
    }
    back_up(&data_dir, &dest, &[]);
    assert!(names(&dest).iter().all(|name| !name.starts_with('.')), "{:?}", names(&dest));
    assert_verified(&dest);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restore_overwrites_nothing_and_needs_the_key() {
    let folder = tempfile::tempdir().unwrap();
    let data_dir = used_data_dir(folder.path(), 4).await;
    let dest = folder.path().join("backups");
    let (good, said) = run("backup", &dest, &["--config", folder.path().join("mailkite.toml").to_str().unwrap()]);
    assert!(good && said.contains("master.key elsewhere"), "{said}");
    let made = dest.join(names(&dest).remove(0));
    assert!(!made.join("master.key").exists() && made.join("mailkite.toml").exists());
    let to = folder.path().join("restored");
    let target = ["--data-dir", to.to_str().unwrap()];
    let (good, said) = run("restore", &dest, &target);
    assert!(!good && said.contains("--key FILE") && !to.exists(), "{said}");
    let key = data_dir.join("master.key");
    let wrong = folder.path().join("wrong.key");
    fs::copy(&key, &wrong).unwrap();
    fs::write(&wrong, [1; 32]).unwrap();
    let (good, said) = run("restore", &dest, &[&target[..], &["--key", wrong.to_str().unwrap()]].concat());
    assert!(!good && said.contains("is not the master key of this backup") && !to.exists(), "{said}");
    let with_key = [&target[..], &["--key", key.to_str().unwrap()]].concat();
    let (good, said) =
        run("restore", &dest, &["--data-dir", data_dir.to_str().unwrap(), "--key", key.to_str().unwrap()]);
    assert!(!good && said.contains("is not empty") && said.contains("mv "), "{said}");
    let (good, said) = run("restore", &dest, &with_key);
    assert!(good, "{said}");
    let (good, said) = run("restore", &dest, &with_key);
    assert!(!good && said.contains("is not empty"), "{said}");
    assert_audited(&to);
    // A restore that was interrupted neither starts nor goes on.
    fs::rename(to.join("mailkite.db"), to.join("mailkite.db.restoring")).unwrap();
    let (good, said) = run("restore", &dest, &with_key);
    assert!(!good && said.contains("a restore that did not end"), "{said}");
    fs::rename(&to, folder.path().join("elsewhere")).unwrap();
    fs::remove_dir_all(&data_dir).unwrap();
    fs::rename(folder.path().join("elsewhere"), &data_dir).unwrap();
    let config = configure(folder.path(), "");
    let output =
        Command::new(env!("CARGO_BIN_EXE_mailkite")).args(["serve", "--config"]).arg(config).output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(!output.status.success() && said.contains("restore a backup"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_of_an_earlier_version_can_give_room_back_once_it_is_restored() {
    let folder = tempfile::tempdir().unwrap();
    let data_dir = used_data_dir(folder.path(), 4).await;
    let earlier = open_database(&data_dir);
    earlier.pragma_update(None, "journal_mode", "DELETE").unwrap();
    earlier.execute_batch("PRAGMA auto_vacuum = NONE; VACUUM; PRAGMA journal_mode = WAL").unwrap();
    drop(earlier);
    fs::remove_file(data_dir.join("mailkite.mark")).unwrap();
    let dest = folder.path().join("backups");
    back_up(&data_dir, &dest, &["--with-key"]);
    let to = folder.path().join("restored");
    let (good, said) = run("restore", &dest, &["--data-dir", to.to_str().unwrap()]);
    assert!(good, "{said}");
    assert_eq!(names(&to), ["mailkite.db", "mailkite.lock", "master.key", "objects"]);
    let maps = |data_dir: &Path| -> i64 {
        open_database(data_dir).pragma_query_value(None, "auto_vacuum", |row| row.get(0)).unwrap()
    };
    assert_eq!((maps(&data_dir), maps(&to)), (0, 2));
    fs::rename(&data_dir, folder.path().join("old")).unwrap();
    fs::rename(&to, &data_dir).unwrap();
    ServeProcess::start(folder.path()).await.child.kill().await.unwrap();
    assert_audited(&data_dir);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_goes_neither_into_the_data_directory_nor_takes_one_that_lost_its_log() {
    let folder = tempfile::tempdir().unwrap();
    let data_dir = used_data_dir(folder.path(), 4).await;
    let arguments = ["--data-dir", data_dir.to_str().unwrap()];
    for inside in [data_dir.clone(), data_dir.join("backups/daily")] {
        let (good, said) = run("backup", &inside, &arguments);
        assert!(!good && said.contains("in the data directory itself") && !inside.join("backups").exists(), "{said}");
    }
    let secret = format!("[metrics]\nlisten = \"off\"\ntoken = \"{}\"\n", "s".repeat(32));
    let config = configure(folder.path(), &secret);
    let dest = folder.path().join("backups");
    let (good, said) = run("backup", &dest, &["--config", config.to_str().unwrap()]);
    assert!(good && said.contains("because it holds metrics.token"), "{said}");
    assert_eq!(names(&dest.join(names(&dest).remove(0))), ["mailkite.db", "manifest.json", "objects"]);
    let (good, said) = run("backup", &dest, &["--with-key", "--config", config.to_str().unwrap()]);
    assert!(good && !said.contains("elsewhere"), "{said}");
    assert!(names(&dest.join(names(&dest).remove(1))).contains(&"mailkite.toml".to_owned()));
    fs::remove_file(data_dir.join("mailkite.db-wal")).unwrap();
    let (good, said) = run("backup", &dest, &arguments);
    assert!(!good && said.contains("mailkite recover"), "{said}");
    assert_eq!(names(&dest).len(), 2);
    let nothing = folder.path().join("nothing");
    let (good, said) = run("verify", &folder.path().join("data/objects"), &[]);
    assert!(!good && said.contains("there is no backup in"), "{said}");
    let (good, said) = run("backup", &dest, &["--data-dir", nothing.to_str().unwrap()]);
    assert!(!good && !nothing.exists(), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_in_the_data_directory_leads_the_note_of_a_backup_nowhere() {
    let folder = tempfile::tempdir().unwrap();
    let data_dir = used_data_dir(folder.path(), 2).await;
    let victim = folder.path().join("victim");
    fs::write(&victim, "untouched").unwrap();
    std::os::unix::fs::symlink(&victim, data_dir.join("mailkite.backup.new")).unwrap();
    back_up(&data_dir, &folder.path().join("backups"), &[]);
    assert_eq!(fs::read_to_string(&victim).unwrap(), "untouched");
    let noted = fs::symlink_metadata(data_dir.join("mailkite.backup")).unwrap();
    assert!(noted.is_file() && noted.len() > 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_of_the_future_keeps_the_others() {
    let folder = tempfile::tempdir().unwrap();
    let data_dir = used_data_dir(folder.path(), 2).await;
    let backups = folder.path().join("backups");
    back_up(&data_dir, &backups, &[]);
    fs::create_dir(backups.join("2099-01-01T000000.000Z")).unwrap();
    let (good, said) = run("backup", &backups, &["--keep", "1", "--data-dir", data_dir.to_str().unwrap()]);
    assert!(!good && said.contains("is the clock right?"), "{said}");
    assert_eq!(names(&backups).len(), 3, "{said}");
}
