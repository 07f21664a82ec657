//! Connects to one of several equal addresses: an idle session, else the first address that answers (RFC 8305 §5).

use std::net::SocketAddr;
use std::time::Duration;

use futures_util::stream::{FuturesUnordered, StreamExt as _};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, timeout};

use super::pool::Key;
use super::progress::Progress;
use super::{ConnectParams, Connection, Transport};
use crate::outbound::Host;
use crate::outbound::queue::hosts::Permit;

/// Time that an address has to answer before the next is tried in parallel. Mail is less urgent than browsing: half a
/// second more does no harm, and two connections where one would do are a nuisance to hosts.
const STAGGER: Duration = Duration::from_secs(1);

/// Time to wait for sessions that are being ended.
const ENDING: Duration = Duration::from_secs(3);

/// An address that may be tried.
#[derive(Clone, Copy)]
pub(super) struct Candidate<'h> {
    pub(crate) host: &'h Host,
    pub(crate) address: SocketAddr,
}

/// The untried addresses of equal hosts.
pub(super) struct Left<'h> {
    /// In the order to try them.
    candidates: Vec<Candidate<'h>>,
    /// An address with a connection slot already held, which is tried first.
    admitted: Option<(Candidate<'h>, Permit)>,
    /// True if hosts of another preference may be tried after them.
    pub(super) has_further: bool,
}

