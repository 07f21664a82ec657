//! `mailkite user` as an operator uses it: the real binary beside a running server, and without one.

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use mailkite::testing::clock::Clock;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;

use crate::support::api::Api;
use crate::support::serve_process::ServeProcess;
use crate::support::server::{DEADLINE, Server};
use crate::support::smtp::SmtpClient;

const PASSWORD: &str = "correct horse battery";

/// Runs the command with this input; returns true when it succeeded, and its output.
async fn user(data_dir: &Path, arguments: &[&str], input: &str) -> (bool, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_mailkite"));
    command.arg("user").args(arguments).arg("--data-dir").arg(data_dir);
    let input = input.to_owned();
    let run = move || {
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        // A command that does not read its input closes it.
        child.stdin.take().unwrap().write_all(input.as_bytes()).ok();
        child.wait_with_output().unwrap()
    };
    let output = tokio::task::spawn_blocking(run).await.unwrap();
    let text = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
    (output.status.success(), text)
}

async fn good(data_dir: &Path, arguments: &[&str], input: &str) -> String {
    let (succeeded, said) = user(data_dir, arguments, input).await;
    assert!(succeeded, "{arguments:?}: {said}");
    said
}

async fn refused(data_dir: &Path, arguments: &[&str], input: &str, why: &str) {
    let (succeeded, said) = user(data_dir, arguments, input).await;
    assert!(!succeeded && said.contains(why), "{arguments:?}: {said}");
}

async fn log_in(api: &Api, email: &str, password: &str) -> crate::support::api::Answer {
    api.post("/api/auth/login", json!({"email": email, "password": password})).await
}

