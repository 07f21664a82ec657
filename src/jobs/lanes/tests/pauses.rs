//! Flows that pause or are held.

use std::time::Duration;

use super::*;

/// Runs a flow until it pauses and returns how many attempts that took.
fn fail_until_paused(lanes: &mut Lanes, flow: &Flow) -> usize {
    for attempts in 1..100 {
        claim_all(lanes, 100);
        let (started, _) = lanes.start().unwrap();
        assert_eq!(started, *flow);
        lanes.finished(flow, Health::Failing { not_before: None }, NOW);
        if lanes.paused_until(flow, NOW).is_some() {
            return attempts;
        }
    }
    panic!("it never paused");
}

#[test]
fn a_flow_that_fails_pauses_probes_once_and_starts_slowly() {
    let mut lanes = lanes(16, 1_000);
    let failing = shared(RowId::new(1), 1);
    lanes.wake(&failing, NOW);
    claim_all(&mut lanes, 100);
    for _ in 0..4 {
        let (flow, _) = lanes.start().unwrap();
        assert!(lanes.finished(&flow, Health::Failing { not_before: None }, NOW).is_empty());
        claim_all(&mut lanes, 100);
    }
    let _ = lanes.start().unwrap();
    let back = lanes.finished(&failing, Health::Failing { not_before: None }, NOW);
    assert!(!back.is_empty(), "what it had buffered goes back to the table");
    assert_eq!(lanes.figures(), LaneStats { running: 0, paused: 1, pauses: 1 });
    lanes.wake(&failing, NOW);
    assert!(lanes.start().is_none() && !lanes.reserve(&failing, NOW));
    assert_eq!(lanes.due_lanes(NOW, 10), [], "it pauses");
    let until = lanes.paused_until(&failing, NOW).unwrap();
    assert_eq!(lanes.next_due(), Some(until));

    let probe = lanes.due_lanes(until, 10);
    assert_eq!(probe, [ClaimRequest { flow: failing.clone(), limit: 1 }]);
    assert!(lanes.claimed(&failing, vec![job(RowId::new(9))], Some(NOW), until).is_empty());
    assert_eq!(lanes.due_lanes(until, 10), [], "one probe at a time");
    let _ = lanes.start().unwrap();
    lanes.finished(&failing, Health::Failing { not_before: None }, until);
    let second = lanes.paused_until(&failing, until).unwrap();
    assert!(second.since(until) >= Duration::from_secs(2), "a longer pause");

    assert_eq!(lanes.due_lanes(second, 10).len(), 1);
    lanes.claimed(&failing, vec![job(RowId::new(10))], Some(NOW), second);
    let _ = lanes.start().unwrap();
    lanes.finished(&failing, Health::Up, second);
    assert_eq!(lanes.figures().paused, 0);
    claim_all(&mut lanes, 100);
    assert_eq!(std::iter::from_fn(|| lanes.start()).count(), 2, "a slow start");
}

#[test]
fn one_accounts_failing_endpoint_pauses_neither_its_other_ones_nor_those_of_others() {
    let mut lanes = lanes(16, 1_000);
    let failing = shared(RowId::new(1), 1);
    lanes.wake(&failing, NOW);
    assert_eq!(fail_until_paused(&mut lanes, &failing), 5);
    for (id, other) in [shared(RowId::new(1), 2), shared(RowId::new(2), 1)].into_iter().enumerate() {
        assert!(hand_over(&mut lanes, &other, RowId::new(i64::try_from(id).unwrap())));
        assert_eq!(lanes.start().map(|(flow, _)| flow), Some(other));
    }
}

#[test]
fn a_job_that_is_refused_for_its_own_sake_pauses_nothing() {
    let mut lanes = lanes(16, 1_000);
    lanes.wake(&flow("a"), NOW);
    for _ in 0..100 {
        claim_all(&mut lanes, 100);
        for health in [Health::Failing { not_before: None }, Health::Up] {
            let (of, _) = lanes.start().unwrap();
            lanes.finished(&of, health, NOW);
        }
    }
    assert_eq!(lanes.figures().pauses, 0);
}

