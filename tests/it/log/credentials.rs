//! Lines about refused credentials, and the filter by which fail2ban reads them.

use std::path::Path;
use std::process::Command;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use regex::Regex;
use serde_json::json;

use crate::support::api::Api;
use crate::support::logged_process::{Journal, LoggedProcess, Settings, only};
use crate::support::machine::program;
use crate::support::smtp::SmtpClient;

const FILTER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/packaging/fail2ban/filter.d/mailkite.conf");
/// An address that no client has, in what clients send.
const VICTIM: &str = "203.0.113.66";

/// A setting of the filter, all of its lines.
fn setting(name: &str) -> Vec<String> {
    let text = std::fs::read_to_string(FILTER).unwrap();
    let all: Vec<&str> = text.lines().collect();
    let start = all.iter().position(|line| line.starts_with(&format!("{name} ="))).unwrap();
    let first = all[start].split_once('=').unwrap().1;
    let more = all[start + 1..].iter().take_while(|line| line.starts_with(' '));
    std::iter::once(first).chain(more.copied()).map(|line| line.trim().to_owned()).collect()
}

/// The expressions of the filter in the syntax of this language; the group is the address that fail2ban bans.
fn expressions() -> Vec<Regex> {
    let (prefix, reason) = (&setting("_prefix")[0], &setting("_reason")[0]);
    let expression = |line: &String| {
        let line = line.replace("%(_prefix)s", prefix).replace("%(_reason)s", reason);
        Regex::new(&line.replace("<ADDR>", "([0-9a-fA-F.:]+)")).unwrap()
    };
    setting("failregex").iter().map(expression).collect()
}

