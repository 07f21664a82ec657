//! Mail data that is missing or altered: an isolated error that SMTP, API and webhooks report.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use mailkite::testing::clock::{Clock, Timestamp};
use mailkite::testing::store::webhooks::routes::AckMode;
use mailkite::testing::store::webhooks::routes::Action;
use rustix::fs::{CWD, Mode, mkfifoat};
use serde_json::{Value, json};

use crate::support::audit::{assert_audited, audit};
use crate::support::database::open_database;
use crate::support::receiver::{Receiver, Reply};
use crate::support::server::Server;
use crate::support::wait::until;

const HOUR: Duration = Duration::from_secs(3600);

/// Damage done to a file.
#[derive(Clone, Copy, Debug)]
enum Harm {
    Remove,
    Cut,
    Grow,
    Flip,
    /// A FIFO that nobody opens for writing.
    Pipe,
}

const ALL: [Harm; 5] = [Harm::Remove, Harm::Cut, Harm::Grow, Harm::Flip, Harm::Pipe];

impl Harm {
    fn done_to(self, file: &Path) {
        let mut bytes = fs::read(file).unwrap();
        let middle = bytes.len() / 2;
        match self {
            Self::Remove => return fs::remove_file(file).unwrap(),
            Self::Cut => bytes.truncate(middle),
            Self::Grow => bytes.push(b'x'),
            Self::Flip => bytes[middle] ^= 1,
            Self::Pipe => {
                fs::remove_file(file).unwrap();
                return mkfifoat(CWD, file, Mode::RWXU).unwrap();
            }
        }
        fs::write(file, bytes).unwrap();
    }
}

/// A mail with a file, different for each number.
fn mail(number: usize) -> String {
    let rows = format!("{number},a row of a table that is stored apart\r\n").repeat(2_000);
    format!(
        "From: Ada <ada@example.com>\r\nSubject: File {number}\r\nMessage-ID: <{number}@example.com>\r\n\
         Content-Type: multipart/mixed; boundary=cut\r\n\r\n--cut\r\n\r\nSee the file.\r\n--cut\r\n\
         Content-Type: text/csv; name=a.csv\r\nContent-Disposition: attachment\r\n\r\n{rows}\r\n--cut--\r\n"
    )
}

fn id_in(reply: &str) -> String {
    reply.rsplit(' ').next().unwrap().trim().to_owned()
}

/// The file of a message or an upload.
fn file_of(data_dir: &Path, id: &str) -> PathBuf {
    let name: String = open_database(data_dir)
        .query_row(
            "SELECT file FROM message JOIN mail_data ON mail_data.id = mail_data_id WHERE public_id = ?1
             UNION ALL SELECT file FROM upload WHERE public_id = ?1",
            [id],
            |row| row.get(0),
        )
        .unwrap();
    data_dir.join("objects").join(name)
}

fn path_of(url: &str) -> &str {
    &url[url.find("/att/").unwrap()..]
}

