//! `mailkite check` as an operator meets it: the real binary, its words and its exit code.

use std::fs;
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::Path;
use std::process::Command;

use tempfile::TempDir;

const REQUIRED: &str = "hostname = \"mx.example.com\"\npublic_url = \"https://mail.example.com\"\n";

struct Checked {
    code: Option<i32>,
    out: String,
    err: String,
}

/// Writes `text` into `folder` and runs `mailkite check` on it.
fn check(folder: &TempDir, text: &str) -> Checked {
    let file = folder.path().join("mailkite.toml");
    fs::write(&file, text).unwrap();
    check_file(&file)
}

fn check_file(file: &Path) -> Checked {
    let binary = env!("CARGO_BIN_EXE_mailkite");
    let output = Command::new(binary).arg("check").arg("--config").arg(file).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    Checked { code: output.status.code(), out: text(output.stdout), err: text(output.stderr) }
}

fn make_data_dir(folder: &TempDir, mode: u32) {
    let data = folder.path().join("data");
    fs::DirBuilder::new().mode(0o700).create(&data).unwrap();
    fs::set_permissions(data, fs::Permissions::from_mode(mode)).unwrap();
}

#[test]
fn a_good_configuration_is_confirmed_and_nothing_is_made() {
    let folder = tempfile::tempdir().unwrap();
    let checked = check(&folder, &format!("{REQUIRED}data_dir = \"data\"\n"));
    assert_eq!(checked.code, Some(0), "{}{}", checked.out, checked.err);
    assert!(checked.out.contains("is valid, for mx.example.com"), "{}", checked.out);
    assert!(checked.out.contains("data will be created at the first start"), "{}", checked.out);
    assert!(checked.out.contains("self-signed"), "{}", checked.out);
    assert_eq!(checked.err, "");
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "only the configuration is there");
}

#[test]
fn a_source_address_has_to_be_this_machines() {
    let folder = tempfile::tempdir().unwrap();
    let with = |address: &str| {
        check(&folder, &format!("{REQUIRED}data_dir = \"data\"\n[outbound]\nsource_addresses = [\"{address}\"]\n"))
    };
    let own = with("127.0.0.1");
    assert_eq!(own.code, Some(0), "{}", own.err);
    assert!(own.out.contains("127.0.0.1 belongs to this machine"), "{}", own.out);
    let other = with("192.0.2.1");
    assert_eq!(other.code, Some(1), "{}", other.out);
    assert!(other.out.contains("192.0.2.1 is not an address of this machine"), "{}", other.out);
}

#[test]
fn a_configuration_with_secrets_is_not_for_everybody_to_read() {
    let folder = tempfile::tempdir().unwrap();
    let plain = format!("{REQUIRED}data_dir = \"data\"\n");
    let token = format!("{plain}[metrics]\ntoken = \"0123456789abcdef0123\"\n");
    let relay = format!(
        "{plain}[outbound.domain_smarthosts.\"acme.dev\"]\nhost = \"smtp.example.net\"\nusername = \"u\"\n\
         password = \"p\"\n"
    );
    for (text, mode, told) in [
        (&plain, 0o644, None),
        (&token, 0o640, None),
        (&token, 0o644, Some("metrics.token")),
        (&relay, 0o604, Some("the password of a smarthost")),
    ] {
        let file = folder.path().join("mailkite.toml");
        fs::write(&file, text).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(mode)).unwrap();
        let checked = check_file(&file);
        assert_eq!(checked.code, Some(0), "{}{}", checked.out, checked.err);
        let line = checked.out.lines().find(|line| line.starts_with("! secrets"));
        match (told, line) {
            (Some(what), Some(line)) => {
                assert!(line.contains(what) && line.contains("chmod 640") && !line.contains("0123456789"), "{line}");
            }
            (told, line) => assert_eq!((told, line), (None, None), "{text}"),
        }
    }
}

