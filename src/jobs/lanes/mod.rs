//! Which job may be attempted next: pure bookkeeping over what the engine knows, at a cost that no backlog changes.
//!
//! A *lane* is what must not be hurried: an endpoint's origin, a recipient domain. Within it accounts take turns, and
//! each *flow*, the jobs of one account for one endpoint, has a *width* of its own: how many attempts it may have at
//! once. It starts small, grows with each success and halves when nothing answers, so an endpoint that hangs holds few
//! slots. Flows that are not proven healthy by their latest attempt hold at most three quarters of all slots together;
//! the rest is always there for the proven. Where there are several accounts, each leaves slots free for the others.

mod breaker;
mod lane;
#[cfg(test)]
mod tests;

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use super::{Health, MAIL_LANE, WorkerConfig};
use crate::clock::Timestamp;
use crate::id::{AccountRowId, fill_random};
use crate::store::jobs::{ClaimedJob, Flow};
pub(crate) use breaker::Breaker;
use lane::{Lane, may_take};

/// Beyond this many flows one without jobs is forgotten, and with it that it was healthy.
const REMEMBERED: usize = 10_000;
/// Lanes that are looked at again when an attempt ends, of those that were held back.
const LOOKED_AT_AGAIN: usize = 4;

/// Every lane that has or had something to do.
#[derive(Debug)]
pub(crate) struct Lanes {
    lanes: HashMap<Arc<str>, Lane>,
    accounts: HashMap<AccountRowId, Account>,
    /// Flows with waiting jobs by when the first may be claimed.
    due: BTreeSet<(Timestamp, Flow)>,
    /// Lanes with claimed jobs and room for one more attempt, in turn.
    ready: VecDeque<Arc<str>>,
    /// Accounts with lanes that wait for their share, in turn.
    held: VecDeque<AccountRowId>,
    config: WorkerConfig,
    running: usize,
    running_ailing: usize,
    flows: usize,
    figures: LaneStats,
}

/// What an account has of all.
#[derive(Debug, Default)]
struct Account {
    flows: usize,
    running: usize,
    running_ailing: usize,
    /// Lanes where it may start nothing until it has less of all slots.
    held: VecDeque<Arc<str>>,
}

/// How the engine fares, for `/metrics`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LaneStats {
    /// Attempts that run.
    pub running: usize,
    /// Flows whose breaker is open.
    pub paused: usize,
    /// Pauses that began since the start.
    pub(crate) pauses: u64,
}

impl LaneStats {
    /// The text format of Prometheus.
    pub(crate) fn render(&self) -> String {
        let Self { running, paused, pauses } = self;
        format!(
            "# HELP mailkite_job_attempts_running Attempts of webhooks and outbound mail that run.\n\
             # TYPE mailkite_job_attempts_running gauge\nmailkite_job_attempts_running {running}\n\
             # HELP mailkite_job_queues_paused Queues for one endpoint or domain that pause because it fails.\n\
             # TYPE mailkite_job_queues_paused gauge\nmailkite_job_queues_paused {paused}\n\
             # HELP mailkite_job_pauses_total Pauses of such queues that began.\n\
             # TYPE mailkite_job_pauses_total counter\nmailkite_job_pauses_total {pauses}\n"
        )
    }
}

/// A claim that the engine should make.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct ClaimRequest {
    /// Whose jobs.
    pub(crate) flow: Flow,
    /// How many jobs at most.
    pub(crate) limit: usize,
}

impl Lanes {
    /// No lanes; each may grow to its width, all together to `max_in_flight`.
    pub(crate) fn new(config: WorkerConfig) -> Self {
        Self {
            lanes: HashMap::new(),
            accounts: HashMap::new(),
            due: BTreeSet::new(),
            ready: VecDeque::new(),
            held: VecDeque::new(),
            config: WorkerConfig { max_in_flight: config.max_in_flight.max(4), ..config },
            running: 0,
            running_ailing: 0,
            flows: 0,
            figures: LaneStats::default(),
        }
    }

