//! Takes a parcel to its destination: hosts in turn, verdicts for each recipient, sessions kept for the next parcel.

mod pool;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::Instant;

use super::client::{Ended, Fault, Opening, Session, Timeouts, Transcript};
use super::mx::Hosts;
use super::refusal::Speaker;
use super::tls::ClientTls;
use super::{Destination, Host, Outcome, Parcel, Receipt, TlsRule, Transmitted, Unroutable, Verdict};
use crate::clock::Timestamp;
use crate::config::{Smarthost, SmarthostSecurity};
use crate::egress::Guard;
use crate::mail::address::{Domain, Mailbox};
use pool::{Key, Pool};

/// Octets of a transcript at most.
pub const MAX_TRANSCRIPT: usize = 16 * 1024;

/// Recipients of one transaction: what every host has to take (RFC 5321 §4.5.3.1.8).
const MAX_RECIPIENTS: usize = 100;

/// Takes parcels to hosts.
pub struct Transport {
    helo: String,
    timeouts: Timeouts,
    tls: ClientTls,
    hosts: Hosts,
    pool: Arc<Pool>,
}

/// How sessions with a destination are opened, beside what each host asks for.
#[derive(Clone, Copy, Default)]
struct Access<'a> {
    smarthost: bool,
    implicit_tls: bool,
    auth: Option<(&'a str, &'a str)>,
    guard: Option<&'a Guard>,
}

/// What is known of a parcel so far.
struct Progress {
    outcomes: Vec<Option<Outcome>>,
    receipt: Receipt,
    transcript: Transcript,
    /// The last trouble, for those who are left.
    trouble: Option<Outcome>,
    /// Mail data went out and was not answered: no other host gets it in this attempt.
    stop: bool,
    /// When the attempt ends, however far it came.
    deadline: Instant,
}

impl Transport {
    /// A transport that greets as `helo`.
    pub fn new(helo: String, timeouts: Timeouts, tls: ClientTls, hosts: Hosts) -> Self {
        Self { helo, timeouts, tls, hosts, pool: Arc::default() }
    }

    /// Takes a parcel to its destination.
    pub async fn transmit(&self, destination: &Destination, parcel: Parcel, now: Timestamp) -> Transmitted {
        match destination {
            Destination::Domain(domain) => match self.hosts.of_domain(domain, now).await {
                Ok(hosts) => {
                    let access = Access { guard: Some(self.hosts.guard()), ..Access::default() };
                    self.transmit_to(hosts, &parcel, access).await.finish()
                }
                Err(unroutable) => Progress::of(&parcel, self.timeouts.total).unroutable(unroutable).finish(),
            },
            Destination::Smarthost(relay) => self.relay(relay, parcel, now).await,
        }
    }

    /// Takes a parcel whose recipients have several domains to the hosts of each.
    pub async fn transmit_apart(&self, parcel: Parcel, now: Timestamp) -> Transmitted {
        let mut domains: Vec<Domain> = Vec::new();
        for recipient in &parcel.recipients {
            if !domains.contains(recipient.domain()) {
                domains.push(recipient.domain().clone());
            }
        }
        let mut whole = Progress::of(&parcel, self.timeouts.total);
        // At once: a domain that takes its time is in nobody else's way.
        let parts = domains.into_iter().map(|domain| {
            let recipients = parcel.recipients.iter().filter(|one| *one.domain() == domain).cloned().collect();
            let part = Parcel { recipients, ..parcel.clone() };
            async move {
                let done = Box::pin(self.transmit(&Destination::Domain(domain.clone()), part, now)).await;
                (domain, done)
            }
        });
        for (domain, done) in join_all(parts).await {
            let places = parcel.recipients.iter().zip(&mut whole.outcomes).filter(|(one, _)| *one.domain() == domain);
            places.zip(done.outcomes).for_each(|((_, place), outcome)| *place = Some(outcome));
            whole.transcript.append(&done.receipt.transcript);
            whole.receipt = Receipt { transcript: String::new(), ..done.receipt };
        }
        whole.finish()
    }

