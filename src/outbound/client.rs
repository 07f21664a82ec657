//! One SMTP session as a client (RFC 5321): connect, greet, STARTTLS, AUTH, envelope, data.
//!
//! It owns the stream, its deadlines and the transcript. Trouble is told apart: a reply to MAIL, RCPT or DATA is about
//! the message; everything else ([`Fault`]) is about the host, and another may be tried.

mod reply;
mod transcript;

use std::borrow::Cow;
use std::net::SocketAddr;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::{Buf as _, BytesMut};
use futures_util::FutureExt as _;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_rustls::TlsConnector;

use super::{Host, Outcome, Parcel, TlsRule, Verdict};
use crate::egress::Guard;
use crate::mail::address::Mailbox;
use crate::mail::mime;
pub use reply::Reply;
pub use transcript::Transcript;

/// Octets of one line of a reply, and of a whole one.
const MAX_LINE: usize = 2 * 1024;
const MAX_REPLY: usize = 64 * 1024;
/// Octets written at a time.
const PIECE: usize = 32 * 1024;

/// Deadlines of a session (RFC 5321 §4.5.3.2).
#[derive(Clone, Copy, Debug)]
pub struct Timeouts {
    /// For a connection.
    pub connect: Duration,
    /// For the greeting, a handshake, and the replies to EHLO, AUTH, MAIL and RCPT.
    pub command: Duration,
    /// For the reply to DATA, and for each piece of data to be taken.
    pub data: Duration,
    /// For the reply to the final dot.
    pub end_of_data: Duration,
    /// For all hosts of a parcel together.
    pub total: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        let minutes = |count: u64| Duration::from_secs(60 * count);
        Self {
            connect: Duration::from_secs(30),
            command: minutes(5),
            data: minutes(3),
            end_of_data: minutes(10),
            total: minutes(20),
        }
    }
}

/// How a session is opened.
pub struct Opening<'a> {
    /// What we call ourselves.
    pub helo: &'a str,
    /// Deadlines of each step.
    pub timeouts: Timeouts,
    /// When all of them end.
    pub deadline: Instant,
    /// TLS from the first octet.
    pub implicit_tls: bool,
    /// What TLS has to prove; none: STARTTLS is not asked for.
    pub tls: Option<TlsConnector>,
    /// User and password.
    pub auth: Option<(&'a str, &'a str)>,
    /// What refuses a connection that turns out to lead back to this server; none: the operator chose the host.
    pub guard: Option<&'a Guard>,
}

/// Trouble with a host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// No connection, or it was lost.
    Connection(String),
    /// Nothing came in time.
    Timeout(&'static str),
    /// It does not speak SMTP.
    Malformed(&'static str),
    /// TLS failed, or is missing where it has to be.
    Tls(String),
    /// It refused the session.
    Refused(Reply),
    /// It refused our credentials.
    Auth(Reply),
}

impl Fault {
    /// A sentence that begins with an enhanced status code (RFC 3463, RFC 7672 §8.3 style for TLS).
    pub fn diagnostic(&self, host: &str) -> String {
        match self {
            Self::Connection(why) => format!("4.4.1 {host}: {why}"),
            Self::Timeout(what) => format!("4.4.2 {host}: timed out waiting for {what}"),
            Self::Malformed(why) => format!("4.5.0 {host}: {why}"),
            Self::Tls(why) => format!("4.7.5 {host}: {why}"),
            Self::Refused(reply) => format!("4.3.2 {host} refused the session: {}", reply.text()),
            Self::Auth(reply) => format!("4.7.8 {host} refused our credentials: {}", reply.text()),
        }
    }
}

trait Wire: AsyncRead + AsyncWrite + Unpin + Send {}
impl<S: AsyncRead + AsyncWrite + Unpin + Send> Wire for S {}

/// What the host offers.
#[derive(Clone, Debug, Default)]
struct Offers {
    pipelining: bool,
    eight_bit: bool,
    smtputf8: bool,
    starttls: bool,
    enhanced: bool,
    /// `Some(0)`: no fixed limit (RFC 1870 §4).
    size: Option<u64>,
    auth: Vec<String>,
}

impl Offers {
    /// Refuses for a host that takes no international addresses the recipients that have one, or all of them if the sender
    /// has (RFC 6531 §3.2).
    fn refuse_international(&self, parcel: &Parcel, recipients: &[Mailbox], outcomes: &mut [Option<Outcome>]) {
        let from_one = parcel.reverse_path.as_ref().is_some_and(is_international);
        for (recipient, outcome) in recipients.iter().zip(outcomes).filter(|_| !self.smtputf8) {
            if from_one || is_international(recipient) {
                let why = "5.6.7 the remote host takes no international addresses";
                *outcome = Some(Outcome::ours(Verdict::Bounced, why));
            }
        }
    }

    /// The parcel as the host can take it, recoded if it takes 7 bits alone; or why it cannot (RFC 1870 §6, RFC 6152 §3).
    async fn fitted<'p>(&self, parcel: &'p Parcel) -> Result<Cow<'p, Parcel>, Outcome> {
        let refuse = |diagnostic: &str| Err(Outcome::ours(Verdict::Bounced, diagnostic));
        let mut parcel = Cow::Borrowed(parcel);
        if !self.eight_bit && !parcel.data.is_ascii() {
            let data = parcel.data.clone();
            // It may be 25 MiB.
            let recoded = tokio::task::spawn_blocking(move || mime::to_seven_bit(&data)).await;
            let Ok(Some(recoded)) = recoded else {
                return refuse("5.6.3 the remote host takes no 8-bit mail, and this cannot be written in 7 bits");
            };
            parcel.to_mut().data = recoded.into();
        }
        if self.size.is_some_and(|limit| limit > 0 && parcel.data.len() as u64 > limit) {
            return refuse("5.3.4 the message is larger than the remote host takes");
        }
        Ok(parcel)
    }
}

