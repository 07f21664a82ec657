//! A fair semaphore for work that costs a core for a good part of a second: password hashes, RSA keys.
//!
//! A few permits are out at once; the rest wait in a bounded queue where requesters (a client address, an account)
//! take turns, so nobody waits behind another's backlog. A full queue refuses at once. Known requesters have a queue
//! of their own and get every second permit, so that a flood of unknown ones locks nobody out.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::oneshot;

/// The queue is full; retry in some seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("too many wait for the same")]
pub struct QueueFull;

impl QueueFull {
    /// The value of `Retry-After`.
    pub(crate) const RETRY_AFTER_SECS: u64 = 3;
}

/// Bounds concurrent work; clones share the permits.
#[derive(Clone, Debug)]
pub(crate) struct FairSemaphore {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    max_permits: usize,
    max_waiting: usize,
    refused: AtomicU64,
    state: Mutex<State>,
}

/// A requester of permits.
#[derive(Clone, Copy, Debug)]
pub struct Requester<'a> {
    /// The name that its requests queue under.
    pub(crate) name: &'a str,
    /// True if it was authenticated before.
    pub(crate) known: bool,
}

impl<'a> From<&'a str> for Requester<'a> {
    /// An unknown requester.
    fn from(name: &'a str) -> Self {
        Self { name, known: false }
    }
}

#[derive(Debug, Default)]
struct State {
    running: usize,
    unknown: WaitQueue,
    known: WaitQueue,
    /// True if the last permit went to a known requester.
    last_was_known: bool,
}

/// The waiting requests of one class.
#[derive(Debug, Default)]
struct WaitQueue {
    waiting: usize,
    /// The names that have waiting requests, in the order of their turns.
    order: VecDeque<String>,
    queues: HashMap<String, VecDeque<oneshot::Sender<Permit>>>,
}

/// A permit; released on drop.
#[derive(Debug)]
pub(crate) struct Permit {
    /// `None` once it was passed on.
    shared: Option<Arc<Shared>>,
}

impl FairSemaphore {
    /// Allows `at_once` permits, and `most_waiting` waiting requests of each class.
    pub(crate) fn new(max_permits: usize, max_waiting: usize) -> Self {
        let shared = Shared { max_permits, max_waiting, refused: AtomicU64::new(0), state: Mutex::default() };
        Self { shared: Arc::new(shared) }
    }

    /// Waits for a permit. When the queue is full, the last request of whoever has most waiting is evicted.
    ///
    /// # Errors
    /// The queue is full, or the request was evicted.
    pub(crate) async fn acquire<'a>(&self, who: impl Into<Requester<'a>>) -> Result<Permit, QueueFull> {
        let who = who.into();
        let waiting = {
            let mut state = self.shared.lock();
            if state.running < self.shared.max_permits {
                state.running += 1;
                return Ok(Permit { shared: Some(Arc::clone(&self.shared)) });
            }
            let queue = if who.known { &mut state.known } else { &mut state.unknown };
            queue.make_room(who.name, self.shared.max_waiting).map(|()| {
                let (sender, receiver) = oneshot::channel();
                queue.push(who.name, sender);
                receiver
            })
        };
        let permit = match waiting {
            Ok(waiting) => waiting.await.map_err(|_| QueueFull),
            Err(full) => Err(full),
        };
        if permit.is_err() {
            self.shared.refused.fetch_add(1, Ordering::Relaxed);
        }
        permit
    }

    /// Returns true if no permit is out and nobody waits.
    pub(crate) fn is_idle(&self) -> bool {
        let state = self.shared.lock();
        state.running + state.waiting() == 0
    }

    /// Returns how many are waiting now, and how many were refused since the start.
    pub(crate) fn queue_stats(&self) -> (usize, u64) {
        (self.shared.lock().waiting(), self.shared.refused.load(Ordering::Relaxed))
    }
}

impl Shared {
    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    const fn waiting(&self) -> usize {
        self.unknown.waiting + self.known.waiting
    }

    /// Takes the next waiting request, alternating between the classes.
    fn pop(&mut self) -> Option<oneshot::Sender<Permit>> {
        self.last_was_known = !self.last_was_known;
        let (first, second) = if self.last_was_known {
            (&mut self.known, &mut self.unknown)
        } else {
            (&mut self.unknown, &mut self.known)
        };
        first.pop().or_else(|| second.pop())
    }
}

impl WaitQueue {
    fn push(&mut self, who: &str, sender: oneshot::Sender<Permit>) {
        let queue = self.queues.entry(who.to_owned()).or_default();
        if queue.is_empty() {
            self.order.push_back(who.to_owned());
        }
        queue.push_back(sender);
        self.waiting += 1;
    }

    /// Takes the next waiting request.
    fn pop(&mut self) -> Option<oneshot::Sender<Permit>> {
        let who = self.order.pop_front()?;
        let queue = self.queues.get_mut(&who)?;
        let next = queue.pop_front();
        if queue.is_empty() {
            self.queues.remove(&who);
        } else {
            self.order.push_back(who);
        }
        self.waiting = self.waiting.saturating_sub(usize::from(next.is_some()));
        next
    }