    /// By a relay; when it cannot be reached and the operator wants that, by the recipients' own hosts.
    async fn relay(&self, relay: &Arc<Smarthost>, parcel: Parcel, now: Timestamp) -> Transmitted {
        let auth = relay.username.as_deref().zip(relay.password.as_deref());
        let access =
            Access { smarthost: true, implicit_tls: relay.security == SmarthostSecurity::Tls, auth, guard: None };
        let progress = match self.hosts.of_smarthost(relay).await {
            Ok(hosts) => self.transmit_to(hosts, &parcel, access).await,
            Err(unroutable) => {
                let unroutable = Unroutable { verdict: Verdict::Deferred, ..unroutable };
                Progress::of(&parcel, self.timeouts.total).unroutable(unroutable)
            }
        };
        let unreached = progress.outcomes.iter().all(Option::is_none) && !progress.stop;
        if !unreached || !relay.fallback {
            return progress.finish();
        }
        let mut transcript = progress.transcript;
        let mut done = self.transmit_apart(parcel, now).await;
        transcript.append(&done.receipt.transcript);
        done.receipt.transcript = transcript.text();
        done
    }

    /// Tries hosts in turn until every recipient has a verdict.
    async fn transmit_to(&self, hosts: Vec<Host>, parcel: &Parcel, access: Access<'_>) -> Progress {
        let mut progress = Progress::of(parcel, self.timeouts.total);
        for host in &hosts {
            for address in &host.addresses {
                self.try_all(host, *address, parcel, access, &mut progress).await;
                if progress.is_over() {
                    return progress;
                }
            }
        }
        progress
    }

    /// Tries one address of a host: if it takes the first hundred recipients it gets the next, over the session that was
    /// kept.
    async fn try_all(
        &self,
        host: &Host,
        address: SocketAddr,
        parcel: &Parcel,
        access: Access<'_>,
        progress: &mut Progress,
    ) {
        loop {
            let before = progress.open().len();
            self.try_host(host, address, parcel, access, progress).await;
            if progress.is_over() || before <= MAX_RECIPIENTS || progress.open().len() == before {
                return;
            }
        }
    }

    async fn try_host(
        &self,
        host: &Host,
        address: SocketAddr,
        parcel: &Parcel,
        access: Access<'_>,
        progress: &mut Progress,
    ) {
        let key = Key::new(host, address, access.auth.map(|(user, _)| user));
        let speaker = if access.smarthost { Speaker::Smarthost } else { Speaker::Host };
        if let Some(session) = self.pool.take(&key)
            && self.use_session(session, true, &key, host, parcel, progress, speaker).await
        {
            return;
        }
        let mut plain = false;
        loop {
            let never = plain || host.tls == TlsRule::Never;
            let opening = Opening {
                helo: &self.helo,
                timeouts: self.timeouts,
                deadline: progress.deadline,
                implicit_tls: access.implicit_tls,
                tls: (!never).then(|| self.tls.connector(host)),
                auth: access.auth,
                guard: access.guard,
            };
            match Session::open(host, address, &opening).await {
                Ok(session) => {
                    let speaker = if plain { Speaker::WithoutTls } else { speaker };
                    self.use_session(session, false, &key, host, parcel, progress, speaker).await;
                    return;
                }
                Err((fault, transcript)) => {
                    progress.transcript.append(&transcript.text());
                    progress.trouble(host, address, &fault);
                    // Opportunistic: better in plain text than not at all, and once (RFC 7435 §3).
                    let again = matches!(fault, Fault::Tls(_)) && host.tls == TlsRule::Opportunistic && !plain;
                    if !again {
                        return;
                    }
                    plain = true;
                }
            }
        }
    }

