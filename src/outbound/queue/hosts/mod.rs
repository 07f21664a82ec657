//! State of each remote mail host, by address: the connections it has from us, whether it accepts any, and the flows
//! that wait for it (RFC 5321 §4.5.4.1).
//!
//! All destinations that a host serves share its *width*, its limit of concurrent connections. A host that refuses a
//! session is paused, twice as long after each failed probe; one attempt probes it, and after a success the width
//! grows from one. A paused host counts as failed, so another may be tried; a host that is full or being probed is
//! waited for ([`Denied`]). An attempt that finds no host to try leaves its flow here and ends: only the flow's name
//! waits, and accounts take turns. The table is bounded; entries with the least information are evicted first.

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

/// Limit of hosts in the table.
const REMEMBERED: usize = 10_000;
/// Connection limit of a host that has not accepted anything yet.
const FIRST_WIDTH: usize = 5;
/// Time that a freed connection slot is reserved for the flow whose turn it is.
const RESERVED_FOR: Duration = Duration::from_secs(10);
/// Time after which a waiting flow retries without a wake-up.
const LOOKS_AGAIN: Duration = Duration::from_secs(60);
/// Time that a probe is waited for: one that takes longer means that the host still accepts nothing.
const PROBE_PATIENCE: Duration = Duration::from_secs(60);
/// Time that an address which did not answer in time is tried last; doubled each further time.
const FIRST_DEMOTION: Duration = Duration::from_secs(60);
/// Upper bound of that time.
const LONGEST_DEMOTION: Duration = Duration::from_secs(3600);

/// Every host that has connections, is paused, or recently did not answer.
#[derive(Debug)]
pub(crate) struct RemoteHosts {
    clock: Clock,
    jobs: Jobs,
    table: Mutex<Table>,
    /// Notified when an idle session has ended.
    ended: Notify,
}

#[derive(Debug, Default)]
struct Table {
    hosts: HashMap<SocketAddr, RemoteHost>,
    /// Total backward clock adjustment already applied to the times in the table.
    set_back: Duration,
}

/// State of one address of a host.
#[derive(Debug)]
struct RemoteHost {
    /// Attempts that use it.
    busy: usize,
    /// Sessions that wait for the next message.
    idle: usize,
    /// Limit of concurrent attempts: raised by one after each success, up to the configured limit.
    width: usize,
    /// Width that was too much once; from here on it grows more slowly.
    threshold: usize,
    /// Successes since the width last changed.
    successes: usize,
    breaker: Breaker,
    /// The engine's nudge counter when the pause began.
    nudges: u64,
    /// Reason of the pause.
    reason: String,
    /// The flow that tries it when the pause ends.
    prober: Option<Flow>,
    /// Start of the running probe.
    probed_since: Option<Timestamp>,
    /// Connection slots reserved for flows whose turn it is, each with its expiry.
    reserved: Vec<(Flow, Timestamp)>,
    waiting: FairQueue,
    /// End of the period in which other addresses are tried first; `demotions` counts such periods in a row.
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
            // A host that refuses one session will most likely refuse the next ones.
            breaker: Breaker::opening_after(1),
            nudges: 0,
            reason: String::new(),
            prober: None,
            probed_since: None,
            reserved: Vec::new(),
            waiting: FairQueue::default(),
            last_until: None,
            demotions: 0,
        }
    }
}

/// A connection slot of a host, held while an attempt uses it.
#[derive(Debug)]
pub(crate) struct Permit {
    hosts: Arc<RemoteHosts>,
    address: SocketAddr,
    limit: usize,
    /// True once the attempt's result was reported to the host's state.
    reported: bool,
}

/// The connection slot of a session that waits for the next message.
#[derive(Debug)]
pub(crate) struct IdlePermit {
    hosts: Arc<RemoteHosts>,
    address: SocketAddr,
}

/// The reason a host has no connection slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Denied {
    /// It has all the connections it may have, or a probe is running: the flow waits for its turn.
    Full,
    /// It failed and is paused.
    Pauses,
}

/// The wait of a flow that found no host to try.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wait {
    /// Time of the next try, unless the flow's turn comes sooner.
    pub(crate) until: Timestamp,
    /// [`Jobs::resumed`] when the wait began.
    pub(crate) since: u64,
    /// Set if its hosts are paused; `None` if they have all the connections they may have.
    pub pause: Option<Pause>,
}

/// Flows to resume after the table is unlocked.
type Resumed = Vec<(Flow, Timestamp)>;

impl RemoteHosts {
    /// Creates an empty table that wakes flows of `jobs`.
    pub(crate) fn new(jobs: Jobs, clock: Clock) -> Self {
        let table = Table { set_back: jobs.set_back(), ..Table::default() };
        Self { clock, jobs, table: Mutex::new(table), ended: Notify::new() }
    }

