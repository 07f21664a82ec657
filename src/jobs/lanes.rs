//! Which lane may attempt next: pure bookkeeping over what the engine knows, at a cost that no backlog changes.
//!
//! A lane's *width* is how many attempts it may have at once. It starts small, grows with each success and halves
//! with each failure, so an endpoint that hangs holds few slots. Lanes that are not proven healthy by their latest
//! attempt hold at most three quarters of all slots together; the rest is always there for the proven.

use std::collections::{BTreeSet, HashMap, VecDeque};

use super::{MAIL_LANE, WorkerConfig};
use crate::clock::Timestamp;
use crate::store::jobs::Claimed;

const FIRST_WIDTH: usize = 2;
/// Jobs that may be handed over, for each attempt that a lane may have at once: with attempts of 15 s the last of them
/// begins after 90 s, within its lease.
const IN_HAND: usize = 6;
/// Beyond this many lanes one without jobs is forgotten, and with it that it was healthy.
const REMEMBERED: usize = 10_000;

/// Every lane that has or had something to do.
#[derive(Debug)]
pub struct Lanes {
    lanes: HashMap<String, Lane>,
    /// Lanes with waiting jobs by when the first is due.
    due: BTreeSet<(Timestamp, String)>,
    /// Lanes with claimed jobs and room for one more, in turn.
    ready: VecDeque<String>,
    config: WorkerConfig,
    running: usize,
    running_ailing: usize,
}

#[derive(Debug)]
struct Lane {
    due_at: Option<Timestamp>,
    claimed: VecDeque<Claimed>,
    /// Jobs on their way into `claimed`, from transactions that run.
    reserved: usize,
    /// Its waiting jobs are left alone until those in hand run low.
    parked: bool,
    claiming: bool,
    queued: bool,
    running: usize,
    width: usize,
    ailing: bool,
}

/// A claim that the engine should make.
#[derive(Debug, PartialEq, Eq)]
pub struct Want {
    /// The lane.
    pub lane: String,
    /// How many jobs at most.
    pub limit: usize,
}

impl Lanes {
    /// No lanes; each may grow to its width, all together to `max_in_flight`.
    pub fn new(config: WorkerConfig) -> Self {
        Self {
            lanes: HashMap::new(),
            due: BTreeSet::new(),
            ready: VecDeque::new(),
            config: WorkerConfig { max_in_flight: config.max_in_flight.max(4), ..config },
            running: 0,
            running_ailing: 0,
        }
    }

    fn full_width(&self, lane: &str) -> usize {
        let mail = lane.starts_with(MAIL_LANE);
        if mail { self.config.mail_lane_width.max(1) } else { self.config.lane_width.max(1) }
    }

    fn lane(&mut self, name: &str) -> &mut Lane {
        let width = FIRST_WIDTH.min(self.full_width(name));
        self.lanes.entry(name.to_owned()).or_insert_with(|| Lane {
            due_at: None,
            claimed: VecDeque::new(),
            reserved: 0,
            parked: false,
            claiming: false,
            queued: false,
            running: 0,
            width,
            ailing: true,
        })
    }

    /// Keeps a place in hand for a job that a transaction is about to leave, if the lane has nothing else to do first.
    pub fn reserve(&mut self, name: &str, now: Timestamp) -> bool {
        let lane = self.lane(name);
        let waiting = lane.claiming || lane.parked || lane.due_at.is_some_and(|at| at <= now);
        let room = lane.claimed.len() + lane.reserved < lane.width * IN_HAND;
        let granted = room && !waiting;
        lane.reserved += usize::from(granted);
        granted
    }

    /// Gives a place back: what was to be left there was undone.
    pub fn unreserve(&mut self, name: &str) {
        if let Some(lane) = self.lanes.get_mut(name) {
            lane.reserved = lane.reserved.saturating_sub(1);
        }
        self.forget(name);
    }

    /// The job for which a place was kept.
    pub fn hand_over(&mut self, name: &str, job: Claimed) {
        let lane = self.lane(name);
        lane.reserved = lane.reserved.saturating_sub(1);
        lane.claimed.push_back(job);
        self.queue(name);
    }

    /// A lane has a job due at `at`.
    pub fn wake(&mut self, lane: String, at: Timestamp) {
        let entry = self.lane(&lane);
        if entry.due_at.is_some_and(|due| due <= at) {
            return;
        }
        let earlier = entry.due_at.replace(at);
        if entry.parked {
            return;
        }
        if let Some(due) = earlier {
            self.due.remove(&(due, lane.clone()));
        }
        self.due.insert((at, lane));
    }

