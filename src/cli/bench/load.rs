//! The load generator: plain SMTP clients that send numbered mails, as fast as they are accepted or at a given rate.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use base64::Engine as _;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};

use super::remotes::Arrivals;

/// The load to generate.
#[derive(Clone, Debug)]
pub(crate) struct Load {
    /// The number of the first mail.
    pub(crate) first: u64,
    pub(crate) messages: u64,
    /// Concurrent sessions.
    pub(crate) sessions: usize,
    /// Mails over one connection.
    pub(crate) per_connection: u64,
    /// Mails per second; 0 is as fast as they are accepted.
    pub(crate) rate: u64,
    /// Sends MAIL, RCPT and DATA in one write.
    pub(crate) pipelining: bool,
    /// Domains the mails are spread over.
    pub(crate) endpoints: usize,
    /// The remaining header fields and the body.
    pub(crate) body: Arc<str>,
}

/// The result.
#[derive(Debug)]
pub(crate) struct Loaded {
    /// Microseconds from MAIL (open loop: from the due time) to the final 250, sorted.
    pub(crate) accept_micros: Vec<u64>,
    /// The numbers of the accepted mails.
    accepted: Vec<u64>,
    endpoints: u64,
    /// From the first mail to the last 250.
    pub(crate) took: Duration,
}

impl Loaded {
    /// Returns mails accepted per second.
    pub(crate) fn per_second(&self) -> f64 {
        self.accepted.len() as f64 / self.took.as_secs_f64()
    }

    /// Counts the mails accepted for the endpoints that satisfy a predicate.
    pub(crate) fn accepted_for(&self, wanted: impl Fn(usize) -> bool) -> u64 {
        let endpoint = |number: &u64| usize::try_from(number % self.endpoints).unwrap_or(0);
        self.accepted.iter().filter(|number| wanted(endpoint(number))).count() as u64
    }
}

/// Makes a body of words that compress like text, of about `size` octets, and an attachment of random octets.
pub(crate) fn body(size: usize, attachment: usize) -> Arc<str> {
    const WORDS: &[&str] = &[
        "engine", "branch", "table", "number", "letter", "window", "garden", "silver", "morning", "question",
        "answer", "river", "paper", "station", "winter", "colour", "method", "signal", "harbour", "mirror",
    ];
    let mut seed = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = || {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        seed >> 33
    };
    let mut text = String::with_capacity(size);
    let mut line = 0;
    while text.len() + 300 < size {
        let word = WORDS.get(usize::try_from(next()).unwrap_or(0) % WORDS.len()).unwrap_or(&"word");
        let word = format!("{word}{} ", next() % 1_000);
        line += word.len();
        text.push_str(&word);
        if line > 66 {
            text.push_str("\r\n");
            line = 0;
        }
    }
    if attachment == 0 {
        return format!("Content-Type: text/plain; charset=utf-8\r\n\r\n{text}\r\n.\r\n").into();
    }
    let octets: Vec<u8> = (0..attachment).map(|_| next().to_le_bytes()[0]).collect();
    let encoded = base64::engine::general_purpose::STANDARD.encode(octets);
    let lines: Vec<&str> =
        encoded.as_bytes().chunks(76).filter_map(|chunk| std::str::from_utf8(chunk).ok()).collect();
    format!(
        "Content-Type: multipart/mixed; boundary=\"cut\"\r\n\r\n--cut\r\nContent-Type: text/plain\r\n\r\n{text}\r\n\
         --cut\r\nContent-Type: application/octet-stream; name=\"data.bin\"\r\nContent-Transfer-Encoding: base64\r\n\
         Content-Disposition: attachment\r\n\r\n{}\r\n--cut--\r\n.\r\n",
        lines.join("\r\n")
    )
    .into()
}

/// Sends everything; `sent` records when the last octet of each mail is written.
pub(crate) async fn run(load: &Load, to: SocketAddr, sent: Arc<Arrivals>) -> anyhow::Result<Loaded> {
    let next = Arc::new(AtomicU64::new(load.first));
    let started = Instant::now();
    let clients: Vec<_> = (0..load.sessions)
        .map(|_| {
            let client = Client { load: load.clone(), to, next: Arc::clone(&next), sent: Arc::clone(&sent), started };
            tokio::spawn(client.run())
        })
        .collect();
    let (mut accept_micros, mut accepted) = (Vec::new(), Vec::new());
    for client in clients {
        for (number, micros) in client.await?? {
            accepted.push(number);
            accept_micros.push(micros);
        }
    }
    let took = started.elapsed();
    accept_micros.sort_unstable();
    Ok(Loaded { accept_micros, accepted, endpoints: load.endpoints as u64, took })
}