    /// Locks the table and adjusts its times to the clock.
    fn table(&self) -> MutexGuard<'_, Table> {
        let mut table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        let set_back = self.jobs.set_back();
        let by = set_back.saturating_sub(table.set_back);
        if !by.is_zero() {
            table.set_back = set_back;
            table.hosts.values_mut().for_each(|host| host.shift_back(by));
        }
        table
    }

    /// Runs `act` on a host's state, then wakes the flows whose turn it is.
    fn with<T>(&self, address: SocketAddr, act: impl FnOnce(&mut RemoteHost, Timestamp, &mut Resumed) -> T) -> T {
        let now = self.clock.now();
        let mut resumed = Vec::new();
        let done = {
            let mut table = self.table();
            let hosts = &mut table.hosts;
            if hosts.len() >= REMEMBERED && !hosts.contains_key(&address) {
                hosts.retain(|_, host| host.matters(now));
                if hosts.len() >= REMEMBERED {
                    hosts.retain(|_, host| host.is_used());
                }
            }
            act(hosts.entry(address).or_default(), now, &mut resumed)
        };
        for (flow, at) in resumed {
            self.jobs.resume(&flow, at);
        }
        done
    }

    /// Takes a connection slot of a host for an attempt of `flow`; `limit` bounds the host's connections.
    ///
    /// # Errors
    /// The host is paused or full.
    pub(crate) fn admit(self: &Arc<Self>, address: SocketAddr, flow: &Flow, limit: usize) -> Result<Permit, Denied> {
        let nudges = self.jobs.nudges();
        self.with(address, |host, now, resumed| {
            host.width = host.width.min(limit).max(1);
            if !host.breaker.is_open() {
                host.promote(now, resumed);
            }
            if !host.admits(flow, nudges, now) {
                return Err(host.denied(now));
            }
            host.probed_since = host.breaker.is_open().then_some(now);
            host.reserved.retain(|(owner, _)| owner != flow);
            host.waiting.remove(flow);
            host.busy += 1;
            Ok(Permit { hosts: Arc::clone(self), address, limit, reported: false })
        })
    }

    /// Returns true if a host has more connections than it may have, idle ones included.
    pub(crate) fn is_over(&self, address: SocketAddr, limit: usize) -> bool {
        self.with(address, |host, _, _| host.busy + host.idle > limit)
    }

    /// Resolves when an idle session of any host has ended since this call.
    pub(crate) fn session_ended(&self) -> impl Future<Output = ()> {
        // Notifications sent from now on count, even before the future is polled.
        self.ended.notified()
    }

    /// Queues a flow that found no slot at any of these addresses.
    pub(crate) fn wait(&self, addresses: &[SocketAddr], flow: &Flow) -> Wait {
        let now = self.clock.now();
        let since = self.jobs.resumed();
        // The address that is free soonest: a full one, else one being probed, else the one with the shortest pause.
        let pause = |address: &&SocketAddr| {
            self.with(**address, |host, now, _| (host.breaker.is_open(), host.paused_until(now)))
        };
        let Some(address) = addresses.iter().min_by_key(pause) else {
            return Wait { until: now.plus(LOOKS_AGAIN), since, pause: None };
        };
        self.with(*address, |host, now, resumed| {
            let Some(until) = host.paused_until(now) else {
                host.waiting.push(flow);
                // A slot may have become free since it was requested, and nothing else would report it.
                host.promote(now, resumed);
                let probed_until = host.probed_since.map(|since| since.plus(PROBE_PATIENCE));
                let later = now.plus(LOOKS_AGAIN);
                let until = probed_until.filter(|at| now < *at).map_or(later, |at| at.min(later));
                let pause = host.breaker.is_open().then(|| Pause { until, reason: host.reason.clone() });
                return Wait { until, since, pause };
            };
            let pause = Some(Pause { until, reason: host.reason.clone() });
            if host.prober.get_or_insert_with(|| flow.clone()) != flow {
                host.waiting.push(flow);
                return Wait { until: until.plus(LOOKS_AGAIN), since, pause };
            }
            host.waiting.remove(flow);
            Wait { until, since, pause }
        })
    }

    /// Moves an address behind the others for a while: it did not answer while another did, or it refused us because
    /// our IPv6 address has no reverse DNS name.
    pub(crate) fn demote(&self, address: SocketAddr) {
        self.with(address, |host, now, _| {
            let time = FIRST_DEMOTION.saturating_mul(1 << host.demotions.min(16)).min(LONGEST_DEMOTION);
            host.demotions = host.demotions.saturating_add(1);
            host.last_until = Some(now.plus(time));
        });
    }

    /// Returns true if an address is to be tried after the others.
    pub(crate) fn is_demoted(&self, address: SocketAddr) -> bool {
        let table = self.table();
        let until = table.hosts.get(&address).and_then(|host| host.last_until);
        until.is_some_and(|until| self.clock.now() < until)
    }
}

