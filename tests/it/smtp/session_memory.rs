//! Memory of SMTP sessions in DATA.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use mailkite::testing::clock::Clock;

use super::sessions::in_data;
use crate::support::server::{Server, message};
use crate::support::smtp::{SmtpClient, SmtpReply};

/// A transaction of another client up to the answer to its DATA. It has an address of its own: it asks so often that
/// few ports of it stay free.
async fn asked_for_data(address: SocketAddr) -> (SmtpClient, SmtpReply) {
    let mut client = SmtpClient::open_from("127.0.0.8", address).await;
    assert_eq!(client.reply().await.code, 220);
    client.expect("EHLO client.test", 250).await;
    client.envelope("ada@example.com", &["a@inbox.test"]).await;
    let reply = client.command("DATA").await;
    (client, reply)
}

#[tokio::test(flavor = "multi_thread")]
async fn sessions_that_wait_in_data_hold_no_memory_that_another_needs() {
    let server = Server::start_with(Clock::System, |config| config.smtp.memory_bytes = 64 * 1024).await;
    let mut waiting = Vec::new();
    // More than the budget has room for, silent or with a first octet.
    for count in 0..90 {
        let mut client = in_data(server.smtp).await;
        if count % 2 == 0 {
            client.send("S").await;
        }
        waiting.push(client);
    }
    let mut honest = SmtpClient::open_from("127.0.0.2", server.smtp).await;
    assert_eq!(honest.reply().await.code, 220);
    honest.expect("EHLO client.test", 250).await;
    assert_eq!(honest.mail("ada@example.com", &["a@inbox.test"], message("Honest")).await.code, 250);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn memory_that_is_used_up_is_reported_before_data_and_given_back_by_those_who_pause() {
    let server = Server::start_with(Clock::System, |config| config.smtp.memory_bytes = 64 * 1024).await;
    let text = "Subject: paused\r\n\r\nof more than a few octets\r\n".repeat(120);
    let mut paused = Vec::new();
    // 8 KiB are held for each, so that there is room for all of them at once.
    for _ in 0..7 {
        let mut client = in_data(server.smtp).await;
        client.send(&text).await;
        paused.push(client);
    }
    // Whatever is left goes to sessions that send next to nothing.
    let mut fillers = Vec::new();
    let refusal = loop {
        assert!(fillers.len() < 80, "the memory was never used up");
        let (mut client, reply) = asked_for_data(server.smtp).await;
        if reply.code != 354 {
            break reply;
        }
        client.send("S").await;
        fillers.push(client);
    };
    assert_eq!(refusal.text(), "452 4.3.1 Insufficient storage, please come again");
    // More of them than this had room only in what was given back while they came.
    fillers.truncate(16);
    let deadline = Instant::now() + Duration::from_secs(20);
    let mut later = loop {
        let (client, reply) = asked_for_data(server.smtp).await;
        if reply.code == 354 {
            break client;
        }
        assert!(Instant::now() < deadline, "{reply:?}");
    };
    later.send("Subject: later\r\n\r\n.\r\n").await;
    assert_eq!(later.reply().await.code, 250);
    // What was set aside is whole.
    paused[0].send("end\r\n.\r\n").await;
    assert_eq!(paused[0].reply().await.code, 250);
    let wanted = i64::try_from(text.len() + "end\r\n".len()).unwrap();
    assert_eq!(server.query::<i64>("SELECT max(size) FROM message").await, wanted);
    server.stop().await;
}
