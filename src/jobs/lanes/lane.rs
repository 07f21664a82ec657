//! One lane: its accounts take turns, and so do the flows of one account.
//!
//! No account waits behind the backlog of another: it waits for one attempt of each at most. Within a flow the order is
//! first come, first served.

use std::collections::{HashMap, VecDeque};

use super::breaker::Breaker;
use crate::clock::Timestamp;
use crate::id::AccountRowId;
use crate::store::jobs::ClaimedJob;

pub(super) const FIRST_WIDTH: usize = 2;
/// Buffered jobs per attempt that may run at once, for jobs claimed on enqueueing: with attempts of 15 s the last of
/// them begins after 90 s, within its lease.
pub(super) const BUFFERED: usize = 6;
/// The same for jobs claimed from the table, initially …
const REACH: usize = 2;
/// … and where attempts end so fast that the buffer is empty before the next claim is committed, as on a slow disk.
const REACH_MAX: usize = 16;
/// Flows of one account examined before it is another account's turn.
const LOOKED_AT: usize = 16;

/// True if a holder of `has` of `all` places may take one more while `taken` are in use: it may hold three times as
/// many as are left free. So a single holder gets three quarters, and a holder of none always finds a place.
pub(super) fn may_take(has: usize, all: usize, taken: usize) -> bool {
    has < all.saturating_sub(taken).saturating_mul(3)
}

/// State of one flow.
#[derive(Debug)]
pub(super) struct State {
    /// Due time of its next waiting job.
    pub(crate) due_at: Option<Timestamp>,
    /// Time under which it stands among the due flows.
    pub(crate) armed: Option<Timestamp>,
    pub(crate) claimed: VecDeque<ClaimedJob>,
    /// Places reserved in `claimed` by running transactions.
    pub(crate) reserved: usize,
    /// Set while its waiting jobs are left alone until its buffered ones run low.
    pub(crate) parked: bool,
    /// Set if it is parked because the lane's buffer is full.
    lacks_room: bool,
    pub(crate) claiming: bool,
    /// Maximum number of jobs of its running claim; they count as buffered.
    expected: usize,
    /// Jobs to buffer per attempt that may run at once.
    reach: usize,
    /// Set while it is in its account's turns.
    in_turn: bool,
    pub(crate) running: usize,
    /// Maximum number of concurrent attempts.
    pub(crate) width: usize,
    /// Degraded: its latest attempt was not answered, or there was none yet.
    pub(crate) degraded: bool,
    pub(crate) breaker: Breaker,
    /// Number of its last resumption, and the time from which it may go on.
    pub(crate) resumed: Option<(u64, Timestamp)>,
}

impl State {
    fn new(width: usize) -> Self {
        Self {
            due_at: None,
            armed: None,
            claimed: VecDeque::new(),
            reserved: 0,
            parked: false,
            lacks_room: false,
            claiming: false,
            expected: 0,
            reach: REACH,
            in_turn: false,
            running: 0,
            width,
            degraded: true,
            breaker: Breaker::default(),
            resumed: None,
        }
    }

    fn buffered(&self) -> usize {
        self.claimed.len() + self.reserved
    }

    /// Returns the time from which its waiting jobs are to be claimed.
    pub(super) fn due_from(&self) -> Option<Timestamp> {
        let at = self.due_at.filter(|_| !self.parked && !self.claiming)?;
        Some(self.breaker.until().map_or(at, |until| until.max(at)))
    }

    /// Returns how many jobs it may buffer.
    const fn hand(&self) -> usize {
        self.width * self.reach
    }

    /// Lowers the number of buffered jobs after an attempt did not go well: claims would be held for long.
    pub(super) const fn hold_few(&mut self) {
        self.reach = REACH;
    }

    fn is_idle(&self) -> bool {
        self.running + self.buffered() == 0 && self.due_at.is_none() && !self.claiming
    }
}

/// The part of a lane that belongs to one account.
#[derive(Debug, Default)]
struct Member {
    flows: HashMap<i64, State>,
    running: usize,
    buffered: usize,
    /// Flows with a buffered job and room for an attempt, in turn.
    turns: VecDeque<i64>,
    in_turns: bool,
    /// Set while it waits for the account's share of all attempts.
    held: bool,
    /// Flows that wait for room in the lane's buffer.
    parked: VecDeque<i64>,
    in_parked: bool,
}

