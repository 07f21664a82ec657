//! One memory budget for the mail, request bodies and payloads that all services hold together.
//!
//! Each consumer has a maximum and a reserve that others cannot take, so none starves another. Code that is about to
//! hold much first makes a [`Reservation`]: immediately or not at all, or queued within its consumer, where accounts
//! take turns. Dropping it releases the octets. It uses nothing of this crate; a new user of memory needs a row in
//! `CONSUMERS`, the order of waiting is in `queue`.

mod queue;

use crate::id::AccountRowId;
use crate::metrics::{Expose, Exposition};
use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::oneshot;

use queue::{Fit, Grant, Queue, Waiter};

/// Reservations are rounded up to this many octets. Small, so that a small message reserves little.
const UNIT: usize = 1024;
/// A reservation that grows by no more than this does not queue behind large ones of its consumer …
const MAX_UNQUEUED: usize = 64 * 1024;
/// … nor does one of this size for a request, since those before it wait only for seconds.
const MAX_UNQUEUED_REQUEST: usize = 1 << 20;
/// One account leaves 1/7 of its consumer's maximum to the others.
const LEFT_TO_OTHERS: usize = 7;
/// The denominator of the shares below.
const PARTS: usize = 192;

/// A consumer of the budget, labelled `door` in the metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Consumer {
    /// Mail data being received over SMTP.
    Smtp,
    /// Received mail being parsed and verified.
    Parsing,
    /// Request bodies before authentication.
    Anonymous,
    /// Authenticated requests: bodies, files, messages being composed, large responses.
    Api,
    /// Payloads of webhooks and event streams.
    Webhooks,
    /// Mail being sent.
    Sending,
}

/// Each consumer with its label in the metrics, its maximum and its reserve, in parts of [`PARTS`].
const CONSUMERS: [(Consumer, &str, usize, usize); 6] = [
    (Consumer::Smtp, "smtp", PARTS, 16),
    (Consumer::Parsing, "parsing", 32, 26),
    (Consumer::Anonymous, "anonymous", 8, 4),
    (Consumer::Api, "api", 128, 36),
    (Consumer::Webhooks, "webhooks", 48, 26),
    (Consumer::Sending, "sending", 96, 36),
];

/// The budget; clones share it.
#[derive(Clone, Debug)]
pub struct MemoryBudget {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    total: usize,
    shares: [Share; CONSUMERS.len()],
    state: Mutex<State>,
}

/// The limits of one consumer.
#[derive(Debug)]
struct Share {
    max: usize,
    reserve: usize,
    refused: AtomicU64,
}

#[derive(Debug, Default)]
struct State {
    held: [usize; CONSUMERS.len()],
    /// The waiting reservations of each consumer; bounded by the number of possible callers.
    queues: [Queue; CONSUMERS.len()],
    /// Octets held by consumer and account; only of accounts that hold any.
    held_by_account: HashMap<(usize, AccountRowId), usize>,
    max_held: usize,
}

/// The octets are not available, or did not become available in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the memory budget is used up")]
pub(crate) struct UsedUp;

/// Returns the most that SMTP can hold of `total` octets: all but the reserves of the other consumers.
pub(crate) fn smtp_limit(total: u64) -> u64 {
    let reserves: usize =
        CONSUMERS.iter().filter(|(consumer, ..)| *consumer != Consumer::Smtp).map(|(.., reserve)| reserve).sum();
    total - total / PARTS as u64 * reserves as u64
}

impl MemoryBudget {
    /// Creates a budget of `total` octets, of which SMTP may take at most `smtp`.
    pub(crate) fn new(total: usize, smtp: usize) -> Self {
        let part = |parts: usize| total / PARTS * parts;
        let reserve = |consumer: Consumer, parts: usize| {
            let reserve = part(parts);
            if consumer == Consumer::Smtp { reserve.min(smtp) } else { reserve }
        };
        let reserves: usize = CONSUMERS.iter().map(|(consumer, _, _, parts)| reserve(*consumer, *parts)).sum();
        let shares = CONSUMERS.map(|(consumer, _, most, parts)| {
            let reserve = reserve(consumer, parts);
            let most = if consumer == Consumer::Smtp { smtp } else { part(most) };
            Share { max: most.min(total - (reserves - reserve)), reserve, refused: AtomicU64::new(0) }
        });
        Self { shared: Arc::new(Shared { total, shares, state: Mutex::default() }) }
    }

    /// Opens an empty reservation.
    pub(crate) fn reservation(&self, consumer: Consumer) -> Reservation {
        Reservation { shared: Arc::clone(&self.shared), consumer, account: None, held: 0 }
    }

