//! One budget for the octets of mail, request bodies and payloads that all doors hold in memory together.
//!
//! Each door has the most it may hold and a reserve that the others cannot take, so none starves another. Whoever is
//! about to hold much makes a [`Reservation`] first: at once or not at all, or in turn behind the others of its door,
//! where accounts take turns. What it holds ends with it.

mod queue;

use crate::id::AccountRowId;
use std::collections::HashMap;
use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::oneshot;

use queue::{Fit, Grant, Queue, Waiter};

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

/// What one door may hold.
#[derive(Debug)]
struct Share {
    most: usize,
    reserve: usize,
    refused: AtomicU64,
}

#[derive(Debug, Default)]
struct State {
    held: [usize; DOORS.len()],
    /// Who waits for octets of each door; bounded by who may ask.
    queues: [Queue; DOORS.len()],
    /// What accounts hold of a door, that hold anything.
    of_accounts: HashMap<(usize, AccountRowId), usize>,
    most_held: usize,
}

/// The octets are not there, and were not within the time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the memory budget is used up")]
pub(crate) struct UsedUp;

/// The most that SMTP can hold of so many octets: what is kept for the other doors is not its.
pub(crate) fn most_of_smtp(total: u64) -> u64 {
    let kept: usize = DOORS.iter().filter(|(door, ..)| *door != Door::Smtp).map(|(.., kept)| kept).sum();
    total - total / PARTS as u64 * kept as u64
}

impl MemoryBudget {
    /// So many octets in all, of which SMTP may take at most `smtp`.
    pub(crate) fn new(total: usize, smtp: usize) -> Self {
        let part = |parts: usize| total / PARTS * parts;
        let reserve = |door: Door, parts: usize| {
            let reserve = part(parts);
            if door == Door::Smtp { reserve.min(smtp) } else { reserve }
        };
        let reserves: usize = DOORS.iter().map(|(door, _, _, parts)| reserve(*door, *parts)).sum();
        let shares = DOORS.map(|(door, _, most, kept)| {
            let kept = reserve(door, kept);
            let most = if door == Door::Smtp { smtp } else { part(most) };
            Share { most: most.min(total - (reserves - kept)), reserve: kept, refused: AtomicU64::new(0) }
        });
        Self { shared: Arc::new(Shared { total, shares, state: Mutex::default() }) }
    }

    /// A reservation that holds nothing yet.
    pub(crate) fn reservation(&self, door: Door) -> Reservation {
        Reservation { shared: Arc::clone(&self.shared), door, account: None, held: 0 }
    }

    /// The same for an account, which takes its turn among the others and leaves something to them.
    pub(crate) fn reservation_of(&self, door: Door, account: AccountRowId) -> Reservation {
        Reservation { shared: Arc::clone(&self.shared), door, account: Some(account), held: 0 }
    }

    /// Waits for so many octets of an account.
    pub async fn reserve(&self, door: Door, account: AccountRowId, octets: usize) -> Reservation {
        let mut reservation = self.reservation_of(door, account);
        reservation.wait_for(octets).await;
        reservation
    }

    /// Whether a door can hold nothing more.
    pub(crate) fn is_used_up(&self, door: Door) -> bool {
        !self.shared.fits(&self.shared.state(), door, None, UNIT)
    }

