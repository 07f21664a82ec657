//! What is known of each remote mail host, by its address: how many connections it has of ours, whether it takes any,
//! and who waits for it (RFC 5321 §4.5.4.1).
//!
//! All destinations that a host serves share its *width*, the connections that it gets at a time. A host that refuses a
//! session pauses, twice as long after each probe that fails; one attempt probes, and after a success the width grows
//! from one. A host that pauses has failed and another may be asked; one that is full or probed is waited for
//! ([`Denied`]). An attempt that finds no host to try leaves its flow here and ends: nothing waits but the flow's name,
//! and accounts take turns. The table is bounded; what is forgotten first is what says least.

mod turns;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;

use crate::clock::{Clock, Timestamp};
use crate::id::fill_random;
use crate::jobs::{Breaker, Flow, Jobs};
use crate::store::jobs::lane_pauses::Pause;
use turns::FairQueue;

/// Hosts remembered at most.
const REMEMBERED: usize = 10_000;
/// Connections that a host gets before it has taken anything.
const FIRST_WIDTH: usize = 5;
/// How long a freed place is kept for the flow whose turn it is.
const KEPT_FOR: Duration = Duration::from_secs(10);
/// How long a flow waits for its turn before it looks by itself.
const LOOKS_AGAIN: Duration = Duration::from_secs(60);
/// How long a probe is waited for: one that lasts longer says that the host still takes nothing.
const PROBE_PATIENCE: Duration = Duration::from_secs(60);
/// For how long an address is tried last that did not answer in time; twice as long after each further time …
const FIRST_DEMOTION: Duration = Duration::from_secs(60);
/// … up to this.
const LONGEST_DEMOTION: Duration = Duration::from_secs(3600);

/// Every host that has connections, pauses, or did not answer of late.
#[derive(Debug)]
pub(crate) struct RemoteHosts {
    clock: Clock,
    jobs: Jobs,
    table: Mutex<Table>,
    /// A session that waited has ended.
    ended: Notify,
}

#[derive(Debug, Default)]
struct Table {
    peers: HashMap<SocketAddr, RemoteHost>,
    /// How far the clock was set back that its times have followed.
    set_back: Duration,
}

/// One address of a host.
#[derive(Debug)]
struct RemoteHost {
    /// Attempts that use it.
    busy: usize,
    /// Sessions that wait for the next message.
    idle: usize,
    /// How many may use it at a time: one more with each success, up to what the configuration allows.
    width: usize,
    /// From this width on, which was too much once, it grows more slowly.
    threshold: usize,
    /// Successes since the width last changed.
    successes: usize,
    breaker: Breaker,
    /// When its pause began, in nudges of the engine.
    nudges: u64,
    /// Why it pauses.
    reason: String,
    /// The flow that tries it when the pause ends.
    prober: Option<Flow>,
    /// Since when an attempt probes it.
    probed_since: Option<Timestamp>,
    /// Places that are kept for flows whose turn it is, and until when.
    kept: Vec<(Flow, Timestamp)>,
    waiting: FairQueue,
    /// Until when its other addresses are tried first, and how often in a row it earned that.
    last_until: Option<Timestamp>,
    demotions: u32,
}

impl Default for RemoteHost {
    fn default() -> Self {
        Self {
            busy: 0,
            idle: 0,
            width: FIRST_WIDTH,
            threshold: usize::MAX,
            successes: 0,
            // A refusal of the session is about all that would follow.
            breaker: Breaker::opening_after(1),
            nudges: 0,
            reason: String::new(),
            prober: None,
            probed_since: None,
            kept: Vec::new(),
            waiting: FairQueue::default(),
            last_until: None,
            demotions: 0,
        }
    }
}

/// A place at a host, while an attempt uses it.
#[derive(Debug)]
pub(crate) struct Permit {
    peers: Arc<RemoteHosts>,
    address: SocketAddr,
    limit: usize,
    /// Whether it said what became of the host.
    told: bool,
}

/// The place of a session that waits for the next message.
#[derive(Debug)]
pub(crate) struct IdlePermit {
    peers: Arc<RemoteHosts>,
    address: SocketAddr,
}

/// Why there is no place at a host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Denied {
    /// It has all the connections that it gets, or one is finding out whether it takes any: its turn is waited for.
    Full,
    /// It failed, and is left alone for now.
    Pauses,
}

/// What a flow waits for that found no host to try.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wait {
    /// When it looks again, unless it has its turn sooner.
    pub(crate) until: Timestamp,
    /// [`Jobs::resumed`] when it began to wait.
    pub(crate) since: u64,
    /// That its hosts pause; none: they have all the connections that they get.
    pub pause: Option<Pause>,
}

/// Flows to resume once the table is free again.
type Resumed = Vec<(Flow, Timestamp)>;

impl RemoteHosts {
    /// Knows none; wakes flows of `jobs`.
    pub(crate) fn new(jobs: Jobs, clock: Clock) -> Self {
        let table = Table { set_back: jobs.set_back(), ..Table::default() };
        Self { clock, jobs, table: Mutex::new(table), ended: Notify::new() }
    }