#[test]
fn every_problem_is_printed_with_its_key_and_line() {
    let folder = tempfile::tempdir().unwrap();
    let text = "hostname = \"mx\"\n[smtp]\nlistn = [\"0.0.0.0:25\"]\nmax_recipients = \"many\"\n[tls]\ncert_file = \"no.pem\"\n";
    let checked = check(&folder, text);
    assert_eq!(checked.code, Some(1));
    assert!(checked.err.starts_with("error: 6 problems in "), "{}", checked.err);
    for (line, key, words) in [
        ("line 1", "hostname", "has no domain"),
        ("line 3", "smtp.listn", "did you mean `smtp.listen`?"),
        ("line 4", "smtp.max_recipients", "whole number from 100 to 10000"),
        ("line 6", "tls.cert_file", "No such file"),
        ("line 6", "tls.cert_file", "tls.key_file is missing"),
        ("", "public_url", "is required but missing"),
    ] {
        let row = |row: &&str| row.contains(words);
        let row = checked.out.lines().find(row).unwrap_or_else(|| panic!("no {words:?} in:\n{}", checked.out));
        assert!(row.trim_start().starts_with(line) && row.contains(key), "{row}");
    }
}

#[test]
fn a_missing_configuration_is_reported_with_its_path() {
    let folder = tempfile::tempdir().unwrap();
    let checked = check_file(&folder.path().join("none.toml"));
    assert_eq!(checked.code, Some(1));
    assert!(checked.out.contains("none.toml: No such file"), "{}", checked.out);
}

#[test]
fn a_data_directory_open_to_others_is_refused_with_the_command_that_helps() {
    let folder = tempfile::tempdir().unwrap();
    make_data_dir(&folder, 0o755);
    let checked = check(&folder, &format!("{REQUIRED}data_dir = \"data\"\n"));
    assert_eq!(checked.code, Some(1));
    let command = format!("chmod 700 {}", folder.path().join("data").display());
    assert!(checked.out.contains(&command), "{}", checked.out);
    assert!(checked.err.starts_with("error: 1 problem with what "), "{}", checked.err);
}

#[test]
fn a_master_key_that_others_read_or_that_is_lost_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    make_data_dir(&folder, 0o700);
    let text = format!("{REQUIRED}data_dir = \"data\"\n");
    let key = folder.path().join("data/master.key");
    fs::write(&key, [7; 32]).unwrap();
    fs::set_permissions(&key, fs::Permissions::from_mode(0o640)).unwrap();
    let wide = check(&folder, &text);
    assert_eq!(wide.code, Some(1));
    assert!(wide.out.contains("chmod 600"), "{}", wide.out);
    fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).unwrap();
    assert_eq!(check(&folder, &text).code, Some(0));
    fs::write(&key, [7; 31]).unwrap();
    assert_eq!(check(&folder, &text).code, Some(1));
    fs::remove_file(&key).unwrap();
    fs::write(folder.path().join("data/mailkite.db"), "x").unwrap();
    let lost = check(&folder, &text);
    assert_eq!(lost.code, Some(1));
    assert!(lost.out.contains("put it back from a backup"), "{}", lost.out);
    assert!(!key.exists(), "a check makes nothing");
}

#[test]
fn a_certificate_that_does_not_fit_its_key_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let make = || rcgen::generate_simple_self_signed(["mx.example.com".to_owned()]).unwrap();
    let (one, other) = (make(), make());
    fs::write(folder.path().join("cert.pem"), one.cert.pem()).unwrap();
    fs::write(folder.path().join("key.pem"), other.signing_key.serialize_pem()).unwrap();
    let text = format!("{REQUIRED}data_dir = \"data\"\n[tls]\ncert_file = \"cert.pem\"\nkey_file = \"key.pem\"\n");
    let wrong = check(&folder, &text);
    assert_eq!(wrong.code, Some(1));
    assert!(wrong.out.contains("✗ certificate"), "{}", wrong.out);
    fs::write(folder.path().join("key.pem"), one.signing_key.serialize_pem()).unwrap();
    let right = check(&folder, &text);
    assert_eq!(right.code, Some(0), "{}", right.out);
    assert!(right.out.contains("matches its key"), "{}", right.out);
}

