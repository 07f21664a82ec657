//! One budget for the octets of mail, request bodies and payloads that all doors hold in memory together.
//!
//! Each door has the most it may hold and a reserve that the others cannot take, so none starves another. Whoever is
//! about to hold much makes a [`Reservation`] first: at once or not at all, or in turn behind the others of its door,
//! where accounts take turns. What it holds ends with it.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;

use crate::gate::Gate;

/// What reservations are rounded up to, in octets. Small, so that those who send a little hold a little.
const UNIT: usize = 1024;
/// A reservation that grows by no more does not queue behind large ones of its door, …
const SMALL: usize = 64 * 1024;
/// … nor does a request, because those before it wait for some seconds only.
const SMALL_REQUEST: usize = 1 << 20;
/// One account leaves one part of so many of its door to the others.
const LEFT_TO_OTHERS: usize = 7;
/// What the shares below are parts of.
const PARTS: usize = 192;

/// Who holds octets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Door {
    /// Mail data while it is received by SMTP.
    Smtp,
    /// Received mail that is parsed and verified.
    Parsing,
    /// Request bodies before a credential was seen.
    Anonymous,
    /// Requests with a credential: bodies, files, messages that are composed, large answers.
    Api,
    /// Payloads of webhooks and of event streams.
    Webhooks,
    /// Mail that is being sent.
    Sending,
}

/// Every door, its name in the figures, and of [`PARTS`] the most it may hold and what is kept for it.
const DOORS: [(Door, &str, usize, usize); 6] = [
    (Door::Smtp, "smtp", PARTS, 16),
    (Door::Parsing, "parsing", 32, 26),
    (Door::Anonymous, "anonymous", 8, 4),
    (Door::Api, "api", 128, 36),
    (Door::Webhooks, "webhooks", 48, 26),
    (Door::Sending, "sending", 96, 36),
];

/// The budget; clones share it.
#[derive(Clone, Debug)]
pub struct MemoryBudget {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    total: usize,
    shares: [Share; DOORS.len()],
    state: Mutex<State>,
}

/// What one door may hold, and who waits for it.
#[derive(Debug)]
struct Share {
    most: usize,
    reserve: usize,
    /// One at a time, by account; what waits is bounded by who may ask.
    turns: Gate,
    freed: Notify,
    refused: AtomicU64,
}

#[derive(Debug, Default)]
struct State {
    held: [usize; DOORS.len()],
    waiting: [usize; DOORS.len()],
    /// What accounts hold of a door, that hold anything.
    of_accounts: HashMap<(usize, i64), usize>,
    most_held: usize,
}

/// The octets are not there, and were not within the time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the memory budget is used up")]
pub struct UsedUp;

/// The most that SMTP can hold of so many octets: what is kept for the other doors is not its.
pub fn most_of_smtp(total: u64) -> u64 {
    let kept: usize = DOORS.iter().filter(|(door, ..)| *door != Door::Smtp).map(|(.., kept)| kept).sum();
    total - total / PARTS as u64 * kept as u64
}

impl MemoryBudget {
    /// So many octets in all, of which SMTP may take at most `smtp`.
    pub fn new(total: usize, smtp: usize) -> Self {
        let part = |parts: usize| total / PARTS * parts;
        let reserve = |door: Door, parts: usize| {
            let reserve = part(parts);
            if door == Door::Smtp { reserve.min(smtp) } else { reserve }
        };
        let reserves: usize = DOORS.iter().map(|(door, _, _, parts)| reserve(*door, *parts)).sum();
        let shares = DOORS.map(|(door, _, most, kept)| {
            let kept = reserve(door, kept);
            let most = if door == Door::Smtp { smtp } else { part(most) };
            Share {
                most: most.min(total - (reserves - kept)),
                reserve: kept,
                turns: Gate::new(1, usize::MAX),
                freed: Notify::new(),
                refused: AtomicU64::new(0),
            }
        });
        Self { shared: Arc::new(Shared { total, shares, state: Mutex::default() }) }
    }

    /// A reservation that holds nothing yet.
    pub fn reservation(&self, door: Door) -> Reservation {
        self.nothing_yet(door, None, None)
    }

    fn nothing_yet(&self, door: Door, whose: Option<i64>, account: Option<i64>) -> Reservation {
        Reservation { shared: Arc::clone(&self.shared), door, whose, account, held: 0 }
    }

    /// The same for an account, which takes its turn among the others.
    pub fn reservation_in_turn(&self, door: Door, whose: i64) -> Reservation {
        self.nothing_yet(door, Some(whose), None)
    }

