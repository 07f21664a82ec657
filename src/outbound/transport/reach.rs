//! Reaching one of several equal addresses: by a session that waits, else by the first that answers (RFC 8305 §5).

use std::net::SocketAddr;
use std::time::Duration;

use futures_util::stream::{FuturesUnordered, StreamExt as _};
use tokio::net::TcpStream;
use tokio::time::sleep;

use super::pool::Key;
use super::progress::Progress;
use super::{Access, Connection, Transport};
use crate::outbound::Host;
use crate::outbound::peers::Permit;

/// How long an address has to answer before the next is tried beside it. Mail is in less of a hurry than a browser: half
/// a second more does no harm, and two connections where one would do are a nuisance.
const STAGGER: Duration = Duration::from_secs(1);

/// An address that may be tried.
#[derive(Clone, Copy)]
pub(super) struct Candidate<'h> {
    pub host: &'h Host,
    pub address: SocketAddr,
    /// Sessions with it that wait are no good.
    pub opens_anew: bool,
}

/// An address that was reached.
pub(super) enum Reached<'h> {
    /// By a session that waited.
    Kept(Candidate<'h>, Box<Connection>),
    /// By a new connection.
    New(Candidate<'h>, TcpStream, Permit),
}

/// The addresses of hosts, in the order to try them.
pub(super) fn candidates(hosts: &[Host]) -> Vec<Candidate<'_>> {
    let mut all = Vec::new();
    for host in hosts {
        all.extend(host.addresses.iter().map(|address| Candidate { host, address: *address, opens_anew: false }));
    }
    all
}

impl Transport {
    /// Reaches one of the candidates that are left, which it takes away, as well as those that fail; none: no more can be.
    pub(super) async fn reach<'h>(
        &self,
        left: &mut Vec<Candidate<'h>>,
        access: Access<'_>,
        progress: &mut Progress,
    ) -> Option<Reached<'h>> {
        left.retain(|candidate| !progress.only_ipv4 || candidate.address.is_ipv4());
        if let Some(kept) = self.take_kept(left, access) {
            return Some(kept);
        }
        left.sort_by_key(|candidate| self.peers.is_demoted(candidate.address));
        self.race(left, access, progress).await
    }

    fn take_kept<'h>(&self, left: &mut Vec<Candidate<'h>>, access: Access<'_>) -> Option<Reached<'h>> {
        for (at, candidate) in left.iter().enumerate().filter(|(_, candidate)| !candidate.opens_anew) {
            let key = Key::new(candidate.host, candidate.address, access.auth.map(|(user, _)| user));
            if self.pool.has(&key)
                && let Some(permit) = self.peers.admit(candidate.address, access.flow, access.width)
                && let Some(session) = self.pool.take(&key)
            {
                return Some(Reached::Kept(
                    left.remove(at),
                    Box::new(Connection { session, permit, without_tls: false }),
                ));
            }
        }
        None
    }

    /// Connects to one after the other, each a little after the one before or as soon as that failed. The first that
    /// answers is taken; those that did not by then stand last for a while, and may be tried later.
    async fn race<'h>(
        &self,
        left: &mut Vec<Candidate<'h>>,
        access: Access<'_>,
        progress: &mut Progress,
    ) -> Option<Reached<'h>> {
        let mut connecting = FuturesUnordered::new();
        // In the order that they began.
        let mut begun: Vec<Candidate<'h>> = Vec::new();
        loop {
            if let Some((candidate, permit)) = self.next_admitted(left, access, progress) {
                self.make_room(candidate.address, access.width).await;
                begun.push(candidate);
                let deadline = progress.deadline;
                connecting.push(async move { (candidate, self.connect(candidate, deadline).await, permit) });
            }
            let (candidate, connected, mut permit) = tokio::select! {
                Some(done) = connecting.next() => done,
                () = sleep(STAGGER), if !left.is_empty() => continue,
                else => return None,
            };
            let place = begun.iter().position(|one| one.address == candidate.address).unwrap_or_default();
            begun.remove(place);
            match connected {
                Ok(stream) => {
                    let unanswered = begun.iter().take(place);
                    unanswered.for_each(|slow| self.peers.demote(slow.address));
                    left.append(&mut begun);
                    return Some(Reached::New(candidate, stream, permit));
                }
                Err(fault) => {
                    permit.failed(&fault.diagnostic(&candidate.host.name));
                    progress.note_unreached(candidate.host, candidate.address, &fault);
                }
            }
        }
    }

    /// The next candidate that has a place for us.
    fn next_admitted<'h>(
        &self,
        left: &mut Vec<Candidate<'h>>,
        access: Access<'_>,
        progress: &mut Progress,
    ) -> Option<(Candidate<'h>, Permit)> {
        while !left.is_empty() {
            let candidate = left.remove(0);
            if let Some(permit) = self.peers.admit(candidate.address, access.flow, access.width) {
                return Some((candidate, permit));
            }
            progress.passed_over.push(candidate.address);
        }
        None
    }

    /// Ends sessions that wait for messages under other conditions, where the host would have too many connections.
    async fn make_room(&self, address: SocketAddr, width: usize) {
        while self.peers.is_over(address, width) && self.pool.make_room(address).await {}
    }
}
