//! Sessions that wait for the next parcel to their host: a few for each, not for long.

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
pub(crate) struct Key {
    name: String,
    address: SocketAddr,
    rule: TlsRule,
    user: Option<String>,
}

impl Key {
    /// Sessions with an address of a host, signed in as `user`.
    pub(crate) fn new(host: &Host, address: SocketAddr, user: Option<&str>) -> Self {
        Self { name: host.name.clone(), address, rule: host.tls.clone(), user: user.map(str::to_owned) }
    }
}

/// Sessions that wait.
#[derive(Default)]
pub(crate) struct Pool {
    waiting: Mutex<IdleSessions>,
}

/// One that waits, since when, and its place at the host.
pub(crate) struct Idle {
    since: Instant,
    session: Session,
    permit: IdlePermit,
}

impl Idle {
    /// The session, over to another place at its host.
    pub(crate) fn into_session(self) -> Session {
        self.session
    }

    /// Ends the session, and frees its place once the host knows.
    async fn quit(self) {
        self.session.quit().await;
        drop(self.permit);
    }
}

#[derive(Default)]
struct IdleSessions {
    sessions: HashMap<Key, Vec<Idle>>,
    count: usize,
    /// A task is there that ends the old ones.
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

    /// A session that is still good.
    pub(crate) fn take(&self, key: &Key) -> Option<Idle> {
        loop {
            let mut idle = self.waiting().pop(key)?;
            if idle.since.elapsed() < IDLE && !idle.session.is_stale() {
                return Some(idle);
            }
        }
    }

    /// Leaves a session to wait on, as long as it would have.
    pub(crate) fn put_back(self: &Arc<Self>, key: Key, idle: Idle) {
        self.keep(&mut self.waiting(), key, idle);
    }

    /// Ends a session with this address, because its place is wanted; whether there was one.
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

    /// Ends sessions whose time is over, until none waits.
    async fn watch(self: Arc<Self>) {
        loop {
            tokio::time::sleep(IDLE / 2).await;
            let Some(old) = self.remove_old(Instant::now()) else { return };
            // At once: a host may take its time to answer.
            join_all(old.into_iter().map(Idle::quit)).await;
        }
    }

    /// The old ones; `None` when none is left at all.
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

/// Ends a session, and frees its place once the host knows.
pub(crate) async fn quit(session: Session, permit: Permit) {
    session.quit().await;
    drop(permit);
}
