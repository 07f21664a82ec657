//! `mailkite queue` as an operator uses it: the real binary beside a running server.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use mailkite::testing::clock::Clock;
use serde_json::{Value, json};

use crate::support::dns::DnsServer;
use crate::support::outbound::deliver_to_loopback;
use crate::support::remote_host::{HostAction, RemoteHost};
use crate::support::server::Server;

/// Runs the command on a data directory; returns true when it succeeded, and its output.
async fn queue(data_dir: &Path, arguments: &[&str]) -> (bool, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_mailkite"));
    command.arg("queue").args(arguments).arg("--data-dir").arg(data_dir);
    let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    let text = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
    (output.status.success(), text)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_waits_is_shown_tried_and_given_up() {
    let greylisting = Arc::new(AtomicBool::new(true));
    let greylists = Arc::clone(&greylisting);
    let script = move |command: &str, _: usize| {
        let busy = command.starts_with("RCPT") && greylists.load(Ordering::Relaxed);
        busy.then(|| HostAction::Send("451 4.7.1 greylisted\r\n".to_owned()))
    };
    let mut remote = RemoteHost::scripted(script).await;
    let dns = DnsServer::start().await;
    dns.mx("remote.test", 10, "mx.remote.test").address("mx.remote.test", "127.0.0.1");
    let port = remote.address.port();
    let mut server = Server::start_with(Clock::System, |config| {
        deliver_to_loopback(config, &dns, port);
    })
    .await;
    let data_dir = server.data_dir().to_owned();
    let (good, empty) = queue(&data_dir, &["list"]).await;
    assert!(good && empty == "The queue is empty.\n", "{empty}");
    let owner = server.owner().await;
    let send = async |subject: &str, later: bool| {
        let mut body = json!({"from": "hi@inbox.test", "to": ["ada@remote.test", "bob@remote.test"],
            "subject": subject, "text": "x"});
        if later {
            body["scheduledAt"] = json!("tomorrow");
        }
        let answer = owner.post("/v1/send", body).await.expect(202);
        answer[if later { "messageId" } else { "id" }].as_str().unwrap().to_owned()
    };
    let first = send("First", false).await;
    server.next_recipient().await;
    server.next_recipient().await;
    let second = send("Second", false).await;
    server.next_recipient().await;
    server.next_recipient().await;
    let third = send("Third", true).await;
    let (_, list) = queue(&data_dir, &["list"]).await;
    assert!(list.contains("hi@inbox.test") && list.contains("451 4.7.1 greylisted"), "{list}");
    assert!(list.contains("→ bob@remote.test") && list.ends_with("\n4 waiting, 1 scheduled\n"), "{list}");
    let (_, lines) = queue(&data_dir, &["list", "--json"]).await;
    let rows: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!((rows.len(), &rows[0]["messageId"]), (4, &json!(first)));
    let bob = rows.iter().find(|row| row["recipients"][0]["address"] == "bob@remote.test").unwrap();
    assert_eq!(bob["recipients"][0]["status"], "deferred");
    let (_, scheduled) = queue(&data_dir, &["list", "--scheduled"]).await;
    for to in ["→ ada@remote.test", "→ bob@remote.test"] {
        assert!(scheduled.contains(to) && scheduled.contains("in 24 h\n"), "{scheduled}");
    }
    let (_, shown) = queue(&data_dir, &["show", &first]).await;
    for words in ["First", "deferred", "ada@remote.test", "S: 451 4.7.1 greylisted", "mx.remote.test, without TLS"] {
        assert!(shown.contains(words), "{words} in {shown}");
    }
    let (_, dropped) = queue(&data_dir, &["drop", &second]).await;
    assert_eq!(dropped, "2 recipients were dropped.\n");
    let message = owner.get(&format!("/api/messages/{second}")).await.expect(200);
    assert_eq!(message["message"]["send_status"], "failed");
    assert_eq!(message["recipients"][0]["diagnostic"], "dropped by the operator");
    let (_, dropped) = queue(&data_dir, &["drop", &third]).await;
    assert_eq!(dropped, "2 recipients were dropped.\n");
    let message = owner.get(&format!("/api/messages/{third}")).await.expect(200);
    assert_eq!(message["message"]["send_status"], "canceled");
    greylisting.store(false, Ordering::Relaxed);
    let (_, retried) = queue(&data_dir, &["retry", "--domain", "Remote.test"]).await;
    assert!(retried.starts_with("2 will be attempted"), "{retried}");
    let mut taken = [remote.next_mail().await.recipients(), remote.next_mail().await.recipients()];
    taken.sort();
    assert_eq!(taken, [["ada@remote.test"], ["bob@remote.test"]]);
    server.until("SELECT count(*) FROM job", 0_i64).await;
    let (_, shown) = queue(&data_dir, &["show", &first]).await;
    assert!(shown.contains("sent       ada@remote.test  250 2.0.0 taken"), "{shown}");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn mistakes_are_reported() {
    let nowhere = tempfile::tempdir().unwrap();
    let (good, said) = queue(nowhere.path(), &["list"]).await;
    assert!(!good && said.contains("there is no database in"), "{said}");
    let (good, said) = queue(nowhere.path(), &["show", "what"]).await;
    assert!(!good && said.contains("neither a message (msg_…) nor a number"), "{said}");
    let (good, said) = queue(nowhere.path(), &["drop"]).await;
    assert!(!good && said.contains("required"), "{said}");
    let server = Server::start().await;
    let (good, said) = queue(server.data_dir(), &["show", "msg_0000000000000000"]).await;
    assert!(!good && said.contains("was never queued"), "{said}");
    let (good, said) = queue(server.data_dir(), &["retry", "--all"]).await;
    assert!(good && said.starts_with("Nothing was waiting."), "{said}");
    server.stop().await;
}
