//! The flows that official clients go through (contract 14), end to end; the first one, and every method besides, with
//! the Rust SDK as it is. The fourth is in `outbound::send_validation`, the fifth in `conventions`, the sixth in
//! `tenancy`.

use std::time::Duration;

use mailkite::testing::clock::{Clock, Timestamp};
use serde_json::{Value, json};

use crate::support::api::Api;
use crate::support::receiver::{Receiver, Reply};
use crate::support::server::Server;

const MAIL: &str = "From: Ada <ada@example.com>\r\nTo: Support <support@flow.test>\r\nSubject: Engine question\r\n\
    Message-ID: <one@example.com>\r\nContent-Type: multipart/mixed; boundary=cut\r\n\r\n\
    --cut\r\nContent-Type: text/plain\r\n\r\nDoes it branch?\r\n\
    --cut\r\nContent-Type: application/pdf\r\nContent-Disposition: attachment; filename=po.pdf\r\n\
    Content-Transfer-Encoding: base64\r\n\r\nJVBERi0xLjQ=\r\n--cut--\r\n";

/// Starts a server configured as by `mailkite dev`.
async fn dev_server(clock: Clock) -> Server {
    Server::start_with(clock, |config| {
        config.dev = true;
        config.auth.signup = mailkite::testing::config::Signup::Open;
        config.webhook.allow_localhost = true;
    })
    .await
}

/// Signs up, adds `flow.test`, verifies it and sets its webhook, all over HTTP; returns a client with the account's
/// key.
async fn set_up(server: &Server, url: &str, ack_mode: &str) -> Api {
    let anonymous = server.anonymous();
    let signed_up =
        anonymous.post("/api/auth/signup", json!({"email": "ada@flow.test", "password": "correct horse battery"}));
    let token = signed_up.await.expect(201)["token"].as_str().unwrap().to_owned();
    let session = anonymous.with(token);
    let key = session.get("/api/keys").await.expect(200)["key"].as_str().unwrap().to_owned();
    let api = anonymous.with(key);
    api.post("/api/domains", json!({"domain": "flow.test"})).await.expect(201);
    assert_eq!(api.post_nothing("/api/domains/flow.test/verify").await.expect(200)["status"], "verified");
    api.put("/api/domains/flow.test/webhook", json!({"url": url, "ackMode": ack_mode})).await.expect(200);
    api
}

