//! Messages and their deliveries over HTTP (contract 5, 6), and uploads (7.2).

use mailkite::testing::clock::{Clock, Timestamp};
use serde_json::{Value, json};

use crate::support::database::orphaned_objects;
use crate::support::receiver::{Receiver, Reply};
use crate::support::server::Server;

const NOW: Timestamp = Timestamp::from_millis(1_785_196_800_000);
const WITH_FILE: &str = "From: Ada <ada@example.com>\r\nSubject: With a file\r\nMessage-ID: <one@example.com>\r\n\
    Content-Type: multipart/mixed; boundary=cut\r\n\r\n--cut\r\nContent-Type: text/plain\r\n\r\nSee the file.\r\n\
    --cut\r\nContent-Type: text/csv; name=a.csv\r\nContent-Disposition: attachment\r\n\r\na,b\r\n--cut--\r\n";

fn text(value: &Value) -> String {
    value.as_str().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_is_listed_shown_and_removed_with_everything_of_it() {
    let mut server = Server::start_with(Clock::manual(NOW), |_| {}).await;
    let owner = server.owner().await;
    let mut receiver = Receiver::start(|_| Reply::status(500)).await;
    server.webhook(&receiver.url()).await;
    assert_eq!(server.mail("a@inbox.test", WITH_FILE).await.code, 250);
    receiver.next_request().await;
    server.next_attempt().await;
    let rows = owner.get("/api/messages?direction=inbound&status=received&domain=inbox.test").await.expect(200);
    let keys: Vec<&String> = rows[0].as_object().unwrap().keys().collect();
    assert_eq!(
        keys,
        [
            "id",
            "user_id",
            "route_id",
            "direction",
            "from_addr",
            "mail_from",
            "to_addr",
            "from",
            "to",
            "subject",
            "spf",
            "dkim",
            "dmarc",
            "spam",
            "thread_id",
            "received_at",
            "size_bytes",
            "track_id",
            "enc_key_fp",
            "send_status",
            "status",
            "scheduled_id",
            "scheduled_at",
            "metadata",
            "delivery_count",
            "attempts",
            "last_status_code",
            "delivered_count",
            "failed_count",
            "pending_count"
        ]
    );
    assert_eq!((&rows[0]["pending_count"], &rows[0]["last_status_code"]), (&json!(1), &json!(500)));
    let id = text(&rows[0]["id"]);
    let path = format!("/api/messages/{id}");
    let detail = owner.get(&path).await.expect(200);
    let top: Vec<&String> = detail.as_object().unwrap().keys().collect();
    assert_eq!(top, ["message", "deliveries", "attachments", "recipients"]);
    assert_eq!(detail["message"]["text_body"], "See the file.");
    let raw = owner.get(&format!("{path}/raw")).await;
    assert_eq!((raw.status, raw.body.as_slice()), (200, WITH_FILE.as_bytes()));
    assert_eq!(raw.headers["content-type"], "message/rfc822");
    assert_eq!(raw.headers["content-disposition"], format!("attachment; filename=\"{id}.eml\""));
    let link = text(&detail["attachments"][0]["url"]);
    let link = link[link.find("/att/").unwrap()..].to_owned();
    assert_eq!(server.anonymous().get(&link).await.body, b"a,b");
    let ranged = [("range", "bytes=0-0")];
    assert_eq!(server.anonymous().send("GET", &link, &ranged, None).await.status, 206);
    assert_eq!(server.anonymous().send("HEAD", &link, &ranged, None).await.status, 200, "a range is GET's alone");
    let conditional = [("range", "bytes=0-0"), ("if-range", "\"x\"")];
    assert_eq!(server.anonymous().send("GET", &link, &conditional, None).await.body, b"a,b");
    let delivery = text(&detail["deliveries"][0]["id"]);

    owner.delete(&path).await.expect(200);
    for gone in [path.clone(), format!("{path}/raw")] {
        owner.get(&gone).await.expect_error(404, "not_found");
    }
    owner.delete(&path).await.expect_error(404, "not_found");
    server.anonymous().get(&link).await.expect_error(404, "not_found");
    assert_eq!(owner.get("/api/messages").await.expect(200), json!([]));
    assert_eq!(orphaned_objects(server.data_dir()), Vec::<String>::new(), "no file of it is left");
    owner.post_nothing(&format!("/api/deliveries/{delivery}/retry")).await.expect_error(409, "message_expired");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_is_asked_for_in_its_own_words() {
    let server = Server::start().await;
    let owner = server.owner().await;
    for number in 0..5 {
        server.accepted("a@inbox.test", &format!("mail {number}")).await;
    }
    let all = owner.get("/api/messages").await.expect(200);
    let times: Vec<i64> = all.as_array().unwrap().iter().map(|row| row["received_at"].as_i64().unwrap()).collect();
    assert!(times.windows(2).all(|pair| pair[0] > pair[1]), "newest first, none twice: {times:?}");
    let count =
        async |query: &str| owner.get(&format!("/api/messages?{query}")).await.expect(200).as_array().unwrap().len();
    assert_eq!(count("limit=2").await, 2);
    assert_eq!(count("limit=0").await, 1, "clamped");
    assert_eq!(count("limit=-5").await, 1, "clamped");
    assert_eq!(count("limit=9999").await, 5);
    assert_eq!(count(&format!("before={}", times[1])).await, 3);
    assert_eq!(count(&format!("after={}", times[1])).await, 1);
    assert_eq!(count("search=MAIL%203").await, 1);
    assert_eq!(count("search=%25").await, 0, "a percent sign is a percent sign");
    assert_eq!(count("direction=outbound").await, 0);
    assert_eq!(count("status=queued").await, 0);
    assert_eq!(count("domain=nothing.example").await, 0);
    assert_eq!(count("unknown=1&limit=&before=").await, 5);
    for (query, field) in [
        ("limit=x", "limit"),
        ("before=1.5", "before"),
        ("after=now", "after"),
        ("direction=up", "direction"),
        ("status=lost", "status"),
    ] {
        owner.get(&format!("/api/messages?{query}")).await.expect_field(400, "bad_query", field);
    }
    server.stop_with_any_jobs().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_delivery_is_retried_alone_and_with_others() {
    let mut server = Server::start().await;
    let owner = server.owner().await;
    let receiver = Receiver::start(|request| match request.header("x-mailkite-attempt") {
        "1" => Reply::status(410),
        "2" => Reply::status(503),
        _ => Reply::status(200),
    })
    .await;
    server.webhook(&receiver.url()).await;
    let id = server.accepted("a@inbox.test", "one").await;
    assert_eq!(server.next_attempt().await.status, "failed");
    let detail = owner.get(&format!("/api/messages/{id}")).await.expect(200);
    let delivery = text(&detail["deliveries"][0]["id"]);
    let path = format!("/api/deliveries/{delivery}");
    assert_eq!(owner.post_nothing(&format!("{path}/retry")).await.expect(200), json!({"ok": false, "status": 503}));
    let thread = text(&detail["message"]["thread_id"]);
    let body = json!({"deliveryIds": [delivery, "dlv_0000000000000000"], "messageIds": [id], "threadIds": [thread]});
    let results = owner.post("/api/deliveries/retry", body).await.expect(200);
    let rows = results["results"].as_array().unwrap();
    let ids: Vec<String> = rows.iter().map(|row| text(&row["id"])).collect();
    assert_eq!(ids, [delivery.clone(), "dlv_0000000000000000".to_owned(), id.clone(), thread]);
    for at in [0, 2, 3] {
        assert_eq!(
            (&rows[at]["ok"], &rows[at]["status"], &rows[at]["deliveryId"]),
            (&json!(true), &json!(200), &json!(delivery))
        );
    }
    assert_eq!((&rows[1]["reason"], rows[1].get("deliveryId")), (&json!("not_found"), None));
    let attempts = owner.get(&format!("{path}/attempts")).await.expect(200);
    let numbers: Vec<i64> = attempts.as_array().unwrap().iter().map(|row| row["attempt"].as_i64().unwrap()).collect();
    assert_eq!(numbers, [3, 2, 1], "one delivery that three ids stand for is attempted once");
    assert_eq!((&attempts[0]["manual"], &attempts[2]["manual"]), (&json!(true), &json!(false)));
    for bad in
        [json!({}), json!({"deliveryIds": []}), json!({"messageIds": vec!["msg_x"; 51]}), json!({"threadIds": 5})]
    {
        owner.post("/api/deliveries/retry", bad).await.expect_error(400, "bad_request");
    }
    let route = text(&detail["deliveries"][0]["route_id"]);
    owner.delete(&format!("/api/routes/{route}")).await.expect(200);
    owner.post_nothing(&format!("{path}/retry")).await.expect_error(409, "route_gone");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_endpoint_that_gives_no_answer_is_a_bad_gateway() {
    let mut server = Server::start_with(Clock::manual(NOW), |_| {}).await;
    let owner = server.owner().await;
    let receiver = Receiver::start(|_| Reply::close_before_headers()).await;
    server.webhook(&receiver.url()).await;
    let id = server.accepted("a@inbox.test", "one").await;
    server.next_attempt().await;
    let detail = owner.get(&format!("/api/messages/{id}")).await.expect(200);
    let path = format!("/api/deliveries/{}/retry", text(&detail["deliveries"][0]["id"]));
    owner.post_nothing(&path).await.expect_error(502, "delivery_failed");
    server.stop_with_jobs(1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_is_uploaded_in_every_form_and_downloaded_by_its_link() {
    let server = Server::start_with(Clock::manual(NOW), |_| {}).await;
    let owner = server.owner().await;
    let anonymous = server.anonymous();
    let download = async |made: &Value| {
        let url = text(&made["url"]);
        anonymous.get(&url[url.find("/att/").unwrap()..]).await
    };
    let made = owner.post(
        "/v1/attachments",
        json!({"content": "SGVsbG8=", "filename": "a/b/po.pdf", "contentType": "application/pdf"}),
    );
    let made = made.await.expect(201);
    assert_eq!(
        (&made["filename"], &made["contentType"], &made["size"], &made["expiresAt"]),
        (&json!("po.pdf"), &json!("application/pdf"), &json!(5), &json!("2026-08-04T00:00:00.000Z"))
    );
    let file = download(&made).await;
    assert_eq!((file.status, file.body.as_slice()), (200, b"Hello".as_slice()));
    assert_eq!(file.headers["content-type"], "application/pdf");
    assert!(file.headers["content-disposition"].starts_with("attachment; filename=\"po.pdf\""));
    assert_eq!(file.headers["content-security-policy"], "sandbox; default-src 'none'");

    // A link of the server itself is followed inside.
    let copied = owner.post("/v1/attachments", json!({"url": made["url"], "retentionDays": 30})).await.expect(201);
    assert_eq!((&copied["size"], download(&copied).await.body.as_slice()), (&json!(5), b"Hello".as_slice()));
    assert_eq!(copied["expiresAt"], "2026-08-27T00:00:00.000Z");

    let raw = owner.send(
        "POST",
        "/v1/attachments?filename=x.json&retentionDays=365",
        &[("content-type", "application/json")],
        Some(b"{}"),
    );
    let raw = raw.await.expect(201);
    assert_eq!(
        (&raw["filename"], &raw["size"], &raw["contentType"]),
        (&json!("x.json"), &json!(2), &json!("application/json"))
    );
    let nameless = owner.send("POST", "/v1/attachments", &[], Some(b"bytes")).await.expect(201);
    assert_eq!(
        (&nameless["filename"], &nameless["contentType"]),
        (&json!("file"), &json!("application/octet-stream"))
    );

    for (body, code) in [
        (json!({}), "bad_attachment"),
        (json!({"url": "https://a.example/x", "content": "SGk="}), "bad_attachment"),
        (json!({"content": "not base64!"}), "bad_attachment"),
        (json!({"content": ""}), "bad_attachment"),
        (json!({"content": 5}), "bad_attachment"),
        (json!({"url": "http://a.example/x"}), "bad_url"),
        (json!({"url": "nothing"}), "bad_url"),
        (json!({"url": format!("{}x", text(&made["url"]))}), "attachment_fetch_failed"),
        (json!({"url": "https://127.0.0.1:4443/x"}), "attachment_fetch_failed"),
        (json!({"content": "SGk=", "retentionDays": 8}), "bad_retention"),
        (json!({"content": "SGk=", "retentionDays": "7"}), "bad_retention"),
        (json!({"content": "SGk=", "filename": "x".repeat(256)}), "bad_request"),
    ] {
        owner.post("/v1/attachments", body).await.expect_error(400, code);
    }
    owner.send("POST", "/v1/attachments?retentionDays=x", &[], Some(b"x")).await.expect_error(400, "bad_retention");
    owner.send("POST", "/v1/attachments?filename=a", &[], None).await.expect_error(400, "bad_attachment");
    let large = vec![b'x'; 26_214_401];
    owner.send("POST", "/v1/attachments?filename=a", &[], Some(&large)).await.expect_error(413, "body_too_large");
    server.clock.advance(std::time::Duration::from_secs(8 * 86_400));
    download(&made).await.expect_error(410, "link_expired");
    assert_eq!(download(&copied).await.status, 200);
    server.stop().await;
}
