//! Addresses beyond the grammar of RFC 5321 as others write them, from SMTP to webhook, routes and replies.

use serde_json::json;

use crate::support::forwarding_server::{ForwardingServer, GOOD, forward, from};
use crate::support::receiver::{Receiver, Reply};
use crate::support::server::Server;
use crate::support::smtp::SmtpClient;

const MAIL: &str = "Subject: Scan\r\n\r\nOne page.\r\n";

/// Delivers one mail with these arguments of `MAIL FROM:` and `RCPT TO:`.
async fn hand_over(server: &Server, greeting: &str, from: &str, to: &str, mail: &str) {
    let mut client = SmtpClient::connect(server.smtp).await;
    client.expect(greeting, 250).await;
    client.expect(&format!("MAIL FROM:{from}"), 250).await;
    client.expect(&format!("RCPT TO:{to}"), 250).await;
    client.expect("DATA", 354).await;
    let reply = client.command(&format!("{mail}.")).await;
    assert_eq!(reply.code, 250, "{reply:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sender_is_stored_and_posted_as_it_was_written() {
    let mut receiver = Receiver::start(|_| Reply::status(200)).await;
    let server = Server::start().await;
    server.webhook(&receiver.url()).await;
    let verp = format!("bounces+{}@em1.maker.example", "x".repeat(200));
    for (written, stored) in [
        ("<scanner>", "scanner"),
        ("scanner2", "scanner2"),
        ("raid@Maker.example SIZE=100", "raid@maker.example"),
        ("HP Scanner <raid2@maker.example>", "raid2@maker.example"),
        ("<ilo.@maker.example>", "ilo.@maker.example"),
        ("<Ken..Taro@maker.example>", "Ken..Taro@maker.example"),
        (&format!("<{verp}>"), &verp),
    ] {
        hand_over(&server, "EHLO HP Scanner", written, "<a@inbox.test>", MAIL).await;
        let posted = receiver.next_request().await.json();
        assert_eq!(posted["from"], json!({"address": stored}), "without a From field it is the one to show");
        let row = &server.api("/api/messages?limit=1").await.1[0];
        assert_eq!((&row["mail_from"], &row["from_addr"]), (&json!(stored), &json!(stored)));
        let found = server.api(&format!("/api/messages?search={}", stored.replace('+', "%2B"))).await.1;
        assert_eq!(found.as_array().map(Vec::len), Some(1), "{stored}");
        let detail = server.api(&format!("/api/messages/{}", row["id"].as_str().unwrap())).await.1;
        let headers = &detail["message"]["headers_json"];
        assert!(headers.to_string().contains("from HP_Scanner ("), "{headers}");
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn routes_reach_local_parts_with_dots_anywhere_and_of_any_length() {
    let server = Server::start().await;
    let owner = server.owner().await;
    let long = format!("reply+{}", "9".repeat(200));
    for matching in ["ken..taro@inbox.test", "ilo*@inbox.test", "\"quoted..dots\"@inbox.test", "/^reply\\+9{200}@/"] {
        owner.post("/api/routes", json!({"match": matching, "action": "store"})).await.expect(201);
    }
    let routes = owner.get("/api/routes").await.expect(200);
    for (to, route) in [
        ("<ken..taro@inbox.test>", 0),
        ("<\"Ken..Taro\"@inbox.test>", 0),
        ("<ilo.@inbox.test>", 1),
        ("<quoted..dots@inbox.test>", 2),
        (&format!("<{long}@inbox.test>"), 3),
    ] {
        hand_over(&server, "HELO x", "<>", to, &format!("Message-ID: <{route}@x>\r\n{MAIL}")).await;
        let row = &server.api("/api/messages?limit=1").await.1[0];
        assert_eq!(row["route_id"], routes[route]["id"], "{to}");
        let address = to.trim_matches(['<', '>']).replace('"', "%22").replace('+', "%2B");
        let matching = owner.get(&format!("/api/routes/match?address={address}")).await.expect(200);
        assert_eq!(matching["matches"][0]["id"], routes[route]["id"], "{to}");
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sender_with_dots_is_blocked_in_either_spelling() {
    let server = Server::start().await;
    let owner = server.owner().await;
    owner.post("/api/blocked-senders", json!({"email": "ken..taro@maker.example"})).await.expect(201);
    for sender in ["<ken..taro@maker.example>", "<\"ken..taro\"@maker.example>"] {
        hand_over(&server, "HELO x", sender, "<a@inbox.test>", MAIL).await;
        assert_eq!(server.api("/api/messages?limit=1").await.1[0]["spam"], "spam", "{sender}");
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn forwarding_makes_a_short_and_proper_envelope_of_any_sender() {
    let mut setup = ForwardingServer::start_with_policies().await;
    forward(&setup.owner, "*@inbox.test", "boss@remote.test").await;
    let long = format!("{}@good.test", "x".repeat(200));
    for (author, sender) in [
        ("ada@good.test", "ilo.@good.test"),
        ("ada@good.test", "a..b@good.test"),
        ("ada@good.test", "\"a b\"@good.test"),
        ("ada@good.test", &long),
        ("nas@lan.test", "scanner"),
        ("nas@lan.test", "\"scan ner\""),
    ] {
        assert_eq!(setup.deliver(GOOD, sender, "a@inbox.test", &from(author, "scan")).await, 250, "{sender}");
        assert_eq!(setup.remote.next_mail().await.sender(), "postmaster@mx.mailkite.test", "{sender}");
    }
    // Nobody vouches for a name without a domain.
    assert_eq!(setup.deliver(GOOD, "scanner", "a@inbox.test", &from("ada@good.test", "scan")).await, 250);
    setup.until_idle().await;
    assert!(setup.remote.try_next_mail().is_none());
    assert_eq!(setup.deliver(GOOD, "ada@good.test", "a@inbox.test", &from("ada@good.test", "short")).await, 250);
    assert!(setup.remote.next_mail().await.sender().starts_with("SRS0="));
    setup.until_idle().await;
    setup.server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_hands_mail_in_gives_addresses_that_mail_can_be_sent_to() {
    let server = Server::start_with(mailkite::testing::clock::Clock::System, |config| {
        config.submission.listen = vec!["127.0.0.1:0".parse().unwrap()];
    })
    .await;
    let mut client = SmtpClient::connect(server.submission[0]).await;
    client.expect("EHLO HP Scanner", 250).await;
    for bad in ["<scanner>", "<ilo.@inbox.test>", "a..b@inbox.test", &format!("<{}@inbox.test>", "x".repeat(65))] {
        client.expect(&format!("MAIL FROM:{bad}"), 501).await;
    }
    client.expect("MAIL FROM:<a@inbox.test>", 530).await;
    client.expect("MAIL FROM: a@inbox.test", 530).await;
    server.stop().await;
}