/// A lane with its accounts and flows.
#[derive(Debug)]
pub(super) struct Lane {
    /// Maximum number of concurrent attempts.
    width: usize,
    running: usize,
    buffered: usize,
    /// Set while it is among the lanes that may start something.
    pub(crate) queued: bool,
    members: HashMap<AccountRowId, Member>,
    /// Accounts with a job that may start, in turn.
    turns: VecDeque<AccountRowId>,
    /// Accounts with flows that wait for room in the buffer.
    parked: VecDeque<AccountRowId>,
}

/// A job whose turn it is.
pub(super) struct Picked {
    pub(crate) account: AccountRowId,
    pub(crate) endpoint: i64,
    pub(crate) job: ClaimedJob,
    pub(crate) degraded: bool,
}

impl Lane {
    pub(super) fn new(width: usize) -> Self {
        Self {
            width,
            running: 0,
            buffered: 0,
            queued: false,
            members: HashMap::new(),
            turns: VecDeque::new(),
            parked: VecDeque::new(),
        }
    }

    /// Adds a flow; true if it is new.
    pub(super) fn enter(&mut self, account: AccountRowId, endpoint: i64) -> bool {
        let width = FIRST_WIDTH.min(self.width);
        let member = self.members.entry(account).or_default();
        let known = member.flows.contains_key(&endpoint);
        member.flows.entry(endpoint).or_insert_with(|| State::new(width));
        !known
    }

    /// Removes a flow with nothing to do; true if it was removed.
    pub(super) fn forget(&mut self, account: AccountRowId, endpoint: i64) -> bool {
        let Some(member) = self.members.get_mut(&account) else { return false };
        if !member.flows.get(&endpoint).is_some_and(State::is_idle) {
            return false;
        }
        member.flows.remove(&endpoint);
        member.turns.retain(|one| *one != endpoint);
        member.parked.retain(|one| *one != endpoint);
        if member.flows.is_empty() {
            self.members.remove(&account);
            self.turns.retain(|one| *one != account);
            self.parked.retain(|one| *one != account);
        }
        true
    }

    pub(super) fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    pub(super) fn state(&mut self, account: AccountRowId, endpoint: i64) -> Option<&mut State> {
        self.members.get_mut(&account)?.flows.get_mut(&endpoint)
    }

    pub(super) fn states(&mut self) -> impl Iterator<Item = (AccountRowId, i64, &mut State)> {
        self.members.iter_mut().flat_map(|(account, member)| {
            member.flows.iter_mut().map(|(endpoint, state)| (*account, *endpoint, state))
        })
    }

    /// True if one more attempt may run.
    pub(super) fn may_start(&self) -> bool {
        self.running < self.width && !self.turns.is_empty()
    }

    /// Reserves a place in the buffer, if the flow has nothing else to do first.
    pub(super) fn reserve(&mut self, account: AccountRowId, endpoint: i64, now: Timestamp) -> bool {
        let Some(member) = self.members.get_mut(&account) else { return false };
        let Some(state) = member.flows.get_mut(&endpoint) else { return false };
        let reach = state.reach.max(BUFFERED);
        let full = self.buffered >= self.width * reach;
        let waiting = state.claiming || state.parked || state.due_at.is_some_and(|at| at <= now);
        // An account with nothing buffered gets a place behind every backlog of others.
        let room = state.buffered() < state.width * reach && (!full || member.buffered == 0);
        if waiting || !room || state.breaker.is_open() {
            return false;
        }
        state.reserved += 1;
        member.buffered += 1;
        self.buffered += 1;
        true
    }

    pub(super) fn unreserve(&mut self, account: AccountRowId, endpoint: i64) {
        let Some(member) = self.members.get_mut(&account) else { return };
        let Some(state) = member.flows.get_mut(&endpoint).filter(|state| state.reserved > 0) else { return };
        state.reserved -= 1;
        member.buffered = member.buffered.saturating_sub(1);
        self.buffered = self.buffered.saturating_sub(1);
    }

