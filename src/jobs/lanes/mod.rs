//! Decides which job may be attempted next: pure bookkeeping over the engine's state, at a cost independent of any
//! backlog.
//!
//! A *lane* is a destination that must not be overloaded: an endpoint's origin, a recipient domain. Within it accounts
//! take turns, and each *flow*, the jobs of one account for one endpoint, has its own *width*: the number of attempts
//! that may run at once. It starts small, grows with each success and halves when nothing answers, so an endpoint that
//! hangs holds few slots. Flows that their latest attempt did not prove healthy hold at most three quarters of all
//! slots together; the rest is always there for the proven ones. With several accounts, each leaves slots free for the
//! others. Uses `clock`, `id` and types of `store`, no I/O. A change within one lane belongs in `lane`, of pauses in
//! `breaker`, of the shares among lanes and accounts here.

mod breaker;
mod lane;
mod pauses;
#[cfg(test)]
mod tests;

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::fmt;
use std::sync::Arc;

use super::{Health, MAIL_LANE, WorkerConfig};
use crate::clock::Timestamp;
use crate::id::{AccountRowId, fill_random};
use crate::metrics::{Expose, Exposition};
use crate::store::jobs::{ClaimedJob, Flow};
pub(crate) use breaker::Breaker;
use lane::{Lane, may_take};

/// Beyond this many flows one without jobs is forgotten, and that it was healthy with it.
const REMEMBERED: usize = 10_000;
/// Lanes held back that are examined again when an attempt ends.
const LOOKED_AT_AGAIN: usize = 4;

/// All lanes that have or had something to do.
#[derive(Debug)]
pub(crate) struct Lanes {
    lanes: HashMap<Arc<str>, Lane>,
    accounts: HashMap<AccountRowId, Account>,
    /// Flows with waiting jobs by the time from which the first may be claimed.
    due: BTreeSet<(Timestamp, Flow)>,
    /// Lanes with claimed jobs and room for one more attempt, in turn.
    ready: VecDeque<Arc<str>>,
    /// Accounts with lanes that wait for their share, in turn.
    held: VecDeque<AccountRowId>,
    config: WorkerConfig,
    running: usize,
    running_degraded: usize,
    flows: usize,
    figures: LaneStats,
}

/// An account's share of all attempts.
#[derive(Debug, Default)]
struct Account {
    flows: usize,
    running: usize,
    running_degraded: usize,
    /// Lanes in which it may start nothing until it holds fewer of all slots.
    held: VecDeque<Arc<str>>,
}

/// The engine's figures for `/metrics`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LaneStats {
    /// Running attempts.
    pub running: usize,
    /// Flows whose breaker is open.
    pub paused: usize,
    /// Pauses that began since the start.
    pub(crate) pauses: u64,
}

impl Expose for LaneStats {
    fn expose(&self, exposition: &mut Exposition<'_>) -> fmt::Result {
        let help = "Attempts of webhooks and outbound mail that run.";
        exposition.gauge("mailkite_job_attempts_running", help, self.running)?;
        let help = "Queues for one endpoint or domain that pause because it fails.";
        exposition.gauge("mailkite_job_queues_paused", help, self.paused)?;
        exposition.counter("mailkite_job_pauses_total", "Pauses of such queues that began.", self.pauses)
    }
}

/// A claim that the engine should make.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct ClaimRequest {
    /// The flow to claim from.
    pub(crate) flow: Flow,
    /// Maximum number of jobs.
    pub(crate) limit: usize,
}

impl Lanes {
    /// Creates an empty set of lanes; each may grow to its width, all together to `max_in_flight`.
    pub(crate) fn new(config: WorkerConfig) -> Self {
        Self {
            lanes: HashMap::new(),
            accounts: HashMap::new(),
            due: BTreeSet::new(),
            ready: VecDeque::new(),
            held: VecDeque::new(),
            config: WorkerConfig { max_in_flight: config.max_in_flight.max(4), ..config },
            running: 0,
            running_degraded: 0,
            flows: 0,
            figures: LaneStats::default(),
        }
    }