    /// Up to `limit` claims that should be made now: due lanes whose ready queue runs low.
    pub fn wants(&mut self, now: Timestamp, limit: usize) -> Vec<Want> {
        let mut wants = Vec::new();
        while wants.len() < limit {
            if self.due.first().is_none_or(|(at, _)| *at > now) {
                break;
            }
            let Some((_, name)) = self.due.pop_first() else { break };
            let Some(lane) = self.lanes.get_mut(&name) else { continue };
            if lane.claimed.len() >= lane.width {
                lane.parked = true;
                continue;
            }
            lane.due_at = None;
            lane.claiming = true;
            wants.push(Want { limit: lane.width * 2 - lane.claimed.len(), lane: name });
        }
        wants
    }

    /// What a claim brought: jobs in hand, and when the lane's next waiting job is due.
    pub fn claimed(&mut self, name: &str, jobs: Vec<Claimed>, next_due: Option<Timestamp>) {
        if let Some(lane) = self.lanes.get_mut(name) {
            lane.claiming = false;
            lane.claimed.extend(jobs);
        }
        if let Some(at) = next_due {
            self.wake(name.to_owned(), at);
        }
        self.queue(name);
        self.forget(name);
    }

    /// The next job to attempt, if there is a slot for it.
    pub fn start(&mut self) -> Option<(String, Claimed)> {
        for _ in 0..self.ready.len() {
            let name = self.ready.pop_front()?;
            let ailing_full = self.running_ailing >= self.config.max_in_flight / 4 * 3;
            let Some(lane) = self.lanes.get_mut(&name) else { continue };
            if self.running >= self.config.max_in_flight || (lane.ailing && ailing_full) {
                self.ready.push_back(name);
                continue;
            }
            lane.queued = false;
            let Some(job) = lane.claimed.pop_front() else { continue };
            lane.running += 1;
            self.running += 1;
            if lane.ailing {
                self.running_ailing += 1;
            }
            if lane.parked && lane.claimed.len() * 2 < lane.width {
                lane.parked = false;
                self.due.extend(lane.due_at.map(|at| (at, name.clone())));
            }
            self.queue(&name);
            return Some((name, job));
        }
        None
    }

    /// An attempt of a lane ended.
    pub fn finished(&mut self, name: &str, healthy: bool) {
        self.running = self.running.saturating_sub(1);
        let full_width = self.full_width(name);
        if let Some(lane) = self.lanes.get_mut(name) {
            lane.running = lane.running.saturating_sub(1);
            if lane.ailing {
                self.running_ailing = self.running_ailing.saturating_sub(1);
            }
            if lane.ailing == healthy {
                // The lane's other attempts change their side of the count with it.
                lane.ailing = !healthy;
                if healthy {
                    self.running_ailing = self.running_ailing.saturating_sub(lane.running);
                } else {
                    self.running_ailing += lane.running;
                }
            }
            lane.width = if healthy { (lane.width + 1).min(full_width) } else { (lane.width / 2).max(1) };
        }
        self.queue(name);
        self.forget(name);
    }

    /// When the next lane is due, for the engine's sleep.
    pub fn next_due(&self) -> Option<Timestamp> {
        self.due.first().map(|(at, _)| *at)
    }

    /// Every job in hand that was not started, to be given back.
    pub fn drain(&mut self) -> Vec<Claimed> {
        self.ready.clear();
        self.due.clear();
        self.lanes.values_mut().flat_map(|lane| lane.claimed.drain(..)).collect()
    }

    fn queue(&mut self, name: &str) {
        if let Some(lane) = self.lanes.get_mut(name)
            && !lane.queued
            && !lane.claimed.is_empty()
            && lane.running < lane.width
        {
            lane.queued = true;
            self.ready.push_back(name.to_owned());
        }
    }