    /// Ends a claim that brought this many jobs.
    pub(super) fn claimed(&mut self, account: AccountRowId, endpoint: i64, jobs: usize) {
        let Some(member) = self.members.get_mut(&account) else { return };
        let Some(state) = member.flows.get_mut(&endpoint) else { return };
        let expected = std::mem::take(&mut state.expected);
        state.claiming = false;
        if !state.claimed.is_empty() {
            state.reach = (state.reach - 1).max(REACH);
        } else if jobs == expected && !state.degraded && state.running < state.width {
            state.reach = (state.reach * 2).min(REACH_MAX);
        }
        member.buffered = member.buffered.saturating_sub(expected);
        self.buffered = self.buffered.saturating_sub(expected);
    }

    /// Buffers jobs; returns them if the flow pauses by now.
    pub(super) fn take(
        &mut self,
        account: AccountRowId,
        endpoint: i64,
        jobs: Vec<ClaimedJob>,
        now: Timestamp,
    ) -> Vec<ClaimedJob> {
        let Some(member) = self.members.get_mut(&account) else { return jobs };
        let Some(state) = member.flows.get_mut(&endpoint) else { return jobs };
        if state.breaker.pauses(now) {
            return jobs;
        }
        member.buffered += jobs.len();
        self.buffered += jobs.len();
        state.claimed.extend(jobs);
        self.offer(account, endpoint);
        Vec::new()
    }

    /// Gives a flow its turn, if it has something that may start.
    pub(super) fn offer(&mut self, account: AccountRowId, endpoint: i64) {
        let Some(member) = self.members.get_mut(&account) else { return };
        let Some(state) = member.flows.get_mut(&endpoint) else { return };
        if !state.in_turn && !state.claimed.is_empty() && state.running < state.width {
            state.in_turn = true;
            member.turns.push_back(endpoint);
        }
        self.offer_account(account);
    }

    fn offer_account(&mut self, account: AccountRowId) {
        let Some(member) = self.members.get_mut(&account) else { return };
        if !member.in_turns && !member.turns.is_empty() {
            member.in_turns = true;
            self.turns.push_back(account);
        }
    }

    /// Makes flows eligible again that were held back because of their account's share.
    pub(super) fn unhold(&mut self, account: AccountRowId) {
        if let Some(member) = self.members.get_mut(&account) {
            member.held = false;
        }
        self.offer_account(account);
    }

    /// Returns the next job. `fits` is true if an account may have one more attempt, healthy or degraded; the second
    /// value lists the accounts that may not, to be examined again once they may.
    pub(super) fn pick(&mut self, fits: impl Fn(AccountRowId, bool) -> bool) -> (Option<Picked>, Vec<AccountRowId>) {
        let shared = self.members.len() > 1;
        let mut held = Vec::new();
        for _ in 0..self.turns.len() {
            let Some(account) = self.turns.pop_front() else { break };
            let Some(member) = self.members.get_mut(&account) else { continue };
            if shared && !may_take(member.running, self.width, self.running) {
                self.turns.push_back(account);
                continue;
            }
            match member.pick(account, &fits) {
                Some(picked) => {
                    member.in_turns = false;
                    self.running += 1;
                    self.buffered = self.buffered.saturating_sub(1);
                    self.offer(account, picked.endpoint);
                    return (Some(picked), held);
                }
                None => {
                    member.in_turns = false;
                    if !member.turns.is_empty() && !std::mem::replace(&mut member.held, true) {
                        held.push(account);
                    }
                }
            }
        }
        (None, held)
    }

    /// Notes that an attempt of a flow ended.
    pub(super) fn finished(&mut self, account: AccountRowId) {
        self.running = self.running.saturating_sub(1);
        if let Some(member) = self.members.get_mut(&account) {
            member.running = member.running.saturating_sub(1);
        }
    }

    /// Removes everything of a flow from the buffer.
    pub(super) fn empty_hand(&mut self, account: AccountRowId, endpoint: i64) -> Vec<ClaimedJob> {
        let Some(member) = self.members.get_mut(&account) else { return Vec::new() };
        let Some(state) = member.flows.get_mut(&endpoint) else { return Vec::new() };
        let jobs: Vec<ClaimedJob> = state.claimed.drain(..).collect();
        member.buffered = member.buffered.saturating_sub(jobs.len());
        self.buffered = self.buffered.saturating_sub(jobs.len());
        jobs
    }

