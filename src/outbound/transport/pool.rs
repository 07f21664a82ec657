//! Idle sessions kept for the next delivery request to their host: a few for each, for a short time.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::Instant;

use super::Connection;
use crate::outbound::client::Session;
use crate::outbound::queue::hosts::{IdlePermit, Permit};
use crate::outbound::{Host, TlsRule};

/// Limit of idle sessions of one host.
const MAX_PER_HOST: usize = 4;
/// Limit of idle sessions in total.
const MAX: usize = 256;
/// Time that a session stays idle before it is ended.
const IDLE: Duration = Duration::from_secs(10);
/// Messages per connection; many hosts end it soon after.
const MAX_TRANSACTIONS: u32 = 100;

/// The parameters a session was opened with; mail with other parameters has to open its own.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Key {
    name: String,
    address: SocketAddr,
    rule: TlsRule,
    user: Option<String>,
}

impl Key {
    /// Key of sessions with an address of a host, authenticated as `user`.
    pub(crate) fn new(host: &Host, address: SocketAddr, user: Option<&str>) -> Self {
        Self { name: host.name.clone(), address, rule: host.tls.clone(), user: user.map(str::to_owned) }
    }
}

/// The idle sessions.
#[derive(Default)]
pub(crate) struct Pool {
    waiting: Mutex<IdleSessions>,
}

/// An idle session, the time it became idle, and its connection slot.
pub(crate) struct Idle {
    since: Instant,
    session: Session,
    permit: IdlePermit,
}

impl Idle {
    /// Returns the session and drops its idle connection slot, as the caller holds another.
    pub(crate) fn into_session(self) -> Session {
        self.session
    }

    /// Ends the session, and frees its slot after the QUIT.
    async fn quit(self) {
        self.session.quit().await;
        drop(self.permit);
    }
}

#[derive(Default)]
struct IdleSessions {
    sessions: HashMap<Key, Vec<Idle>>,
    count: usize,
    /// True while a task runs that ends expired sessions.
    watched: bool,
}

impl IdleSessions {
    fn pop(&mut self, key: &Key) -> Option<Idle> {
        let sessions = self.sessions.get_mut(key)?;
        let taken = sessions.pop();
        if sessions.is_empty() {
            self.sessions.remove(key);
        }
        self.count -= usize::from(taken.is_some());
        taken
    }
}

impl Pool {
    fn waiting(&self) -> MutexGuard<'_, IdleSessions> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes out an unexpired session.
    pub(crate) fn take(&self, key: &Key) -> Option<Idle> {
        loop {
            let mut idle = self.waiting().pop(key)?;
            if idle.since.elapsed() < IDLE && !idle.session.is_stale() {
                return Some(idle);
            }
        }
    }

    /// Returns an unused session; its remaining idle time does not change.
    pub(crate) fn put_back(self: &Arc<Self>, key: Key, idle: Idle) {
        self.keep(&mut self.waiting(), key, idle);
    }

    /// Ends a session with this address because its slot is needed; returns whether there was one.
    pub(crate) async fn make_room(&self, address: SocketAddr) -> bool {
        let idle = {
            let mut waiting = self.waiting();
            let key = waiting.sessions.keys().find(|key| key.address == address).cloned();
            key.and_then(|key| waiting.pop(&key))
        };
        let Some(idle) = idle else { return false };
        idle.quit().await;
        true
    }

    /// Keeps a session, if there is room for it.
    pub(crate) fn put(self: &Arc<Self>, key: Key, connection: Connection) {
        let Connection { session, permit, .. } = connection;
        let mut waiting = self.waiting();
        let full = waiting.count >= MAX || waiting.sessions.get(&key).is_some_and(|list| list.len() >= MAX_PER_HOST);
        if full || session.transactions >= MAX_TRANSACTIONS {
            drop(waiting);
            tokio::spawn(quit(session, permit));
            return;
        }
        let idle = Idle { since: Instant::now(), session, permit: permit.idle() };
        self.keep(&mut waiting, key, idle);
    }

    fn keep(self: &Arc<Self>, waiting: &mut IdleSessions, key: Key, idle: Idle) {
        waiting.count += 1;
        waiting.sessions.entry(key).or_default().push(idle);
        if !std::mem::replace(&mut waiting.watched, true) {
            tokio::spawn(Arc::clone(self).watch());
        }
    }

    /// Ends expired sessions until none is left.
    async fn watch(self: Arc<Self>) {
        loop {
            tokio::time::sleep(IDLE / 2).await;
            let Some(old) = self.remove_old(Instant::now()) else { return };
            // Concurrent, since a host may be slow to answer.
            join_all(old.into_iter().map(Idle::quit)).await;
        }
    }

    /// Removes the expired sessions; `None` when no session is left.
    fn remove_old(&self, now: Instant) -> Option<Vec<Idle>> {
        let mut waiting = self.waiting();
        let mut old = Vec::new();
        for list in waiting.sessions.values_mut() {
            old.extend(list.extract_if(.., |idle| now.duration_since(idle.since) >= IDLE));
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

/// Ends a session, and frees its slot after the QUIT.
pub(crate) async fn quit(session: Session, permit: Permit) {
    session.quit().await;
    drop(permit);
}
