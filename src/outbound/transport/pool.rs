//! Sessions that wait for the next parcel to their host: a few for each, not for long.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::outbound::client::Session;
use crate::outbound::{Host, TlsRule};

/// Sessions of one host that wait.
const MAX_PER_HOST: usize = 4;
/// Sessions of all hosts that wait.
const MAX: usize = 256;
/// How long one waits.
const IDLE: Duration = Duration::from_secs(10);
/// Messages over one connection; many hosts end it soon after.
const MAX_TRANSACTIONS: u32 = 100;

/// What a session was opened for; another use has to open its own.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Key {
    name: String,
    address: SocketAddr,
    rule: TlsRule,
    user: Option<String>,
}

impl Key {
    /// Sessions with an address of a host, signed in as `user`.
    pub fn new(host: &Host, address: SocketAddr, user: Option<&str>) -> Self {
        Self { name: host.name.clone(), address, rule: host.tls.clone(), user: user.map(str::to_owned) }
    }

    /// The address.
    pub const fn address(&self) -> SocketAddr {
        self.address
    }
}

/// Sessions that wait.
#[derive(Default)]
pub struct Pool {
    waiting: Mutex<Waiting>,
}

#[derive(Default)]
struct Waiting {
    sessions: HashMap<Key, Vec<(Instant, Session)>>,
    count: usize,
    /// A task is there that ends the old ones.
    watched: bool,
}

impl Pool {
    /// A session that is still good.
    pub fn take(&self, key: &Key) -> Option<Session> {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        loop {
            let sessions = waiting.sessions.get_mut(key)?;
            let taken = sessions.pop();
            if sessions.is_empty() {
                waiting.sessions.remove(key);
            }
            let (since, mut session) = taken?;
            waiting.count -= 1;
            if now.duration_since(since) < IDLE && !session.is_stale() {
                return Some(session);
            }
        }
    }

    /// Keeps a session, if there is room for it.
    pub fn put(self: &Arc<Self>, key: Key, session: Session) {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let full = waiting.count >= MAX || waiting.sessions.get(&key).is_some_and(|list| list.len() >= MAX_PER_HOST);
        if full || session.transactions >= MAX_TRANSACTIONS {
            drop(waiting);
            tokio::spawn(session.quit());
            return;
        }
        waiting.count += 1;
        waiting.sessions.entry(key).or_default().push((Instant::now(), session));
        if !std::mem::replace(&mut waiting.watched, true) {
            tokio::spawn(Arc::clone(self).watch());
        }
    }

    /// Ends sessions whose time is over, until none waits.
    async fn watch(self: Arc<Self>) {
        loop {
            tokio::time::sleep(IDLE / 2).await;
            let Some(old) = self.remove_old(Instant::now()) else { return };
            for session in old {
                session.quit().await;
            }
        }
    }

    /// The old ones; `None` when none is left at all.
    fn remove_old(&self, now: Instant) -> Option<Vec<Session>> {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let mut old = Vec::new();
        for list in waiting.sessions.values_mut() {
            let (gone, kept) =
                std::mem::take(list).into_iter().partition(|(since, _)| now.duration_since(*since) >= IDLE);
            *list = kept;
            let gone: Vec<(Instant, Session)> = gone;
            old.extend(gone.into_iter().map(|(_, session)| session));
        }
        waiting.sessions.retain(|_, list| !list.is_empty());
        waiting.count -= old.len();
        if waiting.count == 0 && old.is_empty() {
            waiting.watched = false;
            return None;
        }
        Some(old)
    }
}
