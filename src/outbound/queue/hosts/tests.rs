//! Widths, pauses, probes and turns of hosts, without a network.

#![expect(clippy::unwrap_used, reason = "tests may panic")]

use super::*;
use crate::id::{AccountRowId, RowId};

const LIMIT: usize = 20;

struct Rig {
    hosts: Arc<RemoteHosts>,
    clock: Clock,
}

impl Rig {
    fn new() -> Self {
        let clock = Clock::manual(Timestamp::from_millis(1_785_196_800_000));
        Self { hosts: Arc::new(RemoteHosts::new(Jobs::default(), clock.clone())), clock }
    }

    fn admit(&self, flow: &Flow) -> Option<Permit> {
        self.hosts.admit(host(1), flow, LIMIT).ok()
    }

    /// Takes all free connection slots.
    fn fill(&self) -> Vec<Permit> {
        std::iter::from_fn(|| self.admit(&flow("full", RowId::new(1)))).collect()
    }

    fn wait(&self, flow: &Flow) -> Wait {
        self.hosts.wait(&[host(1)], flow)
    }

    fn seconds_until(&self, at: Timestamp) -> u64 {
        at.since(self.clock.now()).as_secs()
    }
}

fn host(number: u16) -> SocketAddr {
    SocketAddr::from(([192, 0, 2, 1], number))
}

fn flow(domain: &str, account: AccountRowId) -> Flow {
    Flow::new(domain, account)
}

#[test]
fn a_host_gets_few_connections_at_first_and_more_with_each_success() {
    let rig = Rig::new();
    let mut all = rig.fill();
    assert_eq!(all.len(), FIRST_WIDTH);
    for width in FIRST_WIDTH + 1..=LIMIT {
        all.first_mut().unwrap().succeeded();
        all.extend(rig.fill());
        assert_eq!(all.len(), width);
    }
    all.first_mut().unwrap().succeeded();
    assert!(rig.admit(&flow("a", RowId::new(2))).is_none(), "no more than the limit");
    assert!(rig.hosts.admit(host(2), &flow("a", RowId::new(2)), LIMIT).is_ok(), "another host has places of its own");
}

#[test]
fn a_refusal_pauses_the_host_for_everybody_and_one_at_a_time_probes() {
    let rig = Rig::new();
    let (one, other) = (flow("one", RowId::new(1)), flow("other", RowId::new(2)));
    for pause in [1, 2, 4, 8] {
        let mut permit = rig.admit(&one).unwrap();
        assert!(pause == 1 || rig.admit(&other).is_none(), "one probe");
        permit.failed("421 too many");
        drop(permit);
        let wait = rig.wait(&other);
        assert!((pause..=pause + pause / 4 + 1).contains(&rig.seconds_until(wait.until)), "{pause}: {wait:?}");
        assert_eq!(wait.pause.as_ref().unwrap().reason, "421 too many");
        assert_eq!(rig.wait(&other), wait, "another attempt of it waits no longer");
        let later = rig.wait(&one);
        assert!(later.until > wait.until, "only one of them tries it when the pause ends");
        assert!(rig.admit(&one).is_none() && rig.admit(&other).is_none());
        rig.clock.advance(wait.until.since(rig.clock.now()));
    }
    let mut probe = rig.admit(&other).unwrap();
    assert!(rig.admit(&one).is_none());
    assert_eq!(rig.wait(&one).pause.unwrap().reason, "421 too many", "it is not known to be over yet");
    probe.succeeded();
    let second = rig.admit(&one);
    assert!(second.is_some() && rig.admit(&other).is_none(), "it starts slowly");
}

#[test]
fn a_probe_that_says_nothing_of_the_host_leaves_the_next_its_turn() {
    let rig = Rig::new();
    rig.admit(&flow("one", RowId::new(1))).unwrap().failed("no answer");
    rig.clock.advance(Duration::from_secs(2));
    drop(rig.admit(&flow("two", RowId::new(1))).unwrap());
    let mut probe = rig.admit(&flow("three", RowId::new(1))).unwrap();
    probe.failed("no answer");
    drop(probe);
    let wait = rig.wait(&flow("three", RowId::new(1)));
    assert!((2..=3).contains(&rig.seconds_until(wait.until)), "the second pause is longer: {wait:?}");
}

#[test]
fn freed_places_go_to_those_who_wait_account_by_account() {
    let rig = Rig::new();
    let mut held = rig.fill();
    let flows @ [first, second, third] =
        &[flow("a.test", RowId::new(1)), flow("b.test", RowId::new(1)), flow("c.test", RowId::new(1))];
    let lone = flow("lone.test", RowId::new(2));
    for one in flows.iter().chain([&lone]) {
        assert!(rig.admit(one).is_none());
        assert_eq!(rig.wait(one).pause, None);
        rig.wait(one);
    }
    for next in [first, &lone, second, third] {
        drop(held.pop());
        assert!(rig.admit(&flow("new.test", RowId::new(3))).is_none(), "nobody goes before who waited");
        held.insert(0, rig.admit(next).unwrap());
    }
    drop(held.pop());
    assert!(rig.admit(&flow("new.test", RowId::new(3))).is_some(), "nobody waits any more");
}

