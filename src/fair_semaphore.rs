//! Turns at what costs a core for a good part of a second: password hashes, RSA keys.
//!
//! A few run at once; the rest waits in a bounded queue where everybody who asks (a client address, an account) takes
//! turns, so nobody waits behind the pile of another. Who finds no room is refused at once. Who is known has a queue
//! apart, and every second turn, so that a crowd of strangers shuts nobody out. Pure waiting: what is done in a turn is
//! its owner's.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::oneshot;

/// There is no room to wait; it is worth asking again in some seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("too many wait for the same")]
pub struct QueueFull;

impl QueueFull {
    /// For `Retry-After`.
    pub(crate) const RETRY_AFTER_SECS: u64 = 3;
}

/// Clones share the turns.
#[derive(Clone, Debug)]
pub(crate) struct FairSemaphore {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    at_once: usize,
    most_waiting: usize,
    refused: AtomicU64,
    state: Mutex<State>,
}

/// Who asks for a turn.
#[derive(Clone, Copy, Debug)]
pub struct Requester<'a> {
    /// Whose turns these are.
    pub(crate) name: &'a str,
    /// It was let in before.
    pub(crate) known: bool,
}

impl<'a> From<&'a str> for Requester<'a> {
    /// A stranger.
    fn from(name: &'a str) -> Self {
        Self { name, known: false }
    }
}

#[derive(Debug, Default)]
struct State {
    running: usize,
    strangers: Line,
    known: Line,
    /// The last turn was a known one's.
    known_had: bool,
}

/// Some who wait.
#[derive(Debug, Default)]
struct Line {
    waiting: usize,
    /// Who waits, in turn.
    turns: VecDeque<String>,
    queues: HashMap<String, VecDeque<oneshot::Sender<Turn>>>,
}

/// A turn, as long as it is kept.
#[derive(Debug)]
pub(crate) struct Turn {
    /// None once it was passed on.
    shared: Option<Arc<Shared>>,
}

impl FairSemaphore {
    /// So many at once, and so many of each kind that wait.
    pub(crate) fn new(at_once: usize, most_waiting: usize) -> Self {
        let shared = Shared { at_once, most_waiting, refused: AtomicU64::new(0), state: Mutex::default() };
        Self { shared: Arc::new(shared) }
    }

    /// Waits for a turn. When the queue is full the last of whoever has most in it goes.
    ///
    /// # Errors
    /// There is no room, or no more.
    pub(crate) async fn enter<'a>(&self, who: impl Into<Requester<'a>>) -> Result<Turn, QueueFull> {
        let who = who.into();
        let waiting = {
            let mut state = self.shared.lock();
            if state.running < self.shared.at_once {
                state.running += 1;
                return Ok(Turn { shared: Some(Arc::clone(&self.shared)) });
            }
            let line = if who.known { &mut state.known } else { &mut state.strangers };
            line.make_room(who.name, self.shared.most_waiting).map(|()| {
                let (sender, receiver) = oneshot::channel();
                line.push(who.name, sender);
                receiver
            })
        };
        let turn = match waiting {
            Ok(waiting) => waiting.await.map_err(|_| QueueFull),
            Err(crowded) => Err(crowded),
        };
        if turn.is_err() {
            self.shared.refused.fetch_add(1, Ordering::Relaxed);
        }
        turn
    }

    /// Whether nobody has or wants a turn.
    pub(crate) fn is_idle(&self) -> bool {
        let state = self.shared.lock();
        state.running + state.waiting() == 0
    }

    /// How many wait, and how many were refused since the start.
    pub(crate) fn figures(&self) -> (usize, u64) {
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
        self.strangers.waiting + self.known.waiting
    }

    /// The next who waits.
    fn pop(&mut self) -> Option<oneshot::Sender<Turn>> {
        self.known_had = !self.known_had;
        let (first, second) = if self.known_had {
            (&mut self.known, &mut self.strangers)
        } else {
            (&mut self.strangers, &mut self.known)
        };
        first.pop().or_else(|| second.pop())
    }
}

