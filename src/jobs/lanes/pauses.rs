//! Pauses of flows whose endpoint fails: their end, and what ends them early.

use std::sync::Arc;
use std::time::Duration;

use super::{Breaker, Lanes};
use crate::clock::Timestamp;
use crate::store::jobs::Flow;

impl Lanes {
    /// Returns the time until which a flow pauses; `None` if it does not.
    pub(crate) fn paused_until(&mut self, flow: &Flow, now: Timestamp) -> Option<Timestamp> {
        let state = self.lanes.get_mut(&flow.lane)?.state(flow.account, flow.endpoint)?;
        state.breaker.until().filter(|until| *until > now)
    }

    /// True while a flow pauses or waits for its probe.
    pub(crate) fn is_paused(&mut self, flow: &Flow) -> bool {
        let lane = self.lanes.get_mut(&flow.lane);
        lane.and_then(|lane| lane.state(flow.account, flow.endpoint)).is_some_and(|state| state.breaker.is_open())
    }

    /// Lets a paused flow make its probe at once.
    pub(crate) fn probe(&mut self, flow: &Flow, now: Timestamp) {
        let lane = self.lanes.get_mut(&flow.lane);
        if let Some(state) = lane.and_then(|lane| lane.state(flow.account, flow.endpoint)) {
            state.breaker.probe_at(now);
        }
        self.arm(flow);
    }

    /// Lets a held flow make an attempt at `at`, if that is sooner: resumption `number`. Attempts still running that
    /// began to wait before it do not hold the flow either.
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

    /// Moves pauses with a clock that was set back: they end as much earlier.
    pub(crate) fn shift_back(&mut self, by: Duration) {
        self.change_pauses(|breaker| breaker.shift_back(by));
    }

    /// Lets every paused flow make its probe at once.
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
}
