//! A remote mail host that replies by a script, and returns the mail that it accepted.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::watch;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;

use super::server::DEADLINE;

/// Replaces the host's usual reply.
#[derive(Clone, Debug)]
pub(crate) enum HostAction {
    /// Sends this, line ends included.
    Send(String),
    /// Sends this and closes the connection.
    SendAndClose(String),
    /// Sends this after a delay: a slow host.
    SendAfter(Duration, String),
    /// Sends nothing until the client gives up.
    Hang,
    /// Sends this, and then nothing.
    SendAndHang(String),
    /// Sends this again and again.
    SendForever(String),
}

/// Maps a command, `GREETING`, or `END` of the data to an action, if any; the second argument counts connections from
/// 1.
pub(crate) type Script = Arc<dyn Fn(&str, usize) -> Option<HostAction> + Send + Sync>;

/// Behaviour of a host.
#[derive(Clone)]
pub(crate) struct HostConfig {
    /// Lines of the answer to EHLO after the first.
    pub extensions: Vec<&'static str>,
    /// STARTTLS, or TLS from the first octet.
    pub tls: Option<TlsAcceptor>,
    pub implicit_tls: bool,
    pub script: Script,
}

impl Default for HostConfig {
    fn default() -> Self {
        Self {
            extensions: vec!["PIPELINING", "8BITMIME", "SMTPUTF8", "SIZE 30000000", "ENHANCEDSTATUSCODES"],
            tls: None,
            implicit_tls: false,
            script: Arc::new(|_, _| None),
        }
    }
}

/// A message that the host accepted.
#[derive(Clone, Debug)]
pub(crate) struct ReceivedMail {
    /// `MAIL FROM:…` as it came.
    pub mail: String,
    /// Each `RCPT TO:…` that was accepted.
    pub rcpt: Vec<String>,
    /// The octets between 354 and the final dot, as they came.
    pub wire: Vec<u8>,
    /// True in an encrypted session.
    pub tls: bool,
    /// Number of its connection, from 1.
    pub connection: usize,
}

impl ReceivedMail {
    /// The mail data, with dot-stuffing undone.
    pub(crate) fn data(&self) -> Vec<u8> {
        let mut data = Vec::with_capacity(self.wire.len());
        for line in self.wire.split_inclusive(|byte| *byte == b'\n') {
            data.extend_from_slice(line.strip_prefix(b".").unwrap_or(line));
        }
        data
    }

    /// The addresses in angle brackets.
    pub(crate) fn recipients(&self) -> Vec<String> {
        self.rcpt.iter().map(|line| line.split(['<', '>']).nth(1).unwrap().to_owned()).collect()
    }

    /// The envelope sender.
    pub(crate) fn sender(&self) -> String {
        self.mail.split(['<', '>']).nth(1).unwrap().to_owned()
    }
}

/// The host; it stops when it is dropped.
pub(crate) struct RemoteHost {
    pub address: SocketAddr,
    taken: UnboundedReceiver<ReceivedMail>,
    connections: watch::Receiver<usize>,
    open: Arc<ConnectionCounts>,
    serving: tokio::task::JoinHandle<()>,
}

/// Connections at a time: now, and at most so far.
#[derive(Default)]
struct ConnectionCounts {
    now: AtomicUsize,
    most: AtomicUsize,
}

/// One of them.
struct OpenConnection(Arc<ConnectionCounts>);

impl OpenConnection {
    fn new(open: &Arc<ConnectionCounts>) -> Self {
        let now = open.now.fetch_add(1, Ordering::SeqCst) + 1;
        open.most.fetch_max(now, Ordering::SeqCst);
        Self(Arc::clone(open))
    }
}