    /// The same for an account, which leaves something to the others as well.
    pub fn reservation_of(&self, door: Door, account: i64) -> Reservation {
        self.nothing_yet(door, Some(account), Some(account))
    }

    /// Waits for so many octets, in the turn of an account.
    pub async fn reserve(&self, door: Door, whose: i64, octets: usize) -> Reservation {
        let mut reservation = self.reservation_in_turn(door, whose);
        reservation.wait_for(octets).await;
        reservation
    }

    /// Whether a door can hold nothing more.
    pub fn is_used_up(&self, door: Door) -> bool {
        !self.shared.fits(&self.shared.state(), door, None, UNIT)
    }

    /// Counts a refusal that the caller made because [`MemoryBudget::is_used_up`].
    pub fn count_refusal(&self, door: Door) {
        if let Some(share) = self.shared.shares.get(door as usize) {
            share.refused.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Octets that are held now.
    pub fn held(&self) -> usize {
        self.shared.state().held.iter().sum()
    }

    /// The figures in the text format of Prometheus.
    pub fn render(&self) -> String {
        let (held, waiting, most_held) = {
            let state = self.shared.state();
            (state.held, state.waiting, state.most_held)
        };
        let mut text = String::with_capacity(2048);
        // Writing to a string cannot fail.
        let gauge = |name: &str, help: &str, value: usize, out: &mut String| {
            let _ = write!(out, "# HELP {name} {help}\n# TYPE {name} gauge\n{name} {value}\n");
        };
        gauge(
            "mailkite_memory_budget_bytes",
            "What all doors may hold in memory together.",
            self.shared.total,
            &mut text,
        );
        gauge(
            "mailkite_memory_held_max_bytes",
            "The most of the memory budget that was held at once.",
            most_held,
            &mut text,
        );
        let _ = text.write_str(
            "# HELP mailkite_memory_held_bytes What is held of the memory budget, by door.\n\
             # TYPE mailkite_memory_held_bytes gauge\n",
        );
        for ((_, name, ..), held) in DOORS.iter().zip(held) {
            let _ = writeln!(text, "mailkite_memory_held_bytes{{door=\"{name}\"}} {held}");
        }
        let _ = text.write_str(
            "# HELP mailkite_memory_waiting Who waits for memory of the budget, by door.\n\
             # TYPE mailkite_memory_waiting gauge\n",
        );
        for (((_, name, ..), share), waiting) in DOORS.iter().zip(&self.shared.shares).zip(waiting) {
            let waiting = waiting + share.turns.figures().0;
            let _ = writeln!(text, "mailkite_memory_waiting{{door=\"{name}\"}} {waiting}");
        }
        let _ = text.write_str(
            "# HELP mailkite_memory_refused_total What was refused for want of memory budget, by door.\n\
             # TYPE mailkite_memory_refused_total counter\n",
        );
        for ((_, name, ..), share) in DOORS.iter().zip(&self.shared.shares) {
            let refused = share.refused.load(Ordering::Relaxed);
            let _ = writeln!(text, "mailkite_memory_refused_total{{door=\"{name}\"}} {refused}");
        }
        text
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a door may hold so much more, with what is kept for the others.
    fn fits(&self, state: &State, door: Door, account: Option<i64>, more: usize) -> bool {
        if let Some(account) = account {
            let held = state.of_accounts.get(&(door as usize, account)).copied().unwrap_or(0);
            if held.saturating_add(more) > self.most_of(door, Some(account)) {
                return false;
            }
        }
        let mut taken: usize = 0;
        for (at, (share, held)) in self.shares.iter().zip(state.held).enumerate() {
            if at == door as usize {
                let held = held.saturating_add(more);
                if held > share.most {
                    return false;
                }
                taken = taken.saturating_add(held);
            } else {
                taken = taken.saturating_add(held.max(share.reserve));
            }
        }
        taken <= self.total
    }

    /// The most that a door may hold, or one account of it.
    fn most_of(&self, door: Door, account: Option<i64>) -> usize {
        let most = self.shares.get(door as usize).map_or(0, |share| share.most);
        if account.is_some() { most - most / LEFT_TO_OTHERS } else { most }
    }

    fn try_take(&self, door: Door, account: Option<i64>, more: usize) -> bool {
        let mut state = self.state();
        if !self.fits(&state, door, account, more) {
            return false;
        }
        if let Some(account) = account {
            *state.of_accounts.entry((door as usize, account)).or_default() += more;
        }
        if let Some(held) = state.held.get_mut(door as usize) {
            *held += more;
        }
        let held = state.held.iter().sum();
        state.most_held = state.most_held.max(held);
        true
    }

    fn give_back(&self, door: Door, account: Option<i64>, octets: usize) {
        let waiting = {
            let mut state = self.state();
            if let Some(account) = account
                && let Some(held) = state.of_accounts.get_mut(&(door as usize, account))
            {
                *held = held.saturating_sub(octets);
                if *held == 0 {
                    state.of_accounts.remove(&(door as usize, account));
                }
            }
            if let Some(held) = state.held.get_mut(door as usize) {
                *held = held.saturating_sub(octets);
            }
            state.waiting
        };
        for (share, waiting) in self.shares.iter().zip(waiting) {
            if waiting > 0 {
                share.freed.notify_one();
            }
        }
    }

    fn count_waiting(&self, door: Door, change: isize) {
        if let Some(waiting) = self.state().waiting.get_mut(door as usize) {
            *waiting = waiting.saturating_add_signed(change);
        }
    }
}

/// Somebody waits for octets of a door, until this is dropped.
struct Waiting<'a>(&'a Shared, Door);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.count_waiting(self.1, -1);
    }
}

