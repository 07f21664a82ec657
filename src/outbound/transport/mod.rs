//! Carries out a delivery request: tries hosts in turn, gives each recipient a verdict, and keeps sessions for the
//! next request.
//!
//! Hosts of one preference are equal: an idle session with any of them is used first, then their addresses are tried
//! one after the other, with a short delay, until one answers (`reach`). The next preference is used once all
//! addresses of this one failed or are paused (RFC 5321 §5.1); a host that is only full ([`super::queue::hosts`]) is
//! waited for, which does not count as an attempt.

pub(crate) mod dane;
pub(crate) mod mta_sts;
pub(crate) mod mx;
pub(crate) mod tls;

mod pool;
mod progress;
mod reach;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::net::TcpStream;

use super::client::{self, ConnectOptions, Session, SessionError, Timeouts, TransactionResult, Transcript};
use super::queue::hosts::{Permit, RemoteHosts};
use super::queue::refusal::ReplySource;
use super::{DeliveryRequest, DeliveryResult, Destination, Host, SessionRecord, TlsRule};
use crate::clock::{Clock, Timestamp};
use crate::config::{Smarthost, SmarthostSecurity};
use crate::jobs::{Flow, Jobs};
use crate::mail::address::{Domain, Mailbox};
use crate::net::egress::Guard;
use mx::MxResolver;
use pool::{Key, Pool};
use progress::Progress;
use reach::{Candidate, Left, Reached};
use tls::ClientTls;

/// Recipients per transaction: the number that every host has to accept (RFC 5321 §4.5.3.1.8).
const MAX_RECIPIENTS: usize = 100;

/// Carries out delivery requests.
pub struct Transport {
    helo: String,
    timeouts: Timeouts,
    tls: ClientTls,
    hosts: MxResolver,
    pool: Arc<Pool>,
    remote_hosts: Arc<RemoteHosts>,
}

/// Parameters of sessions with a destination, in addition to those of each host.
#[derive(Clone, Copy)]
struct ConnectParams<'a> {
    /// True for the operator's relay.
    smarthost: bool,
    /// The flow that the mail belongs to.
    flow: &'a Flow,
    /// Connection limit of each host.
    width: usize,
    implicit_tls: bool,
    auth: Option<(&'a str, &'a str)>,
    guard: Option<&'a Guard>,
}

/// The state of a session after its use.
enum Used<'h> {
    /// It is closed, or idle in the pool.
    Up,
    /// It took some of many recipients, and is ready for the next ones.
    Ready(Box<Connection>),
    /// It is closed and a new one is needed; the connection slot is still ours.
    Closed(Candidate<'h>, Permit),
}

/// A session and its connection slot.
struct Connection {
    session: Session,
    permit: Permit,
    /// True if TLS with the host failed before and the session uses plain text.
    without_tls: bool,
}

impl Transport {
    /// Creates a transport that greets as `helo`.
    pub fn new(helo: String, timeouts: Timeouts, tls: ClientTls, hosts: MxResolver) -> Self {
        let remote_hosts = Arc::new(RemoteHosts::new(Jobs::default(), Clock::System));
        Self { helo, timeouts, tls, hosts, pool: Arc::default(), remote_hosts }
    }

    /// Sets the jobs whose flows are woken when a host has a free connection slot.
    #[must_use]
    pub fn waking(self, jobs: Jobs, clock: Clock) -> Self {
        Self { remote_hosts: Arc::new(RemoteHosts::new(jobs, clock)), ..self }
    }

    /// Delivers the mail of a flow to its destination.
    pub async fn transmit(
        &self,
        flow: &Flow,
        destination: &Destination,
        request: DeliveryRequest,
        now: Timestamp,
    ) -> DeliveryResult {
        match destination {
            Destination::Domain(domain) => match self.hosts.resolve(domain, now).await {
                Ok(hosts) => {
                    let guard = Some(self.hosts.guard());
                    let access = ConnectParams {
                        smarthost: false,
                        flow,
                        width: self.hosts.width(),
                        implicit_tls: false,
                        auth: None,
                        guard,
                    };
                    let progress = self.transmit_to(&hosts, &request, access).await;
                    self.finish(progress, flow)
                }
                Err(unroutable) => Progress::of(&request, self.timeouts.total).unroutable(unroutable).finish(),
            },
            Destination::Smarthost(relay) => self.relay(flow, relay, request, now).await,
        }
    }

