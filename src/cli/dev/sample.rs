//! The first mail, sent over real SMTP from this process to itself, and its way to the webhook.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::sync::broadcast;

use super::receiver::Receiver;
use super::screen::Screen;
use crate::cli::text;
use crate::clock::Clock;
use crate::event_bus::Activity;
use crate::mail::date;

const DELIVERY_TIMEOUT: Duration = Duration::from_secs(20);
const ATTACHMENT: &str = "bmFtZSxib3JuCkFkYSBMb3ZlbGFjZSwxODE1CkdyYWNlIEhvcHBlciwxOTA2Cg==";

/// The server's reply to the mail.
pub(crate) struct Sent {
    /// `250 2.0.0 Ok: msg_…`
    pub(crate) reply: String,
    /// From MAIL to that reply.
    pub(crate) took: Duration,
}

/// Sends the mail and shows each step until its webhook was delivered and verified, or failed.
pub(crate) async fn show(
    smtp: SocketAddr,
    activity: &mut broadcast::Receiver<Activity>,
    receiver: &Receiver,
    screen: &mut Screen,
) {
    screen.sample_begins();
    let sent = match send(smtp).await {
        Ok(sent) => sent,
        Err(error) => return screen.step(false, "accepted", &format!("{error:#}")),
    };
    screen.step(true, "accepted", &format!("{} ({} ms)", sent.reply, sent.took.as_millis()));
    // `250 2.0.0 Ok: msg_…`; attempts left from an earlier run belong to other mail.
    let id = sent.reply.rsplit(' ').next().unwrap_or_default();
    let followed = tokio::time::timeout(DELIVERY_TIMEOUT, follow(id, activity, receiver, screen)).await;
    if followed.is_err() {
        screen.step(false, "delivered", "no attempt was made in time; see the messages above");
    }
}

async fn follow(id: &str, activity: &mut broadcast::Receiver<Activity>, receiver: &Receiver, screen: &mut Screen) {
    while let Ok(event) = activity.recv().await {
        match &event {
            Activity::Accepted { message_id, size, attachments, .. } if message_id == id => {
                screen.remember(&event);
                let text = format!("{}, {attachments} attachment, on disk before the 250", text::size(*size));
                screen.step(true, "stored", &text);
            }
            Activity::Attempted { message_id, url, status_code, error, status, duration_ms, .. }
                if message_id == id =>
            {
                let seen = receiver.received(message_id);
                if let Some(seen) = &seen {
                    screen.step(true, "signed", &format!("x-mailkite-signature {}", seen.signature));
                    screen.more(&format!("webhook-signature {}", seen.standard_signature));
                }
                let answer =
                    status_code.map_or_else(|| error.unwrap_or("no answer").to_owned(), |code| code.to_string());
                screen.step(*status == "delivered", "delivered", &format!("{answer} from {url} in {duration_ms} ms"));
                if let Some(seen) = seen {
                    let text = if seen.genuine {
                        "both signatures, by the receiver's own code"
                    } else {
                        "a signature is invalid"
                    };
                    screen.step(seen.genuine, "verified", text);
                }
                return;
            }
            _ => screen.activity(&event),
        }
    }
}

pub(crate) async fn send(smtp: SocketAddr) -> anyhow::Result<Sent> {
    let stream = TcpStream::connect(smtp).await.context("connecting to our own SMTP port")?;
    let (read, mut write) = stream.into_split();
    let mut lines = BufReader::new(read).lines();
    let mut expect = async |write: &mut tokio::net::tcp::OwnedWriteHalf, command: &str, code: &str| {
        write.write_all(command.as_bytes()).await?;
        loop {
            let line = lines.next_line().await?.context("the connection was closed")?;
            if !line.starts_with(code) {
                bail!("{} was answered {line}", command.lines().next().unwrap_or_default());
            }
            if line.as_bytes().get(3) != Some(&b'-') {
                return Ok(line);
            }
        }
    };
    expect(&mut write, "", "220").await?;
    expect(&mut write, "EHLO localhost\r\n", "250").await?;
    let started = Instant::now();
    expect(&mut write, "MAIL FROM:<ada@example.com>\r\n", "250").await?;
    expect(&mut write, "RCPT TO:<hello@inbox.test>\r\n", "250").await?;
    expect(&mut write, "DATA\r\n", "354").await?;
    let reply = expect(&mut write, &mail(), "250").await?;
    let took = started.elapsed();
    expect(&mut write, "QUIT\r\n", "221").await?;
    Ok(Sent { reply, took })
}

/// Returns the mail data with its final dot.
fn mail() -> String {
    let now = Clock::System.now();
    format!(
        "From: Ada Lovelace <ada@example.com>\r\nTo: Hello <hello@inbox.test>\r\nSubject: Your first mail\r\n\
         Date: {}\r\nMessage-ID: <first-{}@example.com>\r\nMIME-Version: 1.0\r\n\
         Content-Type: multipart/mixed; boundary=\"part\"\r\n\r\n\
         --part\r\nContent-Type: text/plain; charset=utf-8\r\n\r\n\
         It works: this mail came in over SMTP, was stored, signed and posted.\r\n\
         --part\r\nContent-Type: text/csv; name=\"pioneers.csv\"\r\nContent-Transfer-Encoding: base64\r\n\
         Content-Disposition: attachment; filename=\"pioneers.csv\"\r\n\r\n{ATTACHMENT}\r\n--part--\r\n.\r\n",
        date::format(now),
        now.as_millis(),
    )
}