#[test]
fn a_host_that_is_full_or_probed_takes_mail_and_one_that_pauses_does_not() {
    let rig = Rig::new();
    let (one, other) = (flow("one", RowId::new(1)), flow("other", RowId::new(2)));
    let denied = |rig: &Rig| rig.hosts.admit(host(1), &other, LIMIT).unwrap_err();
    let held = rig.fill();
    assert_eq!(denied(&rig), Denied::Full);
    drop(held);
    rig.admit(&one).unwrap().failed("421 too many");
    assert_eq!(denied(&rig), Denied::Pauses);
    rig.clock.advance(Duration::from_secs(2));
    let probe = rig.admit(&one).unwrap();
    assert_eq!(denied(&rig), Denied::Full);
    rig.clock.advance(Duration::from_secs(20));
    assert_eq!(rig.seconds_until(rig.wait(&other).until), 40, "the end of patience is not slept through");
    rig.clock.advance(Duration::from_secs(40));
    assert_eq!(denied(&rig), Denied::Pauses, "a probe that does not end");
    assert_eq!(rig.seconds_until(rig.wait(&other).until), 60);
    drop(probe);
    assert!(rig.admit(&other).is_some());
}

#[test]
fn who_begins_to_wait_for_a_place_that_became_free_has_it() {
    let rig = Rig::new();
    let (one, other) = (flow("one", RowId::new(1)), flow("other", RowId::new(2)));
    drop(rig.fill());
    rig.wait(&one);
    let held = rig.fill();
    assert_eq!(held.len(), FIRST_WIDTH - 1, "a place is kept");
    assert!(rig.admit(&other).is_none() && rig.admit(&one).is_some());
}

#[test]
fn a_place_that_is_not_taken_goes_to_the_next() {
    let rig = Rig::new();
    let mut held = rig.fill();
    let (gone, next) = (flow("gone.test", RowId::new(1)), flow("next.test", RowId::new(1)));
    rig.wait(&gone);
    rig.wait(&next);
    drop(held.pop());
    assert!(rig.admit(&next).is_none());
    rig.clock.advance(RESERVED_FOR);
    assert!(rig.admit(&next).is_some());
}

#[test]
fn sessions_that_wait_count_as_connections_and_leave_their_place_to_others() {
    let rig = Rig::new();
    let limit = 2;
    let (one, other) = (flow("one", RowId::new(1)), flow("other", RowId::new(2)));
    let idle: Vec<IdlePermit> = (0..2).map(|_| rig.hosts.admit(host(1), &one, limit).unwrap().idle()).collect();
    assert!(!rig.hosts.is_over(host(1), limit));
    let _permit = rig.hosts.admit(host(1), &other, limit).unwrap();
    assert!(rig.hosts.is_over(host(1), limit), "one of those that wait has to go");
    drop(idle);
    assert!(!rig.hosts.is_over(host(1), limit));
}

#[test]
fn an_address_that_did_not_answer_is_tried_last_for_longer_each_time() {
    let rig = Rig::new();
    for seconds in [60, 120, 240, 480, 960, 1920, 3600, 3600] {
        rig.hosts.demote(host(1));
        rig.clock.advance(Duration::from_secs(seconds) - Duration::from_millis(1));
        assert!(rig.hosts.is_demoted(host(1)));
        rig.clock.advance(Duration::from_millis(1));
        assert!(!rig.hosts.is_demoted(host(1)), "{seconds}");
    }
    rig.hosts.demote(host(1));
    rig.admit(&flow("a", RowId::new(1))).unwrap().succeeded();
    assert!(!rig.hosts.is_demoted(host(1)), "it answers");
}

#[test]
fn hosts_are_forgotten_but_not_those_in_use() {
    let rig = Rig::new();
    let used = rig.hosts.admit(host(1), &flow("used", RowId::new(1)), LIMIT).unwrap();
    for number in 0..=u16::MAX {
        let address = SocketAddr::from(([198, 51, 100, 1], number));
        rig.hosts.admit(address, &flow("a", RowId::new(1)), LIMIT).unwrap().failed("no answer");
    }
    let table = rig.hosts.table();
    assert!(table.hosts.len() <= REMEMBERED, "{}", table.hosts.len());
    assert!(table.hosts.contains_key(&host(1)));
    drop(table);
    drop(used);
}