/// A session that is ready for a transaction.
pub struct Session {
    wire: Box<dyn Wire>,
    input: BytesMut,
    offers: Offers,
    timeouts: Timeouts,
    /// When the parcel's time is over, whatever step it is at.
    deadline: Instant,
    /// `TLSv1.3`; none: plain text.
    pub tls: Option<String>,
    /// What was said so far.
    pub transcript: Transcript,
    /// Transactions that were made.
    pub transactions: u32,
}

/// How a transaction ended: what it decided, and whether the session is of further use.
pub struct Ended {
    /// For each recipient; none: the host's trouble came before a decision.
    pub outcomes: Vec<Option<Outcome>>,
    /// What broke it.
    pub fault: Option<Fault>,
    /// Whether mail data went out, so that another host must not get it at once.
    pub data_sent: bool,
    /// Whether another transaction may follow.
    pub reusable: bool,
}

impl Ended {
    /// Gives an outcome to all who have none.
    fn settle_rest(&mut self, outcome: &Outcome) {
        self.outcomes.iter_mut().filter(|one| one.is_none()).for_each(|one| *one = Some(outcome.clone()));
    }

    /// The places of those who have none, in their order.
    fn open(&mut self) -> impl Iterator<Item = &mut Option<Outcome>> {
        self.outcomes.iter_mut().filter(|one| one.is_none())
    }
}

impl Session {
    /// Connects to one address of a host and greets it.
    ///
    /// # Errors
    /// The host's trouble, with what was said.
    pub async fn open(host: &Host, address: SocketAddr, opening: &Opening<'_>) -> Result<Self, (Fault, Transcript)> {
        let mut transcript = Transcript::default();
        transcript.note(&format!("{} [{address}]", host.name));
        let until = opening.deadline.min(Instant::now() + opening.timeouts.connect);
        let connecting = timeout_at(until, TcpStream::connect(address));
        let stream = match connecting.await {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => {
                return Err((Fault::Connection(format!("no connection to {address}: {error}")), transcript));
            }
            Err(_) => return Err((Fault::Connection(format!("no connection to {address} in time")), transcript)),
        };
        if let Some(guard) = opening.guard
            && let Ok(local) = stream.local_addr()
            && let Err(blocked) = guard.permits_connection(local, address)
        {
            return Err((Fault::Connection(blocked.to_string()), transcript));
        }
        // Commands are small and answered at once.
        let _ = stream.set_nodelay(true);
        let mut session = Self {
            wire: Box::new(stream),
            input: BytesMut::new(),
            offers: Offers::default(),
            timeouts: opening.timeouts,
            deadline: opening.deadline,
            tls: None,
            transcript,
            transactions: 0,
        };
        match session.begin(host, opening).await {
            Ok(()) => Ok(session),
            Err(fault) => Err((fault, session.transcript)),
        }
    }