#[test]
fn a_check_names_the_proxy_that_has_to_be_trusted() {
    let folder = tempfile::tempdir().unwrap();
    let hint = |url: &str, http: &str| {
        let text = format!("{REQUIRED}data_dir = \"data\"\n[http]\n{http}\n");
        let checked = check(&folder, &text.replace("https://mail.example.com", url));
        assert_eq!(checked.code, Some(0), "{}", checked.out);
        checked.out.contains("! proxy") && checked.out.contains("http.trusted_proxies = [\"127.0.0.1\", \"::1\"]")
    };
    assert!(hint("https://mail.example.com", "listen = [\"127.0.0.1:8080\"]"));
    assert!(hint("https://mail.example.com", "listen = [\"[::1]:8080\", \"127.0.0.1:8080\"]"));
    assert!(!hint("https://mail.example.com", "trusted_proxies = [\"127.0.0.1\"]"));
    assert!(!hint("https://mail.example.com", "listen = [\"[::]:443\"]"));
    assert!(!hint("http://localhost:8080", "listen = [\"127.0.0.1:8080\"]"));
}

#[test]
fn a_database_that_the_server_would_refuse_is_found_and_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    make_data_dir(&folder, 0o700);
    let data = folder.path().join("data");
    let text = format!("{REQUIRED}data_dir = \"data\"\n");
    fs::write(data.join("master.key"), [7; 32]).unwrap();
    fs::set_permissions(data.join("master.key"), fs::Permissions::from_mode(0o600)).unwrap();
    fs::write(data.join("mailkite.lock"), "in use").unwrap();
    let file = data.join("mailkite.db");
    let newer = rusqlite::Connection::open(data.join("newer.sqlite")).unwrap();
    newer
        .execute_batch("PRAGMA application_id = 1835755892; PRAGMA user_version = 9999; CREATE TABLE a (b)")
        .unwrap();
    drop(newer);
    let newer = fs::read(data.join("newer.sqlite")).unwrap();
    let cut = newer.iter().copied().take(600).collect::<Vec<u8>>();
    for (content, words) in [
        (Vec::new(), "missing or empty"),
        (b"no database".repeat(100), "restore a backup"),
        (cut, "restore a backup"),
        (newer, "written by a newer mailkite"),
    ] {
        fs::write(&file, &content).unwrap();
        let checked = check(&folder, &text);
        assert_eq!(checked.code, Some(1), "{words}: {}", checked.out);
        assert!(checked.out.contains("✗ database") && checked.out.contains(words), "{}", checked.out);
        assert_eq!(fs::read(&file).unwrap(), content);
    }
    assert!(!data.join("mailkite.db-wal").exists() && !data.join("mailkite.db-shm").exists());
}

#[test]
fn more_memory_for_smtp_than_all_doors_leave_is_refused_with_both_figures() {
    let folder = tempfile::tempdir().unwrap();
    let with = |smtp: &str, all: &str| {
        let text = format!("{REQUIRED}data_dir = \"data\"\n[smtp]\n{smtp}[limits]\n{all}");
        check(&folder, &text)
    };
    let refused = with("memory_bytes = 134217728\n", "");
    assert_eq!(refused.code, Some(1), "{}", refused.out);
    for word in ["line 5", "smtp.memory_bytes", "134217728", "67108864", "limits.memory_bytes = 201326592"] {
        assert!(refused.out.contains(word), "{word} in {}", refused.out);
    }
    for (smtp, all) in [
        ("memory_bytes = 67108864\n", ""),
        ("memory_bytes = 134217728\n", "memory_bytes = 402653184\n"),
        // What is not written is no contradiction.
        ("", "memory_bytes = 100000000\n"),
    ] {
        let good = with(smtp, all);
        assert_eq!(good.code, Some(0), "{}{}", good.out, good.err);
    }
}
