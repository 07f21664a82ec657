//! Duplicate detection: repeats of one mail, and different mails with the same text.

use std::time::Duration;

use mailkite::testing::clock::{Clock, Timestamp};

use crate::support::server::Server;
use crate::support::smtp::SmtpClient;

const ALARM: &str = "From: nas@lan.example\r\nSubject: Disk 3 is degraded\r\n\r\nDisk 3 is degraded.\r\n";

/// Delivers `message` from another loopback address; returns the id in the 250.
async fn id(server: &Server, local: &str, message: &str) -> String {
    let mut client = SmtpClient::open_from(local, server.smtp).await;
    client.reply().await;
    client.expect("EHLO nas", 250).await;
    let reply = client.mail("nas@lan.example", &["a@inbox.test"], message).await;
    assert_eq!(reply.code, 250, "{reply:?}");
    reply.text()
}

async fn at_noon() -> Server {
    Server::start_with(Clock::manual(Timestamp::from_millis(1_785_196_800_000)), |_| {}).await
}

#[tokio::test(flavor = "multi_thread")]
async fn without_date_and_message_id_a_repeat_is_one_of_the_same_peer_within_an_hour() {
    let server = at_noon().await;
    let first = id(&server, "127.0.0.1", ALARM).await;
    server.clock.advance(Duration::from_secs(3599));
    assert_eq!(id(&server, "127.0.0.1", ALARM).await, first, "a sender that missed the 250 tries again");
    let other = id(&server, "127.0.0.2", ALARM).await;
    assert_ne!(other, first, "another device has the same trouble");
    server.clock.advance(Duration::from_secs(1));
    let later = id(&server, "127.0.0.1", ALARM).await;
    assert_ne!(later, first, "an hour later it is the next alarm");
    assert_eq!(id(&server, "127.0.0.1", ALARM).await, later);
    assert_eq!(id(&server, "127.0.0.2", ALARM).await, other);
    assert_eq!(server.query::<i64>("SELECT count(*) FROM message").await, 3);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn empty_fields_tell_nothing_apart() {
    let server = at_noon().await;
    let alarm = format!("Date:\r\nMessage-ID: \r\n{ALARM}");
    let first = id(&server, "127.0.0.1", &alarm).await;
    server.clock.advance(Duration::from_secs(3600));
    assert_ne!(id(&server, "127.0.0.1", &alarm).await, first);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn with_one_of_the_two_a_repeat_may_come_from_anywhere_for_a_day() {
    let server = at_noon().await;
    for field in ["Date: Tue, 28 Jul 2026 00:00:00 +0000", "message-id: <1@lan.example>"] {
        let mail = format!("{field}\r\n{ALARM}");
        let first = id(&server, "127.0.0.1", &mail).await;
        server.clock.advance(Duration::from_secs(11 * 3600));
        assert_eq!(id(&server, "127.0.0.2", &mail).await, first, "{field}");
    }
    server.stop().await;
}