    /// Delivers mail whose recipients are in several domains to the hosts of each.
    pub(crate) async fn transmit_large(
        &self,
        flow: &Flow,
        request: DeliveryRequest,
        now: Timestamp,
    ) -> DeliveryResult {
        let mut domains: Vec<Domain> = Vec::new();
        for recipient in &request.recipients {
            if !domains.contains(recipient.domain()) {
                domains.push(recipient.domain().clone());
            }
        }
        let mut whole = Progress::of(&request, self.timeouts.total);
        // Concurrent, so that a slow domain does not delay the others.
        let parts = domains.into_iter().map(|domain| {
            let recipients = request.recipients.iter().filter(|one| *one.domain() == domain).cloned().collect();
            let part = DeliveryRequest { recipients, ..request.clone() };
            async move {
                let destination = Destination::Domain(domain.clone());
                let done = Box::pin(self.transmit(flow, &destination, part, now)).await;
                (domain, done)
            }
        });
        let done = join_all(parts).await;
        // If any domain was attempted, the attempt has to be recorded.
        let waits: Option<Vec<_>> = done.iter().map(|(_, done)| done.wait.clone()).collect();
        let wait = waits.and_then(|waits| waits.into_iter().min_by_key(|wait| wait.until));
        for (domain, done) in done {
            let places =
                request.recipients.iter().zip(&mut whole.outcomes).filter(|(one, _)| *one.domain() == domain);
            places.zip(done.outcomes).for_each(|((_, place), outcome)| *place = Some(outcome));
            whole.transcript.append(&done.record.transcript);
            whole.record = SessionRecord { transcript: String::new(), ..done.record };
        }
        DeliveryResult { wait, ..whole.finish() }
    }

    /// Delivers through a relay; if it fails or is paused and the operator permits it, to the recipients' own hosts.
    async fn relay(
        &self,
        flow: &Flow,
        relay: &Arc<Smarthost>,
        request: DeliveryRequest,
        now: Timestamp,
    ) -> DeliveryResult {
        let progress = match self.hosts.resolve_smarthost(relay).await {
            Ok(hosts) => {
                let auth = relay.username.as_deref().zip(relay.password.as_deref());
                let implicit_tls = relay.security == SmarthostSecurity::Tls;
                let access = ConnectParams {
                    smarthost: true,
                    flow,
                    width: self.hosts.relay_width(),
                    implicit_tls,
                    auth,
                    guard: None,
                };
                self.transmit_to(&hosts, &request, access).await
            }
            Err(unroutable) => Progress::of(&request, self.timeouts.total).unroutable(unroutable),
        };
        if !progress.is_untouched() || progress.is_full() || !relay.fallback {
            return self.finish(progress, flow);
        }
        let mut transcript = progress.transcript;
        let mut done = self.transmit_large(flow, request, now).await;
        transcript.append(&done.record.transcript);
        done.record.transcript = transcript.text();
        done
    }

    /// Returns the result, or the wait of the flow when nothing could be tried.
    fn finish(&self, progress: Progress, flow: &Flow) -> DeliveryResult {
        let wait = progress.waits().then(|| {
            let addresses: Vec<SocketAddr> = progress.skipped.iter().map(|(address, _)| *address).collect();
            self.remote_hosts.wait(&addresses, flow)
        });
        DeliveryResult { wait, ..progress.finish() }
    }

    /// Tries hosts in turn until every recipient has a verdict.
    async fn transmit_to(&self, hosts: &[Host], request: &DeliveryRequest, access: ConnectParams<'_>) -> Progress {
        let mut progress = Progress::of(request, self.timeouts.total);
        progress.has_ipv4 = hosts.iter().flat_map(|host| &host.addresses).any(SocketAddr::is_ipv4);
        let groups = self.in_order(hosts);
        for (number, equals) in groups.iter().enumerate() {
            let mut left = Left::of(equals);
            left.has_further = number + 1 < groups.len();
            while !progress.is_over()
                && let Some(reached) = self.reach(&mut left, access, &mut progress).await
            {
                self.try_host(reached, &mut left, request, access, &mut progress).await;
            }
            if progress.is_full() {
                break;
            }
        }
        progress
    }