fn ticket(said: &str) -> String {
    said.split("/#/ticket/").nth(1).unwrap().split_whitespace().next().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_locked_out_gets_in_again_beside_the_running_server() {
    let server = Server::start_with(Clock::System, |_| {}).await;
    let (data_dir, api) = (server.data_dir().to_owned(), server.anonymous());
    let said = good(&data_dir, &["add", " Grace@Acme.dev", "--password-stdin"], &format!("{PASSWORD}\n")).await;
    assert_eq!(said, "grace@acme.dev was added.\n");
    let signed_in = log_in(&api, "grace@acme.dev", PASSWORD).await.expect(200);
    let grace = server.anonymous().with(signed_in["token"].as_str().unwrap());
    assert_eq!((&signed_in["user"]["isAdmin"], &signed_in["user"]["emailVerified"]), (&json!(false), &json!(true)));
    let key = grace.get("/api/keys").await.expect(200)["key"].as_str().unwrap().to_owned();

    let said =
        good(&data_dir, &["reset-password", "grace@acme.dev", "--password-stdin"], "staple battery horse").await;
    assert_eq!(said, "grace@acme.dev has the new password, and its sessions ended. API keys stay.\n");
    grace.get("/v1/me").await.expect_error(401, "session_expired");
    grace.with(key).get("/v1/me").await.expect(200);
    log_in(&api, "grace@acme.dev", PASSWORD).await.expect_error(401, "bad_login");
    log_in(&api, "grace@acme.dev", "staple battery horse").await.expect(200);

    let said = good(&data_dir, &["sign-in-link", "grace@acme.dev"], "").await;
    assert!(said.contains("https://mail.mailkite.test/#/ticket/"), "{said}");
    let link = ticket(&said);
    let dump = server.query::<i64>("SELECT count(*) FROM account_link WHERE octet_length(token_hash) = 32").await;
    assert_eq!(dump, 1);
    // Opening the link asks the server for its page alone.
    api.get("/").await;
    let signed_in = api.post("/api/auth/login", json!({"ticket": link})).await.expect(200);
    assert_eq!(signed_in["user"]["email"], "grace@acme.dev");
    api.post("/api/auth/login", json!({"ticket": link})).await.expect_error(401, "bad_login");

    let said = good(&data_dir, &["reset-password", "grace@acme.dev", "--sign-in-link"], "").await;
    log_in(&api, "grace@acme.dev", "staple battery horse").await.expect_error(401, "bad_login");
    let signed_in = api.post("/api/auth/login", json!({"ticket": ticket(&said)})).await.expect(200);
    let grace = server.anonymous().with(signed_in["token"].as_str().unwrap());
    grace.post("/api/auth/password", json!({"newPassword": PASSWORD})).await.expect(200);
    log_in(&api, "grace@acme.dev", PASSWORD).await.expect(200);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn accounts_are_listed_promoted_and_removed_with_their_mail() {
    let server = Server::start().await;
    let data_dir = server.data_dir().to_owned();
    server.other_account("third.test", "http://127.0.0.1:9/").await;
    let mut client = SmtpClient::connect_and_greet(server.smtp).await;
    for subject in ["One", "Two"] {
        let mail = format!("From: a@b.test\r\nTo: x@third.test\r\nSubject: {subject}\r\n\r\nHi\r\n");
        assert_eq!(client.mail("a@b.test", &["x@third.test"], mail).await.code, 250);
    }
    let list = good(&data_dir, &["list"], "").await;
    assert!(list.contains("owner@third.test") && list.contains("third.test") && list.contains("never"), "{list}");
    let lines = good(&data_dir, &["list", "--json"], "").await;
    let rows: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!((rows.len(), &rows[1]["domains"], &rows[1]["isAdmin"]), (2, &json!(["third.test"]), &json!(false)));
    let owner = rows[0]["email"].as_str().unwrap();

    refused(&data_dir, &["remove", owner, "--yes"], "", "administers this server").await;
    refused(&data_dir, &["set-admin", owner, "false"], "", "is the only administrator").await;
    good(&data_dir, &["set-admin", "owner@third.test", "true"], "").await;
    let said = good(&data_dir, &["set-admin", "owner@third.test", "true"], "").await;
    assert_eq!(said, "owner@third.test administers this server already.\n");
    good(&data_dir, &["set-admin", "owner@third.test", "false"], "").await;

    refused(&data_dir, &["remove", "owner@third.test"], "no\n", "nothing was removed").await;
    let said = good(&data_dir, &["remove", "owner@third.test"], "owner@third.test\n").await;
    assert!(said.contains("1 domain and 2 messages.\nType the address"), "{said}");
    assert!(said.ends_with("owner@third.test was removed, with 1 domain and 2 messages.\n"), "{said}");
    // The server knows at once: its caches are those of the writer that made the change.
    client.expect("MAIL FROM:<a@b.test>", 250).await;
    client.expect("RCPT TO:<x@third.test>", 550).await;
    assert_eq!(server.query::<i64>("SELECT count(*) FROM message").await, 0);
    assert_eq!(server.query::<i64>("SELECT count(*) FROM account").await, 1);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn commands_work_without_a_server_too_and_mistakes_are_reported() {
    let nowhere = tempfile::tempdir().unwrap();
    refused(nowhere.path(), &["add", "ada@acme.dev", "--sign-in-link"], "", "there is no database in").await;
    refused(nowhere.path(), &["list"], "", "there is no database in").await;
    let folder = tempfile::tempdir().unwrap();
    let data_dir = folder.path().join("data");
    let seeded = Server::start_with(Clock::System, |config| config.data_dir.clone_from(&data_dir)).await;
    seeded.stop().await;

    good(&data_dir, &["add", "ada@acme.dev", "--admin", "--password-stdin"], PASSWORD).await;
    refused(&data_dir, &["add", "ada@acme.dev", "--password-stdin"], PASSWORD, "has an account").await;
    refused(&data_dir, &["add", "bob@acme.dev", "--password-stdin"], "short", "at least 10 characters").await;
    refused(&data_dir, &["add", "bob@acme.dev", "--password-stdin"], "", "standard input is empty").await;
    refused(&data_dir, &["add", "no address", "--password-stdin"], PASSWORD, "is not an e-mail address").await;
    refused(&data_dir, &["reset-password", "bob@acme.dev", "--password-stdin"], PASSWORD, "no account has").await;
    refused(&data_dir, &["sign-in-link", "ada@acme.dev"], "", "name the configuration with --config").await;

    let mut served = ServeProcess::start(folder.path()).await;
    let api = Api::anonymous(served.http);
    log_in(&api, "ada@acme.dev", PASSWORD).await.expect(200);
    let said = good(&data_dir, &["sign-in-link", "ada@acme.dev"], "").await;
    let logged = served.wait_for_log("a sign-in link was made on the host").await;
    assert!(logged["account"].as_str().unwrap().starts_with("usr_"), "{logged}");
    assert!(!logged.to_string().contains(&ticket(&said)), "no secret in the log");
    api.post("/api/auth/login", json!({"ticket": ticket(&said)})).await.expect(200);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_follows_a_line_that_is_no_request_is_never_read_as_one() {
    let server = Server::start_with(Clock::System, |_| {}).await;
    let add = "{\"add\":{\"email\":\"evil@attacker.test\",\"admin\":true,\"password\":\"correct horse battery\"}}\n";
    let socket = server.data_dir().join("control.sock");
    for first in ["{\"future\":1}\n".to_owned(), format!("{{\"mails\":\"{}\"}}\n", "x".repeat(300 * 1024))] {
        let mut stream = UnixStream::connect(&socket).await.unwrap();
        // The server may have closed before it took everything.
        drop(stream.write_all(format!("{first}{add}").as_bytes()).await);
        let mut said = Vec::new();
        drop(tokio::time::timeout(DEADLINE, stream.read_to_end(&mut said)).await.unwrap());
        let said = String::from_utf8(said).unwrap();
        assert!(said.lines().count() <= 1 && !said.contains("evil"), "{said}");
    }
    let listed = good(server.data_dir(), &["list"], "").await;
    assert!(!listed.contains("evil@attacker.test"), "{listed}");
    server.stop().await;
}
