//! `mailkite rotate-key` through the real binary: what goes on to work, what ends, and every state that a crash leaves.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use mailkite::testing::clock::Clock;
use mailkite::testing::config::Config;
use serde_json::{Value, json};

use crate::support::api::Api;
use crate::support::dns::DnsServer;
use crate::support::outbound::{deliver_to_loopback, send};
use crate::support::remote_host::RemoteHost;
use crate::support::server::Server;
use crate::support::smtp::SmtpClient;

const WITH_FILE: &str = "From: ada@example.com\r\nTo: hi@inbox.test\r\nSubject: File\r\nMIME-Version: 1.0\r\n\
    Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\nContent-Type: text/plain\r\n\r\nHi\r\n--b\r\n\
    Content-Type: text/csv\r\nContent-Disposition: attachment; filename=n.csv\r\n\r\n1,2\r\n--b--\r\n";

/// A data directory that servers and commands take turns on, and the host that gets its mail.
struct Setup {
    _folder: tempfile::TempDir,
    data_dir: PathBuf,
    dns: DnsServer,
    remote: RemoteHost,
}

impl Setup {
    async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let data_dir = folder.path().join("data");
        let dns = DnsServer::start().await;
        dns.mx("remote.test", 10, "mx.remote.test").address("mx.remote.test", "127.0.0.1");
        Self { _folder: folder, data_dir, dns, remote: RemoteHost::start().await }
    }

    async fn serve(&self) -> Server {
        let port = self.remote.address.port();
        let adjust = |config: &mut Config| {
            config.data_dir.clone_from(&self.data_dir);
            deliver_to_loopback(config, &self.dns, port);
            config.outbound.mta_sts = false;
            config.outbound.dane = false;
        };
        if self.data_dir.exists() {
            // The accounts are there already.
            Server::start_unowned(Clock::System, adjust).await
        } else {
            Server::start_with(Clock::System, adjust).await
        }
    }

    fn key(&self) -> Vec<u8> {
        fs::read(self.data_dir.join("master.key")).unwrap()
    }

    fn next(&self) -> PathBuf {
        self.data_dir.join("master.key.next")
    }

    fn write_key(&self, name: &str, key: &[u8]) {
        let path = self.data_dir.join(name);
        fs::write(&path, key).unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
    }

    /// Starts a server, which must open every kind of secret.
    async fn expect_all_opens(&self) {
        let server = self.serve().await;
        let owner = server.owner().await;
        assert!(owner.get("/api/keys").await.expect(200)["key"].as_str().unwrap().starts_with("mk_live_"));
        let secret = owner.get("/api/domains/inbox.test/webhook/secret").await.expect(200);
        assert!(secret["secret"].as_str().unwrap().starts_with("whsec_"), "{secret}");
        server.stop_with_any_jobs().await;
        assert!(!self.next().exists());
    }
}

async fn rotate(data_dir: &Path, arguments: &[&str]) -> (bool, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_mailkite"));
    command.arg("rotate-key").args(arguments).arg("--data-dir").arg(data_dir);
    let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    (output.status.success(), String::from_utf8([output.stdout, output.stderr].concat()).unwrap())
}

async fn rotated(data_dir: &Path, arguments: &[&str]) -> String {
    let (succeeded, said) = rotate(data_dir, arguments).await;
    assert!(succeeded, "{said}");
    said
}

async fn file_url(owner: &Api, id: &str) -> String {
    let shown = owner.get(&format!("/api/messages/{id}")).await.expect(200);
    let url = find_url(&shown).unwrap_or_else(|| panic!("{shown}"));
    url[url.find("/att/").unwrap()..].to_owned()
}

fn find_url(value: &Value) -> Option<&str> {
    match value {
        Value::String(text) => text.contains("/att/").then_some(text),
        Value::Array(items) => items.iter().find_map(find_url),
        Value::Object(fields) => fields.values().find_map(find_url),
        _ => None,
    }
}