impl Permit {
    /// Records that the host accepted a session and answered in it, whatever its verdict on the message.
    pub(crate) fn succeeded(&mut self) {
        self.reported = true;
        self.hosts.with(self.address, |host, now, resumed| {
            if host.breaker.is_open() {
                tracing::info!(address = %self.address, "a mail host takes mail again");
                host.breaker.succeeded();
                host.prober = None;
                host.probed_since = None;
            }
            host.last_until = None;
            host.demotions = 0;
            host.successes += 1;
            if host.width < host.threshold || host.successes >= host.width {
                host.successes = 0;
                host.width = host.width.saturating_add(1).min(self.limit);
            }
            host.promote(now, resumed);
        });
    }

    /// Records that the host refused or broke off a session, with `reason` as a sentence.
    pub(crate) fn failed(&mut self, reason: &str) {
        self.reported = true;
        let nudges = self.hosts.jobs.nudges();
        self.hosts.with(self.address, |host, now, resumed| {
            let others = host.busy.saturating_sub(1);
            host.probed_since = None;
            let was_open = host.breaker.is_open();
            if !host.breaker.failed(now, None, others, chance()) {
                return;
            }
            // The host may allow just this many connections.
            host.threshold = others.min(host.width).max(1);
            host.width = 1;
            host.successes = 0;
            host.nudges = nudges;
            reason.clone_into(&mut host.reason);
            let until = host.breaker.until().unwrap_or(now);
            if !was_open {
                let pause = until.since(now);
                tracing::warn!(address = %self.address, reason, ?pause, "a mail host pauses; one message at a time tries it");
            }
            host.prober = host.waiting.pop();
            resumed.extend(host.prober.clone().map(|flow| (flow, until)));
        });
    }

    /// Converts the slot for an idle connection, which stays open while the attempt's slot goes to another.
    pub(crate) fn idle(self) -> IdlePermit {
        let (hosts, address) = (Arc::clone(&self.hosts), self.address);
        hosts.with(address, |host, _, _| host.idle += 1);
        // Dropping the permit frees its slot.
        drop(self);
        IdlePermit { hosts, address }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.hosts.with(self.address, |host, now, resumed| {
            host.busy = host.busy.saturating_sub(1);
            if !self.reported {
                host.breaker.said_nothing();
            }
            if host.busy == 0 {
                host.probed_since = None;
            }
            host.promote(now, resumed);
        });
    }
}

impl Drop for IdlePermit {
    fn drop(&mut self) {
        self.hosts.with(self.address, |host, _, _| host.idle = host.idle.saturating_sub(1));
        self.hosts.ended.notify_waiters();
    }
}

impl RemoteHost {
    /// Returns the end of the pause; `None` if the host is not paused or is due for a probe.
    fn paused_until(&self, now: Timestamp) -> Option<Timestamp> {
        self.breaker.until().filter(|until| now < *until)
    }

    fn admits(&mut self, flow: &Flow, nudges: u64, now: Timestamp) -> bool {
        if self.breaker.is_open() {
            if self.nudges != nudges {
                // The operator requested a retry.
                self.nudges = nudges;
                self.breaker.probe_at(now);
            }
            return !self.breaker.pauses(now) && self.busy == 0;
        }
        self.reserved.iter().any(|(owner, _)| owner == flow) || self.busy + self.reserved.len() < self.width
    }

    /// Returns the reason there is no slot.
    fn denied(&self, now: Timestamp) -> Denied {
        let is_probed = self.probed_since.is_some_and(|since| now.since(since) < PROBE_PATIENCE);
        if self.breaker.is_open() && !is_probed { Denied::Pauses } else { Denied::Full }
    }

    /// Adjusts its times after the clock was set back.
    fn shift_back(&mut self, by: Duration) {
        self.breaker.shift_back(by);
        let times = self.reserved.iter_mut().map(|(_, until)| until);
        times.chain(&mut self.last_until).chain(&mut self.probed_since).for_each(|at| *at = at.minus(by));
    }

    /// Gives free slots to waiting flows in turn, including slots whose reservation expired.
    fn promote(&mut self, now: Timestamp, resumed: &mut Resumed) {
        if self.breaker.is_open() {
            // The probe ended without a result, so the next flow probes.
            if !self.breaker.pauses(now) && self.busy == 0 {
                resumed.extend(self.waiting.pop().map(|flow| (flow, now)));
            }
            return;
        }
        self.reserved.retain(|(_, until)| now < *until);
        while self.busy + self.reserved.len() < self.width
            && let Some(flow) = self.waiting.pop()
        {
            self.reserved.push((flow.clone(), now.plus(RESERVED_FOR)));
            resumed.push((flow, now));
        }
    }

    /// Returns true if the host has connections or waiting flows.
    fn is_used(&self) -> bool {
        self.busy + self.idle > 0 || !self.reserved.is_empty() || !self.waiting.is_empty()
    }

    /// Returns true if evicting it would lose information.
    fn matters(&self, now: Timestamp) -> bool {
        self.is_used() || self.breaker.is_open() || self.last_until.is_some_and(|until| now < until)
    }
}

/// Returns a random number from 0 to 1.
fn chance() -> f64 {
    let mut octets = [0; 2];
    fill_random(&mut octets);
    f64::from(u16::from_le_bytes(octets)) / 65_536.0
}

#[cfg(test)]
mod tests;