    /// A lane with nothing to do is remembered while there is room.
    fn forget(&mut self, name: &str) {
        let crowded = self.lanes.len() > REMEMBERED;
        let idle = self.lanes.get(name).is_some_and(|lane| {
            let in_hand = lane.running + lane.claimed.len() + lane.reserved;
            let busy = in_hand > 0 || lane.due_at.is_some() || lane.claiming;
            crowded && !busy
        });
        if idle {
            self.lanes.remove(name);
        }
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests may panic")]

    use super::*;
    use crate::store::jobs::Kind;

    const NOW: Timestamp = Timestamp::from_millis(1_000);

    fn lanes(lane_width: usize, max_in_flight: usize) -> Lanes {
        Lanes::new(WorkerConfig { lane_width, mail_lane_width: 1, max_in_flight })
    }

    fn jobs(count: usize) -> Vec<Claimed> {
        let id = |n: usize| i64::try_from(n).unwrap();
        (0..count)
            .map(|n| Claimed {
                id: id(n),
                kind: Kind::Webhook,
                subject_id: id(n),
                failures: 0,
                run_at: NOW,
                lease_until: NOW,
            })
            .collect()
    }

    fn claim_all(lanes: &mut Lanes, backlog: usize) {
        for want in lanes.wants(NOW, 10_000) {
            let brought = jobs(want.limit.min(backlog));
            lanes.claimed(&want.lane, brought, (backlog > want.limit).then_some(NOW));
        }
    }

    #[test]
    fn a_lane_starts_small_and_grows_with_success_to_its_width() {
        let mut lanes = lanes(16, 1_000);
        lanes.wake("a".into(), NOW);
        claim_all(&mut lanes, 1_000);
        let mut most = 0;
        for _ in 0..200 {
            while lanes.start().is_some() {}
            most = most.max(lanes.running);
            lanes.finished("a", true);
            claim_all(&mut lanes, 1_000);
        }
        assert_eq!(most, 16);
    }

    #[test]
    fn hanging_lanes_leave_a_quarter_of_the_slots_to_the_healthy() {
        let mut lanes = lanes(16, 40);
        lanes.wake("healthy".into(), NOW);
        claim_all(&mut lanes, 1);
        assert!(lanes.start().is_some());
        lanes.finished("healthy", true);
        for n in 0..200 {
            let name = format!("hang{n}");
            lanes.wake(name, NOW);
        }
        claim_all(&mut lanes, 100);
        // Every one of them fails its first attempts.
        let mut running = Vec::new();
        for _ in 0..50 {
            while let Some((name, _)) = lanes.start() {
                running.push(name);
            }
            for name in running.drain(..) {
                lanes.finished(&name, false);
            }
            claim_all(&mut lanes, 100);
        }
        while lanes.start().is_some() {}
        assert!(lanes.running <= 30, "{} attempts of ailing lanes", lanes.running);
        lanes.wake("healthy".into(), NOW);
        claim_all(&mut lanes, 100);
        let (started, _) = lanes.start().unwrap();
        assert_eq!(started, "healthy");
    }

    #[test]
    fn a_lane_with_enough_in_hand_is_claimed_again_when_it_runs_low() {
        let mut lanes = lanes(16, 1_000);
        lanes.wake("a".into(), NOW);
        claim_all(&mut lanes, 100);
        assert_eq!(lanes.wants(NOW, 10), []);
        while lanes.start().is_some() {}
        for _ in 0..3 {
            lanes.finished("a", true);
            while lanes.start().is_some() {}
        }
        assert_eq!(lanes.wants(NOW, 10).len(), 1);
    }

    fn job(id: i64) -> Claimed {
        let lease_until = Timestamp::from_millis(i64::MAX);
        Claimed { id, kind: Kind::Webhook, subject_id: id, failures: 0, run_at: NOW, lease_until }
    }

    #[test]
    fn a_lane_with_nothing_else_to_do_takes_jobs_up_to_a_bound() {
        let mut lanes = lanes(16, 1_000);
        let room = FIRST_WIDTH * IN_HAND;
        assert!((0..room).all(|_| lanes.reserve("a", NOW)));
        assert!(!lanes.reserve("a", NOW), "every place is kept");
        lanes.unreserve("a");
        assert!(lanes.reserve("a", NOW), "one was given back");
        (1..).zip(0..room).for_each(|(id, _)| lanes.hand_over("a", job(id)));
        assert!(!lanes.reserve("a", NOW), "every place is taken");
        assert_eq!(lanes.start().map(|(lane, job)| (lane, job.id)), Some(("a".to_owned(), 1)));
        assert!(lanes.reserve("a", NOW), "one is being attempted");
    }

    #[test]
    fn jobs_that_wait_already_go_first() {
        let mut lanes = lanes(16, 1_000);
        lanes.wake("a".into(), NOW);
        assert!(!lanes.reserve("a", NOW), "one is due");
        assert_eq!(lanes.wants(NOW, 10).len(), 1);
        assert!(!lanes.reserve("a", NOW), "it is being claimed");
        lanes.claimed("a", vec![job(1)], Some(Timestamp::from_millis(NOW.as_millis() + 1)));
        assert!(lanes.reserve("a", NOW), "the next is due later");
    }

    #[test]
    fn nothing_is_due_before_its_time() {
        let mut lanes = lanes(16, 1_000);
        lanes.wake("a".into(), Timestamp::from_millis(2_000));
        assert_eq!(lanes.wants(NOW, 10), []);
        assert_eq!(lanes.next_due(), Some(Timestamp::from_millis(2_000)));
    }

    #[test]
    fn lanes_with_nothing_to_do_take_bounded_memory() {
        let mut lanes = lanes(16, 1_000);
        for n in 0..REMEMBERED + 500 {
            let name = format!("lane{n}");
            lanes.wake(name.clone(), NOW);
            claim_all(&mut lanes, 1);
            assert!(lanes.start().is_some());
            lanes.finished(&name, true);
        }
        assert!(lanes.lanes.len() <= REMEMBERED + 1, "{} lanes", lanes.lanes.len());
    }
}