    /// Groups hosts by preference; those without any address that answered recently come last (RFC 5321 §4.5.4.1).
    fn in_order<'h>(&self, hosts: &'h [Host]) -> Vec<&'h [Host]> {
        let mut groups: Vec<&[Host]> = hosts.chunk_by(|one, next| one.preference == next.preference).collect();
        let is_demoted = |address: &SocketAddr| self.remote_hosts.is_demoted(*address);
        groups.sort_by_key(|hosts| hosts.iter().flat_map(|host| &host.addresses).all(is_demoted));
        groups
    }

    /// Tries one address of a host: if it accepts the first hundred recipients, it gets the next over the same
    /// session.
    async fn try_host<'h>(
        &self,
        reached: Reached<'h>,
        left: &mut Left<'h>,
        request: &DeliveryRequest,
        access: ConnectParams<'_>,
        progress: &mut Progress,
    ) {
        let (candidate, mut reused, mut connection) = match reached {
            Reached::Idle(candidate, connection) => (candidate, true, *connection),
            Reached::New(candidate, stream, permit) => {
                let greeting = if left.has_others() { self.timeouts.greeting } else { self.timeouts.command };
                match self.open(candidate, (stream, permit), greeting, access, progress).await {
                    Some(connection) => (candidate, false, connection),
                    None => return,
                }
            }
        };
        loop {
            match self.use_connection(connection, reused, candidate, request, access, progress).await {
                Used::Up => return,
                Used::Ready(next) => (connection, reused) = (*next, true),
                Used::Closed(candidate, permit) => return left.again(candidate, permit),
            }
        }
    }

    /// Opens a session on a connection to a host; if TLS fails and plain text is allowed, on another one without TLS.
    async fn open(
        &self,
        candidate: Candidate<'_>,
        (stream, mut permit): (TcpStream, Permit),
        greeting: Duration,
        access: ConnectParams<'_>,
        progress: &mut Progress,
    ) -> Option<Connection> {
        let Candidate { host, address } = candidate;
        let mut connected = Ok(stream);
        let mut plain = false;
        loop {
            let never = plain || host.tls == TlsRule::Never;
            let options = ConnectOptions {
                helo: &self.helo,
                timeouts: self.timeouts,
                deadline: progress.deadline,
                greeting,
                implicit_tls: access.implicit_tls,
                tls: (!never).then(|| self.tls.connector(host)),
                auth: access.auth,
                guard: access.guard,
            };
            let opened = match connected {
                Ok(stream) => Session::open(stream, host, address, &options).await,
                Err(fault) => Err((fault, Transcript::default())),
            };
            let (fault, transcript) = match opened {
                Ok(session) => return Some(Connection { session, permit, without_tls: plain }),
                Err(failed) => failed,
            };
            progress.transcript.append(&transcript.text());
            if progress.failed(host, address, &fault) || fault == SessionError::Timeout(client::GREETING) {
                self.remote_hosts.demote(address);
            }
            let tls_failed = matches!(fault, SessionError::Tls(_));
            // Opportunistic: plain text is better than no delivery, and is tried once (RFC 7435 §3).
            if !tls_failed || host.tls != TlsRule::Opportunistic || plain {
                // TLS requirements come from the destination, so a TLS failure says nothing about the host.
                if !tls_failed && !fault.is_local() {
                    permit.failed(&fault.diagnostic(&host.name));
                }
                return None;
            }
            plain = true;
            connected = self.connect(candidate, progress.deadline).await;
        }
    }

    async fn connect(
        &self,
        candidate: Candidate<'_>,
        deadline: tokio::time::Instant,
    ) -> Result<TcpStream, SessionError> {
        let Candidate { host, address } = candidate;
        let until = deadline.min(tokio::time::Instant::now() + self.timeouts.connect);
        client::connect(address, self.hosts.source(&host.name, address), until).await
    }

    /// Runs one transaction. A reused session that the host has closed meanwhile does not count.
    async fn use_connection<'h>(
        &self,
        connection: Connection,
        reused: bool,
        candidate: Candidate<'h>,
        request: &DeliveryRequest,
        access: ConnectParams<'_>,
        progress: &mut Progress,
    ) -> Used<'h> {
        let Candidate { host, address } = candidate;
        let Connection { mut session, mut permit, without_tls } = connection;
        let source = match access.smarthost {
            _ if without_tls || session.refuses_tls => ReplySource::MailHostWithoutTls,
            true => ReplySource::Smarthost,
            false => ReplySource::MailHost,
        };
        let mut open = progress.open();
        open.truncate(MAX_RECIPIENTS);
        let recipients: Vec<Mailbox> =
            open.iter().filter_map(|place| request.recipients.get(*place)).cloned().collect();
        session.transcript = if reused { Transcript::default() } else { std::mem::take(&mut session.transcript) };
        if reused {
            session.transcript.note(&format!("{} [{address}], a session that was kept", host.name));
        }
        let mut ended = session.send(request, &recipients, progress.deadline).await;
        if source != ReplySource::MailHost {
            ended.outcomes = ended.outcomes.into_iter().map(|one| one.map(|one| one.reclassified(source))).collect();
        }
        let undecided = ended.outcomes.iter().flatten().all(|outcome| outcome.code.is_none());
        if reused
            && undecided
            && !ended.data_sent
            && matches!(ended.error, Some(SessionError::Connection(_) | SessionError::Refused(_)))
        {
            return Used::Closed(candidate, permit);
        }
        let (reusable, of_host) = (ended.reusable, said_of_host(&ended, host, source));
        progress.transcript.append(&session.transcript.text());
        progress.record.tls = session.tls.as_ref().map(|version| tls_word(version, &host.tls));
        let wants_ipv4 = progress.take(&open, ended, host, address);
        let takes_more = !wants_ipv4 && matches!(of_host, Some(Ok(())));
        let reusable = reusable && takes_more && !without_tls && !session.refuses_tls;
        if wants_ipv4 {
            // The host would refuse any other message as well.
            permit.failed(&progress.last_error_text());
            self.remote_hosts.demote(address);
        } else {
            match of_host {
                Some(Ok(())) => permit.succeeded(),
                Some(Err(why)) => permit.failed(&why),
                None => {}
            }
        }
        let goes_on = takes_more && open.len() == MAX_RECIPIENTS && !progress.is_over();
        // The next attempt tries TLS again.
        if !reusable {
            if goes_on {
                session.quit().await;
                return Used::Closed(candidate, permit);
            }
            tokio::spawn(pool::quit(session, permit));
            return Used::Up;
        }
        let connection = Connection { session, permit, without_tls };
        if goes_on {
            return Used::Ready(Box::new(connection));
        }
        self.pool.put(Key::new(host, address, access.auth.map(|(user, _)| user)), connection);
        Used::Up
    }
}