    /// Counts a refusal that the caller made because [`MemoryBudget::is_used_up`].
    pub(crate) fn count_refusal(&self, door: Door) {
        if let Some(share) = self.shared.shares.get(door as usize) {
            share.refused.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Octets that are held now.
    #[cfg(test)]
    pub(crate) fn held(&self) -> usize {
        self.shared.state().held.iter().sum()
    }

    /// The figures in the text format of Prometheus.
    pub(crate) fn render(&self) -> String {
        let (held, waiting, most_held) = {
            let state = self.shared.state();
            (state.held, state.queues.each_ref().map(Queue::len), state.most_held)
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
        for ((_, name, ..), waiting) in DOORS.iter().zip(waiting) {
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
    fn fits(&self, state: &State, door: Door, account: Option<AccountRowId>, more: usize) -> bool {
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
    fn most_of(&self, door: Door, account: Option<AccountRowId>) -> usize {
        let most = self.shares.get(door as usize).map_or(0, |share| share.most);
        if account.is_some() { most - most / LEFT_TO_OTHERS } else { most }
    }

    fn try_take(&self, door: Door, account: Option<AccountRowId>, more: usize) -> bool {
        self.take(&mut self.state(), door, account, more)
    }

    fn take(&self, state: &mut State, door: Door, account: Option<AccountRowId>, more: usize) -> bool {
        if !self.fits(state, door, account, more) {
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

    fn release(self: &Arc<Self>, door: Door, account: Option<AccountRowId>, octets: usize) {
        {
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
        }
        self.serve();
    }

    /// Grants what fits by now to those who wait.
    fn serve(self: &Arc<Self>) {
        let granted: Vec<_> = {
            let mut state = self.state();
            let mut queues = std::mem::take(&mut state.queues);
            let mut granted = Vec::new();
            for ((door, ..), queue) in DOORS.iter().zip(&mut queues) {
                while let Some(waiter) = queue.next(|waiter| self.judge(&state, *door, waiter)) {
                    let taken = self.take(&mut state, *door, waiter.account, waiter.more);
                    debug_assert!(taken, "it fitted");
                    granted.push((*door, waiter));
                }
            }
            state.queues = queues;
            granted
        };
        for (door, waiter) in granted {
            let grant = Grant { shared: Arc::clone(self), door, account: waiter.account, octets: waiter.more };
            // Who does not wait any more gives it back by dropping it.
            drop(waiter.granted.send(grant));
        }
    }

    fn judge(&self, state: &State, door: Door, waiter: &Waiter) -> Fit {
        if self.fits(state, door, waiter.account, waiter.more) {
            Fit::Now
        } else if self.fits(state, door, None, waiter.more) {
            Fit::NotOfIts
        } else {
            Fit::NotYet
        }
    }
}

/// Octets that are held of the budget, until it is dropped.
#[derive(Debug)]
pub struct Reservation {
    shared: Arc<Shared>,
    door: Door,
    /// In whose turn it waits, and whose share it is limited to; those of nobody take turns as one.
    account: Option<AccountRowId>,
    held: usize,
}

impl Reservation {
    /// Makes it as large as what is held; `false` when there is no more, and it stays as it was.
    pub(crate) fn resize(&mut self, octets: usize) -> bool {
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
    pub(crate) fn shrink_to(&mut self, octets: usize) {
        let needed = octets.div_ceil(UNIT).saturating_mul(UNIT);
        if needed < self.held {
            let over = self.held - needed;
            self.held = needed;
            self.shared.release(self.door, self.account, over);
        }
    }

    /// Makes it as large as what will be held, in turn with those of its door who wait already: accounts take turns, and
    /// one that holds its whole share keeps nobody else waiting. More than the door may ever hold waits for all of that.
    pub(crate) async fn wait_for(&mut self, octets: usize) {
        let shared = Arc::clone(&self.shared);
        let octets = octets.min(shared.most_of(self.door, self.account) / UNIT * UNIT);
        let small = if matches!(self.door, Door::Anonymous | Door::Api) { SMALL_REQUEST } else { SMALL };
        let small = octets.saturating_sub(self.held) <= small;
        let more = octets.div_ceil(UNIT).saturating_mul(UNIT).saturating_sub(self.held);
        if more == 0 || (small && self.resize(octets)) {
            return;
        }
        let (granted, grant) = oneshot::channel();
        if let Some(queue) = shared.state().queues.get_mut(self.door as usize) {
            queue.push(Waiter { account: self.account, more, granted });
        }
        shared.serve();
        if let Ok(grant) = grant.await {
            self.held += grant.take();
        }
    }

    /// As [`Reservation::wait_for`], for so long.
    ///
    /// # Errors
    /// The octets were not there in time; it stays as it was.
    pub(crate) async fn wait_within(&mut self, octets: usize, patience: Duration) -> Result<(), UsedUp> {
        match tokio::time::timeout(patience, self.wait_for(octets)).await {
            Ok(()) => Ok(()),
            Err(_) => {
                self.count_refusal();
                Err(UsedUp)
            }
        }
    }

    /// Counts a refusal for want of octets.
    pub(crate) fn count_refusal(&self) {
        if let Some(share) = self.shared.shares.get(self.door as usize) {
            share.refused.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Octets that it holds.
    pub(crate) const fn held(&self) -> usize {
        self.held
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        if self.held > 0 {
            self.shared.release(self.door, self.account, self.held);
        }
    }
}

#[cfg(test)]
mod tests;
