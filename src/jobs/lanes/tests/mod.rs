//! Tests turns, widths, shares and pauses, without a database or a clock.

#![expect(clippy::unwrap_used, clippy::panic, reason = "tests may panic")]

mod pauses;

use std::time::Duration;

use super::lane::{BUFFERED, FIRST_WIDTH};
use super::*;
use crate::id::{AccountRowId, JobRowId, RowId};
use crate::store::jobs::JobKind;

const NOW: Timestamp = Timestamp::from_millis(1_000);

fn lanes(lane_width: usize, max_in_flight: usize) -> Lanes {
    Lanes::new(WorkerConfig { lane_width, mail_lane_width: 1, max_in_flight })
}

fn jobs(count: usize) -> Vec<ClaimedJob> {
    let id = |n: usize| i64::try_from(n).unwrap();
    (0..count)
        .map(|n| ClaimedJob {
            id: RowId::new(id(n)),
            kind: JobKind::Webhook,
            subject_id: RowId::new(id(n)),
            failures: 0,
            run_at: NOW,
            queued_at: NOW,
            lease_until: NOW,
        })
        .collect()
}

/// Returns the only flow of a lane.
fn flow(lane: &str) -> Flow {
    Flow::new(lane, RowId::new(1))
}

fn claim_all(lanes: &mut Lanes, backlog: usize) {
    for want in lanes.due_lanes(NOW, 10_000) {
        let brought = jobs(want.limit.min(backlog));
        lanes.claimed(&want.flow, brought, (backlog > want.limit).then_some(NOW), NOW);
    }
}

#[test]
fn a_lane_starts_small_and_grows_with_success_to_its_width() {
    let mut lanes = lanes(16, 1_000);
    lanes.wake(&flow("a"), NOW);
    claim_all(&mut lanes, 1_000);
    let mut most = 0;
    for _ in 0..200 {
        while lanes.start().is_some() {}
        most = most.max(lanes.running);
        lanes.finished(&flow("a"), Health::Up, NOW);
        claim_all(&mut lanes, 1_000);
    }
    assert_eq!(most, 16);
}

#[test]
fn hanging_lanes_leave_a_quarter_of_the_slots_to_the_healthy() {
    let mut lanes = lanes(16, 40);
    lanes.wake(&flow("healthy"), NOW);
    claim_all(&mut lanes, 1);
    assert!(lanes.start().is_some());
    lanes.finished(&flow("healthy"), Health::Up, NOW);
    for n in 0..200 {
        let name = format!("hang{n}");
        lanes.wake(&flow(&name), NOW);
    }
    claim_all(&mut lanes, 100);
    // Each of them fails its first attempts.
    let mut running = Vec::new();
    for _ in 0..50 {
        while let Some((name, _)) = lanes.start() {
            running.push(name);
        }
        for name in running.drain(..) {
            lanes.finished(&name, Health::Reluctant, NOW);
        }
        claim_all(&mut lanes, 100);
    }
    while lanes.start().is_some() {}
    assert!(lanes.running <= 30, "{} attempts of degraded lanes", lanes.running);
    lanes.wake(&flow("healthy"), NOW);
    claim_all(&mut lanes, 100);
    let (started, _) = lanes.start().unwrap();
    assert_eq!(started, flow("healthy"));
}

#[test]
fn a_lane_with_enough_buffered_is_claimed_again_when_it_runs_low() {
    let mut lanes = lanes(16, 1_000);
    lanes.wake(&flow("a"), NOW);
    claim_all(&mut lanes, 100);
    assert_eq!(lanes.due_lanes(NOW, 10), []);
    while lanes.start().is_some() {}
    for _ in 0..3 {
        lanes.finished(&flow("a"), Health::Up, NOW);
        while lanes.start().is_some() {}
    }
    assert_eq!(lanes.due_lanes(NOW, 10).len(), 1);
}

fn job(id: JobRowId) -> ClaimedJob {
    let lease_until = Timestamp::from_millis(i64::MAX);
    ClaimedJob {
        id,
        kind: JobKind::Webhook,
        subject_id: id.as_subject(),
        failures: 0,
        run_at: NOW,
        queued_at: NOW,
        lease_until,
    }
}