    fn full_width(&self, lane: &str) -> usize {
        let mail = lane.starts_with(MAIL_LANE);
        if mail { self.config.mail_lane_width.max(1) } else { self.config.lane_width.max(1) }
    }

    /// Returns the lane of a flow, adding the flow.
    fn enter(&mut self, flow: &Flow) -> &mut Lane {
        let width = self.full_width(&flow.lane);
        let lane = self.lanes.entry(Arc::clone(&flow.lane)).or_insert_with(|| Lane::new(width));
        if lane.enter(flow.account, flow.endpoint) {
            self.flows += 1;
            self.accounts.entry(flow.account).or_default().flows += 1;
        }
        lane
    }

    /// Reserves a buffer place for a job that a transaction is about to enqueue, if its flow has nothing else to do
    /// first.
    pub(crate) fn reserve(&mut self, flow: &Flow, now: Timestamp) -> bool {
        self.enter(flow).reserve(flow.account, flow.endpoint, now)
    }

    /// Gives up a reserved place: the transaction was rolled back.
    pub(crate) fn unreserve(&mut self, flow: &Flow) {
        if let Some(lane) = self.lanes.get_mut(&flow.lane) {
            lane.unreserve(flow.account, flow.endpoint);
        }
        self.unpark(flow);
        self.forget(flow);
    }

    /// Buffers the job for which a place was reserved; returns it if its flow pauses by now.
    pub(crate) fn hand_over(&mut self, flow: &Flow, job: ClaimedJob, now: Timestamp) -> Option<ClaimedJob> {
        let lane = self.enter(flow);
        lane.unreserve(flow.account, flow.endpoint);
        let back = lane.take(flow.account, flow.endpoint, vec![job], now);
        self.unpark(flow);
        self.queue(&flow.lane);
        back.into_iter().next()
    }

    /// Notes that a flow has a job due at `at`.
    pub(crate) fn wake(&mut self, flow: &Flow, at: Timestamp) {
        if let Some(state) = self.enter(flow).state(flow.account, flow.endpoint)
            && state.due_at.is_none_or(|due| at < due)
        {
            state.due_at = Some(at);
            self.arm(flow);
        }
    }

    /// Moves a flow to its position among the due ones.
    fn arm(&mut self, flow: &Flow) {
        let lane = self.lanes.get_mut(&flow.lane);
        let Some(state) = lane.and_then(|lane| lane.state(flow.account, flow.endpoint)) else { return };
        let due = state.due_from();
        if state.armed == due {
            return;
        }
        if let Some(before) = std::mem::replace(&mut state.armed, due) {
            self.due.remove(&(before, flow.clone()));
        }
        self.due.extend(due.map(|at| (at, flow.clone())));
    }

    /// Returns up to `limit` claims that should be made now: due flows that have few buffered jobs.
    pub(crate) fn due_lanes(&mut self, now: Timestamp, limit: usize) -> Vec<ClaimRequest> {
        let mut wants = Vec::new();
        while wants.len() < limit && self.due.first().is_some_and(|(at, _)| *at <= now) {
            let Some((_, flow)) = self.due.pop_first() else { break };
            let Some(lane) = self.lanes.get_mut(&flow.lane) else { continue };
            if let Some(limit) = lane.wants(flow.account, flow.endpoint) {
                wants.push(ClaimRequest { flow, limit });
            }
        }
        wants
    }

    /// Buffers the jobs that a claim brought, and notes when the flow's next waiting job is due. Returns the jobs to
    /// release because the flow pauses by now.
    pub(crate) fn claimed(
        &mut self,
        flow: &Flow,
        jobs: Vec<ClaimedJob>,
        next_due: Option<Timestamp>,
        now: Timestamp,
    ) -> Vec<ClaimedJob> {
        let lane = self.enter(flow);
        lane.claimed(flow.account, flow.endpoint, jobs.len());
        let back = lane.take(flow.account, flow.endpoint, jobs, now);
        if let Some(state) = lane.state(flow.account, flow.endpoint) {
            state.due_at = state.due_at.into_iter().chain(next_due).min();
        }
        self.arm(flow);
        self.unpark(flow);
        self.queue(&flow.lane);
        self.forget(flow);
        back
    }