    /// The table, on the time of the clock.
    fn table(&self) -> MutexGuard<'_, Table> {
        let mut table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        let set_back = self.jobs.set_back();
        let by = set_back.saturating_sub(table.set_back);
        if !by.is_zero() {
            table.set_back = set_back;
            table.peers.values_mut().for_each(|peer| peer.shift_back(by));
        }
        table
    }

    /// Looks at a host, then wakes those whose turn it became.
    fn with<T>(&self, address: SocketAddr, act: impl FnOnce(&mut RemoteHost, Timestamp, &mut Resumed) -> T) -> T {
        let now = self.clock.now();
        let mut resumed = Vec::new();
        let done = {
            let mut table = self.table();
            let peers = &mut table.peers;
            if peers.len() >= REMEMBERED && !peers.contains_key(&address) {
                peers.retain(|_, peer| peer.matters(now));
                if peers.len() >= REMEMBERED {
                    peers.retain(|_, peer| peer.is_used());
                }
            }
            act(peers.entry(address).or_default(), now, &mut resumed)
        };
        for (flow, at) in resumed {
            self.jobs.resume(&flow, at);
        }
        done
    }

    /// A place at a host for an attempt of `flow`, of `limit` in all.
    ///
    /// # Errors
    /// It pauses or has no room.
    pub(crate) fn admit(self: &Arc<Self>, address: SocketAddr, flow: &Flow, limit: usize) -> Result<Permit, Denied> {
        let nudges = self.jobs.nudges();
        self.with(address, |peer, now, resumed| {
            peer.width = peer.width.min(limit).max(1);
            if !peer.breaker.is_open() {
                peer.promote(now, resumed);
            }
            if !peer.admits(flow, nudges, now) {
                return Err(peer.denied(now));
            }
            peer.probed_since = peer.breaker.is_open().then_some(now);
            peer.kept.retain(|(kept, _)| kept != flow);
            peer.waiting.remove(flow);
            peer.busy += 1;
            Ok(Permit { peers: Arc::clone(self), address, limit, told: false })
        })
    }

    /// Whether a host has more connections than it gets, those included that only wait.
    pub(crate) fn is_over(&self, address: SocketAddr, limit: usize) -> bool {
        self.with(address, |peer, _, _| peer.busy + peer.idle > limit)
    }

    /// Until a session that waited for the next message has ended at some host, since this was called.
    pub(crate) fn session_ended(&self) -> impl Future<Output = ()> {
        // It gets what is said from now on, though nobody polls it yet.
        self.ended.notified()
    }

    /// Leaves a flow that found no place at any of these addresses to wait for one.
    pub(crate) fn wait(&self, addresses: &[SocketAddr], flow: &Flow) -> Wait {
        let now = self.clock.now();
        let since = self.jobs.resumed();
        // The one that is free soonest: one that is full, else one that is probed, else the shortest pause.
        let pause = |address: &&SocketAddr| {
            self.with(**address, |peer, now, _| (peer.breaker.is_open(), peer.paused_until(now)))
        };
        let Some(address) = addresses.iter().min_by_key(pause) else {
            return Wait { until: now.plus(LOOKS_AGAIN), since, pause: None };
        };
        self.with(*address, |peer, now, resumed| {
            let Some(until) = peer.paused_until(now) else {
                peer.waiting.push(flow);
                // A place may have become free since it was asked for, and nobody else would say so.
                peer.promote(now, resumed);
                let probed_until = peer.probed_since.map(|since| since.plus(PROBE_PATIENCE));
                let later = now.plus(LOOKS_AGAIN);
                let until = probed_until.filter(|at| now < *at).map_or(later, |at| at.min(later));
                let pause = peer.breaker.is_open().then(|| Pause { until, reason: peer.reason.clone() });
                return Wait { until, since, pause };
            };
            let pause = Some(Pause { until, reason: peer.reason.clone() });
            if peer.prober.get_or_insert_with(|| flow.clone()) != flow {
                peer.waiting.push(flow);
                return Wait { until: until.plus(LOOKS_AGAIN), since, pause };
            }
            peer.waiting.remove(flow);
            Wait { until, since, pause }
        })
    }

    /// An address did not answer while another did, or refused us for want of a name of our IPv6 address: the others are
    /// tried first for a while.
    pub(crate) fn demote(&self, address: SocketAddr) {
        self.with(address, |peer, now, _| {
            let time = FIRST_DEMOTION.saturating_mul(1 << peer.demotions.min(16)).min(LONGEST_DEMOTION);
            peer.demotions = peer.demotions.saturating_add(1);
            peer.last_until = Some(now.plus(time));
        });
    }

    /// Whether an address is to be tried after the others.
    pub(crate) fn is_demoted(&self, address: SocketAddr) -> bool {
        let table = self.table();
        let until = table.peers.get(&address).and_then(|peer| peer.last_until);
        until.is_some_and(|until| self.clock.now() < until)
    }
}