    /// Returns how many waiting jobs of a due flow should be claimed now; `None` if it is parked.
    pub(super) fn wants(&mut self, account: AccountRowId, endpoint: i64) -> Option<usize> {
        // Each account may buffer this many, however many the others have.
        let share = (self.width * REACH / self.members.len().max(1)).max(1);
        let member = self.members.get_mut(&account)?;
        let state = member.flows.get_mut(&endpoint)?;
        state.armed = None;
        let limit = if state.breaker.is_open() {
            // One probe, once everything else has ended.
            state.parked = state.running + state.buffered() > 0;
            1
        } else if state.claimed.len() * 2 >= state.hand() {
            state.parked = true;
            0
        } else if self.buffered >= self.width * state.reach && member.buffered >= share {
            state.parked = true;
            state.lacks_room = true;
            member.parked.push_back(endpoint);
            if !std::mem::replace(&mut member.in_parked, true) {
                self.parked.push_back(account);
            }
            0
        } else {
            let room = (self.width * state.reach).saturating_sub(self.buffered);
            let room = room.max(share.saturating_sub(member.buffered)).max(1);
            state.hand().saturating_sub(state.claimed.len()).min(room)
        };
        if state.parked {
            return None;
        }
        state.due_at = None;
        state.claiming = true;
        state.expected = limit;
        member.buffered += limit;
        self.buffered += limit;
        Some(limit)
    }

    /// Returns the parked flows whose jobs may be claimed again, after something left the buffer or nothing entered it.
    pub(super) fn unpark(&mut self, account: AccountRowId, endpoint: i64) -> Vec<(AccountRowId, i64)> {
        let mut unparked = Vec::new();
        if let Some(member) = self.members.get_mut(&account) {
            if let Some(state) = member.flows.get_mut(&endpoint).filter(|state| state.parked && !state.lacks_room) {
                let busy = state.breaker.is_open() && state.running > 0;
                if !busy && state.claimed.len() * 4 < state.hand() {
                    state.parked = false;
                    unparked.push((account, endpoint));
                }
            }
            if member.buffered == 0 {
                unparked.extend(member.unpark().map(|endpoint| (account, endpoint)));
            }
        }
        // A flow that pauses by now brings nothing, so the next one has its turn as well.
        while self.buffered < self.width
            && let Some(next) = self.parked.pop_front()
        {
            let Some(member) = self.members.get_mut(&next) else { continue };
            let endpoint = member.unpark();
            member.in_parked = !member.parked.is_empty();
            if member.in_parked {
                self.parked.push_back(next);
            }
            let Some(endpoint) = endpoint else { continue };
            unparked.push((next, endpoint));
            if !self.state(next, endpoint).is_some_and(|state| state.breaker.is_open()) {
                break;
            }
        }
        unparked
    }
}

impl Member {
    fn pick(&mut self, account: AccountRowId, fits: impl Fn(AccountRowId, bool) -> bool) -> Option<Picked> {
        for _ in 0..self.turns.len().min(LOOKED_AT) {
            let endpoint = self.turns.pop_front()?;
            let Some(state) = self.flows.get_mut(&endpoint) else { continue };
            if !fits(account, state.degraded) {
                self.turns.push_back(endpoint);
                continue;
            }
            state.in_turn = false;
            // It may have become narrower, or paused, since it got its turn.
            if state.running >= state.width {
                continue;
            }
            let Some(job) = state.claimed.pop_front() else { continue };
            state.running += 1;
            self.running += 1;
            self.buffered = self.buffered.saturating_sub(1);
            return Some(Picked { account, endpoint, job, degraded: state.degraded });
        }
        None
    }

    fn unpark(&mut self) -> Option<i64> {
        let endpoint = self.parked.pop_front()?;
        let state = self.flows.get_mut(&endpoint)?;
        state.parked = false;
        state.lacks_room = false;
        Some(endpoint)
    }
}