#[test]
fn a_pause_follows_the_clock_back_and_a_person_may_end_it() {
    let mut lanes = lanes(16, 1_000);
    let failing = shared(RowId::new(1), 1);
    lanes.wake(&failing, NOW);
    fail_until_paused(&mut lanes, &failing);
    lanes.shift_back(Duration::from_secs(3_600));
    assert_eq!(lanes.paused_until(&failing, NOW), None);
    let mut lanes = Lanes::new(WorkerConfig { lane_width: 16, mail_lane_width: 1, max_in_flight: 1_000 });
    lanes.wake(&failing, NOW);
    fail_until_paused(&mut lanes, &failing);
    lanes.probe(&failing, NOW);
    assert_eq!(lanes.due_lanes(NOW, 10).len(), 1);
}

#[test]
fn a_held_flow_keeps_its_jobs_and_tries_one_when_it_may() {
    let mut lanes = lanes(16, 64);
    let flow = flow("smtp:a.test");
    lanes.wake(&flow, NOW);
    claim_all(&mut lanes, 10);
    let (_, first) = lanes.start().unwrap();
    let until = NOW.plus(Duration::from_secs(60));
    let back = lanes.finished(&flow, Health::Held { until, since: 0 }, NOW);
    assert!(!back.is_empty(), "what is in hand goes back");
    assert!(lanes.is_paused(&flow) && lanes.start().is_none());
    lanes.wake(&flow, first.run_at);
    assert_eq!((lanes.next_due(), lanes.due_lanes(NOW, 10)), (Some(until), Vec::new()));
    assert_eq!(lanes.figures().pauses, 0, "it did not fail");
    let sooner = NOW.plus(Duration::from_secs(5));
    lanes.resume(&flow, sooner, 1);
    assert_eq!(lanes.next_due(), Some(sooner));
    assert_eq!(lanes.due_lanes(sooner, 10), [ClaimRequest { flow: flow.clone(), limit: 1 }]);
    lanes.claimed(&flow, jobs(1), Some(NOW), sooner);
    lanes.start().unwrap();
    lanes.finished(&flow, Health::Up, sooner);
    assert!(!lanes.is_paused(&flow));
    assert!(lanes.due_lanes(sooner, 10).first().unwrap().limit > 1);
}

/// Returns a hold of one minute that began after this many resumptions.
fn held(since: u64) -> Health {
    Health::Held { until: NOW.plus(Duration::from_secs(60)), since }
}

#[test]
fn a_turn_that_comes_before_attempts_end_is_missed_by_none_of_them() {
    let mut lanes = lanes(16, 64);
    let flow = flow("a");
    lanes.wake(&flow, NOW);
    claim_all(&mut lanes, 2);
    assert!(lanes.start().is_some() && lanes.start().is_some());
    lanes.resume(&flow, NOW, 1);
    lanes.finished(&flow, held(0), NOW);
    lanes.finished(&flow, held(0), NOW);
    lanes.wake(&flow, NOW);
    assert_eq!(lanes.due_lanes(NOW, 10).len(), 1);
    lanes.claimed(&flow, jobs(1), None, NOW);
    lanes.start().unwrap();
    lanes.finished(&flow, held(1), NOW);
    lanes.wake(&flow, NOW);
    assert_eq!(lanes.due_lanes(NOW, 10), [], "that turn was before");
}

#[test]
fn a_flow_whose_host_has_no_room_for_more_goes_on_with_what_it_has() {
    let mut lanes = lanes(16, 64);
    let flow = flow("a");
    lanes.wake(&flow, NOW);
    claim_all(&mut lanes, 10);
    assert!(lanes.start().is_some() && lanes.start().is_some());
    assert!(lanes.finished(&flow, held(0), NOW).is_empty(), "its jobs stay in hand");
    assert!(!lanes.is_paused(&flow) && lanes.start().is_none(), "one at a time");
    lanes.resume(&flow, NOW, 1);
    assert!(lanes.start().is_some(), "there is room for one more");
    assert!(lanes.start().is_none());
    lanes.finished(&flow, Health::Up, NOW);
    assert!(lanes.start().is_some());
}