#[test]
fn a_lane_with_nothing_else_to_do_takes_jobs_up_to_a_bound() {
    let mut lanes = lanes(16, 1_000);
    let room = FIRST_WIDTH * BUFFERED;
    assert!((0..room).all(|_| lanes.reserve(&flow("a"), NOW)));
    assert!(!lanes.reserve(&flow("a"), NOW), "every place is kept");
    lanes.unreserve(&flow("a"));
    assert!(lanes.reserve(&flow("a"), NOW), "one was given back");
    (1..).zip(0..room).for_each(|(id, _)| assert!(lanes.hand_over(&flow("a"), job(RowId::new(id)), NOW).is_none()));
    assert!(!lanes.reserve(&flow("a"), NOW), "every place is taken");
    assert_eq!(lanes.start().map(|(of, job)| (of, job.id)), Some((flow("a"), RowId::new(1))));
    assert!(lanes.reserve(&flow("a"), NOW), "one is being attempted");
}

#[test]
fn jobs_that_wait_already_go_first() {
    let mut lanes = lanes(16, 1_000);
    lanes.wake(&flow("a"), NOW);
    assert!(!lanes.reserve(&flow("a"), NOW), "one is due");
    assert_eq!(lanes.due_lanes(NOW, 10).len(), 1);
    assert!(!lanes.reserve(&flow("a"), NOW), "it is being claimed");
    lanes.claimed(&flow("a"), vec![job(RowId::new(1))], Some(Timestamp::from_millis(NOW.as_millis() + 1)), NOW);
    assert!(lanes.reserve(&flow("a"), NOW), "the next is due later");
}

#[test]
fn nothing_is_due_before_its_time() {
    let mut lanes = lanes(16, 1_000);
    lanes.wake(&flow("a"), Timestamp::from_millis(2_000));
    assert_eq!(lanes.due_lanes(NOW, 10), []);
    assert_eq!(lanes.next_due(), Some(Timestamp::from_millis(2_000)));
}

#[test]
fn lanes_with_nothing_to_do_take_bounded_memory() {
    let mut lanes = lanes(16, 1_000);
    for n in 0..REMEMBERED + 500 {
        let name = format!("lane{n}");
        lanes.wake(&flow(&name), NOW);
        claim_all(&mut lanes, 1);
        assert!(lanes.start().is_some());
        lanes.finished(&flow(&name), Health::Up, NOW);
    }
    assert!(lanes.lanes.len() <= REMEMBERED + 1, "{} lanes", lanes.lanes.len());
}

/// Returns a flow of an account for an endpoint of the lane `shared`.
fn shared(account: AccountRowId, endpoint: i64) -> Flow {
    Flow { lane: "shared".into(), account, endpoint }
}

fn hand_over(lanes: &mut Lanes, flow: &Flow, id: JobRowId) -> bool {
    let granted = lanes.reserve(flow, NOW);
    if granted {
        assert!(lanes.hand_over(flow, job(id), NOW).is_none());
    }
    granted
}

#[test]
fn a_backlog_buffered_and_in_the_table_is_nobody_elses_wait() {
    let mut lanes = lanes(1, 1_000);
    let (attacker, honest) = (shared(RowId::new(1), 1), shared(RowId::new(2), 1));
    while hand_over(&mut lanes, &attacker, RowId::new(1)) {}
    lanes.wake(&attacker, NOW);
    let (running, _) = lanes.start().unwrap();
    assert_eq!(running, attacker);
    assert!(hand_over(&mut lanes, &honest, RowId::new(2)), "it does not stand behind the other's jobs");
    lanes.finished(&attacker, Health::Up, NOW);
    assert_eq!(lanes.start().map(|(flow, _)| flow), Some(honest));
}

#[test]
fn accounts_take_turns_however_many_endpoints_each_has() {
    let mut lanes = lanes(1, 1_000);
    for endpoint in 0..50 {
        lanes.wake(&shared(RowId::new(1), endpoint), NOW);
    }
    lanes.wake(&shared(RowId::new(2), 1), NOW);
    let mut order = Vec::new();
    for _ in 0..40 {
        claim_all(&mut lanes, 100);
        let (flow, _) = lanes.start().unwrap();
        order.push(flow.account);
        lanes.finished(&flow, Health::Up, NOW);
    }
    let honest = order.iter().filter(|account| **account == RowId::new(2)).count();
    assert!((19..=21).contains(&honest), "{honest} of 40: {order:?}");
    assert!(order.iter().take(3).any(|account| *account == RowId::new(2)), "{order:?}");
}