/// The addresses that fail2ban would count, as it reads a file: without the date.
fn counted(log: &str) -> Vec<String> {
    let date = Regex::new(r#"^(?:\{"timestamp":")?\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?Z"#).unwrap();
    let expressions = expressions();
    let address = |line: &str| {
        let line = date.replace(line, "");
        expressions.iter().find_map(|expression| Some(expression.captures(&line)?[1].to_owned()))
    };
    log.lines().filter_map(address).collect()
}

/// Lines that a client would like to write, in both formats.
fn forged() -> Vec<String> {
    let people = format!(r#"INFO authentication failed peer={VICTIM} via="login" reason="bad_login" reply="401""#);
    let machines = format!(
        r#"{{"timestamp":"2026-07-28T00:00:00.0Z","level":"INFO","message":"authentication failed","peer":"{VICTIM}","via":"login","reason":"bad_login"}}"#
    );
    vec![people.clone(), machines, format!("x\n{people}"), format!("x\r\n2026-07-28T00:00:00.000000Z  {people}")]
}

/// Fails with every kind of credential, and tries to write lines of its own; each failure is from 127.0.0.1.
async fn attack(server: &LoggedProcess) -> usize {
    let mut failures = 0;
    for user in forged() {
        let mut client = SmtpClient::connect_and_greet(server.submission).await.starttls().await;
        client.command(&format!("EHLO {}", user.replace(['\r', '\n'], " "))).await;
        client.expect("EHLO client.test", 250).await;
        client.expect(&format!("AUTH PLAIN {}", BASE64.encode(format!("\0{user}\0guess"))), 535).await;
        client.command(&format!("MAIL FROM:<{}>", user.replace(['\r', '\n'], " "))).await;
        let anonymous = Api::anonymous(server.http);
        let login = json!({"email": user, "password": user});
        anonymous.post("/api/auth/login", login).await.expect_error(401, "bad_login");
        let agent = user.replace(['\r', '\n'], " ");
        let headers =
            [("User-Agent", agent.as_str()), ("X-Forwarded-For", VICTIM), ("Authorization", "Bearer mk_live_x")];
        assert_eq!(anonymous.exchange("GET", "/v1/me", &headers, None).await.status, 401);
        failures += 3;
        // Mail is no credential, whatever it says.
        let mut client = SmtpClient::connect_and_greet(server.smtp).await;
        client.command(&format!("EHLO {agent}")).await;
        client.command(&format!("MAIL FROM:<{agent}>")).await;
        client.command("MAIL FROM:<a@example.com>").await;
        client.command(&format!("RCPT TO:<{agent}@inbox.test>")).await;
        client.command(&format!("RCPT TO:<\"{}\"@elsewhere.test>", agent.replace('"', ""))).await;
    }
    failures
}

#[tokio::test(flavor = "multi_thread")]
async fn the_filter_counts_refused_credentials_in_every_format_and_no_line_that_a_client_wrote() {
    for (format, journal) in [("json", Journal::None), ("human", Journal::None), ("human", Journal::Stderr)] {
        let server = LoggedProcess::start_as(Settings { format, journal, ..Settings::default() }, "").await;
        let failures = attack(&server).await;
        let log = server.stop().await;
        // journald takes the priority off, and its reader puts host and process before the line.
        let stored: String = match journal {
            Journal::Stderr => log.lines().map(|line| format!("mx mailkite[7]: {}\n", &line[3..])).collect(),
            _ => log.clone(),
        };
        assert!(log.contains(VICTIM), "what was sent to forge lines is in the log");
        assert_eq!(counted(&stored), vec!["127.0.0.1"; failures], "{format} {journal:?}: {log}");
        if journal == Journal::None {
            assert_fail2ban_agrees(&log, failures);
        }
    }
}

/// Asks `fail2ban-regex`, where it is installed.
fn assert_fail2ban_agrees(log: &str, failures: usize) {
    let Some(program) = program("fail2ban-regex") else { return };
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("log");
    std::fs::write(&file, log).unwrap();
    let output = Command::new(program).args(["--out", "ip"]).arg(&file).arg(Path::new(FILTER)).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let banned: Vec<&str> = said.lines().filter(|line| !line.trim().is_empty()).collect();
    assert_eq!(banned, vec!["127.0.0.1"; failures], "{output:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn each_refused_credential_has_one_line_with_the_address_of_its_client() {
    let proxied = "[http]\nlisten = [\"127.0.0.1:0\"]\ntrusted_proxies = [\"127.0.0.1/32\"]\n";
    let server = LoggedProcess::start(proxied).await;
    let anonymous = Api::anonymous(server.http);
    let from = |address: &'static str| [("X-Forwarded-For", address), ("Content-Type", "application/json")];
    let login = json!({"email": "ada@acme.test", "password": "swordfish"}).to_string();
    let answer = anonymous.exchange("POST", "/api/auth/login", &from("192.0.2.1"), Some(login.as_bytes())).await;
    assert_eq!(answer.status, 401);
    let ticket = json!({"ticket": "swordfish"}).to_string();
    let answer = anonymous.exchange("POST", "/api/auth/login", &from("2001:db8::2"), Some(ticket.as_bytes())).await;
    assert_eq!(answer.status, 401);
    let wrong = anonymous.with("mk_live_swordfish");
    assert_eq!(wrong.exchange("GET", "/v1/me", &from("2001:db8::3"), None).await.status, 401);
    let ended = anonymous.with("swordfish.swordfish.swordfish");
    assert_eq!(ended.exchange("GET", "/v1/me", &from("192.0.2.4"), None).await.status, 401);
    let link = "/att/2Hk9QpVn4tLdA1B2/0?exp=9999999999&sig=swordfish";
    assert_eq!(anonymous.exchange("GET", link, &from("192.0.2.5"), None).await.status, 403);
    let stream = "/v1/realtime?token=swordfish";
    assert_eq!(anonymous.exchange("GET", stream, &from("192.0.2.6"), None).await.status, 401);
    let verify = "/api/auth/verify?token=swordfish";
    assert_eq!(anonymous.exchange("GET", verify, &from("192.0.2.7"), None).await.status, 400);
    // No credential is no failure.
    assert_eq!(anonymous.exchange("GET", "/v1/me", &from("192.0.2.8"), None).await.status, 401);
    let mut client = SmtpClient::connect_and_greet(server.submission).await.starttls().await;
    client.expect("EHLO client.test", 250).await;
    client.expect(&format!("AUTH LOGIN {}", BASE64.encode("swordfish")), 334).await;
    client.expect(&BASE64.encode("swordfish"), 535).await;
    let log = server.stop().await;
    for (peer, via, reason, reply) in [
        ("192.0.2.1", "login", "bad_login", "401"),
        ("2001:db8::2", "login", "bad_login", "401"),
        ("2001:db8::3", "api", "bad_key", "401"),
        ("192.0.2.4", "api", "session_expired", "401"),
        ("192.0.2.5", "link", "bad_signature", "403"),
        ("192.0.2.6", "stream", "unauthorized", "401"),
        ("192.0.2.7", "link", "unknown_link", "400"),
        ("127.0.0.1", "submission", "bad_credentials", "535 5.7.8 Bad credentials; the password is an API key"),
    ] {
        let fields = json!({"peer": peer, "via": via, "reason": reason, "reply": reply});
        let line = only(&log, "authentication failed", &fields);
        assert_eq!((&line["level"], &line["target"]), (&json!("INFO"), &json!("mailkite::auth")));
    }
    assert!(!log.contains("192.0.2.8") && !log.contains("swordfish"), "{log}");
    let banned = ["192.0.2.1", "2001:db8::2", "2001:db8::3", "192.0.2.5", "192.0.2.6", "127.0.0.1"];
    assert_eq!(counted(&log), banned);
}
