//! The peers of the server in a benchmark: webhook receivers, endpoints that never answer, and SMTP sinks, both as
//! remote hosts and to measure the load generator's own ceiling.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use anyhow::Context;
use memchr::memmem;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// The times when each mail was sent and its first webhook arrived, in microseconds since the start; 0 is not yet.
#[derive(Debug)]
pub(crate) struct Arrivals {
    started: Instant,
    sent: Vec<AtomicU64>,
    arrived: Vec<AtomicU64>,
    count: AtomicU64,
}

impl Arrivals {
    pub(crate) fn new(messages: u64) -> Self {
        let zeros = || (0..messages).map(|_| AtomicU64::new(0)).collect();
        Self { started: Instant::now(), sent: zeros(), arrived: zeros(), count: AtomicU64::new(0) }
    }

    fn now(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_micros()).unwrap_or(u64::MAX).max(1)
    }

    /// Records that the last octets of a mail are about to be written.
    pub(crate) fn record_sent(&self, number: u64) {
        if let Some(slot) = usize::try_from(number).ok().and_then(|index| self.sent.get(index)) {
            slot.store(self.now(), Ordering::Relaxed);
        }
    }

    /// Records the arrival of the mail whose number follows `number=` in a text; ignores unknown numbers.
    fn record_text(&self, text: &[u8]) {
        let Some(at) = memmem::find(text, b"number=") else { return };
        let digits = text.get(at + 7..).unwrap_or_default().iter().take_while(|byte| byte.is_ascii_digit());
        self.record_arrived(
            digits.fold(0, |sum: u64, digit| sum.saturating_mul(10).saturating_add(u64::from(digit - b'0'))),
        );
    }

    fn record_arrived(&self, number: u64) {
        let slot = usize::try_from(number).ok().and_then(|index| self.arrived.get(index));
        if let Some(slot) = slot
            && slot.swap(self.now(), Ordering::Relaxed) == 0
        {
            self.count.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Returns how many mails' webhooks have arrived.
    pub(crate) fn count(&self) -> u64 {
        self.count.load(Ordering::Relaxed)
    }

    /// Returns the microseconds from each mail's last octets to its webhook, sorted.
    pub(crate) fn latencies(&self) -> Vec<u64> {
        let pair = |(sent, arrived): (&AtomicU64, &AtomicU64)| {
            let (sent, arrived) = (sent.load(Ordering::Relaxed), arrived.load(Ordering::Relaxed));
            (arrived > 0).then(|| arrived.saturating_sub(sent))
        };
        let mut latencies: Vec<u64> = self.sent.iter().zip(&self.arrived).filter_map(pair).collect();
        latencies.sort_unstable();
        latencies
    }
}

/// Starts receivers, the first `hanging` of which never answer; returns their ports.
pub(crate) async fn receivers(count: usize, hanging: usize, arrivals: &Arc<Arrivals>) -> anyhow::Result<Vec<u16>> {
    let mut ports = Vec::with_capacity(count);
    for index in 0..count {
        let listener = TcpListener::bind("127.0.0.1:0").await.context("binding a receiver")?;
        ports.push(listener.local_addr()?.port());
        let arrivals = Arc::clone(arrivals);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let arrivals = Arc::clone(&arrivals);
                if index < hanging {
                    tokio::spawn(hang(stream));
                } else {
                    tokio::spawn(async move { drop(receive(stream, &arrivals).await) });
                }
            }
        });
    }
    Ok(ports)
}

/// Reads without answering until the peer gives up.
async fn hang(mut stream: TcpStream) {
    let mut buffer = [0_u8; 512];
    while matches!(stream.read(&mut buffer).await, Ok(1..)) {}
}

/// Answers 200 to each request and records the number in its payload.
async fn receive(mut stream: TcpStream, arrivals: &Arrivals) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let mut input: Vec<u8> = Vec::with_capacity(16 * 1024);
    loop {
        let mut whole = None;
        while whole.is_none() {
            if stream.read_buf(&mut input).await? == 0 {
                return Ok(());
            }
            whole = request_length(&input).filter(|length| *length <= input.len());
        }
        let length = whole.unwrap_or(0);
        let request = input.get(..length).unwrap_or_default();
        arrivals.record_text(request);
        input.drain(..length);
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await?;
    }
}

/// Returns the octets of the request at the start of the buffer, once its header is complete.
fn request_length(input: &[u8]) -> Option<usize> {
    let end = memmem::find(input, b"\r\n\r\n")? + 4;
    let header = std::str::from_utf8(input.get(..end)?).ok()?;
    let length = header.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse::<usize>().ok())?
    });
    Some(end + length.unwrap_or(0))
}

/// An SMTP server that accepts and discards everything.
pub(crate) struct Sink {
    pub(crate) address: SocketAddr,
}

impl Sink {
    /// Starts it; records the arrival of mails.
    pub(crate) async fn start(arrivals: Arc<Arrivals>) -> anyhow::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await.context("binding the sink")?;
        let address = listener.local_addr()?;
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let arrivals = Arc::clone(&arrivals);
                tokio::spawn(async move { drop(serve_sink(stream, &arrivals).await) });
            }
        });
        Ok(Self { address })
    }
}

/// Starts a host at `address` that accepts every connection and never answers.
pub(crate) async fn tarpit(address: SocketAddr) -> anyhow::Result<()> {
    let listener = TcpListener::bind(address).await.context("binding the tarpit")?;
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(hang(stream));
        }
    });
    Ok(())
}

async fn serve_sink(mut stream: TcpStream, arrivals: &Arrivals) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    stream.write_all(b"220 sink ESMTP\r\n").await?;
    let mut input: Vec<u8> = Vec::with_capacity(16 * 1024);
    let mut in_data = false;
    loop {
        if stream.read_buf(&mut input).await? == 0 {
            return Ok(());
        }
        let mut replies = Vec::new();
        loop {
            let mark: &[u8] = if in_data { b"\r\n.\r\n" } else { b"\r\n" };
            let Some(at) = memmem::find(&input, mark) else { break };
            let verb = input.get(..4).unwrap_or_default().to_ascii_uppercase();
            if in_data {
                arrivals.record_text(input.get(..at).unwrap_or_default());
            }
            input.drain(..at + mark.len());
            let reply: &[u8] = match (in_data, verb.as_slice()) {
                (false, b"DATA") => b"354 go\r\n",
                (false, b"EHLO") => b"250-sink\r\n250-PIPELINING\r\n250 8BITMIME\r\n",
                (false, b"QUIT") => return stream.write_all(b"221 bye\r\n").await,
                _ => b"250 ok\r\n",
            };
            in_data = !in_data && verb.as_slice() == b"DATA";
            replies.extend_from_slice(reply);
        }
        stream.write_all(&replies).await?;
    }
}