    /// Opens an empty reservation of an account, which queues by account and leaves something to the others.
    pub(crate) fn reservation_of(&self, consumer: Consumer, account: AccountRowId) -> Reservation {
        Reservation { shared: Arc::clone(&self.shared), consumer, account: Some(account), held: 0 }
    }

    /// Waits for this many octets of an account.
    pub async fn reserve(&self, consumer: Consumer, account: AccountRowId, octets: usize) -> Reservation {
        let mut reservation = self.reservation_of(consumer, account);
        reservation.wait_for(octets).await;
        reservation
    }

    /// Returns true if the consumer can hold nothing more.
    pub(crate) fn is_used_up(&self, consumer: Consumer) -> bool {
        !self.shared.fits(&self.shared.state(), consumer, None, UNIT)
    }

    /// Counts a refusal that the caller made because of [`MemoryBudget::is_used_up`].
    pub(crate) fn count_refusal(&self, consumer: Consumer) {
        if let Some(share) = self.shared.shares.get(consumer as usize) {
            share.refused.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Returns the octets held now.
    #[cfg(test)]
    pub(crate) fn held(&self) -> usize {
        self.shared.state().held.iter().sum()
    }
}

impl Expose for MemoryBudget {
    fn expose(&self, exposition: &mut Exposition<'_>) -> fmt::Result {
        let (held, waiting, most_held) = {
            let state = self.shared.state();
            (state.held, state.queues.each_ref().map(Queue::len), state.max_held)
        };
        let refused = self.shared.shares.iter().map(|share| share.refused.load(Ordering::Relaxed));
        let labels = || CONSUMERS.iter().map(|(_, door, ..)| [("door", *door)]);
        let help = "The memory that all doors may hold together.";
        exposition.gauge("mailkite_memory_budget_bytes", help, self.shared.total)?;
        let help = "The most of the memory budget that was held at once.";
        exposition.gauge("mailkite_memory_held_max_bytes", help, most_held)?;
        exposition.gauges("mailkite_memory_held_bytes", "Memory held, by door.", labels().zip(held))?;
        let help = "Reservations waiting for memory, by door.";
        exposition.gauges("mailkite_memory_waiting", help, labels().zip(waiting))?;
        let help = "Refusals for lack of memory, by door.";
        exposition.counters("mailkite_memory_refused_total", help, labels().zip(refused))
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns true if the consumer may hold `more`, with the reserves of the others kept.
    fn fits(&self, state: &State, consumer: Consumer, account: Option<AccountRowId>, more: usize) -> bool {
        if let Some(account) = account {
            let held = state.held_by_account.get(&(consumer as usize, account)).copied().unwrap_or(0);
            if held.saturating_add(more) > self.limit_of(consumer, Some(account)) {
                return false;
            }
        }
        let mut taken: usize = 0;
        for (at, (share, held)) in self.shares.iter().zip(state.held).enumerate() {
            if at == consumer as usize {
                let held = held.saturating_add(more);
                if held > share.max {
                    return false;
                }
                taken = taken.saturating_add(held);
            } else {
                taken = taken.saturating_add(held.max(share.reserve));
            }
        }
        taken <= self.total
    }

    /// Returns the most that a consumer may hold, or one account of it.
    fn limit_of(&self, consumer: Consumer, account: Option<AccountRowId>) -> usize {
        let most = self.shares.get(consumer as usize).map_or(0, |share| share.max);
        if account.is_some() { most - most / LEFT_TO_OTHERS } else { most }
    }

    fn try_take(&self, consumer: Consumer, account: Option<AccountRowId>, more: usize) -> bool {
        self.take(&mut self.state(), consumer, account, more)
    }

    fn take(&self, state: &mut State, consumer: Consumer, account: Option<AccountRowId>, more: usize) -> bool {
        if !self.fits(state, consumer, account, more) {
            return false;
        }
        if let Some(account) = account {
            *state.held_by_account.entry((consumer as usize, account)).or_default() += more;
        }
        if let Some(held) = state.held.get_mut(consumer as usize) {
            *held += more;
        }
        let held = state.held.iter().sum();
        state.max_held = state.max_held.max(held);
        true
    }

    fn release(self: &Arc<Self>, consumer: Consumer, account: Option<AccountRowId>, octets: usize) {
        {
            let mut state = self.state();
            if let Some(account) = account
                && let Some(held) = state.held_by_account.get_mut(&(consumer as usize, account))
            {
                *held = held.saturating_sub(octets);
                if *held == 0 {
                    state.held_by_account.remove(&(consumer as usize, account));
                }
            }
            if let Some(held) = state.held.get_mut(consumer as usize) {
                *held = held.saturating_sub(octets);
            }
        }
        self.grant_waiting();
    }

    /// Grants the waiting reservations that fit by now.
    fn grant_waiting(self: &Arc<Self>) {
        let granted: Vec<_> = {
            let mut state = self.state();
            let mut queues = std::mem::take(&mut state.queues);
            let mut granted = Vec::new();
            for ((consumer, ..), queue) in CONSUMERS.iter().zip(&mut queues) {
                while let Some(waiter) = queue.next(|waiter| self.check_fit(&state, *consumer, waiter)) {
                    let taken = self.take(&mut state, *consumer, waiter.account, waiter.more);
                    debug_assert!(taken, "it fitted");
                    granted.push((*consumer, waiter));
                }
            }
            state.queues = queues;
            granted
        };
        for (consumer, waiter) in granted {
            let grant = Grant { shared: Arc::clone(self), consumer, account: waiter.account, octets: waiter.more };
            // A caller that no longer waits returns the octets by dropping the grant.
            drop(waiter.granted.send(grant));
        }
    }

    fn check_fit(&self, state: &State, consumer: Consumer, waiter: &Waiter) -> Fit {
        if self.fits(state, consumer, waiter.account, waiter.more) {
            Fit::Fits
        } else if self.fits(state, consumer, None, waiter.more) {
            Fit::AccountFull
        } else {
            Fit::TooLittle
        }
    }
}

/// Reserved octets; released on drop.
#[derive(Debug)]
pub struct Reservation {
    shared: Arc<Shared>,
    consumer: Consumer,
    /// The account to queue by and to limit; reservations without one queue as one.
    account: Option<AccountRowId>,
    held: usize,
}

impl Reservation {
    /// Resizes to `octets`; returns false, and changes nothing, when they are not available.
    pub(crate) fn resize(&mut self, octets: usize) -> bool {
        let needed = octets.div_ceil(UNIT).saturating_mul(UNIT);
        if needed > self.held {
            if !self.shared.try_take(self.consumer, self.account, needed - self.held) {
                return false;
            }
            self.held = needed;
        } else {
            self.shrink_to(octets);
        }
        true
    }

    /// Releases the octets beyond `octets`.
    pub(crate) fn shrink_to(&mut self, octets: usize) {
        let needed = octets.div_ceil(UNIT).saturating_mul(UNIT);
        if needed < self.held {
            let over = self.held - needed;
            self.held = needed;
            self.shared.release(self.consumer, self.account, over);
        }
    }

    /// Waits until it holds `octets`, in turn with those of its consumer that wait already: accounts take turns, and an
    /// account at its maximum keeps nobody else waiting. More than the consumer may ever hold waits for its whole
    /// maximum.
    pub(crate) async fn wait_for(&mut self, octets: usize) {
        let shared = Arc::clone(&self.shared);
        let octets = octets.min(shared.limit_of(self.consumer, self.account) / UNIT * UNIT);
        let small = if matches!(self.consumer, Consumer::Anonymous | Consumer::Api) {
            MAX_UNQUEUED_REQUEST
        } else {
            MAX_UNQUEUED
        };
        let small = octets.saturating_sub(self.held) <= small;
        let more = octets.div_ceil(UNIT).saturating_mul(UNIT).saturating_sub(self.held);
        if more == 0 || (small && self.resize(octets)) {
            return;
        }
        let (granted, grant) = oneshot::channel();
        if let Some(queue) = shared.state().queues.get_mut(self.consumer as usize) {
            queue.push(Waiter { account: self.account, more, granted });
        }
        shared.grant_waiting();
        if let Ok(grant) = grant.await {
            self.held += grant.take();
        }
    }

    /// Waits as [`Reservation::wait_for`] does, for at most `patience`.
    ///
    /// # Errors
    /// The octets were not available in time; the reservation is unchanged.
    pub(crate) async fn wait_within(&mut self, octets: usize, max_wait: Duration) -> Result<(), UsedUp> {
        match tokio::time::timeout(max_wait, self.wait_for(octets)).await {
            Ok(()) => Ok(()),
            Err(_) => {
                self.count_refusal();
                Err(UsedUp)
            }
        }
    }

    /// Counts a refusal for lack of memory.
    pub(crate) fn count_refusal(&self) {
        if let Some(share) = self.shared.shares.get(self.consumer as usize) {
            share.refused.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Returns the octets it holds.
    pub(crate) const fn held(&self) -> usize {
        self.held
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        if self.held > 0 {
            self.shared.release(self.consumer, self.account, self.held);
        }
    }
}

#[cfg(test)]
mod tests;