#[tokio::test(flavor = "multi_thread")]
async fn the_rust_sdk_goes_from_a_new_account_to_a_retried_delivery() {
    let mut server = dev_server(Clock::System).await;
    let mut receiver = Receiver::start(|_| Reply::status(200)).await;
    let signed_up = server
        .anonymous()
        .post("/api/auth/signup", json!({"email": "Ada@Flow.test ", "password": "correct horse battery"}))
        .await
        .expect(201);
    assert_eq!(signed_up["user"]["email"], "ada@flow.test");
    let token = signed_up["token"].as_str().unwrap().to_owned();
    // Trailing slashes of the base URL are the client's business.
    let base = format!("http://{}//", server.http);
    let sdk = move |token: &str| mailkite_sdk::Client::new_with_base_url(token, base.clone());
    let (client, url) = (sdk(&token), receiver.url());

    let (domain_id, route_id, secret) = tokio::task::spawn_blocking(move || {
        let created = client.create_domain(json!({"domain": "flow.test"})).unwrap();
        assert_eq!(
            (&created["domain"]["domain"], &created["domain"]["status"]),
            (&json!("flow.test"), &json!("pending"))
        );
        for record in created["dns"].as_array().unwrap() {
            assert!(
                record["type"].is_string() && record["name"].is_string() && record["value"].is_string(),
                "{record}"
            );
        }
        assert_eq!(created["dns"][0]["priority"], 10);
        let id = created["domain"]["id"].as_str().unwrap().to_owned();
        let refused = client.set_webhook(&id, json!({"url": url})).unwrap_err();
        assert_eq!(refused.status, 409, "{refused:?}");
        let verified = client.verify_domain(&id).unwrap();
        assert_eq!(verified["status"], "verified");
        assert_eq!(verified["checks"], json!({"mx": true, "spf": true, "dkim": true, "dmarc": true}));
        let set = client.set_webhook(&id, json!({"url": url})).unwrap();
        assert_eq!(set["webhookUrl"], url);
        let tested = client.test_webhook(&id).unwrap();
        assert_eq!(tested, json!({"ok": true, "status": 200}));
        assert_eq!(client.get_domain("flow.test").unwrap()["domain"]["webhookUrl"], url);
        assert_eq!(client.list_domains().unwrap()[0]["mx_verified"], true);
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        (id, text(&set["routeId"]), text(&set["signingSecret"]))
    })
    .await
    .unwrap();
    let test_event = receiver.next_request().await;
    assert!(test_event.header("x-mailkite-delivery").starts_with("dlv_test_"));

    assert_eq!(server.mail("support@flow.test", MAIL).await.code, 250);
    let request = receiver.next_request().await;
    server.next_attempt().await;
    let body = String::from_utf8(request.body.to_vec()).unwrap();
    let signature = request.header("x-mailkite-signature").to_owned();
    assert!(mailkite_sdk::verify_webhook(&signature, &body, &secret));
    assert!(!mailkite_sdk::verify_webhook(&signature, &format!("{body} "), &secret));
    let event: Value = serde_json::from_str(&body).unwrap();
    let link = event["attachments"][0]["url"].as_str().unwrap();
    let path = link[link.find("/att/").unwrap()..].to_owned();
    let file = server.anonymous().get(&path).await;
    assert_eq!((file.status, file.body.as_slice()), (200, b"%PDF-1.4".as_slice()));

    let (client, message_id) = (sdk(&token), event["id"].as_str().unwrap().to_owned());
    tokio::task::spawn_blocking(move || {
        let listed = client.list_messages(None, Some(10), Some("engine")).unwrap();
        assert_eq!((&listed[0]["id"], &listed[0]["route_id"]), (&json!(message_id), &json!(route_id)));
        assert_eq!(client.list_messages(listed[0]["received_at"].as_i64(), None, None).unwrap(), json!([]));
        let detail = client.get_message(&message_id).unwrap();
        assert_eq!(detail["message"]["text_body"], "Does it branch?");
        let delivery = detail["deliveries"][0]["id"].as_str().unwrap();
        assert_eq!(client.retry_delivery(delivery).unwrap(), json!({"ok": true, "status": 200}));

        let route =
            client.create_route(json!({"match": "sales@flow.test", "action": "store", "destination": ""})).unwrap();
        assert_eq!(route["signing_secret"], Value::Null);
        assert_eq!(client.list_routes().unwrap().as_array().unwrap().len(), 2);
        let injected = client.route(json!({"from": "a@b.example", "routeId": route["id"], "text": "hi"})).unwrap();
        assert_eq!((&injected["routed"], &injected["action"]), (&json!(false), &json!("store")));
        client.delete_route(route["id"].as_str().unwrap()).unwrap();
        assert_eq!(client.check_domain_availability("acme.dev").unwrap()["configured"], false);
        assert_eq!(client.semantic_search("x").unwrap()["matches"], json!([]));
        assert_eq!(client.list_lists().unwrap_err().status, 404);
        client.delete_webhook(&domain_id).unwrap();
        client.delete_domain(&domain_id).unwrap();
        assert_eq!(client.list_domains().unwrap(), json!([]));
    })
    .await
    .unwrap();
    let again = receiver.next_request().await;
    assert_eq!((&again.body, again.header("x-mailkite-attempt")), (&request.body, "2"));
    server.stop().await;
}