#[test]
fn what_a_lane_has_buffered_is_bounded_by_its_width_and_its_accounts() {
    let mut lanes = lanes(4, 1_000);
    for account in 1..=100 {
        for endpoint in 0..5 {
            lanes.wake(&shared(RowId::new(account), endpoint), NOW);
        }
    }
    let claimed: usize = lanes.due_lanes(NOW, 10_000).iter().map(|want| want.limit).sum();
    assert!((100..=8 + 100).contains(&claimed), "{claimed} jobs");
}

#[test]
fn one_account_with_many_lanes_leaves_slots_for_the_others() {
    let mut lanes = lanes(16, 100);
    lanes.wake(&Flow::new("honest", RowId::new(2)), NOW);
    claim_all(&mut lanes, 1);
    assert!(lanes.start().is_some());
    lanes.finished(&Flow::new("honest", RowId::new(2)), Health::Up, NOW);
    for n in 0..200 {
        lanes.wake(&flow(&format!("slow{n}")), NOW);
    }
    // All of them answer well, and late: they are as wide and as healthy as can be.
    for _ in 0..20 {
        claim_all(&mut lanes, 100);
        let started: Vec<Flow> = std::iter::from_fn(|| lanes.start()).map(|(flow, _)| flow).collect();
        started.iter().for_each(|flow| drop(lanes.finished(flow, Health::Up, NOW)));
    }
    claim_all(&mut lanes, 100);
    while lanes.start().is_some() {}
    assert_eq!(lanes.running, 75, "three quarters of all");
    assert!(hand_over(&mut lanes, &Flow::new("honest", RowId::new(2)), RowId::new(7)));
    assert_eq!(lanes.start().map(|(flow, _)| flow.account), Some(RowId::new(2)));
    assert!(hand_over(&mut lanes, &Flow::new("new", RowId::new(3)), RowId::new(8)), "somebody who was never seen");
    assert_eq!(lanes.start().map(|(flow, _)| flow.account), Some(RowId::new(3)));
}

/// Whatever fails, pauses, is held back or parked: every job is attempted in the end, and no bound is exceeded.
#[test]
fn no_job_is_forgotten() {
    for seed in 1..60_u64 {
        let mut random = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let mut below = |most: u64| {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            random % most
        };
        let (width, slots) = (1 + below(6) as usize, 4 + below(12) as usize);
        let mut lanes = lanes(width, slots);
        let mut table: HashMap<Flow, VecDeque<ClaimedJob>> = HashMap::new();
        let (mut running, mut reserved, mut claiming) = (Vec::new(), Vec::new(), Vec::new());
        let (mut now, mut left, mut id) = (NOW, 0_usize, 0);
        for step in 0..200_000 {
            let arriving = step < 3_000;
            match below(8) {
                0 | 1 if arriving => {
                    id += 1;
                    left += 1;
                    let lane = format!("lane{}", below(4));
                    let flow =
                        Flow { lane: lane.into(), account: RowId::new(below(4) as i64), endpoint: below(5) as i64 };
                    if lanes.reserve(&flow, now) {
                        reserved.push((flow, job(RowId::new(id))));
                    } else {
                        table.entry(flow.clone()).or_default().push_back(job(RowId::new(id)));
                        lanes.wake(&flow, now);
                    }
                }
                2 | 3 if !reserved.is_empty() => {
                    let (flow, job) = reserved.swap_remove(below(reserved.len() as u64) as usize);
                    if below(4) == 0 {
                        lanes.unreserve(&flow);
                        left -= 1;
                    } else if let Some(job) = lanes.hand_over(&flow, job, now) {
                        table.entry(flow.clone()).or_default().push_back(job);
                        lanes.wake(&flow, now);
                    }
                }
                4 if claiming.is_empty() => {
                    for want in lanes.due_lanes(now, 3) {
                        let waiting = table.entry(want.flow.clone()).or_default();
                        let jobs: Vec<ClaimedJob> = waiting.drain(..want.limit.min(waiting.len())).collect();
                        claiming.push((want.flow, jobs));
                    }
                }
                5 => {
                    if let Some((flow, jobs)) = claiming.pop() {
                        let next = table.get(&flow).is_some_and(|waiting| !waiting.is_empty()).then_some(now);
                        let back = lanes.claimed(&flow, jobs, next, now);
                        if !back.is_empty() {
                            table.entry(flow.clone()).or_default().extend(back);
                            lanes.wake(&flow, now);
                        }
                    }
                }
                6 => running.extend(lanes.start()),
                _ if !running.is_empty() => {
                    let (flow, job): (Flow, ClaimedJob) = running.swap_remove(below(running.len() as u64) as usize);
                    let health = match below(if arriving { 10 } else { 30 }) {
                        0..=2 => Health::Failing { not_before: None },
                        3..=4 => Health::Unreachable,
                        5 => Health::Reluctant,
                        6 => Health::Unknown,
                        _ => Health::Up,
                    };
                    let back = lanes.finished(&flow, health, now);
                    let again = health != Health::Up;
                    left -= usize::from(!again);
                    let waiting = table.entry(flow.clone()).or_default();
                    waiting.extend(back);
                    waiting.extend(again.then_some(job));
                    if !waiting.is_empty() {
                        lanes.wake(&flow, now);
                    }
                }
                _ => now = now.plus(Duration::from_millis(200)),
            }
            assert!(lanes.running <= slots && lanes.running == running.len());
            for lane in 0..4 {
                let lane = format!("lane{lane}");
                assert!(running.iter().filter(|(flow, _)| *flow.lane == *lane).count() <= width);
            }
            if !arriving && left == 0 {
                break;
            }
        }
        assert_eq!(left, 0, "seed {seed}: {} running, {} reserved, {lanes:#?}", running.len(), reserved.len());
        assert_eq!((lanes.running_degraded, lanes.figures().running), (0, 0), "seed {seed}");
    }
}

