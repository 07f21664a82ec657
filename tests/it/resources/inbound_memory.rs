//! Peak memory of the real binary for a received mail of the largest size, from its sender to the webhook.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use ring::hmac;

use crate::support::dev_process::DevProcess;
use crate::support::machine::memory_kib;
use crate::support::receiver::{Received, Receiver, Reply};
use crate::support::smtp::SmtpClient;

const MAIL_OCTETS: usize = 25 * 1024 * 1024;

/// A figure of the process in KiB.
fn kib(process: &DevProcess, name: &str) -> usize {
    usize::try_from(memory_kib(process.id(), name)).unwrap()
}

fn mail(charset: &str, octet: u8) -> Vec<u8> {
    let mut mail = format!(
        "From: ada@example.com\r\nTo: hello@inbox.test\r\nSubject: {charset}\r\nMIME-Version: 1.0\r\n\
         Content-Type: text/plain; charset={charset}\r\nContent-Transfer-Encoding: 8bit\r\n\r\n"
    )
    .into_bytes();
    let line = [&[octet; 900][..], b"\r\n"].concat();
    while mail.len() + line.len() <= MAIL_OCTETS {
        mail.extend_from_slice(&line);
    }
    mail
}

/// True when both signatures match the body.
fn is_signed(request: &Received, secret: &str) -> bool {
    let tag = |key: &[u8], before: &str| {
        let mut context = hmac::Context::with_key(&hmac::Key::new(hmac::HMAC_SHA256, key));
        context.update(before.as_bytes());
        context.update(&request.body);
        context.sign()
    };
    let (at, v1) = request.header("x-mailkite-signature").split_once(',').unwrap();
    let hex = tag(secret.as_bytes(), &format!("{}.", at.trim_start_matches("t=")));
    let hex: String = hex.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    let key = BASE64.decode(secret.trim_start_matches("whsec_")).unwrap();
    let before = format!("{}.{}.", request.header("webhook-id"), request.header("webhook-timestamp"));
    v1 == format!("v1={hex}")
        && request.header("webhook-signature") == format!("v1,{}", BASE64.encode(tag(&key, &before)))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mail_of_25_mib_costs_at_most_three_times_its_size_whatever_becomes_of_its_text() {
    let folder = tempfile::tempdir().unwrap();
    let mut receiver = Receiver::start(|_| Reply::status(200)).await;
    let process = DevProcess::start(&folder.path().join("data"), &receiver.url()).await;
    let idle = kib(&process, "VmRSS");
    // Two octets in UTF-8, and six characters of JSON.
    for (charset, octet, grown) in [("iso-8859-1", 0xe9, 2), ("utf-8", 0x01, 6)] {
        let mail = mail(charset, octet);
        let mut client = SmtpClient::connect_and_greet(process.smtp).await;
        assert_eq!(client.mail("ada@example.com", &["hello@inbox.test"], &mail).await.code, 250);
        let request = receiver.next_request().await;
        assert!(request.body.len() > mail.len() * grown * 9 / 10, "{charset}: {}", request.body.len());
        assert_eq!(request.header("content-length"), request.body.len().to_string());
        assert!(is_signed(&request, &process.webhook_secret), "{charset}");
        let grown = kib(&process, "VmHWM") - idle;
        assert!(grown <= 3 * MAIL_OCTETS / 1024, "{charset}: {} MiB more than idle", grown / 1024);
        println!("{charset}: {} MiB more than idle", grown / 1024);
    }
    process.terminate().await;
}