/// True for the error that the SDK gives for an endpoint that the appliance does not have.
fn is_not_supported(answer: Result<Value, mailkite_sdk::Error>) {
    let error = answer.unwrap_err();
    let body = error.body.as_ref().unwrap();
    assert_eq!((error.status, &body["code"], &body["error"]), (404, &json!("not_supported"), &json!(error.message)));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_rust_sdk_sends_uploads_and_keeps_templates() {
    let server = dev_server(Clock::System).await;
    let mut receiver =
        Receiver::start(|_| Reply::status(200).header("content-type", "text/csv").body("a,b\r\n")).await;
    let api = set_up(&server, &receiver.url(), "lenient").await;
    let key = api.get("/api/keys").await.expect(200)["key"].as_str().unwrap().to_owned();
    let (base, url) = (format!("http://{}/", server.http), receiver.url());
    let sdk = move || mailkite_sdk::Client::new_with_base_url(key, base);
    let sent = tokio::task::spawn_blocking(move || {
        use mailkite_sdk::AttachmentUpload;
        let client = sdk();
        let given = |text: &str| Some(text.to_owned());
        let upload = |file: AttachmentUpload| {
            let stored = client.upload_attachment(file).unwrap();
            assert!(
                !stored["url"].as_str().unwrap().is_empty() && stored["id"].as_str().unwrap().starts_with("upl_")
            );
            let fields = ["filename", "contentType", "size"].map(|name| stored[name].clone());
            (stored["url"].as_str().unwrap().to_owned(), fields)
        };
        let default = AttachmentUpload::default;
        let bytes = AttachmentUpload { bytes: Some(b"{}".to_vec()), filename: given("a b.json"), ..default() };
        assert_eq!(upload(bytes).1, [json!("a b.json"), json!("application/json"), json!(2)]);
        let nameless = AttachmentUpload { bytes: Some(b"x".to_vec()), retention_days: Some(30), ..default() };
        assert_eq!(upload(nameless).1, [json!("file"), json!("application/octet-stream"), json!(1)]);
        let fetched = AttachmentUpload { url: Some(url), filename: given("out.csv"), ..default() };
        assert_eq!(upload(fetched).1, [json!("out.csv"), json!("text/csv"), json!(5)]);
        let path = AttachmentUpload { path: given(concat!(env!("CARGO_MANIFEST_DIR"), "/LICENSE")), ..default() };
        assert_eq!(upload(path).1[0], "LICENSE");
        let content = AttachmentUpload {
            content: given("JVBERi0xLjQ="),
            filename: given("po.pdf"),
            content_type: given("application/pdf"),
            retention_days: Some(365),
            ..default()
        };
        let (link, fields) = upload(content);
        assert_eq!(fields, [json!("po.pdf"), json!("application/pdf"), json!(8)]);
        let refused = AttachmentUpload { content: given("eA=="), retention_days: Some(8), ..default() };
        assert_eq!(client.upload_attachment(refused).unwrap_err().body.unwrap()["code"], "bad_retention");

        let own = json!({"baseId": "base_receipt", "name": "Receipt of ours"});
        let template = client.create_template(own).unwrap();
        let id = template["id"].as_str().unwrap();
        assert_eq!(client.get_template(id).unwrap(), template);
        assert_eq!(client.list_templates().unwrap()[0]["name"], "Receipt of ours");
        assert_eq!(client.list_base_templates().unwrap().as_array().unwrap().len(), 5);
        assert_eq!(client.get_template("base_welcome").unwrap()["is_base"], true);

        let sent = client.send(json!({
            "from": "hi@flow.test", "to": ["ada@remote.test", "Bob <bob@remote.test>"], "templateId": id,
            "templateData": {"total": 5}, "attachments": [{"filename": "po.pdf", "url": link}],
        }));
        let sent = sent.unwrap();
        assert_eq!(sent["status"], "queued");
        let refused = client.send(json!({"from": "hi@other.test", "to": "a@b.test", "subject": "s", "text": "t"}));
        let refused = refused.unwrap_err();
        assert_eq!((refused.status, &refused.body.unwrap()["code"]), (404, &json!("domain_not_owned")));

        is_not_supported(client.register_domain(json!({"domain": "acme.dev"})));
        is_not_supported(client.agent(json!({"text": "hi"})));
        let any = || json!({});
        for answer in [
            client.list_lists(),
            client.create_list(any()),
            client.get_list("lst_1"),
            client.update_list("lst_1", any()),
            client.delete_list("lst_1"),
            client.list_list_contacts("lst_1", Some(1), Some(2), Some("x y")),
            client.add_list_contacts("lst_1", any()),
            client.remove_list_contact("lst_1", "ctr_1"),
            client.list_broadcasts(),
            client.create_broadcast(any()),
            client.get_broadcast("bct_1"),
            client.update_broadcast("bct_1", any()),
            client.delete_broadcast("bct_1"),
            client.send_broadcast("bct_1", Value::Null),
        ] {
            is_not_supported(answer);
        }
        sent["id"].as_str().unwrap().to_owned()
    })
    .await
    .unwrap();
    receiver.next_request().await;
    let shown = api.get(&format!("/api/messages/{sent}")).await.expect(200);
    assert_eq!(
        (&shown["attachments"][0]["filename"], &shown["attachments"][0]["size"]),
        (&json!("po.pdf"), &json!(8))
    );
    assert_eq!(shown["recipients"].as_array().unwrap().len(), 2);
    server.stop_with_any_jobs().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_attachment_link_is_genuine_in_time_and_of_a_message_that_is_there() {
    let clock = Clock::manual(Timestamp::from_millis(1_785_196_800_000));
    let server = dev_server(clock).await;
    let mut receiver = Receiver::start(|_| Reply::status(200)).await;
    let api = set_up(&server, &receiver.url(), "lenient").await;
    server.mail("support@flow.test", MAIL).await;
    let event: Value = serde_json::from_slice(&receiver.next_request().await.body).unwrap();
    let link = event["attachments"][0]["url"].as_str().unwrap();
    let path = link[link.find("/att/").unwrap()..].to_owned();
    let anonymous = server.anonymous();
    assert_eq!(anonymous.get(&path).await.status, 200);
    let (head, sig) = path.split_once("sig=").unwrap();
    let flipped = if sig.starts_with('0') { "1" } else { "0" };
    let changed_sig = format!("{head}sig={flipped}{}", &sig[1..]);
    let changed_exp = path.replace("exp=1", "exp=2");
    let changed_idx = path.replace("/0?", "/1?");
    for changed in [&changed_sig, &changed_exp, &changed_idx] {
        anonymous.get(changed).await.expect_error(403, "bad_signature");
    }
    let id = event["id"].as_str().unwrap();
    api.delete(&format!("/api/messages/{id}")).await.expect(200);
    anonymous.get(&path).await.expect_error(404, "not_found");
    server.clock.advance(Duration::from_secs(604_801));
    anonymous.get(&path).await.expect_error(410, "link_expired");
    server.stop_with_any_jobs().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_webhook_is_repeated_with_the_same_body_until_its_ack_mode_is_content() {
    let clock = Clock::manual(Timestamp::from_millis(1_785_196_800_000));
    let mut server = dev_server(clock).await;
    // 500, then a redirect, then 2xx without proof, then with it.
    let mut receiver = Receiver::start(|request| match request.header("x-mailkite-attempt") {
        "1" => Reply::status(500),
        "2" => Reply::status(302).header("location", "http://127.0.0.1:1/"),
        "3" => Reply::status(200),
        _ => Reply::status(200).body(r#"{"status":"ok"}"#),
    })
    .await;
    let url = receiver.url();
    let api = set_up(&server, &url, "ack").await;
    server.mail("support@flow.test", MAIL).await;
    let mut requests = Vec::new();
    for (status, error) in [("pending", "http_status"), ("pending", "http_status"), ("pending", "no_ack")] {
        requests.push(receiver.next_request().await);
        let attempted = server.next_attempt().await;
        assert_eq!((attempted.status, attempted.error), (status, Some(error)));
        server.advance(Duration::from_secs(3 * 3600), &url);
    }
    requests.push(receiver.next_request().await);
    assert_eq!(server.next_attempt().await.status, "delivered");
    let first = &requests[0];
    for (number, request) in (1..).zip(&requests) {
        assert_eq!(request.header("x-mailkite-attempt"), number.to_string());
        assert_eq!(request.body, first.body, "byte for byte");
        assert_eq!(request.header("webhook-id"), first.header("webhook-id"));
        assert_eq!(request.header("x-mailkite-delivery"), first.header("x-mailkite-delivery"));
    }
    let times: Vec<&str> = requests.iter().map(|one| one.header("webhook-timestamp")).collect();
    assert!(times.windows(2).all(|pair| pair[0] < pair[1]), "{times:?}");
    let messages = api.get("/api/messages").await.expect(200);
    assert_eq!((&messages[0]["attempts"], &messages[0]["delivered_count"]), (&json!(4), &json!(1)));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn gone_ends_the_retries_at_once() {
    let mut server = dev_server(Clock::System).await;
    let receiver = Receiver::start(|_| Reply::status(410)).await;
    let api = set_up(&server, &receiver.url(), "lenient").await;
    server.mail("support@flow.test", MAIL).await;
    let attempted = server.next_attempt().await;
    assert_eq!((attempted.status, attempted.error), ("failed", Some("gone")));
    // The owner is told by mail, which may be the newest message by now.
    let messages = api.get("/api/messages").await.expect(200);
    let id = messages.as_array().unwrap().last().unwrap()["id"].as_str().unwrap().to_owned();
    let detail = api.get(&format!("/api/messages/{id}")).await.expect(200);
    assert_eq!(
        (&detail["deliveries"][0]["status"], &detail["deliveries"][0]["next_attempt_at"]),
        (&json!("failed"), &Value::Null)
    );
    // That mail is delivered as well.
    server.until("SELECT count(*) FROM job", 0_i64).await;
    server.stop().await;
}
