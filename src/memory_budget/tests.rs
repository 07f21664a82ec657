//! Tests of shares, queueing and metrics.
#![expect(clippy::unwrap_used, reason = "tests may panic")]

use super::*;
use crate::metrics::{Format, text};

fn shown(budget: &MemoryBudget) -> String {
    text(Format::Prometheus, vec![Box::new(budget.clone())]).unwrap()
}
use crate::id::RowId;

const MIB: usize = 1 << 20;

#[test]
fn reservations_grow_and_shrink_within_the_share_and_end_with_their_owner() {
    let budget = MemoryBudget::new(192 * MIB, 10 * 1024);
    let (mut one, mut other) = (budget.reservation(Consumer::Smtp), budget.reservation(Consumer::Smtp));
    assert!(one.resize(1) && other.resize(8 * 1024) && one.resize(1025));
    assert!(budget.is_used_up(Consumer::Smtp));
    assert!(!one.resize(2049) && one.resize(2048));
    assert!(other.resize(0) && one.resize(10 * 1024) && budget.is_used_up(Consumer::Smtp));
    drop(one);
    assert!(!budget.is_used_up(Consumer::Smtp) && other.resize(10 * 1024));
    drop(other);
    assert_eq!(budget.held(), 0);
}

#[test]
fn no_consumer_takes_what_is_kept_for_another_and_all_together_take_no_more_than_there_is() {
    let budget = MemoryBudget::new(192 * MIB, 64 * MIB);
    let mut held = Vec::new();
    for (consumer, ..) in CONSUMERS {
        let mut reservation = budget.reservation(consumer);
        let mut octets = 0;
        while reservation.resize(octets + MIB) {
            octets += MIB;
        }
        held.push(reservation);
    }
    assert!(budget.held() <= 192 * MIB, "{}", budget.held());
    for (reservation, (consumer, _, _, reserve)) in held.iter().zip(CONSUMERS) {
        assert!(reservation.held() >= reserve * MIB, "{consumer:?}");
    }
    let text = shown(&budget);
    assert!(text.lines().any(|line| line == "mailkite_memory_budget_bytes 201326592"), "{text}");
    assert!(text.lines().any(|line| line == "mailkite_memory_held_bytes{door=\"smtp\"} 67108864"), "{text}");
    drop(held);
    assert_eq!(budget.held(), 0);
}

#[tokio::test]
async fn one_account_leaves_something_to_the_others() {
    let budget = MemoryBudget::new(192 * MIB, 64 * MIB);
    let mut greedy = budget.reservation_of(Consumer::Api, RowId::new(1));
    greedy.wait_for(usize::MAX).await;
    let mut again = budget.reservation_of(Consumer::Api, RowId::new(1));
    assert!(greedy.held() >= 70 * MIB && !again.resize(1));
    // Others need not wait behind it.
    let mut waiting = Box::pin(again.wait_within(20 * MIB, Duration::from_secs(60)));
    tokio::select! {
        biased;
        waited = &mut waiting => unreachable!("{waited:?}"),
        () = tokio::task::yield_now() => {}
    }
    let mut other = budget.reservation_of(Consumer::Api, RowId::new(2));
    other.wait_within(MIB, Duration::from_secs(60)).await.unwrap();
    assert!(other.resize(8 * MIB));
    drop(greedy);
    waiting.await.unwrap();
    drop((again, other));
    assert!(budget.shared.state().held_by_account.is_empty());
}

#[tokio::test]
async fn whoever_waits_gets_its_turn_in_order_and_whoever_waits_too_long_is_refused() {
    let budget = MemoryBudget::new(192 * MIB, MIB);
    let mut whole = budget.reservation(Consumer::Webhooks);
    whole.wait_for(usize::MAX).await;
    assert_eq!(whole.held(), 48 * MIB);
    let late = budget.reservation(Consumer::Webhooks).wait_within(MIB, Duration::from_millis(20)).await;
    assert_eq!(late, Err(UsedUp));
    assert!(shown(&budget).contains("mailkite_memory_refused_total{door=\"webhooks\"} 1"));
    let order = Arc::new(Mutex::new(Vec::new()));
    let mut waiting = Vec::new();
    for number in 0..3 {
        let (budget, order) = (budget.clone(), Arc::clone(&order));
        waiting.push(tokio::spawn(async move {
            let reservation = budget.reserve(Consumer::Webhooks, RowId::new(1), 30 * MIB).await;
            order.lock().unwrap().push(number);
            drop(reservation);
        }));
        tokio::task::yield_now().await;
    }
    // Another consumer is not held up.
    drop(budget.reserve(Consumer::Sending, RowId::new(1), 36 * MIB).await);
    drop(whole);
    for one in waiting {
        one.await.unwrap();
    }
    assert_eq!(*order.lock().unwrap(), [0, 1, 2]);
    assert_eq!(budget.held(), 0);
}

#[tokio::test]
async fn accounts_take_turns_whatever_one_of_them_piled_up() {
    let budget = MemoryBudget::new(192 * MIB, MIB);
    let mut whole = budget.reservation(Consumer::Parsing);
    whole.wait_for(usize::MAX).await;
    let order = Arc::new(Mutex::new(Vec::new()));
    let mut waiting = Vec::new();
    for (place, account) in [1; 20].into_iter().chain([2, 3]).enumerate() {
        let (budget, order) = (budget.clone(), Arc::clone(&order));
        waiting.push(tokio::spawn(async move {
            let reservation = budget.reserve(Consumer::Parsing, RowId::new(account), 30 * MIB).await;
            order.lock().unwrap().push((account, place));
            drop(reservation);
        }));
        tokio::task::yield_now().await;
    }
    drop(whole);
    for one in waiting {
        one.await.unwrap();
    }
    let order = order.lock().unwrap();
    let first: Vec<i64> = order.iter().take(4).map(|(account, _)| *account).collect();
    assert_eq!(first, [1, 2, 3, 1], "one of each");
    assert!(order.iter().filter(|(account, _)| *account == 1).is_sorted());
}