/// Octets that are held of the budget, until it is dropped.
#[derive(Debug)]
pub struct Reservation {
    shared: Arc<Shared>,
    door: Door,
    /// In whose turn it waits; those of nobody take turns as one.
    whose: Option<i64>,
    /// Whose share it is limited to.
    account: Option<i64>,
    held: usize,
}

impl Reservation {
    /// Makes it as large as what is held; `false` when there is no more, and it stays as it was.
    pub fn resize(&mut self, octets: usize) -> bool {
        let needed = octets.div_ceil(UNIT).saturating_mul(UNIT);
        if needed > self.held {
            if !self.shared.try_take(self.door, self.account, needed - self.held) {
                return false;
            }
            self.held = needed;
        } else {
            self.shrink_to(octets);
        }
        true
    }

    /// Gives back what is over.
    pub fn shrink_to(&mut self, octets: usize) {
        let needed = octets.div_ceil(UNIT).saturating_mul(UNIT);
        if needed < self.held {
            let over = self.held - needed;
            self.held = needed;
            self.shared.give_back(self.door, self.account, over);
        }
    }

    /// Makes it as large as what will be held, in turn with those of its door who wait already: each account with one
    /// at a time, so nobody waits for the pile of another. More than the door may ever hold waits for all of that.
    pub async fn wait_for(&mut self, octets: usize) {
        let shared = Arc::clone(&self.shared);
        let Some(share) = shared.shares.get(self.door as usize) else { return };
        let octets = octets.min(shared.most_of(self.door, self.account) / UNIT * UNIT);
        let small = if matches!(self.door, Door::Anonymous | Door::Api) { SMALL_REQUEST } else { SMALL };
        let small = octets.saturating_sub(self.held) <= small;
        if small && self.resize(octets) {
            return;
        }
        let whose = self.whose.map_or_else(String::new, |account| account.to_string());
        // Only a full queue refuses, and this one has no end.
        let _turn = share.turns.enter(whose.as_str()).await;
        shared.count_waiting(self.door, 1);
        let _waiting = Waiting(&shared, self.door);
        while !self.resize(octets) {
            share.freed.notified().await;
        }
    }

    /// As [`Reservation::wait_for`], for so long.
    ///
    /// # Errors
    /// The octets were not there in time; it stays as it was.
    pub async fn wait_within(&mut self, octets: usize, patience: Duration) -> Result<(), UsedUp> {
        match tokio::time::timeout(patience, self.wait_for(octets)).await {
            Ok(()) => Ok(()),
            Err(_) => {
                self.count_refusal();
                Err(UsedUp)
            }
        }
    }

