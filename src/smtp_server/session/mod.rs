//! One SMTP session over any stream: reads commands, checks them against [`Phase`], replies in as few writes as it
//! can.
//!
//! Owns the stream, the deadlines and the error count; `io` reads and writes, `data` executes DATA, `submission`
//! holds AUTH and what submission adds. Replies are buffered and written once the client's pipelined commands are
//! used up, so a whole envelope costs one write.

mod data;
mod io;
mod submission;

use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::Instant;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use super::admission::MailDataBudget;
use super::command::{self, Command, MailArguments, Refusal};
use super::phase::{Phase, TransactionLimits};
use super::stream::Stream;
use crate::clock::Clock;
use crate::id::DomainRowId;
use crate::inbound::{Inbound, Recipient, RecipientRefusal};
use crate::mail::address::{ForwardPath, Mailbox};
use crate::mail::envelope::Peer;
use crate::mail::reply::{self, Reply};
use crate::metrics::{Counter, Metrics};
use crate::outbound::Outbound;
use crate::process::host::FileUse;
use crate::rate_limit::FixedWindow;
use crate::store::Db;
use crate::store::accounts::Account;

/// Refused commands after which the session is closed.
const MAX_ERRORS: usize = 10;
/// Refused recipients after which the session is closed: a dictionary attack rather than mail.
const MAX_REFUSED: usize = 50;
/// Commands without an accepted message after which the session is closed …
const MAX_IDLE_COMMANDS: usize = 500;
/// … plus this many for each allowed recipient of a message, since sending too many is not an error.
const IDLE_COMMANDS_PER_RECIPIENT: usize = 10;
/// Routes that run for all recipients of one message together; further recipients need another transaction.
const MAX_ROUTE_RUNS: usize = 500;
/// A session without an accepted message ends after this time, whatever it sends.
const MAX_IDLE_SESSION: Duration = Duration::from_secs(30 * 60);
const READ_FIRST: usize = 512;
const READ_LARGE: usize = 32 * 1024;

/// State shared by all sessions of a listener.
pub(crate) struct Shared {
    pub(crate) inbound: Inbound,
    pub(crate) role: Role,
    pub(crate) metrics: Arc<Metrics>,
    /// Our own host name.
    pub(crate) hostname: String,
    /// Enables STARTTLS; `None`: not offered.
    pub(crate) tls: Option<TlsAcceptor>,
    pub(crate) limits: TransactionLimits,
    /// Time to wait for a command.
    pub(crate) command_timeout: Duration,
    /// Time to wait for the whole of a message.
    pub(crate) data_timeout: Duration,
    pub(crate) budget: MailDataBudget,
    /// Cancelled when the server stops: idle sessions end, those in a transaction go on.
    pub(crate) stop: CancellationToken,
    /// Cancelled when the grace period is over: every session ends.
    pub(crate) abort: CancellationToken,
}

/// The role of a listener.
pub(crate) enum Role {
    /// Receives mail from anybody for our domains.
    Mx,
    /// Takes mail from our accounts to anybody (RFC 6409).
    Submission(Submission),
}

impl Role {
    /// Returns the share of file descriptors that its sessions count against.
    pub(crate) const fn files(&self) -> FileUse {
        match self {
            Self::Mx => FileUse::Mail,
            Self::Submission(_) => FileUse::Submission,
        }
    }
}

/// The services that only submission needs.
pub(crate) struct Submission {
    pub(crate) outbound: Outbound,
    pub(crate) db: Db,
    pub(crate) clock: Clock,
    /// Failed logins by address, shared by all ports.
    pub(crate) failures: Arc<FixedWindow>,
    /// True when TLS begins with the first octet (RFC 8314 §3.3).
    pub(crate) implicit_tls: bool,
}

/// An accepted recipient, by role.
#[derive(Clone, Debug)]
pub(crate) enum Accepted {
    /// A recipient on our domains.
    Received(Recipient),
    /// A recipient anywhere.
    Submitted(Mailbox),
}

impl Accepted {
    const fn mailbox(&self) -> &Mailbox {
        match self {
            Self::Received(recipient) => recipient.mailbox(),
            Self::Submitted(mailbox) => mailbox,
        }
    }

    /// Returns how many routes run for it.
    fn route_runs(&self) -> usize {
        match self {
            Self::Received(recipient) => recipient.runs(),
            Self::Submitted(_) => 0,
        }
    }
}

impl PartialEq for Accepted {
    /// Compares recipients ignoring case (contract 4.1, 8.1).
    fn eq(&self, other: &Self) -> bool {
        self.mailbox().canonical() == other.mailbox().canonical()
    }
}

/// The authenticated key holder.
#[derive(Clone, Debug)]
struct Caller {
    /// The key's hash, to check before each message that the key is still valid.
    key: [u8; 32],
    account: Account,
    scope: Option<DomainRowId>,
}

/// The reasons for ending a session.
enum End {
    /// The client sent QUIT; buffered replies are still written.
    Quit,
    /// We close, perhaps while the client is sending; buffered replies are still written.
    Closed,
    /// The connection is lost.
    Disconnected,
}