    async fn begin(&mut self, host: &Host, opening: &Opening<'_>) -> Result<(), Fault> {
        if opening.implicit_tls
            && let Some(connector) = &opening.tls
        {
            self.handshake(host, connector).await?;
        }
        let greeting = self.read_reply("the greeting", self.timeouts.command).await?;
        if !greeting.is_positive() {
            return Err(Fault::Refused(greeting));
        }
        self.hello(opening.helo).await?;
        if self.tls.is_none()
            && let Some(connector) = &opening.tls
        {
            self.start_tls(host, connector, opening.helo).await?;
        }
        if let Some((user, password)) = opening.auth {
            self.authenticate(user, password).await?;
        }
        Ok(())
    }

    async fn hello(&mut self, helo: &str) -> Result<(), Fault> {
        let reply = self.command(&format!("EHLO {helo}"), "EHLO").await?;
        if reply.is_positive() {
            self.offers = Offers::of(&reply);
            return Ok(());
        }
        // RFC 5321 §3.2: an old host knows HELO alone.
        self.offers = Offers::default();
        let reply = match reply.code {
            500..=504 | 550 => self.command(&format!("HELO {helo}"), "HELO").await?,
            _ => reply,
        };
        if reply.is_positive() { Ok(()) } else { Err(Fault::Refused(reply)) }
    }

    async fn start_tls(&mut self, host: &Host, connector: &TlsConnector, helo: &str) -> Result<(), Fault> {
        let optional = host.tls == TlsRule::Opportunistic;
        if !self.offers.starttls {
            return if optional { Ok(()) } else { Err(Fault::Tls("STARTTLS is not offered".to_owned())) };
        }
        let reply = self.command("STARTTLS", "STARTTLS").await.map_err(tls_trouble)?;
        if reply.code == 421 {
            return Err(Fault::Tls(format!("STARTTLS: {}", reply.text())));
        }
        if reply.code != 220 {
            return if optional { Ok(()) } else { Err(Fault::Tls(format!("STARTTLS: {}", reply.text()))) };
        }
        // RFC 3207 §6: what came behind the reply in plain text is somebody's in the middle.
        if !self.input.is_empty() {
            return Err(Fault::Tls("plain text came behind the reply to STARTTLS".to_owned()));
        }
        self.handshake(host, connector).await?;
        // RFC 8446 §2: our side of the handshake is done first, and what the host does not like it says after that.
        self.hello(helo).await.map_err(tls_trouble)
    }

    async fn handshake(&mut self, host: &Host, connector: &TlsConnector) -> Result<(), Fault> {
        let name = ServerName::try_from(host.name.clone())
            .map_err(|_| Fault::Tls(format!("{} is no name for a certificate", host.name)))?;
        let plain = std::mem::replace(&mut self.wire, Box::new(tokio::io::empty()));
        let shaking = timeout_at(self.until(self.timeouts.command), connector.connect(name, plain)).await;
        let stream = match shaking {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => return Err(Fault::Tls(format!("TLS failed: {error}"))),
            Err(_) => return Err(Fault::Tls("the TLS handshake has no end".to_owned())),
        };
        let version = stream.get_ref().1.protocol_version();
        self.tls = Some(match version {
            Some(rustls::ProtocolVersion::TLSv1_3) => "TLSv1.3".to_owned(),
            Some(rustls::ProtocolVersion::TLSv1_2) => "TLSv1.2".to_owned(),
            other => format!("{other:?}"),
        });
        self.transcript.note(&format!("TLS: {}", self.tls.as_deref().unwrap_or_default()));
        self.wire = Box::new(stream);
        Ok(())
    }