fn dsn(to: &str) -> String {
    format!(
        "From: MAILER-DAEMON@remote.test\r\nTo: {to}\r\nSubject: Report\r\nMIME-Version: 1.0\r\n\
         Content-Type: multipart/report; report-type=delivery-status; boundary=b\r\n\r\n--b\r\n\
         Content-Type: text/plain\r\n\r\nSorry.\r\n--b\r\nContent-Type: message/delivery-status\r\n\r\n\
         Reporting-MTA: dns; mx.remote.test\r\n\r\nFinal-Recipient: rfc822; ada@remote.test\r\nAction: failed\r\n\
         Status: 5.1.1\r\n\r\n--b--\r\n"
    )
}

async fn status(owner: &Api, id: &str) -> Value {
    owner.get(&format!("/api/messages/{id}")).await.expect(200)["message"]["send_status"].clone()
}

async fn mail(server: &Server, to: &str, data: &str) -> u16 {
    SmtpClient::connect_and_greet(server.smtp).await.mail("", &[to], data).await.code
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_made_with_the_former_key_goes_on_to_work_and_sessions_end() {
    let mut setup = Setup::new().await;
    let server = setup.serve().await;
    let owner = server.owner().await;
    let key = owner.get("/api/keys").await.expect(200)["key"].as_str().unwrap().to_owned();
    owner.put("/api/domains/inbox.test/webhook", json!({"url": "https://app.acme.dev/hook"})).await;
    let secret = owner.get("/api/domains/inbox.test/webhook/secret").await.expect(200);
    let session = server.owner_session().await;
    server.anonymous().with(session.clone()).get("/v1/me").await.expect(200);
    let sent = send(&owner, "ada@remote.test").await;
    let bounce = setup.remote.next_mail().await.sender();
    server.until("SELECT count(*) FROM recipient WHERE status = 'sent'", 1_i64).await;
    assert_eq!(mail(&server, "hi@inbox.test", WITH_FILE).await, 250);
    let received = server.query::<String>("SELECT public_id FROM message WHERE direction = 'inbound'").await;
    let url = file_url(&owner, &received).await;
    let before = setup.key();

    let (succeeded, said) = rotate(&setup.data_dir, &[]).await;
    assert!(!succeeded && said.contains("stop it first"), "{said}");
    assert_eq!(setup.key(), before, "nothing is done beside a running server");
    server.stop_with_any_jobs().await;

    let said = rotated(&setup.data_dir, &[]).await;
    assert!(said.contains("All sessions ended"), "{said}");
    assert_ne!(setup.key(), before);
    assert!(!setup.next().exists());
    let mode = fs::metadata(setup.data_dir.join("master.key")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    // Twice is as good as once.
    rotated(&setup.data_dir, &[]).await;

    let server = setup.serve().await;
    let owner = server.anonymous().with(key.clone());
    assert_eq!(owner.get("/api/keys").await.expect(200)["key"], key);
    assert_eq!(owner.get("/api/domains/inbox.test/webhook/secret").await.expect(200), secret);
    server.anonymous().with(session).get("/v1/me").await.expect_error(401, "session_expired");
    assert_eq!(file_url(&owner, &received).await, url, "payloads repeat their links");
    assert_eq!(server.anonymous().get(&url).await.status, 200);
    assert_eq!(mail(&server, "hi@inbox.test", WITH_FILE).await, 250);
    let inbound = "SELECT count(*) FROM message WHERE direction = 'inbound'";
    assert_eq!(server.query::<i64>(inbound).await, 1, "mail sent again is known as a duplicate");
    assert_eq!(mail(&server, &bounce, &dsn(&bounce)).await, 250);
    assert_eq!(status(&owner, &sent).await, "bounced");
    send(&owner, "bob@remote.test").await;
    let signed = setup.remote.next_mail().await;
    assert!(String::from_utf8_lossy(&signed.wire).contains("s=mailkite;"), "the DKIM key opens");
    server.stop_with_any_jobs().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_made_with_a_compromised_key_is_accepted() {
    let mut setup = Setup::new().await;
    let server = setup.serve().await;
    let owner = server.owner().await;
    let sent = send(&owner, "ada@remote.test").await;
    let bounce = setup.remote.next_mail().await.sender();
    server.until("SELECT count(*) FROM recipient WHERE status = 'sent'", 1_i64).await;
    assert_eq!(mail(&server, "hi@inbox.test", WITH_FILE).await, 250);
    let received = server.query::<String>("SELECT public_id FROM message WHERE direction = 'inbound'").await;
    let url = file_url(&owner, &received).await;
    server.stop_with_any_jobs().await;
    rotated(&setup.data_dir, &[]).await;
    let said = rotated(&setup.data_dir, &["--compromised"]).await;
    assert!(said.contains("mailkite domain rotate-dkim DOMAIN"), "{said}");

    let server = setup.serve().await;
    let owner = server.owner().await;
    server.anonymous().get(&url).await.expect_error(403, "bad_signature");
    mail(&server, &bounce, &dsn(&bounce)).await;
    assert_eq!(status(&owner, &sent).await, "sent");
    assert_eq!(server.anonymous().get(&file_url(&owner, &received).await).await.status, 200);
    server.stop_with_any_jobs().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_state_that_a_crash_leaves_opens() {
    let setup = Setup::new().await;
    let server = setup.serve().await;
    let owner = server.owner().await;
    owner.put("/api/domains/inbox.test/webhook", json!({"url": "https://app.acme.dev/hook"})).await;
    server.stop_with_any_jobs().await;
    let first = setup.key();

    // Before the next key was durable, and before the transaction.
    setup.write_key("master.key.new", b"half");
    setup.expect_all_opens().await;
    setup.write_key("master.key.next", &[7; 32]);
    setup.expect_all_opens().await;
    assert_eq!(setup.key(), first);
    // After the commit, before the rename, a backup takes the key that opens the copy.
    let before = setup.key();
    rotated(&setup.data_dir, &[]).await;
    setup.write_key("master.key.next", &setup.key());
    setup.write_key("master.key", &before);
    let backups = setup.data_dir.with_file_name("backups");
    for arguments in [vec!["backup", "--with-key"], vec!["verify"]] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_mailkite"));
        command.args(&arguments).arg(&backups);
        if arguments[0] == "backup" {
            command.arg("--data-dir").arg(&setup.data_dir);
        }
        let output = command.output().unwrap();
        let said = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
        assert!(output.status.success(), "{said}");
        assert_eq!(said.contains("sealed secrets"), arguments[0] == "verify", "{said}");
    }
    setup.expect_all_opens().await;
    // A start, and the command itself, complete it.
    for by_command in [false, true] {
        let before = setup.key();
        rotated(&setup.data_dir, &[]).await;
        let after = setup.key();
        setup.write_key("master.key.next", &after);
        setup.write_key("master.key", &before);
        if by_command {
            rotated(&setup.data_dir, &[]).await;
            assert!(setup.key() != before && setup.key() != after);
        }
        setup.expect_all_opens().await;
        assert_eq!(setup.key() == after, !by_command);
    }
    // Neither is the database's: nothing is removed, and the start is refused.
    let right = setup.key();
    setup.write_key("master.key", &[1; 32]);
    setup.write_key("master.key.next", &[2; 32]);
    let (succeeded, said) = rotate(&setup.data_dir, &[]).await;
    assert!(!succeeded && said.contains("is not the key that this database's secrets were sealed with"), "{said}");
    assert!(setup.next().exists());
    setup.write_key("master.key", &right);
    setup.expect_all_opens().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kill_at_any_time_loses_no_secret() {
    let setup = Setup::new().await;
    let server = setup.serve().await;
    let owner = server.owner().await;
    owner.put("/api/domains/inbox.test/webhook", json!({"url": "https://app.acme.dev/hook"})).await;
    server.stop_with_any_jobs().await;
    for wait in 0..12 {
        let mut command = Command::new(env!("CARGO_BIN_EXE_mailkite"));
        command.arg("rotate-key").arg("--data-dir").arg(&setup.data_dir);
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        // The moment of the kill, not something to wait for.
        tokio::time::sleep(Duration::from_millis(wait * 4)).await;
        child.kill().unwrap();
        child.wait().unwrap();
        setup.expect_all_opens().await;
    }
}