struct Client {
    load: Load,
    to: SocketAddr,
    next: Arc<AtomicU64>,
    sent: Arc<Arrivals>,
    started: Instant,
}

struct Connection {
    lines: BufReader<OwnedReadHalf>,
    write: OwnedWriteHalf,
    line: String,
}

impl Connection {
    async fn open(to: SocketAddr) -> anyhow::Result<Self> {
        let stream = TcpStream::connect(to).await.context("connecting to the server")?;
        stream.set_nodelay(true)?;
        let (read, write) = stream.into_split();
        let mut this = Self { lines: BufReader::new(read), write, line: String::new() };
        this.expect("220").await?;
        this.write.write_all(b"EHLO bench.test\r\n").await?;
        this.expect("250").await?;
        Ok(this)
    }

    /// Reads a whole reply.
    async fn expect(&mut self, code: &str) -> anyhow::Result<()> {
        loop {
            self.line.clear();
            self.lines.read_line(&mut self.line).await?;
            if !self.line.starts_with(code) {
                bail!("the server replied {:?} instead of {code}", self.line.trim_end());
            }
            if self.line.as_bytes().get(3) != Some(&b'-') {
                return Ok(());
            }
        }
    }
}

impl Client {
    async fn run(self) -> anyhow::Result<Vec<(u64, u64)>> {
        let mut accepted = Vec::new();
        let mut mail = String::with_capacity(self.load.body.len() + 256);
        loop {
            let mut connection: Option<Connection> = None;
            for _ in 0..self.load.per_connection {
                let number = self.next.fetch_add(1, Ordering::Relaxed);
                if number >= self.load.first + self.load.messages {
                    return Ok(accepted);
                }
                let due = self.wait_until_due(number).await;
                let open = match &mut connection {
                    Some(open) => open,
                    None => connection.insert(Connection::open(self.to).await?),
                };
                self.send(open, number, &mut mail).await.with_context(|| format!("mail {number}"))?;
                accepted.push((number, u64::try_from(due.elapsed().as_micros()).unwrap_or(u64::MAX)));
            }
            if let Some(mut open) = connection {
                open.write.write_all(b"QUIT\r\n").await?;
            }
        }
    }

    /// Waits for a mail's due time. In an open loop a mail counts from then, so a server that stalls cannot hide it.
    async fn wait_until_due(&self, number: u64) -> Instant {
        if self.load.rate == 0 {
            return Instant::now();
        }
        let due = self.started + Duration::from_secs_f64((number - self.load.first) as f64 / self.load.rate as f64);
        tokio::time::sleep_until(due.into()).await;
        due
    }

    async fn send(&self, connection: &mut Connection, number: u64, mail: &mut String) -> anyhow::Result<()> {
        use std::fmt::Write as _;
        let endpoint = number % self.load.endpoints as u64;
        let envelope = [
            "MAIL FROM:<bench@bench.test>\r\n".to_owned(),
            format!("RCPT TO:<m{number}@e{endpoint}.bench.test>\r\n"),
            "DATA\r\n".to_owned(),
        ];
        if self.load.pipelining {
            connection.write.write_all(envelope.concat().as_bytes()).await?;
        }
        for (command, code) in envelope.iter().zip(["250", "250", "354"]) {
            if !self.load.pipelining {
                connection.write.write_all(command.as_bytes()).await?;
            }
            connection.expect(code).await?;
        }
        mail.clear();
        write!(
            mail,
            "From: Bench <bench@bench.test>\r\nTo: <m{number}@e{endpoint}.bench.test>\r\nSubject: number={number};\r\n\
             Message-ID: <{number}@bench.test>\r\nMIME-Version: 1.0\r\n{}",
            self.load.body
        )?;
        self.sent.record_sent(number);
        connection.write.write_all(mail.as_bytes()).await?;
        connection.expect("250").await
    }
}