    /// Makes room for one more request of `who`: in a full queue by evicting a request of whoever has more than that
    /// waiting.
    fn make_room(&mut self, who: &str, max: usize) -> Result<(), QueueFull> {
        if self.waiting < max {
            return Ok(());
        }
        // Requests whose futures were dropped take up no room.
        for queue in self.queues.values_mut() {
            queue.retain(|waiting| !waiting.is_closed());
        }
        self.queues.retain(|_, queue| !queue.is_empty());
        self.order.retain(|who| self.queues.contains_key(who));
        self.waiting = self.queues.values().map(VecDeque::len).sum();
        if self.waiting < max {
            return Ok(());
        }
        let own = self.queues.get(who).map_or(0, VecDeque::len) + 1;
        let longest = self.queues.values_mut().max_by_key(|queue| queue.len());
        let longest = longest.filter(|queue| queue.len() > own).ok_or(QueueFull)?;
        drop(longest.pop_back());
        self.waiting -= 1;
        Ok(())
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let Some(shared) = self.shared.take() else { return };
        let mut permit = Self { shared: Some(Arc::clone(&shared)) };
        loop {
            let next = {
                let mut state = shared.lock();
                let next = state.pop();
                if next.is_none() {
                    state.running = state.running.saturating_sub(1);
                }
                next
            };
            let Some(next) = next else {
                permit.shared = None;
                return;
            };
            match next.send(permit) {
                Ok(()) => return,
                // Its future was dropped meanwhile; offer the permit to the next one.
                Err(returned) => permit = returned,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests may panic")]

    use futures_util::FutureExt as _;

    use super::*;

    #[tokio::test]
    async fn whoever_asks_waits_for_one_turn_of_each_other_and_not_for_their_piles() {
        let gate = FairSemaphore::new(1, 100);
        let mut running = Some(gate.acquire("busy").await.unwrap());
        let mut piled: Vec<_> = (0..30).map(|_| Box::pin(gate.acquire("piles"))).collect();
        piled.iter_mut().for_each(|one| assert!(one.now_or_never().is_none()));
        let mut honest = Box::pin(gate.acquire("honest"));
        assert!((&mut honest).now_or_never().is_none());
        running.take();
        let first = (&mut piled[0]).now_or_never().unwrap().unwrap();
        assert!((&mut honest).now_or_never().is_none());
        drop(first);
        let turn = (&mut honest).now_or_never().unwrap().unwrap();
        assert!(!gate.is_idle());
        drop((turn, piled));
        assert!(gate.is_idle(), "who goes away hands the turn on");
    }

    #[tokio::test]
    async fn a_full_queue_refuses_at_once_and_at_the_cost_of_who_has_most_in_it() {
        let gate = FairSemaphore::new(1, 4);
        let running = gate.acquire("busy").await.unwrap();
        let mut piled: Vec<_> = (0..4).map(|_| Box::pin(gate.acquire("piles"))).collect();
        piled.iter_mut().for_each(|one| assert!(one.now_or_never().is_none()));
        assert!(matches!(gate.acquire("piles").now_or_never(), Some(Err(QueueFull))));
        let mut honest = Box::pin(gate.acquire("honest"));
        assert!((&mut honest).now_or_never().is_none());
        assert!(matches!((&mut piled[3]).now_or_never(), Some(Err(QueueFull))), "the last of the pile went");
        assert_eq!(gate.queue_stats(), (4, 2));
        drop(running);
        drop((&mut piled[0]).now_or_never().unwrap().unwrap());
        assert!((&mut honest).now_or_never().unwrap().is_ok());
    }

    #[tokio::test]
    async fn a_crowd_of_strangers_shuts_out_nobody_who_is_known() {
        let gate = FairSemaphore::new(1, 4);
        let mut turn = gate.acquire("busy").await.unwrap();
        let names: Vec<String> = (0..4).map(|number| format!("stranger {number}")).collect();
        let mut crowd: Vec<_> = names.iter().map(|name| Box::pin(gate.acquire(name.as_str()))).collect();
        crowd.iter_mut().for_each(|one| assert!(one.now_or_never().is_none()));
        assert!(matches!(gate.acquire("one more").now_or_never(), Some(Err(QueueFull))));
        for _ in 0..2 {
            let mut known = Box::pin(gate.acquire(Requester { name: "known", known: true }));
            assert!((&mut known).now_or_never().is_none(), "there is room to wait");
            drop(turn);
            let stranger = crowd.iter_mut().find_map(|one| one.now_or_never());
            turn = match (&mut known).now_or_never() {
                Some(had) => had.unwrap(),
                None => {
                    drop(stranger.unwrap());
                    (&mut known).now_or_never().unwrap().unwrap()
                }
            };
        }
    }

    #[tokio::test]
    async fn who_gave_up_waiting_leaves_room() {
        let gate = FairSemaphore::new(1, 2);
        let _running = gate.acquire("busy").await.unwrap();
        for _ in 0..10 {
            let mut waiting: Vec<_> = (0..2).map(|_| Box::pin(gate.acquire("hasty"))).collect();
            waiting.iter_mut().for_each(|one| assert!(one.now_or_never().is_none()));
        }
        assert!(gate.acquire("honest").now_or_never().is_none(), "it waits");
        assert_eq!(gate.queue_stats().0, 1);
    }
}