/// An address that was reached.
pub(super) enum Reached<'h> {
    /// By an idle session.
    Idle(Candidate<'h>, Box<Connection>),
    /// By a new connection.
    New(Candidate<'h>, TcpStream, Permit),
}

impl<'h> Left<'h> {
    /// Returns all addresses of hosts.
    pub(super) fn of(hosts: &'h [Host]) -> Self {
        let mut candidates = Vec::new();
        for host in hosts {
            candidates.extend(host.addresses.iter().map(|address| Candidate { host, address: *address }));
        }
        Self { candidates, admitted: None, has_further: false }
    }

    /// Returns true if another address may be tried.
    pub(super) const fn has_others(&self) -> bool {
        self.has_further || !self.candidates.is_empty()
    }

    /// Schedules a reconnect to an address whose connection slot is still held.
    pub(super) fn again(&mut self, candidate: Candidate<'h>, permit: Permit) {
        self.admitted = Some((candidate, permit));
    }
}

impl Transport {
    /// Reaches one of the untried addresses and removes it, along with those that fail; `None` when none can be
    /// reached.
    pub(super) async fn reach<'h>(
        &self,
        left: &mut Left<'h>,
        access: ConnectParams<'_>,
        progress: &mut Progress,
    ) -> Option<Reached<'h>> {
        if progress.only_ipv4 {
            left.candidates.retain(|candidate| candidate.address.is_ipv4());
            left.admitted.take_if(|(candidate, _)| !candidate.address.is_ipv4());
        }
        if left.admitted.is_none()
            && let Some(idle_session) = self.take_idle(&mut left.candidates, access)
        {
            return Some(idle_session);
        }
        left.candidates.sort_by_key(|candidate| self.remote_hosts.is_demoted(candidate.address));
        self.race(left, access, progress).await
    }

    fn take_idle<'h>(&self, left: &mut Vec<Candidate<'h>>, access: ConnectParams<'_>) -> Option<Reached<'h>> {
        for (at, candidate) in left.iter().enumerate() {
            let key = Key::new(candidate.host, candidate.address, access.auth.map(|(user, _)| user));
            // A slot is requested only once there is a good session to use it, because it may be a turn that was
            // waited for.
            let Some(idle) = self.pool.take(&key) else { continue };
            match self.remote_hosts.admit(candidate.address, access.flow, access.width) {
                Ok(permit) => {
                    let connection = Connection { session: idle.into_session(), permit, without_tls: false };
                    return Some(Reached::Idle(left.remove(at), Box::new(connection)));
                }
                Err(_) => self.pool.put_back(key, idle),
            }
        }
        None
    }

    /// Connects to one address after the other, each after a delay or as soon as the one before failed. The first to
    /// answer is used; those that did not answer in time are tried last for a while, and may still be tried later.
    async fn race<'h>(
        &self,
        left: &mut Left<'h>,
        access: ConnectParams<'_>,
        progress: &mut Progress,
    ) -> Option<Reached<'h>> {
        let mut connecting = FuturesUnordered::new();
        // Ordered by start.
        let mut begun: Vec<(Candidate<'h>, Instant)> = Vec::new();
        loop {
            let admitted = left.admitted.take();
            if let Some((candidate, permit)) = admitted.or_else(|| self.next_admitted(left, access, progress)) {
                self.make_room(candidate.address, access.width).await;
                begun.push((candidate, Instant::now()));
                let deadline = progress.deadline;
                connecting.push(async move { (candidate, self.connect(candidate, deadline).await, permit) });
            }
            let (candidate, connected, mut permit) = tokio::select! {
                Some(done) = connecting.next() => done,
                () = sleep(STAGGER), if !left.candidates.is_empty() => continue,
                else => return None,
            };
            let place = begun.iter().position(|(one, _)| one.address == candidate.address).unwrap_or_default();
            let (_, began) = begun.remove(place);
            match connected {
                Ok(stream) => {
                    let begins = begun.iter().map(|(slow, began)| (slow.address, *began));
                    unanswered(begins, Instant::now()).for_each(|slow| self.remote_hosts.demote(slow));
                    left.candidates.extend(begun.into_iter().map(|(candidate, _)| candidate));
                    return Some(Reached::New(candidate, stream, permit));
                }
                Err(fault) => {
                    if !fault.is_local() {
                        permit.failed(&fault.diagnostic(&candidate.host.name));
                        unanswered([(candidate.address, began)].into_iter(), Instant::now())
                            .for_each(|silent| self.remote_hosts.demote(silent));
                    }
                    progress.note_unreached(candidate.host, candidate.address, &fault);
                }
            }
        }
    }

    /// Returns the next candidate with a free connection slot.
    fn next_admitted<'h>(
        &self,
        left: &mut Left<'h>,
        access: ConnectParams<'_>,
        progress: &mut Progress,
    ) -> Option<(Candidate<'h>, Permit)> {
        while !left.candidates.is_empty() {
            let candidate = left.candidates.remove(0);
            match self.remote_hosts.admit(candidate.address, access.flow, access.width) {
                Ok(permit) => return Some((candidate, permit)),
                Err(denied) => progress.skipped.push((candidate.address, denied)),
            }
        }
        None
    }

    /// Ends idle sessions with other parameters if the host would have too many connections otherwise, and waits a
    /// moment for those that are ending already.
    async fn make_room(&self, address: SocketAddr, width: usize) {
        let making = async {
            loop {
                let ended = self.remote_hosts.session_ended();
                if !self.remote_hosts.is_over(address, width) {
                    return;
                }
                if !self.pool.make_room(address).await {
                    ended.await;
                }
            }
        };
        let _ = timeout(ENDING, making).await;
    }
}

/// Returns the addresses that have been tried for at least [`STAGGER`] without an answer.
fn unanswered(begun: impl Iterator<Item = (SocketAddr, Instant)>, now: Instant) -> impl Iterator<Item = SocketAddr> {
    begun.filter(move |(_, began)| now.duration_since(*began) >= STAGGER).map(|(address, _)| address)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_that_was_tried_only_a_moment_ago_is_not_one_that_does_not_answer() {
        let now = Instant::now() + 5 * STAGGER;
        let begun = [(1, 2 * STAGGER), (2, STAGGER), (3, STAGGER / 2), (4, Duration::ZERO)];
        let begun = begun.map(|(number, ago)| (SocketAddr::from(([192, 0, 2, number], 25)), now - ago));
        let wanted = [begun[0].0, begun[1].0];
        assert!(unanswered(begun.into_iter(), now).eq(wanted));
    }
}