/// Returns the state of the host that a transaction shows, if any: `Ok` if it accepts mail, whatever its verdict on
/// this message, or the reason it would refuse any other message too.
fn said_of_host(ended: &TransactionResult, host: &Host, source: ReplySource) -> Option<Result<(), String>> {
    let answered = ended.outcomes.iter().all(Option::is_some);
    let refused = ended.outcomes.iter().flatten().find(|one| one.is_host_wide(source));
    match (&ended.error, refused) {
        (Some(fault @ SessionError::Refused(_)), _) => Some(Err(fault.diagnostic(&host.name))),
        (_, Some(refused)) => Some(Err(refused.diagnostic.clone())),
        (None, None) => Some(Ok(())),
        // A host may disconnect after it refused the message.
        (Some(_), None) if answered => Some(Ok(())),
        // A connection lost during the data may have been lost because of the data.
        (Some(_), None) if ended.data_sent => None,
        (Some(fault), None) => Some(Err(fault.diagnostic(&host.name))),
    }
}

fn tls_word(version: &str, rule: &TlsRule) -> String {
    match rule {
        TlsRule::Dane(records) if !records.is_empty() => format!("{version} (DANE)"),
        TlsRule::Verified { by } => format!("{version} ({by})"),
        TlsRule::Dane(_) | TlsRule::Opportunistic | TlsRule::Never => version.to_owned(),
    }
}