#[test]
fn more_is_claimed_where_attempts_end_before_the_next_claim_is_committed() {
    let mut lanes = lanes(16, 1_000);
    let mut limits = Vec::new();
    lanes.wake(&flow("a"), NOW);
    for _ in 0..20 {
        let Some(want) = lanes.due_lanes(NOW, 1).pop() else { break };
        limits.push(want.limit);
        // Everything buffered ends while the claim is committed.
        let ran = std::iter::from_fn(|| lanes.start()).collect::<Vec<_>>();
        ran.iter().for_each(|(flow, _)| drop(lanes.finished(flow, Health::Up, NOW)));
        lanes.claimed(&want.flow, jobs(want.limit), Some(NOW), NOW);
        while let Some((flow, _)) = lanes.start() {
            drop(lanes.finished(&flow, Health::Up, NOW));
        }
    }
    let most = limits.iter().max().copied().unwrap();
    assert!(most > 16 * BUFFERED, "{limits:?}");
    assert!(limits.iter().all(|limit| *limit <= 16 * 16), "{limits:?}");
    lanes.claimed(&flow("a"), jobs(1), Some(NOW), NOW);
    assert!(lanes.start().is_some());
    lanes.finished(&flow("a"), Health::Reluctant, NOW);
    let few = lanes.due_lanes(NOW, 1).pop().unwrap().limit;
    assert!(few <= 16 * 2, "{few} while it is slow");
}

#[test]
fn a_hand_full_of_one_accounts_jobs_leaves_the_others_their_share_of_claims() {
    let mut lanes = lanes(16, 1_000);
    let (busy, honest) = (shared(RowId::new(1), 1), shared(RowId::new(2), 1));
    lanes.wake(&busy, NOW);
    for _ in 0..40 {
        for want in lanes.due_lanes(NOW, 1) {
            lanes.claimed(&want.flow, jobs(want.limit), Some(NOW), NOW);
        }
        while let Some((flow, _)) = lanes.start() {
            drop(lanes.finished(&flow, Health::Up, NOW));
        }
    }
    lanes.wake(&honest, NOW);
    let mut claimed = 0;
    for _ in 0..40 {
        for want in lanes.due_lanes(NOW, 10) {
            claimed += if want.flow == honest { want.limit } else { 0 };
            lanes.claimed(&want.flow, jobs(want.limit), Some(NOW), NOW);
        }
        if let Some((flow, _)) = lanes.start() {
            lanes.finished(&flow, Health::Up, NOW);
        }
    }
    assert!(claimed >= 16, "{claimed}");
}