    /// Returns the next job to attempt, if there is a slot for it.
    pub(crate) fn start(&mut self) -> Option<(Flow, ClaimedJob)> {
        let slots = self.config.max_in_flight;
        while self.running < slots {
            let name = self.ready.pop_front()?;
            let Some(lane) = self.lanes.get_mut(&name) else { continue };
            lane.queued = false;
            let (accounts, running, degraded) = (&self.accounts, self.running, self.running_degraded);
            let (picked, held) = lane.pick(|account, is_degraded| {
                let Some(has) = accounts.get(&account) else { return true };
                let alone = accounts.len() == 1;
                let degraded_slots = slots / 4 * 3;
                let share = alone || may_take(has.running, slots, running);
                let degraded_share =
                    degraded < degraded_slots && (alone || may_take(has.running_degraded, degraded_slots, degraded));
                share && (!is_degraded || degraded_share)
            });
            for account in held {
                self.hold(account, &name);
            }
            let Some(picked) = picked else { continue };
            let flow = Flow { lane: name, account: picked.account, endpoint: picked.endpoint };
            self.running += 1;
            self.running_degraded += usize::from(picked.degraded);
            let account = self.accounts.entry(flow.account).or_default();
            account.running += 1;
            account.running_degraded += usize::from(picked.degraded);
            self.unpark(&flow);
            self.queue(&flow.lane);
            return Some((flow, picked.job));
        }
        None
    }

    fn hold(&mut self, account: AccountRowId, lane: &Arc<str>) {
        let entry = self.accounts.entry(account).or_default();
        if entry.held.is_empty() {
            self.held.push_back(account);
        }
        entry.held.push_back(Arc::clone(lane));
    }

    /// Examines again some of the lanes that were held back because of their account's share.
    fn release_held(&mut self) {
        for _ in 0..LOOKED_AT_AGAIN {
            let Some(account) = self.held.pop_front() else { return };
            let Some(entry) = self.accounts.get_mut(&account) else { continue };
            let Some(name) = entry.held.pop_front() else { continue };
            if !entry.held.is_empty() {
                self.held.push_back(account);
            }
            if let Some(lane) = self.lanes.get_mut(&name) {
                lane.unhold(account);
            }
            self.queue(&name);
        }
    }

    /// Notes that an attempt of a flow ended. Returns the buffered jobs to release because a pause begins.
    pub(crate) fn finished(&mut self, flow: &Flow, health: Health, now: Timestamp) -> Vec<ClaimedJob> {
        self.running = self.running.saturating_sub(1);
        let full_width = self.full_width(&flow.lane);
        let account = self.accounts.entry(flow.account).or_default();
        account.running = account.running.saturating_sub(1);
        let mut back = Vec::new();
        if let Some(lane) = self.lanes.get_mut(&flow.lane) {
            lane.finished(flow.account);
            if let Some(state) = lane.state(flow.account, flow.endpoint) {
                state.running = state.running.saturating_sub(1);
                let was_degraded = state.degraded;
                if was_degraded {
                    self.running_degraded = self.running_degraded.saturating_sub(1);
                    account.running_degraded = account.running_degraded.saturating_sub(1);
                }
                if !matches!(health, Health::Up | Health::Unknown | Health::Held { .. }) {
                    state.hold_few();
                }
                match health {
                    Health::Up => state.width = (state.width + 1).min(full_width),
                    Health::Unreachable | Health::Reluctant => state.width = (state.width / 2).max(1),
                    Health::Failing { .. } | Health::Unknown | Health::Held { .. } => {}
                }
                match health {
                    Health::Up | Health::Failing { .. } => state.degraded = false,
                    Health::Unreachable | Health::Reluctant => state.degraded = true,
                    Health::Unknown | Health::Held { .. } => {}
                }
                // The flow's other attempts change their side of the count with it.
                match (was_degraded, state.degraded) {
                    (true, false) => {
                        self.running_degraded = self.running_degraded.saturating_sub(state.running);
                        account.running_degraded = account.running_degraded.saturating_sub(state.running);
                    }
                    (false, true) => {
                        self.running_degraded += state.running;
                        account.running_degraded += state.running;
                    }
                    _ => {}
                }
                let was_open = state.breaker.is_open();
                match health {
                    // The present number is enough; when one of these attempts ends there may be room for another.
                    Health::Held { .. } if state.running > 0 => state.width = state.running,
                    Health::Held { until, since } => {
                        let resumed = state.resumed.filter(|(number, _)| *number > since);
                        state.breaker.hold(resumed.map_or(until, |(_, at)| at.min(until)));
                    }
                    Health::Unknown => {}
                    _ => state.breaker.end_hold(),
                }
                let failed = match health {
                    Health::Up => {
                        state.breaker.succeeded();
                        None
                    }
                    Health::Failing { not_before } => Some(not_before),
                    Health::Unreachable => Some(None),
                    Health::Unknown | Health::Reluctant | Health::Held { .. } => {
                        state.breaker.said_nothing();
                        None
                    }
                };
                let mut stops = state.breaker.is_held();
                if let Some(not_before) = failed
                    && state.breaker.failed(now, not_before, state.running, chance())
                {
                    state.width = 1;
                    self.figures.pauses += 1;
                    stops = true;
                }
                if stops {
                    back = lane.empty_hand(flow.account, flow.endpoint);
                }
                let is_open = lane.state(flow.account, flow.endpoint).is_some_and(|state| state.breaker.is_open());
                self.figures.paused += usize::from(is_open && !was_open);
                self.figures.paused = self.figures.paused.saturating_sub(usize::from(was_open && !is_open));
                lane.offer(flow.account, flow.endpoint);
            }
        }
        self.arm(flow);
        self.unpark(flow);
        self.release_held();
        self.queue(&flow.lane);
        self.forget(flow);
        back
    }