    async fn authenticate(&mut self, user: &str, password: &str) -> Result<(), Fault> {
        let offers = |mechanism: &str| self.offers.auth.iter().any(|one| one.eq_ignore_ascii_case(mechanism));
        let reply = if offers("PLAIN") {
            let response = BASE64.encode(format!("\0{user}\0{password}"));
            self.transcript.client("AUTH PLAIN <credentials>");
            self.write(format!("AUTH PLAIN {response}\r\n").as_bytes()).await?;
            self.read_reply("AUTH", self.timeouts.command).await?
        } else if offers("LOGIN") {
            let mut reply = self.command("AUTH LOGIN", "AUTH").await?;
            for response in [user, password] {
                if reply.code != 334 {
                    break;
                }
                self.transcript.client("<credentials>");
                self.write(format!("{}\r\n", BASE64.encode(response)).as_bytes()).await?;
                reply = self.read_reply("AUTH", self.timeouts.command).await?;
            }
            reply
        } else {
            return Err(Fault::Tls("neither AUTH PLAIN nor AUTH LOGIN is offered".to_owned()));
        };
        if reply.is_positive() { Ok(()) } else { Err(Fault::Auth(reply)) }
    }

    /// Whether the host closed the session, or said something unasked, while nobody looked.
    pub fn is_stale(&mut self) -> bool {
        // Nothing to read is the one healthy answer.
        !self.input.is_empty() || self.wire.read_buf(&mut self.input).now_or_never().is_some()
    }

    /// Says good-bye; does not wait for an answer.
    pub async fn quit(mut self) {
        let _ = timeout(Duration::from_secs(1), self.wire.write_all(b"QUIT\r\n")).await;
        let _ = timeout(Duration::from_secs(1), self.wire.shutdown()).await;
    }

    /// When a step ends that may take so long.
    fn until(&self, limit: Duration) -> Instant {
        self.deadline.min(Instant::now() + limit)
    }

    /// Takes a parcel's mail to some of its recipients, until `deadline`.
    pub async fn send(&mut self, parcel: &Parcel, recipients: &[Mailbox], deadline: Instant) -> Ended {
        self.transactions += 1;
        self.deadline = deadline;
        let mut ended =
            Ended { outcomes: vec![None; recipients.len()], fault: None, data_sent: false, reusable: false };
        self.offers.refuse_international(parcel, recipients, &mut ended.outcomes);
        if ended.outcomes.iter().all(Option::is_some) {
            ended.reusable = true;
            return ended;
        }
        let parcel = match self.offers.fitted(parcel).await {
            Ok(parcel) => parcel,
            Err(refusal) => {
                ended.settle_rest(&refusal);
                ended.reusable = true;
                return ended;
            }
        };
        if let Err(fault) = self.transact(&parcel, recipients, &mut ended).await {
            ended.reusable = false;
            ended.fault = Some(fault);
        }
        ended
    }

    /// One transaction for the recipients that have no verdict yet.
    async fn transact(&mut self, parcel: &Parcel, recipients: &[Mailbox], ended: &mut Ended) -> Result<(), Fault> {
        let open = recipients.iter().zip(&ended.outcomes).filter(|(_, outcome)| outcome.is_none());
        let recipients: Vec<&Mailbox> = open.map(|(recipient, _)| recipient).collect();
        let mut commands = vec![self.mail_command(parcel, &recipients)];
        commands.extend(recipients.iter().map(|recipient| format!("RCPT TO:<{recipient}>")));
        let data = if self.offers.pipelining {
            commands.push("DATA".to_owned());
            self.pipelined(&commands, ended).await?
        } else {
            self.in_turn(&commands, ended).await?
        };
        let Some(data) = data else {
            // No recipient is left; the session stands, but in the middle of a transaction.
            return Ok(());
        };
        if data.code != 354 {
            if data.code == 421 || !(400..600).contains(&data.code) {
                return Err(Fault::Refused(data));
            }
            ended.settle_rest(&data.outcome());
            return Ok(());
        }
        if !ended.outcomes.iter().any(Option::is_none) {
            // It waits for data that nobody is to have.
            self.transcript.client(".");
            self.write(b".\r\n").await?;
            self.read_reply("the final dot", self.timeouts.data).await?;
            return Ok(());
        }
        // A reply that came before what it answers would be taken for the one to the final dot.
        if !self.input.is_empty() {
            return Err(Fault::Malformed("it answers what was not said"));
        }
        ended.data_sent = true;
        if let Err(fault) = self.write_data(&parcel.data).await {
            // It may have said why it hung up.
            let said = self.read_reply("the final dot", Duration::from_secs(5)).await;
            let reply = said.ok().filter(|reply| reply.code >= 400 && reply.code != 421).ok_or(fault)?;
            ended.settle_rest(&reply.outcome());
            return Ok(());
        }
        let last = self.read_reply("the reply to the final dot", self.timeouts.end_of_data).await?;
        if last.code == 421 {
            return Err(Fault::Refused(last));
        }
        ended.settle_rest(&last.outcome());
        ended.reusable = last.is_positive();
        Ok(())
    }