impl Permit {
    /// The host took a session and answered in it, whatever it said of the message.
    pub(crate) fn succeeded(&mut self) {
        self.told = true;
        self.peers.with(self.address, |peer, now, resumed| {
            if peer.breaker.is_open() {
                tracing::info!(address = %self.address, "a mail host takes mail again");
                peer.breaker.succeeded();
                peer.prober = None;
                peer.probed_since = None;
            }
            peer.last_until = None;
            peer.demotions = 0;
            peer.successes += 1;
            if peer.width < peer.threshold || peer.successes >= peer.width {
                peer.successes = 0;
                peer.width = peer.width.saturating_add(1).min(self.limit);
            }
            peer.promote(now, resumed);
        });
    }

    /// The host took no session, or ended it: `reason`, as a sentence.
    pub(crate) fn failed(&mut self, reason: &str) {
        self.told = true;
        let nudges = self.peers.jobs.nudges();
        self.peers.with(self.address, |peer, now, resumed| {
            let others = peer.busy.saturating_sub(1);
            peer.probed_since = None;
            let was_open = peer.breaker.is_open();
            if !peer.breaker.failed(now, None, others, chance()) {
                return;
            }
            // Perhaps it takes just so many at a time.
            peer.threshold = others.min(peer.width).max(1);
            peer.width = 1;
            peer.successes = 0;
            peer.nudges = nudges;
            reason.clone_into(&mut peer.reason);
            let until = peer.breaker.until().unwrap_or(now);
            if !was_open {
                let pause = until.since(now);
                tracing::warn!(address = %self.address, reason, ?pause, "a mail host pauses; one message at a time tries it");
            }
            peer.prober = peer.waiting.pop();
            resumed.extend(peer.prober.clone().map(|flow| (flow, until)));
        });
    }

    /// Keeps the connection, while the place is another's.
    pub(crate) fn idle(self) -> IdlePermit {
        let (peers, address) = (Arc::clone(&self.peers), self.address);
        peers.with(address, |peer, _, _| peer.idle += 1);
        // Dropping it frees the place.
        drop(self);
        IdlePermit { peers, address }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.peers.with(self.address, |peer, now, resumed| {
            peer.busy = peer.busy.saturating_sub(1);
            if !self.told {
                peer.breaker.said_nothing();
            }
            if peer.busy == 0 {
                peer.probed_since = None;
            }
            peer.promote(now, resumed);
        });
    }
}

impl Drop for IdlePermit {
    fn drop(&mut self) {
        self.peers.with(self.address, |peer, _, _| peer.idle = peer.idle.saturating_sub(1));
        self.peers.ended.notify_waiters();
    }
}

impl RemoteHost {
    /// Until when nothing may be tried; none: it does not pause, or waits for its probe.
    fn paused_until(&self, now: Timestamp) -> Option<Timestamp> {
        self.breaker.until().filter(|until| now < *until)
    }

    fn admits(&mut self, flow: &Flow, nudges: u64, now: Timestamp) -> bool {
        if self.breaker.is_open() {
            if self.nudges != nudges {
                // The operator wants it tried.
                self.nudges = nudges;
                self.breaker.probe_at(now);
            }
            return !self.breaker.pauses(now) && self.busy == 0;
        }
        self.kept.iter().any(|(kept, _)| kept == flow) || self.busy + self.kept.len() < self.width
    }

    /// Why it has no place.
    fn denied(&self, now: Timestamp) -> Denied {
        let is_probed = self.probed_since.is_some_and(|since| now.since(since) < PROBE_PATIENCE);
        if self.breaker.is_open() && !is_probed { Denied::Pauses } else { Denied::Full }
    }

    /// The clock was set back.
    fn shift_back(&mut self, by: Duration) {
        self.breaker.shift_back(by);
        let times = self.kept.iter_mut().map(|(_, until)| until);
        times.chain(&mut self.last_until).chain(&mut self.probed_since).for_each(|at| *at = at.minus(by));
    }

    /// Gives free places to those who wait, in turn, and those of others who did not come.
    fn promote(&mut self, now: Timestamp, resumed: &mut Resumed) {
        if self.breaker.is_open() {
            // Its probe came to nothing that says anything: another's turn.
            if !self.breaker.pauses(now) && self.busy == 0 {
                resumed.extend(self.waiting.pop().map(|flow| (flow, now)));
            }
            return;
        }
        self.kept.retain(|(_, until)| now < *until);
        while self.busy + self.kept.len() < self.width
            && let Some(flow) = self.waiting.pop()
        {
            self.kept.push((flow.clone(), now.plus(KEPT_FOR)));
            resumed.push((flow, now));
        }
    }

    /// Whether connections or flows hang on it.
    fn is_used(&self) -> bool {
        self.busy + self.idle > 0 || !self.kept.is_empty() || !self.waiting.is_empty()
    }

    /// Whether forgetting it would change anything.
    fn matters(&self, now: Timestamp) -> bool {
        self.is_used() || self.breaker.is_open() || self.last_until.is_some_and(|until| now < until)
    }
}

/// From 0 to 1.
fn chance() -> f64 {
    let mut octets = [0; 2];
    fill_random(&mut octets);
    f64::from(u16::from_le_bytes(octets)) / 65_536.0
}

#[cfg(test)]
mod tests;