impl Line {
    fn push(&mut self, who: &str, sender: oneshot::Sender<Turn>) {
        let queue = self.queues.entry(who.to_owned()).or_default();
        if queue.is_empty() {
            self.turns.push_back(who.to_owned());
        }
        queue.push_back(sender);
        self.waiting += 1;
    }

    /// The next who waits.
    fn pop(&mut self) -> Option<oneshot::Sender<Turn>> {
        let who = self.turns.pop_front()?;
        let queue = self.queues.get_mut(&who)?;
        let next = queue.pop_front();
        if queue.is_empty() {
            self.queues.remove(&who);
        } else {
            self.turns.push_back(who);
        }
        self.waiting = self.waiting.saturating_sub(usize::from(next.is_some()));
        next
    }

    /// Room for one more of `who`: in a full queue at the cost of whoever has more than that in it.
    fn make_room(&mut self, who: &str, most: usize) -> Result<(), QueueFull> {
        if self.waiting < most {
            return Ok(());
        }
        // Who went away takes up no room.
        for queue in self.queues.values_mut() {
            queue.retain(|waiting| !waiting.is_closed());
        }
        self.queues.retain(|_, queue| !queue.is_empty());
        self.turns.retain(|who| self.queues.contains_key(who));
        self.waiting = self.queues.values().map(VecDeque::len).sum();
        if self.waiting < most {
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

impl Drop for Turn {
    fn drop(&mut self) {
        let Some(shared) = self.shared.take() else { return };
        let mut turn = Self { shared: Some(Arc::clone(&shared)) };
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
                turn.shared = None;
                return;
            };
            match next.send(turn) {
                Ok(()) => return,
                // It went away meanwhile; the next one has the turn.
                Err(back) => turn = back,
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
        let mut running = Some(gate.enter("busy").await.unwrap());
        let mut piled: Vec<_> = (0..30).map(|_| Box::pin(gate.enter("piles"))).collect();
        piled.iter_mut().for_each(|one| assert!(one.now_or_never().is_none()));
        let mut honest = Box::pin(gate.enter("honest"));
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
        let running = gate.enter("busy").await.unwrap();
        let mut piled: Vec<_> = (0..4).map(|_| Box::pin(gate.enter("piles"))).collect();
        piled.iter_mut().for_each(|one| assert!(one.now_or_never().is_none()));
        assert!(matches!(gate.enter("piles").now_or_never(), Some(Err(QueueFull))));
        let mut honest = Box::pin(gate.enter("honest"));
        assert!((&mut honest).now_or_never().is_none());
        assert!(matches!((&mut piled[3]).now_or_never(), Some(Err(QueueFull))), "the last of the pile went");
        assert_eq!(gate.figures(), (4, 2));
        drop(running);
        drop((&mut piled[0]).now_or_never().unwrap().unwrap());
        assert!((&mut honest).now_or_never().unwrap().is_ok());
    }

    #[tokio::test]
    async fn a_crowd_of_strangers_shuts_out_nobody_who_is_known() {
        let gate = FairSemaphore::new(1, 4);
        let mut turn = gate.enter("busy").await.unwrap();
        let names: Vec<String> = (0..4).map(|number| format!("stranger {number}")).collect();
        let mut crowd: Vec<_> = names.iter().map(|name| Box::pin(gate.enter(name.as_str()))).collect();
        crowd.iter_mut().for_each(|one| assert!(one.now_or_never().is_none()));
        assert!(matches!(gate.enter("one more").now_or_never(), Some(Err(QueueFull))));
        for _ in 0..2 {
            let mut known = Box::pin(gate.enter(Requester { name: "known", known: true }));
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
        let _running = gate.enter("busy").await.unwrap();
        for _ in 0..10 {
            let mut waiting: Vec<_> = (0..2).map(|_| Box::pin(gate.enter("hasty"))).collect();
            waiting.iter_mut().for_each(|one| assert!(one.now_or_never().is_none()));
        }
        assert!(gate.enter("honest").now_or_never().is_none(), "it waits");
        assert_eq!(gate.figures().0, 1);
    }
}