    fn full_width(&self, lane: &str) -> usize {
        let mail = lane.starts_with(MAIL_LANE);
        if mail { self.config.mail_lane_width.max(1) } else { self.config.lane_width.max(1) }
    }

    /// The lane of a flow, which is known from now on.
    fn enter(&mut self, flow: &Flow) -> &mut Lane {
        let width = self.full_width(&flow.lane);
        let lane = self.lanes.entry(Arc::clone(&flow.lane)).or_insert_with(|| Lane::new(width));
        if lane.enter(flow.account, flow.endpoint) {
            self.flows += 1;
            self.accounts.entry(flow.account).or_default().flows += 1;
        }
        lane
    }

    /// Keeps a place in hand for a job that a transaction is about to leave, if its flow has nothing else to do first.
    pub(crate) fn reserve(&mut self, flow: &Flow, now: Timestamp) -> bool {
        self.enter(flow).reserve(flow.account, flow.endpoint, now)
    }

    /// Gives a place back: what was to be left there was undone.
    pub(crate) fn unreserve(&mut self, flow: &Flow) {
        if let Some(lane) = self.lanes.get_mut(&flow.lane) {
            lane.unreserve(flow.account, flow.endpoint);
        }
        self.unpark(flow);
        self.forget(flow);
    }

    /// The job for which a place was kept; it comes back when its flow pauses by now.
    pub(crate) fn hand_over(&mut self, flow: &Flow, job: ClaimedJob, now: Timestamp) -> Option<ClaimedJob> {
        let lane = self.enter(flow);
        lane.unreserve(flow.account, flow.endpoint);
        let back = lane.take(flow.account, flow.endpoint, vec![job], now);
        self.unpark(flow);
        self.queue(&flow.lane);
        back.into_iter().next()
    }

    /// A flow has a job due at `at`.
    pub(crate) fn wake(&mut self, flow: &Flow, at: Timestamp) {
        if let Some(state) = self.enter(flow).state(flow.account, flow.endpoint)
            && state.due_at.is_none_or(|due| at < due)
        {
            state.due_at = Some(at);
            self.arm(flow);
        }
    }

    /// Puts a flow where it belongs among the due ones.
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

    /// Up to `limit` claims that should be made now: due flows whose hand runs low.
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

    /// What a claim brought: jobs in hand, and when the flow's next waiting job is due. Returns what comes back because
    /// the flow pauses by now.
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