    /// One transaction; whether it came to anything. A kept session that the host had closed meanwhile does not count.
    async fn use_session(
        &self,
        mut session: Session,
        kept: bool,
        key: &Key,
        host: &Host,
        parcel: &Parcel,
        progress: &mut Progress,
        speaker: Speaker,
    ) -> bool {
        let mut open = progress.open();
        open.truncate(MAX_RECIPIENTS);
        let recipients: Vec<Mailbox> =
            open.iter().filter_map(|place| parcel.recipients.get(*place)).cloned().collect();
        session.transcript = if kept { Transcript::default() } else { std::mem::take(&mut session.transcript) };
        if kept {
            session.transcript.note(&format!("{} [{}], a session that was kept", host.name, key.address()));
        }
        let mut ended = session.send(parcel, &recipients, progress.deadline).await;
        if speaker != Speaker::Host {
            ended.outcomes = ended.outcomes.into_iter().map(|one| one.map(|one| one.said_by(speaker))).collect();
        }
        let undecided = ended.outcomes.iter().flatten().all(|outcome| outcome.code.is_none());
        if kept
            && undecided
            && !ended.data_sent
            && matches!(ended.fault, Some(Fault::Connection(_) | Fault::Refused(_)))
        {
            return false;
        }
        progress.transcript.append(&session.transcript.text());
        progress.receipt.host = Some(host.name.clone());
        progress.receipt.address = Some(key.address());
        progress.receipt.tls = session.tls.as_ref().map(|version| tls_word(version, &host.tls));
        // The next attempt tries TLS again.
        let reusable = ended.reusable && speaker != Speaker::WithoutTls;
        progress.take(&open, ended, host, key.address());
        if reusable {
            self.pool.put(key.clone(), session);
        } else {
            tokio::spawn(session.quit());
        }
        true
    }
}

fn tls_word(version: &str, rule: &TlsRule) -> String {
    match rule {
        TlsRule::Dane(records) if !records.is_empty() => format!("{version} (DANE)"),
        TlsRule::Verified { by } => format!("{version} ({by})"),
        TlsRule::Dane(_) | TlsRule::Opportunistic | TlsRule::Never => version.to_owned(),
    }
}

impl Progress {
    fn of(parcel: &Parcel, time: Duration) -> Self {
        Self {
            outcomes: vec![None; parcel.recipients.len()],
            receipt: Receipt::default(),
            transcript: Transcript::default(),
            trouble: None,
            stop: false,
            deadline: Instant::now() + time,
        }
    }

    /// The places of recipients without a verdict.
    fn open(&self) -> Vec<usize> {
        let open = self.outcomes.iter().enumerate().filter(|(_, outcome)| outcome.is_none());
        open.map(|(place, _)| place).collect()
    }

    fn is_over(&self) -> bool {
        self.stop || Instant::now() >= self.deadline || self.outcomes.iter().all(Option::is_some)
    }

    fn trouble(&mut self, host: &Host, address: SocketAddr, fault: &Fault) {
        self.receipt.host = Some(host.name.clone());
        self.receipt.address = Some(address);
        self.trouble = Some(Outcome::ours(Verdict::Deferred, fault.diagnostic(&host.name)));
    }

    fn take(&mut self, open: &[usize], ended: Ended, host: &Host, address: SocketAddr) {
        for (place, outcome) in open.iter().zip(ended.outcomes) {
            if let Some(slot) = self.outcomes.get_mut(*place) {
                *slot = outcome;
            }
        }
        if let Some(fault) = &ended.fault {
            self.trouble(host, address, fault);
            // Its last word never came: perhaps it has the mail.
            self.stop = ended.data_sent;
        }
    }

    fn unroutable(mut self, unroutable: Unroutable) -> Self {
        let Unroutable { verdict, diagnostic } = unroutable;
        self.transcript.note(&diagnostic);
        let outcome = Outcome::ours(verdict, diagnostic);
        if verdict == Verdict::Bounced {
            self.outcomes.fill(Some(outcome));
        } else {
            self.trouble = Some(outcome);
        }
        self
    }

    fn finish(self) -> Transmitted {
        let rest = self.trouble.unwrap_or_else(|| Outcome::ours(Verdict::Deferred, "4.4.4 no host could be tried"));
        let outcomes = self.outcomes.into_iter().map(|outcome| outcome.unwrap_or_else(|| rest.clone())).collect();
        Transmitted { outcomes, receipt: Receipt { transcript: self.transcript.text(), ..self.receipt } }
    }
}