#[tokio::test(flavor = "multi_thread")]
async fn every_door_says_that_an_object_is_damaged_and_the_others_are_served() {
    let server = Server::start().await;
    server.plain_route("*@inbox.test", Action::Store).await;
    let owner = server.owner().await;
    let mut harmed = Vec::new();
    for (number, harm) in ALL.into_iter().enumerate() {
        let id = id_in(&server.mail("a@inbox.test", &mail(number)).await.text());
        let detail = owner.get(&format!("/api/messages/{id}")).await.expect(200);
        assert_eq!(detail["message"]["content_damaged"], false);
        let link = detail["attachments"][0]["url"].as_str().unwrap().to_owned();
        let upload = json!({"filename": "b.txt", "content": "aGVsbG8sIHRoaXMgaXMgYSBmaWxl"});
        let upload = owner.post("/v1/attachments", upload).await.expect(201);
        let upload_link = upload["url"].as_str().unwrap().to_owned();
        assert_eq!(owner.get(path_of(&link)).await.status, 200);
        assert_eq!(owner.get(path_of(&upload_link)).await.status, 200);
        harmed.push((harm, id, link, upload_link));
    }
    let whole = id_in(&server.mail("a@inbox.test", &mail(99)).await.text());
    assert_audited(server.data_dir());

    let uploads: Vec<String> = {
        let database = open_database(server.data_dir());
        let mut statement = database.prepare("SELECT public_id FROM upload ORDER BY id").unwrap();
        statement.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect()
    };
    for ((harm, id, link, upload_link), upload) in harmed.iter().zip(uploads) {
        harm.done_to(&file_of(server.data_dir(), id));
        harm.done_to(&file_of(server.data_dir(), &upload));
        let detail = owner.get(&format!("/api/messages/{id}")).await.expect(200);
        assert_eq!(detail["message"]["content_damaged"], true, "{harm:?}");
        assert_eq!(detail["message"]["raw_available"], false, "{harm:?}");
        assert_eq!(detail["message"]["text_body"], Value::Null, "{harm:?}");
        assert!(detail["message"]["subject"].as_str().unwrap().starts_with("File "), "{harm:?}");
        owner.get(&format!("/api/messages/{id}/raw")).await.expect_error(410, "content_damaged");
        owner.get(path_of(link)).await.expect_error(410, "content_damaged");
        owner.get(path_of(upload_link)).await.expect_error(410, "content_damaged");
        let send = json!({"from": "hi@inbox.test", "to": "b@remote.test", "subject": "x", "text": "y",
            "attachments": [{"filename": "b.txt", "url": upload_link}]});
        let refused = owner.post("/v1/send", send).await;
        refused.expect_field(400, "attachment_fetch_failed", "attachments");
        assert!(refused.json["error"].as_str().unwrap().contains("missing or damaged"), "{harm:?}: {}", refused.json);
    }
    assert_eq!(owner.get(&format!("/api/messages/{whole}/raw")).await.status, 200);

    // The alarm: once for each object, in the figures and on the overview.
    let noticed = async || {
        let overview = owner.get("/api/overview?range=hour").await.expect(200);
        let all = overview["attention"].as_array().unwrap().clone();
        all.into_iter().find(|one| one["kind"] == "objects_damaged").map(|one| one["title"].clone())
    };
    until(async || noticed().await == Some(json!("10 stored objects are missing or damaged"))).await;

    let (good, said) = audit(server.data_dir(), &[]);
    assert!(!good && said.contains("10 things are lost"), "{said}");
    for (_, id, ..) in &harmed {
        assert!(said.contains(id.as_str()), "{id} in {said}");
    }
    assert!(said.contains("1 of 6 messages' objects are intact") && !said.contains(&whole), "{said}");
    let (good, json) = audit(server.data_dir(), &["--json"]);
    let json: Value = serde_json::from_str(json.lines().next().unwrap()).unwrap();
    assert!(!good && json["lost"] == 10 && json["checks"]["uploads"]["ok"] == false, "{json}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_range_and_a_head_of_a_file_that_lacks_octets_are_refused_too() {
    let server = Server::start().await;
    server.plain_route("*@inbox.test", Action::Store).await;
    let owner = server.owner().await;
    let id = id_in(&server.mail("a@inbox.test", &mail(1)).await.text());
    let detail = owner.get(&format!("/api/messages/{id}")).await.expect(200);
    let link = path_of(detail["attachments"][0]["url"].as_str().unwrap()).to_owned();
    Harm::Cut.done_to(&file_of(server.data_dir(), &id));
    let base = format!("http://{}", server.http);
    let (status, ..) = crate::support::dev_process::http_get_with(&base, &link, "Range: bytes=0-3\r\n").await;
    assert_eq!(status, 410);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_delivery_of_a_damaged_message_fails_with_its_attempt_counted() {
    for harm in ALL {
        let clock = Clock::manual(Timestamp::from_millis(1_785_196_800_000));
        let mut receiver = Receiver::start(|_| Reply::status(503)).await;
        let mut server = Server::start_with(clock, |_| {}).await;
        let hook = server.webhook(&receiver.url()).await;
        let id = id_in(&server.mail("a@inbox.test", &mail(1)).await.text());
        receiver.next_request().await;
        assert_eq!(server.next_attempt().await.status, "pending");
        harm.done_to(&file_of(server.data_dir(), &id));
        server.advance(HOUR, &hook.url);
        let attempted = server.next_attempt().await;
        let seen = (attempted.status, attempted.error, attempted.attempt);
        assert_eq!(seen, ("failed", Some("message_damaged"), 2), "{harm:?}");
        let (_, detail) = server.api(&format!("/api/messages/{id}")).await;
        let delivery = &detail["deliveries"][0];
        assert_eq!((&delivery["status"], &delivery["attempts"]), (&json!("failed"), &json!(2)), "{delivery}");
        assert_eq!(delivery["last_error"], "message_damaged");
        let delivery = delivery["id"].as_str().unwrap();
        let (_, attempts) = server.api(&format!("/api/deliveries/{delivery}/attempts")).await;
        assert_eq!((attempts.as_array().unwrap().len(), &attempts[0]["error"]), (2, &json!("message_damaged")));
        let retried = server.owner().await.post(&format!("/api/deliveries/{delivery}/retry"), json!({})).await;
        retried.expect_error(410, "content_damaged");
        assert_eq!(receiver.requests().len(), 1, "{harm:?}: it was posted as it is");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_is_damaged_before_it_is_sent_bounces_visibly() {
    let clock = Clock::manual(Timestamp::from_millis(1_785_196_800_000));
    let mut server = Server::start_with(clock, |_| {}).await;
    let owner = server.owner().await;
    let body = json!({"from": "hi@inbox.test", "to": "ada@remote.test", "subject": "Report", "text": "x",
        "attachments": [{"filename": "a.txt", "content": "aGVsbG8sIHRoaXMgaXMgYSBmaWxl"}]});
    let sent = owner.post("/v1/send", body).await.expect(202);
    let id = sent["id"].as_str().unwrap().to_owned();
    // Nothing takes connections there yet.
    assert_eq!(server.next_recipient().await.1, "deferred");
    Harm::Flip.done_to(&file_of(server.data_dir(), &id));
    server.advance_mail(HOUR, "remote.test");
    let (_, status, diagnostic) = server.next_recipient().await;
    assert_eq!(status, "bounced");
    assert!(diagnostic.contains("5.3.0") && diagnostic.contains("damaged"), "{diagnostic}");
    let message = owner.get(&format!("/api/messages/{id}")).await.expect(200);
    assert_eq!(message["message"]["send_status"], "bounced");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_cannot_be_opened_at_the_moment_is_no_damage() {
    use std::os::unix::fs::symlink;
    let clock = Clock::manual(Timestamp::from_millis(1_785_196_800_000));
    let mut receiver =
        Receiver::start(|request| Reply::status(if request.header("x-mailkite-attempt") == "1" { 503 } else { 200 }))
            .await;
    let mut server = Server::start_with(clock, |_| {}).await;
    let hook = server.webhook(&receiver.url()).await;
    let id = id_in(&server.mail("a@inbox.test", &mail(1)).await.text());
    receiver.next_request().await;
    assert_eq!(server.next_attempt().await.status, "pending");
    // A loop of links: the system refuses (ELOOP), and says nothing about what is stored.
    let file = file_of(server.data_dir(), &id);
    let kept = server.data_dir().join("kept");
    fs::rename(&file, &kept).unwrap();
    symlink(&file, &file).unwrap();
    let (status, answer) = server.api(&format!("/api/messages/{id}/raw")).await;
    assert_eq!((status, &answer["code"]), (503, &json!("unavailable")));
    server.advance(HOUR, &hook.url);
    // At once: at no moment is it missing.
    fs::rename(&kept, &file).unwrap();
    // A job is postponed by the clock at that moment, so advance and wake until it has run after it.
    let posted = async {
        loop {
            server.advance(Duration::from_secs(10), &hook.url);
            if tokio::time::timeout(Duration::from_millis(200), receiver.next_request()).await.is_ok() {
                return;
            }
        }
    };
    assert!(tokio::time::timeout(Duration::from_secs(30), posted).await.is_ok(), "it was given up");
    assert_eq!(server.next_attempt().await.status, "delivered");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_audit_of_a_ledger_tells_what_became_of_everything_acknowledged() {
    let clock = Clock::manual(Timestamp::from_millis(1_785_196_800_000));
    let mut receiver = Receiver::start(|request| {
        let drop = request.json()["subject"] == "Drop me";
        Reply::status(200).body(if drop { r#"{"status":"drop"}"# } else { "{}" })
    })
    .await;
    let mut server = Server::start_with(clock, |_| {}).await;
    let owner = server.owner().await;
    server.plain_route("stored@inbox.test", Action::Store).await;
    server.plain_route("nothing@inbox.test", Action::Drop).await;
    server.route("hook@inbox.test", AckMode::Control, &receiver.url()).await;
    let expired = server.accepted("stored@inbox.test", "Old").await;
    server.clock.advance(31 * 24 * HOUR);
    assert_eq!(server.sweep().await.messages, 1);

    let stored = server.accepted("stored@inbox.test", "Stored").await;
    let removed = server.accepted("stored@inbox.test", "Removed").await;
    owner.delete(&format!("/api/messages/{removed}")).await.expect(200);
    let by_rule = server.accepted("nothing@inbox.test", "Nothing").await;
    let delivered = server.accepted("hook@inbox.test", "Delivered").await;
    receiver.next_request().await;
    assert_eq!(server.next_attempt().await.status, "delivered");
    let dropped = server.accepted("hook@inbox.test", "Drop me").await;
    receiver.next_request().await;
    assert_eq!(server.next_attempt().await.status, "delivered");
    let body = json!({"from": "hi@inbox.test", "to": "ada@remote.test", "subject": "x", "text": "y"});
    let pending = owner.post("/v1/send", body).await.expect(202)["id"].as_str().unwrap().to_owned();
    assert_eq!(server.next_recipient().await.1, "deferred");
    let upload = json!({"filename": "b.txt", "content": "aGVsbG8sIHRoaXMgaXMgYSBmaWxl"});
    owner.post("/v1/attachments", upload).await.expect(201);
    let upload: String = server.query("SELECT public_id FROM upload").await;

    let ledger = server.data_dir().parent().unwrap().join("ledger");
    let lines = [
        expired,
        json!({"kind": "250", "id": stored}).to_string(),
        removed,
        format!("250 2.0.0 Ok: {by_rule}"),
        String::new(),
        delivered,
        dropped,
        json!({"kind": "202", "id": pending}).to_string(),
        upload,
    ];
    fs::write(&ledger, lines.join("\n")).unwrap();
    let arguments = ["--json", "--ledger", ledger.to_str().unwrap()];
    let (good, said) = audit(server.data_dir(), &arguments);
    let report: Value = serde_json::from_str(said.lines().next().unwrap()).unwrap();
    let wanted = json!({"past retention": 1, "stored": 2, "removed by API": 1, "dropped by rule": 1, "delivered": 1,
        "dropped by the receiver": 1, "pending": 1});
    assert!(good && report["checks"]["ledger"]["counts"] == wanted, "{report}");

    // What nobody removed and nobody has is lost.
    server.write(move |tx, _, _| Ok(tx.execute("DELETE FROM message WHERE public_id = ?1", [stored])?)).await;
    let (good, said) = audit(server.data_dir(), &["--ledger", ledger.to_str().unwrap()]);
    assert!(!good && said.contains("1 lost") && said.contains("neither stored nor removed"), "{said}");
    fs::write(&ledger, "msg_short").unwrap();
    let (good, said) = audit(server.data_dir(), &["--ledger", ledger.to_str().unwrap()]);
    assert!(!good && said.contains("line 1"), "{said}");
}