impl Drop for OpenConnection {
    fn drop(&mut self) {
        self.0.now.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Drop for RemoteHost {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

impl RemoteHost {
    /// Starts a host that accepts everything.
    pub(crate) async fn start() -> Self {
        Self::with(HostConfig::default()).await
    }

    /// Starts a host with this script.
    pub(crate) async fn scripted(script: impl Fn(&str, usize) -> Option<HostAction> + Send + Sync + 'static) -> Self {
        Self::with(HostConfig { script: Arc::new(script), ..HostConfig::default() }).await
    }

    pub(crate) async fn with(config: HostConfig) -> Self {
        Self::at(SocketAddr::from(([127, 0, 0, 1], 0)), config).await
    }

    /// Starts one at this address, which another host may have had.
    pub(crate) async fn at(address: SocketAddr, config: HostConfig) -> Self {
        let listener = TcpListener::bind(address).await.unwrap();
        let address = listener.local_addr().unwrap();
        let (count, connections) = watch::channel(0);
        let (taken_sender, taken) = unbounded_channel();
        let open = Arc::new(ConnectionCounts::default());
        let opened = Arc::clone(&open);
        let serving = tokio::spawn(async move {
            let mut sessions = tokio::task::JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                count.send_modify(|count| *count += 1);
                let host = Session {
                    config: config.clone(),
                    number: *count.borrow(),
                    taken: taken_sender.clone(),
                    counted: OpenConnection::new(&opened),
                };
                sessions.spawn(host.serve(stream));
            }
        });
        Self { address, taken, connections, open, serving }
    }

    /// Waits for the next message.
    pub(crate) async fn next_mail(&mut self) -> ReceivedMail {
        let taken = timeout(DEADLINE, self.taken.recv()).await;
        assert!(taken.is_ok(), "nothing came within {DEADLINE:?}");
        taken.unwrap().unwrap()
    }

    /// The next message, if it has come already.
    pub(crate) fn try_next_mail(&mut self) -> Option<ReceivedMail> {
        self.taken.try_recv().ok()
    }

    /// True when no accepted message is left unread.
    pub(crate) fn is_drained(&mut self) -> bool {
        self.taken.try_recv().is_err()
    }

    pub(crate) fn connections(&self) -> usize {
        *self.connections.borrow()
    }

    /// Waits until it has had this many connections.
    pub(crate) async fn until_connections(&self, wanted: usize) {
        let mut connections = self.connections.clone();
        let reached = timeout(DEADLINE, connections.wait_for(|count| *count >= wanted)).await;
        assert!(reached.is_ok(), "{} connections instead of {wanted} after {DEADLINE:?}", self.connections());
    }

    /// Peak number of concurrent connections.
    pub(crate) fn most_connections(&self) -> usize {
        self.open.most.load(Ordering::SeqCst)
    }
}

struct Session {
    config: HostConfig,
    number: usize,
    taken: UnboundedSender<ReceivedMail>,
    counted: OpenConnection,
}

trait ByteStream: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send {}
impl<S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send> ByteStream for S {}

type Stream = BufReader<Box<dyn ByteStream>>;

impl Session {
    async fn serve(self, stream: TcpStream) {
        let mut tls = false;
        let mut stream: Stream = match &self.config.tls {
            Some(acceptor) if self.config.implicit_tls => {
                let Ok(stream) = acceptor.accept(stream).await else { return };
                tls = true;
                BufReader::new(Box::new(stream))
            }
            _ => BufReader::new(Box::new(stream)),
        };
        if !self.answer(&mut stream, "GREETING", "220 mx.remote.test ESMTP\r\n").await {
            return;
        }
        let mut mail = String::new();
        let mut rcpt = Vec::new();
        loop {
            let mut line = Vec::new();
            if !matches!(stream.read_until(b'\n', &mut line).await, Ok(1..)) {
                return;
            }
            let line = String::from_utf8_lossy(&line).trim_end().to_owned();
            let upper = line.to_ascii_uppercase();
            let verb = upper.split(' ').next().unwrap_or_default();
            let usual = match verb {
                "EHLO" => self.ehlo_reply(tls),
                "STARTTLS" => {
                    let refused = (self.config.script)(&line, self.number).is_some();
                    if !self.answer(&mut stream, &line, "220 2.0.0 go\r\n").await {
                        return;
                    }
                    if refused {
                        continue;
                    }
                    let acceptor = self.config.tls.clone().unwrap();
                    let Ok(secured) = acceptor.accept(stream.into_inner()).await else { return };
                    tls = true;
                    stream = BufReader::new(Box::new(secured));
                    continue;
                }
                "DATA" if rcpt.is_empty() => "503 5.5.1 no recipient\r\n".to_owned(),
                "DATA" => "354 go\r\n".to_owned(),
                "QUIT" => "221 2.0.0 bye\r\n".to_owned(),
                _ => "250 2.0.0 ok\r\n".to_owned(),
            };
            let acted = (self.config.script)(&line, self.number);
            let said = match &acted {
                Some(HostAction::Send(text) | HostAction::SendAndClose(text) | HostAction::SendAfter(_, text)) => {
                    text.clone()
                }
                _ => usual.clone(),
            };
            if !self.answer(&mut stream, &line, &usual).await {
                return;
            }
            match verb {
                "MAIL" => (mail, rcpt) = (line, Vec::new()),
                "RCPT" if said.starts_with('2') => rcpt.push(line),
                "DATA" if said.starts_with("354") => {
                    let Some(wire) = read_data(&mut stream).await else { return };
                    let taken = ReceivedMail {
                        mail: mail.clone(),
                        rcpt: std::mem::take(&mut rcpt),
                        wire,
                        tls,
                        connection: self.number,
                    };
                    let accepted = match (self.config.script)("END", self.number) {
                        Some(HostAction::Send(text) | HostAction::SendAfter(_, text)) => text.starts_with('2'),
                        Some(_) => false,
                        None => true,
                    };
                    if accepted {
                        drop(self.taken.send(taken));
                    }
                    if !self.answer(&mut stream, "END", "250 2.0.0 taken\r\n").await {
                        return;
                    }
                }
                "QUIT" => {
                    // Before the connection ends: that is what a client may wait for.
                    drop(self.counted);
                    return;
                }
                _ => {}
            }
        }
    }

    fn ehlo_reply(&self, tls: bool) -> String {
        let mut lines = vec!["mx.remote.test".to_owned()];
        lines.extend(self.config.extensions.iter().map(|line| (*line).to_owned()));
        if self.config.tls.is_some() && !tls {
            lines.push("STARTTLS".to_owned());
        }
        let last = lines.len() - 1;
        lines
            .iter()
            .enumerate()
            .map(|(at, line)| format!("250{}{line}\r\n", if at == last { ' ' } else { '-' }))
            .collect()
    }

    /// Sends the script's reply or the usual one; true when the session goes on.
    async fn answer(&self, stream: &mut Stream, what: &str, usual: &str) -> bool {
        match (self.config.script)(what, self.number) {
            None => stream.write_all(usual.as_bytes()).await.is_ok() && stream.flush().await.is_ok(),
            Some(HostAction::Send(text)) => {
                stream.write_all(text.as_bytes()).await.is_ok() && stream.flush().await.is_ok()
            }
            Some(HostAction::SendAfter(time, text)) => {
                tokio::time::sleep(time).await;
                stream.write_all(text.as_bytes()).await.is_ok() && stream.flush().await.is_ok()
            }
            Some(HostAction::SendAndClose(text)) => {
                drop(stream.write_all(text.as_bytes()).await);
                drop(stream.flush().await);
                drop(stream.shutdown().await);
                false
            }
            Some(HostAction::SendAndHang(text)) => {
                drop(stream.write_all(text.as_bytes()).await);
                drop(stream.flush().await);
                let mut rest = Vec::new();
                drop(stream.read_to_end(&mut rest).await);
                false
            }
            Some(HostAction::Hang) => {
                // Until the client closes.
                let mut rest = Vec::new();
                drop(stream.read_to_end(&mut rest).await);
                false
            }
            Some(HostAction::SendForever(text)) => {
                while stream.write_all(text.as_bytes()).await.is_ok() && stream.flush().await.is_ok() {}
                false
            }
        }
    }
}

/// Reads up to the final dot, which is removed.
async fn read_data(stream: &mut Stream) -> Option<Vec<u8>> {
    let mut data = Vec::new();
    loop {
        let start = data.len();
        if !matches!(stream.read_until(b'\n', &mut data).await, Ok(1..)) {
            return None;
        }
        if data.get(start..) == Some(b".\r\n".as_slice()) {
            data.truncate(start);
            return Some(data);
        }
    }
}

/// Makes a self-signed certificate for `name`, and the acceptor that serves it.
pub(crate) fn self_signed(name: &str) -> (TlsAcceptor, rustls::pki_types::CertificateDer<'static>) {
    self_signed_with(rcgen::CertificateParams::new(vec![name.to_owned()]).unwrap())
}

/// As [`self_signed`], with these parameters.
pub(crate) fn self_signed_with(
    params: rcgen::CertificateParams,
) -> (TlsAcceptor, rustls::pki_types::CertificateDer<'static>) {
    let key = rcgen::KeyPair::generate().unwrap();
    let made = params.self_signed(&key).unwrap();
    let certificate = made.der().clone();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let key = rustls::pki_types::PrivateKeyDer::Pkcs8(key.serialize_der().into());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.clone()], key)
        .unwrap();
    (TlsAcceptor::from(Arc::new(config)), certificate)
}