    /// Counts a refusal for want of octets.
    pub fn count_refusal(&self) {
        if let Some(share) = self.shared.shares.get(self.door as usize) {
            share.refused.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Octets that it holds.
    pub const fn held(&self) -> usize {
        self.held
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        if self.held > 0 {
            self.shared.give_back(self.door, self.account, self.held);
        }
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests may panic")]

    use super::*;

    const MIB: usize = 1 << 20;

    #[test]
    fn reservations_grow_and_shrink_within_the_share_and_end_with_their_owner() {
        let budget = MemoryBudget::new(192 * MIB, 10 * 1024);
        let (mut one, mut other) = (budget.reservation(Door::Smtp), budget.reservation(Door::Smtp));
        assert!(one.resize(1) && other.resize(8 * 1024) && one.resize(1025));
        assert!(budget.is_used_up(Door::Smtp));
        assert!(!one.resize(2049) && one.resize(2048));
        assert!(other.resize(0) && one.resize(10 * 1024) && budget.is_used_up(Door::Smtp));
        drop(one);
        assert!(!budget.is_used_up(Door::Smtp) && other.resize(10 * 1024));
        drop(other);
        assert_eq!(budget.held(), 0);
    }

    #[test]
    fn no_door_takes_what_is_kept_for_another_and_all_together_take_no_more_than_there_is() {
        let budget = MemoryBudget::new(192 * MIB, 64 * MIB);
        let mut held = Vec::new();
        for (door, ..) in DOORS {
            let mut reservation = budget.reservation(door);
            let mut octets = 0;
            while reservation.resize(octets + MIB) {
                octets += MIB;
            }
            held.push(reservation);
        }
        assert!(budget.held() <= 192 * MIB, "{}", budget.held());
        for (reservation, (door, _, _, kept)) in held.iter().zip(DOORS) {
            assert!(reservation.held() >= kept * MIB, "{door:?}");
        }
        let text = budget.render();
        assert!(text.lines().any(|line| line == "mailkite_memory_budget_bytes 201326592"), "{text}");
        assert!(text.lines().any(|line| line == "mailkite_memory_held_bytes{door=\"smtp\"} 67108864"), "{text}");
        drop(held);
        assert_eq!(budget.held(), 0);
    }

    #[tokio::test]
    async fn one_account_leaves_something_to_the_others() {
        let budget = MemoryBudget::new(192 * MIB, 64 * MIB);
        let mut greedy = budget.reservation_of(Door::Api, 1);
        greedy.wait_for(usize::MAX).await;
        let mut again = budget.reservation_of(Door::Api, 1);
        assert!(greedy.held() >= 70 * MIB && !again.resize(1));
        // Others need not wait behind it.
        let mut waiting = Box::pin(again.wait_within(20 * MIB, Duration::from_secs(60)));
        tokio::select! {
            biased;
            waited = &mut waiting => unreachable!("{waited:?}"),
            () = tokio::task::yield_now() => {}
        }
        let mut other = budget.reservation_of(Door::Api, 2);
        other.wait_within(MIB, Duration::from_secs(60)).await.unwrap();
        assert!(other.resize(8 * MIB));
        drop(greedy);
        waiting.await.unwrap();
        drop((again, other));
        assert!(budget.shared.state().of_accounts.is_empty());
    }

    #[tokio::test]
    async fn whoever_waits_gets_its_turn_in_order_and_whoever_waits_too_long_is_refused() {
        let budget = MemoryBudget::new(192 * MIB, MIB);
        let whole = budget.reserve(Door::Webhooks, 1, usize::MAX).await;
        assert_eq!(whole.held(), 48 * MIB);
        let late = budget.reservation(Door::Webhooks).wait_within(MIB, Duration::from_millis(20)).await;
        assert_eq!(late, Err(UsedUp));
        assert!(budget.render().contains("mailkite_memory_refused_total{door=\"webhooks\"} 1"));
        let order = Arc::new(Mutex::new(Vec::new()));
        let mut waiting = Vec::new();
        for number in 0..3 {
            let (budget, order) = (budget.clone(), Arc::clone(&order));
            waiting.push(tokio::spawn(async move {
                let reservation = budget.reserve(Door::Webhooks, 1, 30 * MIB).await;
                order.lock().unwrap().push(number);
                drop(reservation);
            }));
            tokio::task::yield_now().await;
        }
        // Another door is not held up.
        drop(budget.reserve(Door::Sending, 1, 36 * MIB).await);
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
        let whole = budget.reserve(Door::Parsing, 1, usize::MAX).await;
        let order = Arc::new(Mutex::new(Vec::new()));
        let mut waiting = Vec::new();
        for (place, account) in [1; 20].into_iter().chain([2, 3]).enumerate() {
            let (budget, order) = (budget.clone(), Arc::clone(&order));
            waiting.push(tokio::spawn(async move {
                let reservation = budget.reserve(Door::Parsing, account, 30 * MIB).await;
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
        assert_eq!(first, [1, 1, 2, 3], "the one whose turn it was, then one of each");
        assert!(order.iter().filter(|(account, _)| *account == 1).is_sorted());
    }
}