    /// Returns when the next flow is due, for the engine's sleep.
    pub(crate) fn next_due(&self) -> Option<Timestamp> {
        self.due.first().map(|(at, _)| *at)
    }

    /// Returns the engine's figures.
    pub(crate) const fn figures(&self) -> LaneStats {
        LaneStats { running: self.running, ..self.figures }
    }

    /// Removes and returns every buffered job that was not started, to be released.
    pub(crate) fn drain(&mut self) -> Vec<ClaimedJob> {
        self.ready.clear();
        self.due.clear();
        let states = self.lanes.values_mut().flat_map(Lane::states);
        states.flat_map(|(_, _, state)| state.claimed.drain(..)).collect()
    }

    fn unpark(&mut self, flow: &Flow) {
        let Some(lane) = self.lanes.get_mut(&flow.lane) else { return };
        for (account, endpoint) in lane.unpark(flow.account, flow.endpoint) {
            self.arm(&Flow { lane: Arc::clone(&flow.lane), account, endpoint });
        }
    }

    fn queue(&mut self, name: &Arc<str>) {
        if let Some(lane) = self.lanes.get_mut(name)
            && !lane.queued
            && lane.may_start()
        {
            lane.queued = true;
            self.ready.push_back(Arc::clone(name));
        }
    }

    /// Forgets a flow with nothing to do, unless there is room to remember it.
    fn forget(&mut self, flow: &Flow) {
        if self.flows <= REMEMBERED {
            return;
        }
        let Some(lane) = self.lanes.get_mut(&flow.lane) else { return };
        let was_open = lane.state(flow.account, flow.endpoint).is_some_and(|state| state.breaker.is_open());
        if !lane.forget(flow.account, flow.endpoint) {
            return;
        }
        self.flows -= 1;
        self.figures.paused = self.figures.paused.saturating_sub(usize::from(was_open));
        if lane.is_empty() {
            self.lanes.remove(&flow.lane);
        }
        if let Some(account) = self.accounts.get_mut(&flow.account) {
            account.flows = account.flows.saturating_sub(1);
            if account.flows == 0 {
                self.accounts.remove(&flow.account);
                self.held.retain(|held| *held != flow.account);
            }
        }
    }
}

/// Returns a random number from 0 to 1.
fn chance() -> f64 {
    let mut chance = [0_u8; 2];
    fill_random(&mut chance);
    f64::from(u16::from_le_bytes(chance)) / 65_536.0
}