impl From<std::io::Error> for End {
    fn from(_: std::io::Error) -> Self {
        Self::Disconnected
    }
}

pub(crate) struct Session<S> {
    shared: Arc<Shared>,
    stream: Stream<S>,
    peer: Peer,
    input: BytesMut,
    output: Vec<u8>,
    phase: Phase<Accepted>,
    /// Set after AUTH; on submission listeners alone.
    caller: Option<Caller>,
    failed_logins: usize,
    errors: usize,
    refused: usize,
    idle_commands: usize,
    /// The time of the last accepted message, or of the start.
    last_accepted_at: Instant,
    has_sent_data: bool,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Session<S> {
    pub(crate) fn new(shared: Arc<Shared>, stream: S, address: std::net::IpAddr) -> Self {
        let peer = Peer { address, helo: String::new(), esmtp: false, tls: None };
        Self {
            shared,
            stream: Stream::Plain(stream),
            peer,
            input: BytesMut::new(),
            output: Vec::new(),
            phase: Phase::Connected,
            caller: None,
            failed_logins: 0,
            errors: 0,
            refused: 0,
            idle_commands: 0,
            last_accepted_at: Instant::now(),
            has_sent_data: false,
        }
    }

    /// Serves the peer until the session ends.
    pub(crate) async fn run(mut self) {
        let end = match self.greet().await {
            Err(end) => end,
            Ok(()) => loop {
                if let Err(end) = self.next_command().await {
                    break end;
                }
            },
        };
        if matches!(end, End::Quit | End::Closed) && self.flush().await.is_ok() {
            self.stream.shutdown().await;
            if matches!(end, End::Closed) {
                self.drain_on_close().await;
            }
        }
    }

    /// Sends the greeting, after the TLS handshake on an implicit-TLS port.
    async fn greet(&mut self) -> Result<(), End> {
        if let (Role::Submission(role), Some(acceptor)) = (&self.shared.role, &self.shared.tls)
            && role.implicit_tls
        {
            let acceptor = acceptor.clone();
            Box::pin(self.handshake(&acceptor)).await?;
        }
        self.reply(&Reply::greeting(&self.shared.hostname));
        Ok(())
    }

    /// Reads and executes one command.
    async fn next_command(&mut self) -> Result<(), End> {
        let line = self.read_line().await?;
        self.idle_commands += 1;
        let recipients = self.shared.limits.max_recipients;
        if self.idle_commands > MAX_IDLE_COMMANDS + IDLE_COMMANDS_PER_RECIPIENT * recipients {
            return self.close_with(&Reply::TOO_MANY_ERRORS);
        }
        match command::parse(&line) {
            // Submitted mail goes on to other hosts, which may refuse what our parser accepts.
            Ok(command) if matches!(self.shared.role, Role::Submission(_)) && !command.has_sendable_path() => {
                self.refuse(&Reply::BAD_SYNTAX)
            }
            Ok(command) => self.execute(command, line.is_ascii()).await,
            Err(Refusal::Reply(reply)) => self.refuse(&reply),
            Err(Refusal::Close(reply)) => self.close_with(&reply),
        }
    }

    async fn execute(&mut self, command: Command, ascii: bool) -> Result<(), End> {
        match command {
            Command::Ehlo(name) => {
                self.on_hello(name, true);
                let extensions = self.extensions();
                reply::write_ehlo(&mut self.output, &self.shared.hostname, &extensions);
            }
            Command::Helo(name) => {
                self.on_hello(name, false);
                self.reply(&Reply::hello(&self.shared.hostname));
            }
            Command::Mail(arguments) => return Box::pin(self.mail(arguments)).await,
            // Boxed to keep sessions that wait for a command small: most do, and there may be thousands.
            Command::Rcpt(path) => return Box::pin(self.rcpt(path, ascii)).await,
            Command::Data => return Box::pin(self.data()).await,
            Command::Rset => {
                self.phase.reset();
                self.reply(&Reply::OK);
            }
            Command::Noop => self.reply(&Reply::OK),
            Command::Vrfy => self.reply(&Reply::CANNOT_VERIFY),
            Command::Help => self.reply(&Reply::HELP),
            Command::StartTls => return Box::pin(self.start_tls()).await,
            Command::Auth { mechanism, initial } => return Box::pin(self.auth(&mechanism, initial)).await,
            Command::Quit => {
                self.reply(&Reply::BYE);
                return Err(End::Quit);
            }
        }
        Ok(())
    }

    fn on_hello(&mut self, name: String, esmtp: bool) {
        self.peer.helo = name;
        self.peer.esmtp = esmtp;
        self.phase.greet();
    }

    fn extensions(&self) -> Vec<String> {
        let size = format!("SIZE {}", self.shared.limits.max_message_bytes);
        let mut list = vec!["PIPELINING".to_owned(), size, "8BITMIME".to_owned(), "SMTPUTF8".to_owned()];
        if self.shared.tls.is_some() && self.peer.tls.is_none() {
            list.push("STARTTLS".to_owned());
        }
        if matches!(self.shared.role, Role::Submission(_)) && self.peer.tls.is_some() && self.caller.is_none() {
            list.push("AUTH PLAIN LOGIN".to_owned());
        }
        list.push("ENHANCEDSTATUSCODES".to_owned());
        list
    }

    async fn mail(&mut self, arguments: MailArguments) -> Result<(), End> {
        let admitted = match &self.shared.role {
            Role::Mx if arguments.auth => Err(Reply::UNKNOWN_PARAMETER),
            Role::Mx => Ok(()),
            Role::Submission(_) => self.check_caller().await,
        };
        if let Err(reply) = admitted {
            return self.refuse(&reply);
        }
        // RFC 6531 §3.1: SMTPUTF8 is for clients it was offered to. SIZE and BODY after HELO do no harm.
        if arguments.smtputf8 && !self.peer.esmtp && !matches!(self.phase, Phase::Connected) {
            return self.refuse(&Reply::UNKNOWN_PARAMETER);
        }
        match self.phase.mail(arguments, self.shared.limits) {
            Ok(reply) => {
                self.reply(&reply);
                Ok(())
            }
            // A too large message is not an error of the client's.
            Err(reply) if reply == Reply::TOO_LARGE => {
                self.shared.metrics.add(Counter::RefusedTooLarge);
                self.reply(&reply);
                Ok(())
            }
            Err(reply) => self.refuse(&reply),
        }
    }

    async fn rcpt(&mut self, path: ForwardPath, ascii: bool) -> Result<(), End> {
        if let Err(reply) = self.phase.check_rcpt(ascii) {
            return self.refuse(&reply);
        }
        if matches!(self.shared.role, Role::Submission(_)) {
            return self.submitted_recipient(path);
        }
        match self.shared.inbound.resolve(&path).await {
            Ok(recipient) => {
                // RFC 5321 §4.5.3.1.10: one recipient too many is not an error of the client's.
                let recipient = Accepted::Received(recipient);
                let known = self.phase.recipients();
                let runs: usize = known.iter().map(Accepted::route_runs).sum();
                let reply =
                    if runs > 0 && runs + recipient.route_runs() > MAX_ROUTE_RUNS && !known.contains(&recipient) {
                        Reply::TOO_MANY_RECIPIENTS
                    } else {
                        self.phase.add_recipient(recipient, self.shared.limits)
                    };
                self.reply(&reply);
                Ok(())
            }
            Err(refusal) => self.refuse_recipient(refusal),
        }
    }

    fn refuse_recipient(&mut self, refusal: RecipientRefusal) -> Result<(), End> {
        let reply = match refusal {
            RecipientRefusal::RelayRefused => {
                self.shared.metrics.add(Counter::RefusedRelay);
                Reply::RELAY_REFUSED
            }
            RecipientRefusal::Unknown => {
                self.shared.metrics.add(Counter::RefusedUnknown);
                Reply::UNKNOWN_RECIPIENT
            }
            RecipientRefusal::DomainPending => Reply::DOMAIN_PENDING,
            RecipientRefusal::AccountFull => Reply::MAILBOX_FULL,
            RecipientRefusal::StorageFull => Reply::STORAGE_FULL,
            RecipientRefusal::Unavailable => Reply::STORAGE_FAILURE,
        };
        self.reply(&reply);
        self.refused += usize::from(reply.is_permanent_failure());
        if self.refused > MAX_REFUSED { self.close_with(&Reply::TOO_MANY_ERRORS) } else { Ok(()) }
    }

    async fn start_tls(&mut self) -> Result<(), End> {
        let acceptor = match &self.shared.tls {
            _ if self.peer.tls.is_some() => return self.refuse(&Reply::BAD_SEQUENCE),
            None => return self.refuse(&Reply::NOT_IMPLEMENTED),
            Some(acceptor) => acceptor.clone(),
        };
        if matches!(self.phase, Phase::Connected) {
            return self.refuse(&Reply::BAD_SEQUENCE);
        }
        self.reply(&Reply::READY_FOR_TLS);
        // RFC 3207 §4.2 and the injections of CVE-2011-0411: no plain-text input may reach the encrypted session.
        self.input.clear();
        self.flush().await?;
        self.handshake(&acceptor).await
    }

    fn reply(&mut self, reply: &Reply) {
        reply.write(&mut self.output);
    }

    /// Sends a refusal and counts it.
    fn refuse(&mut self, reply: &Reply) -> Result<(), End> {
        self.reply(reply);
        self.errors += 1;
        if self.errors >= MAX_ERRORS { self.close_with(&Reply::TOO_MANY_ERRORS) } else { Ok(()) }
    }

    /// Sends a final reply and ends the session.
    fn close_with<T>(&mut self, reply: &Reply) -> Result<T, End> {
        self.reply(reply);
        Err(End::Closed)
    }
}
