//! Room on the disk: what was removed is given back, and said to whoever looks.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant, SystemTime};

use mailkite::testing::clock::{Clock, Timestamp};

use crate::support::audit::{assert_audited, audit};
use crate::support::database::{assert_sound, open_database};
use crate::support::serve_process::ServeProcess;
use crate::support::server::Server;
use crate::support::smtp::SmtpClient;

const DEADLINE: Duration = Duration::from_secs(60);
const DAY: Duration = Duration::from_secs(86_400);

/// Text that does not get smaller.
fn noise(lines: usize, seed: u64) -> String {
    const LETTERS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut text = String::new();
    for _ in 0..lines {
        for _ in 0..72 {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            text.push(char::from(LETTERS[usize::try_from(state % 64).unwrap()]));
        }
        text.push_str("\r\n");
    }
    text
}

fn length(data_dir: &Path) -> u64 {
    fs::metadata(data_dir.join("mailkite.db")).unwrap().len()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_database_gives_the_room_of_removed_mail_back_while_it_serves() {
    let folder = tempfile::tempdir().unwrap();
    let data_dir = folder.path().join("data");
    let clock = Clock::manual(Timestamp::from_millis(1_785_196_800_000));
    let server = Server::start_with(clock.clone(), |config| config.data_dir.clone_from(&data_dir)).await;
    let mut client = SmtpClient::connect_and_greet(server.smtp).await;
    for number in 0..400 {
        if number % 50 == 49 {
            client = SmtpClient::connect_and_greet(server.smtp).await;
        }
        let mail = format!("From: ada@example.com\r\nSubject: {number}\r\n\r\n{}", noise(800, number));
        assert_eq!(client.mail("ada@example.com", &["a@inbox.test"], mail).await.code, 250);
    }
    drop(client);
    // An orderly end moves everything into the file.
    server.stop().await;
    let full = length(&data_dir);
    assert!(full > 12 << 20, "{full}");
    let server = Server::start_unowned(clock, |config| config.data_dir.clone_from(&data_dir)).await;
    server.clock.advance(DAY * 40);
    assert_eq!(server.sweep().await.messages, 400);
    let began = Instant::now();
    while length(&data_dir) > full / 2 {
        assert!(began.elapsed() < DEADLINE, "{} of {full} octets are still taken", length(&data_dir));
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    // Room for what comes next stays.
    assert!(server.query::<u64>("SELECT freelist_count FROM pragma_freelist_count").await >= 1_000);
    assert_eq!(server.mail("a@inbox.test", "From: ada@example.com\r\n\r\nx\r\n").await.code, 250);
    server.stop().await;
    assert_sound(&data_dir);
    let (good, said) = audit(&data_dir, &[]);
    assert!(good && said.contains("✓ balance") && said.contains("400 removed; on record"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_from_before_an_upgrade_is_removed_after_thirty_days() {
    let server = Server::start().await;
    let copies =
        ["mailkite.before-schema-5.db", "mailkite.before-schema-6.db"].map(|name| server.data_dir().join(name));
    for (path, days) in copies.iter().zip([31, 29]) {
        fs::write(path, "a copy").unwrap();
        let made = SystemTime::now().checked_sub(DAY * days).unwrap();
        fs::File::options().write(true).open(path).unwrap().set_modified(made).unwrap();
    }
    server.sweep().await;
    assert_eq!(copies.map(|path| path.exists()), [false, true]);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn check_says_what_takes_the_room_and_when_it_was_backed_up() {
    let folder = tempfile::tempdir().unwrap();
    let (mut served, _) = ServeProcess::start_owned(folder.path(), "").await;
    let mut client = SmtpClient::connect_and_greet(served.smtp).await;
    let large = format!("From: ada@example.com\r\n\r\n{}", noise(2_000, 7));
    assert_eq!(client.mail("ada@example.com", &["a@inbox.test"], &large).await.code, 250);
    served.child.kill().await.unwrap();
    let run = |arguments: &[&str]| {
        let config = folder.path().join("mailkite.toml");
        let output = Command::new(env!("CARGO_BIN_EXE_mailkite"))
            .args(arguments)
            .arg("--config")
            .arg(config)
            .output()
            .unwrap();
        String::from_utf8([output.stdout, output.stderr].concat()).unwrap()
    };
    let said = run(&["check"]);
    assert!(said.contains("mail 148.0 kB, uploads 0 B") && said.contains("are free"), "{said}");
    assert!(said.contains("none was made yet"), "{said}");
    run(&["backup", folder.path().join("backups").to_str().unwrap()]);
    let said = run(&["check"]);
    assert!(said.contains("the last one was made 2"), "{said}");
    assert_audited(&folder.path().join("data"));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_audit_finds_a_message_that_went_without_a_removal() {
    let folder = tempfile::tempdir().unwrap();
    let data_dir = folder.path().join("data");
    let (mut served, _) = ServeProcess::start_owned(folder.path(), "").await;
    let mut client = SmtpClient::connect_and_greet(served.smtp).await;
    for number in 0..5 {
        let mail = format!("From: ada@example.com\r\nSubject: {number}\r\n\r\nx\r\n");
        assert_eq!(client.mail("ada@example.com", &["a@inbox.test"], mail).await.code, 250);
    }
    served.child.kill().await.unwrap();
    let (good, said) = audit(&data_dir, &[]);
    assert!(good && said.contains("✓ balance     5 accepted = 5 stored"), "{said}");
    let connection = open_database(&data_dir);
    connection
        .execute_batch(
            "DROP TRIGGER message_removed; DELETE FROM message WHERE id = (SELECT min(id) + 2 FROM message)",
        )
        .unwrap();
    drop(connection);
    let (good, said) = audit(&data_dir, &[]);
    assert!(!good && said.contains("✗ balance     5 accepted = 4 stored + 1 removed"), "{said}");
    assert!(said.contains("octets of messages are there"), "{said}");
}