    /// The next job to attempt, if there is a slot for it.
    pub(crate) fn start(&mut self) -> Option<(Flow, ClaimedJob)> {
        let slots = self.config.max_in_flight;
        while self.running < slots {
            let name = self.ready.pop_front()?;
            let Some(lane) = self.lanes.get_mut(&name) else { continue };
            lane.queued = false;
            let (accounts, running, ailing) = (&self.accounts, self.running, self.running_ailing);
            let (picked, held) = lane.pick(|account, is_ailing| {
                let Some(has) = accounts.get(&account) else { return true };
                let alone = accounts.len() == 1;
                let ailing_slots = slots / 4 * 3;
                let share = alone || may_take(has.running, slots, running);
                let ailing_share =
                    ailing < ailing_slots && (alone || may_take(has.running_ailing, ailing_slots, ailing));
                share && (!is_ailing || ailing_share)
            });
            for account in held {
                self.hold(account, &name);
            }
            let Some(picked) = picked else { continue };
            let flow = Flow { lane: name, account: picked.account, endpoint: picked.endpoint };
            self.running += 1;
            self.running_ailing += usize::from(picked.ailing);
            let account = self.accounts.entry(flow.account).or_default();
            account.running += 1;
            account.running_ailing += usize::from(picked.ailing);
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

    /// Looks again at some of what was held back for its account's sake.
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

    /// An attempt of a flow ended. Returns what comes back out of hand because a pause begins.
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
                let was_ailing = state.ailing;
                if was_ailing {
                    self.running_ailing = self.running_ailing.saturating_sub(1);
                    account.running_ailing = account.running_ailing.saturating_sub(1);
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
                    Health::Up | Health::Failing { .. } => state.ailing = false,
                    Health::Unreachable | Health::Reluctant => state.ailing = true,
                    Health::Unknown | Health::Held { .. } => {}
                }
                // The flow's other attempts change their side of the count with it.
                match (was_ailing, state.ailing) {
                    (true, false) => {
                        self.running_ailing = self.running_ailing.saturating_sub(state.running);
                        account.running_ailing = account.running_ailing.saturating_sub(state.running);
                    }
                    (false, true) => {
                        self.running_ailing += state.running;
                        account.running_ailing += state.running;
                    }
                    _ => {}
                }
                let was_open = state.breaker.is_open();
                match health {
                    // What it has is enough; when one of those ends there may be room for another.
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

    /// Until when a flow pauses; none if it does not.
    pub(crate) fn paused_until(&mut self, flow: &Flow, now: Timestamp) -> Option<Timestamp> {
        let state = self.lanes.get_mut(&flow.lane)?.state(flow.account, flow.endpoint)?;
        state.breaker.until().filter(|until| *until > now)
    }

    /// Whether a flow pauses, or waits for its probe.
    pub(crate) fn is_paused(&mut self, flow: &Flow) -> bool {
        let lane = self.lanes.get_mut(&flow.lane);
        lane.and_then(|lane| lane.state(flow.account, flow.endpoint)).is_some_and(|state| state.breaker.is_open())
    }

    /// Lets a flow that pauses make its probe at once.
    pub(crate) fn probe(&mut self, flow: &Flow, now: Timestamp) {
        let lane = self.lanes.get_mut(&flow.lane);
        if let Some(state) = lane.and_then(|lane| lane.state(flow.account, flow.endpoint)) {
            state.breaker.probe_at(now);
        }
        self.arm(flow);
    }

    /// Lets a held flow make an attempt at `at`, if that is sooner: resumption `number`. Attempts still running that began
    /// to wait before it do not hold the flow either.
    pub(crate) fn resume(&mut self, flow: &Flow, at: Timestamp, number: u64) {
        let full_width = self.full_width(&flow.lane);
        if let Some(lane) = self.lanes.get_mut(&flow.lane) {
            if let Some(state) = lane.state(flow.account, flow.endpoint) {
                state.resumed = Some((number, at));
                if !state.breaker.resume_at(at) && !state.breaker.is_open() {
                    state.width = state.width.max(state.running + 1).min(full_width);
                }
            }
            lane.offer(flow.account, flow.endpoint);
        }
        self.arm(flow);
        self.unpark(flow);
        self.queue(&flow.lane);
    }

    /// The clock was set back: pauses end as much earlier.
    pub(crate) fn shift_back(&mut self, by: Duration) {
        self.change_pauses(|breaker| breaker.shift_back(by));
    }

    /// Lets every flow that pauses make its probe at once.
    pub(crate) fn probe_all(&mut self, now: Timestamp) {
        self.change_pauses(|breaker| breaker.probe_at(now));
    }

    fn change_pauses(&mut self, change: impl Fn(&mut Breaker)) {
        let mut paused = Vec::new();
        for (name, lane) in &mut self.lanes {
            for (account, endpoint, state) in lane.states().filter(|(_, _, state)| state.breaker.is_open()) {
                change(&mut state.breaker);
                paused.push(Flow { lane: Arc::clone(name), account, endpoint });
            }
        }
        paused.iter().for_each(|flow| self.arm(flow));
    }

    /// When the next flow is due, for the engine's sleep.
    pub(crate) fn next_due(&self) -> Option<Timestamp> {
        self.due.first().map(|(at, _)| *at)
    }

    /// How the engine fares.
    pub(crate) const fn figures(&self) -> LaneStats {
        LaneStats { running: self.running, ..self.figures }
    }

    /// Every job in hand that was not started, to be given back.
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

    /// A flow with nothing to do is remembered while there is room.
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

/// From 0 to 1.
fn chance() -> f64 {
    let mut chance = [0_u8; 2];
    fill_random(&mut chance);
    f64::from(u16::from_le_bytes(chance)) / 65_536.0
}