    fn mail_command(&self, parcel: &Parcel, recipients: &[&Mailbox]) -> String {
        let mut command = match &parcel.reverse_path {
            Some(mailbox) => format!("MAIL FROM:<{mailbox}>"),
            None => "MAIL FROM:<>".to_owned(),
        };
        if self.offers.size.is_some() {
            command.push_str(&format!(" SIZE={}", parcel.data.len()));
        }
        if self.offers.eight_bit && !parcel.data.is_ascii() {
            command.push_str(" BODY=8BITMIME");
        }
        if parcel.reverse_path.iter().chain(recipients.iter().copied()).any(is_international) {
            command.push_str(" SMTPUTF8");
        }
        command
    }

    /// MAIL, every RCPT and DATA in one go (RFC 2920 §3.1); returns the reply to DATA.
    async fn pipelined(&mut self, commands: &[String], ended: &mut Ended) -> Result<Option<Reply>, Fault> {
        let recipients = ended.outcomes.iter().filter(|one| one.is_none()).count();
        let mut octets = Vec::new();
        for command in commands {
            self.transcript.client(command);
            octets.extend_from_slice(command.as_bytes());
            octets.extend_from_slice(b"\r\n");
        }
        self.write(&octets).await?;
        let mail = self.reply_to("MAIL").await?;
        if !mail.is_positive() {
            // It may hang up now; what it said counts nevertheless.
            ended.settle_rest(&mail.outcome());
            for _ in 0..recipients {
                self.reply_to("RCPT").await?;
            }
        }
        for outcome in ended.open() {
            let reply = self.reply_to("RCPT").await?;
            if !reply.is_positive() {
                *outcome = Some(reply.recipient_outcome());
            }
        }
        let data = self.read_reply("DATA", self.timeouts.data).await?;
        Ok((data.code == 354 || ended.outcomes.iter().any(Option::is_none)).then_some(data))
    }

    /// One command at a time; DATA only when a recipient was accepted.
    async fn in_turn(&mut self, commands: &[String], ended: &mut Ended) -> Result<Option<Reply>, Fault> {
        let Some((mail, recipients)) = commands.split_first() else { return Ok(None) };
        self.say(mail).await?;
        let reply = self.reply_to("MAIL").await?;
        if !reply.is_positive() {
            ended.settle_rest(&reply.outcome());
            return Ok(None);
        }
        for (command, outcome) in recipients.iter().zip(ended.open()) {
            self.say(command).await?;
            let reply = self.reply_to("RCPT").await?;
            if !reply.is_positive() {
                *outcome = Some(reply.recipient_outcome());
            }
        }
        if ended.outcomes.iter().all(Option::is_some) {
            return Ok(None);
        }
        self.say("DATA").await?;
        self.read_reply("DATA", self.timeouts.data).await.map(Some)
    }

    /// A reply to MAIL or RCPT; 421 ends the session.
    async fn reply_to(&mut self, what: &'static str) -> Result<Reply, Fault> {
        let reply = self.read_reply(what, self.timeouts.command).await?;
        if reply.code == 421 { Err(Fault::Refused(reply)) } else { Ok(reply) }
    }

    /// Dot-stuffed (RFC 5321 §4.5.2) and ended by the final dot, a piece at a time.
    async fn write_data(&mut self, data: &[u8]) -> Result<(), Fault> {
        self.transcript.client(&format!("<{} octets of mail data>", data.len()));
        let mut piece = Vec::with_capacity(PIECE + 1024);
        let mut rest = data;
        while !rest.is_empty() {
            let length = memchr::memchr(b'\n', rest).map_or(rest.len(), |end| end + 1);
            let (line, after) = rest.split_at_checked(length).unwrap_or((rest, &[]));
            if line.first() == Some(&b'.') {
                piece.push(b'.');
            }
            piece.extend_from_slice(line);
            rest = after;
            if piece.len() >= PIECE {
                self.write_within(&piece, self.timeouts.data).await?;
                piece.clear();
            }
        }
        if !data.is_empty() && !data.ends_with(b"\r\n") {
            piece.extend_from_slice(b"\r\n");
        }
        piece.extend_from_slice(b".\r\n");
        self.write_within(&piece, self.timeouts.data).await
    }

