//! The sweep: data removed at the end of its retention, and data that stays readable.

use std::time::Duration;

use mailkite::testing::clock::{Clock, Timestamp};
use mailkite::testing::retention::Swept;

use crate::support::database::orphaned_objects;
use crate::support::dev_process::http_get;
use crate::support::receiver::{Receiver, Reply};
use crate::support::server::Server;

const DAY: Duration = Duration::from_secs(86_400);
const MAIL: &str = "From: Ada <ada@example.com>\r\nSubject: With a file\r\nMessage-ID: <one@example.com>\r\n\
    Content-Type: multipart/mixed; boundary=cut\r\n\r\n--cut\r\nContent-Type: text/plain\r\n\r\nSee the file.\r\n\
    --cut\r\nContent-Type: text/csv; name=a.csv\r\nContent-Disposition: attachment\r\n\r\na,b\r\n--cut--\r\n";

#[tokio::test(flavor = "multi_thread")]
async fn after_seven_days_the_bytes_go_and_the_words_stay_after_thirty_everything() {
    let clock = Clock::manual(Timestamp::from_millis(1_785_196_800_000));
    let mut server = Server::start_with(clock, |_| {}).await;
    let mut receiver = Receiver::start(|_| Reply::status(200)).await;
    server.webhook(&receiver.url()).await;
    assert_eq!(server.mail("a@inbox.test", MAIL).await.code, 250);
    let payload = receiver.next_request().await.body;
    server.next_attempt().await;
    let event: serde_json::Value = serde_json::from_slice(&payload).unwrap();
    let id = event["id"].as_str().unwrap().to_owned();
    let link = event["attachments"][0]["url"].as_str().unwrap().to_owned();
    let base = format!("http://{}", server.http);
    let path = link.find("/att/").map(|at| link[at..].to_owned()).unwrap();

    server.clock.advance(6 * DAY);
    assert_eq!(server.sweep().await, Swept::default());
    assert_eq!(http_get(&base, &path).await.2, b"a,b");

    server.clock.advance(2 * DAY);
    assert_eq!(server.sweep().await, Swept { mail_data: 1, ..Swept::default() });
    assert_eq!(http_get(&base, &path).await.0, 410);
    assert_eq!(server.query::<i64>("SELECT count(*) FROM mail_data").await, 0);
    assert_eq!(orphaned_objects(server.data_dir()), Vec::<String>::new());
    let (_, detail) = server.api(&format!("/api/messages/{id}")).await;
    assert_eq!(detail["message"]["text_body"], "See the file.");
    assert_eq!(detail["message"]["raw_available"], false);
    assert_eq!(detail["attachments"][0]["url"], serde_json::Value::Null);
    assert!(detail["message"]["headers_json"].as_str().unwrap().contains("With a file"));
    assert_eq!(server.api(&format!("/api/messages/{id}/raw")).await.1["code"], "raw_expired");
    let delivery = detail["deliveries"][0]["id"].as_str().unwrap();
    let (_, attempts) = server.api(&format!("/api/deliveries/{delivery}/attempts")).await;
    assert_eq!(attempts[0]["request_body"].as_str().unwrap().as_bytes(), payload, "the payload is what it was");

    server.clock.advance(23 * DAY);
    assert_eq!(server.sweep().await, Swept { messages: 1, ..Swept::default() });
    assert_eq!(server.api(&format!("/api/messages/{id}")).await.0, 404);
    assert_eq!(server.query::<i64>("SELECT count(*) FROM delivery").await, 0);
    assert_eq!(server.query::<i64>("SELECT count(*) FROM attempt").await, 0);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_no_row_names_goes_once_it_is_old() {
    let server = Server::start().await;
    let day = server.data_dir().join("objects/2020-01-01");
    std::fs::create_dir(&day).unwrap();
    let orphan = day.join("msg_0000000000000000.eml");
    std::fs::write(&orphan, "left by a crash").unwrap();
    assert_eq!(server.sweep().await.orphans, 0, "it may belong to a mail that is being accepted");
    let long_ago = std::time::SystemTime::now() - 2 * Duration::from_secs(3600);
    std::fs::File::options().write(true).open(&orphan).unwrap().set_modified(long_ago).unwrap();
    assert_eq!(server.sweep().await.orphans, 1);
    assert!(!orphan.exists());
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repeat_within_a_day_is_the_same_mail_and_a_later_one_is_another() {
    let clock = Clock::manual(Timestamp::from_millis(1_785_196_800_000));
    let server = Server::start_with(clock, |_| {}).await;
    let first = server.accepted("a@inbox.test", "again").await;
    server.clock.advance(Duration::from_secs(23 * 3600));
    assert_eq!(server.accepted("a@inbox.test", "again").await, first);
    server.clock.advance(Duration::from_secs(3600));
    server.sweep().await;
    assert_ne!(server.accepted("a@inbox.test", "again").await, first);
    server.stop().await;
}