    async fn command(&mut self, command: &str, what: &'static str) -> Result<Reply, Fault> {
        self.say(command).await?;
        self.read_reply(what, self.timeouts.command).await
    }

    async fn say(&mut self, command: &str) -> Result<(), Fault> {
        self.transcript.client(command);
        self.write(format!("{command}\r\n").as_bytes()).await
    }

    async fn write(&mut self, octets: &[u8]) -> Result<(), Fault> {
        self.write_within(octets, self.timeouts.command).await
    }

    async fn write_within(&mut self, octets: &[u8], limit: Duration) -> Result<(), Fault> {
        let until = self.until(limit);
        let writing = async {
            self.wire.write_all(octets).await?;
            self.wire.flush().await
        };
        match timeout_at(until, writing).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(Fault::Connection(format!("the connection was lost: {error}"))),
            Err(_) => Err(Fault::Timeout("what we send to be taken")),
        }
    }

    async fn read_reply(&mut self, what: &'static str, limit: Duration) -> Result<Reply, Fault> {
        let reply = timeout_at(self.until(limit), self.read_lines()).await.unwrap_or(Err(Fault::Timeout(what)))?;
        self.transcript.server(&reply);
        Ok(reply)
    }

    async fn read_lines(&mut self) -> Result<Reply, Fault> {
        let mut lines = Vec::new();
        let mut octets = 0;
        loop {
            let line = self.read_line().await?;
            octets += line.len();
            if octets > MAX_REPLY {
                return Err(Fault::Malformed("its reply does not end"));
            }
            let (code, last, text) = reply::line(&line).ok_or(Fault::Malformed("it does not speak SMTP"))?;
            lines.push(text);
            if last {
                return Ok(Reply { code, lines });
            }
        }
    }

    async fn read_line(&mut self) -> Result<Vec<u8>, Fault> {
        let mut searched = 0;
        loop {
            let unread = self.input.get(searched..).unwrap_or_default();
            if let Some(end) = memchr::memchr(b'\n', unread) {
                let mut line = self.input.split_to(searched + end + 1);
                line.truncate(line.len() - 1);
                if line.last() == Some(&b'\r') {
                    line.truncate(line.len() - 1);
                }
                return Ok(line.to_vec());
            }
            searched = self.input.len();
            if searched > MAX_LINE {
                self.input.advance(searched);
                return Err(Fault::Malformed("a line of its reply does not end"));
            }
            match self.wire.read_buf(&mut self.input).await {
                Ok(0) => return Err(Fault::Connection("the connection was closed".to_owned())),
                Ok(_) => {}
                Err(error) => return Err(Fault::Connection(format!("the connection was lost: {error}"))),
            }
        }
    }
}

/// A connection that is lost over TLS is lost by TLS: without it the host may do better.
fn tls_trouble(fault: Fault) -> Fault {
    match fault {
        Fault::Connection(why) => Fault::Tls(format!("TLS failed: {why}")),
        Fault::Timeout(what) => Fault::Tls(format!("TLS failed: timed out waiting for {what}")),
        other => other,
    }
}

/// Whether an address has letters beyond ASCII (RFC 6531 §3.3); domains never do.
fn is_international(mailbox: &Mailbox) -> bool {
    !mailbox.local().is_ascii()
}

impl Offers {
    fn of(reply: &Reply) -> Self {
        let mut offers = Self::default();
        for line in reply.lines.iter().skip(1) {
            let mut words = line.split_ascii_whitespace();
            let word = words.next().unwrap_or_default().to_ascii_uppercase();
            match word.as_str() {
                "PIPELINING" => offers.pipelining = true,
                "8BITMIME" => offers.eight_bit = true,
                "SMTPUTF8" => offers.smtputf8 = true,
                "STARTTLS" => offers.starttls = true,
                "ENHANCEDSTATUSCODES" => offers.enhanced = true,
                "SIZE" => offers.size = Some(words.next().and_then(|size| size.parse().ok()).unwrap_or(0)),
                "AUTH" => offers.auth = words.map(str::to_owned).collect(),
                _ => {}
            }
        }
        offers
    }
}
