//! The recent events of each account, and the streams that follow them (contract 10).
//!
//! Events are published after the commit, never before. An event is kept small: received mail is looked up when it is
//! written to a stream. Nothing outlives the process; a client that resumes after an unknown event is told that it
//! missed some.

use crate::id::{AccountRowId, DomainRowId, MessageRowId};
use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

/// Events kept per account.
const MAX_EVENTS: usize = 1_000;
/// The most streams of an account.
const MAX_STREAMS: usize = 20;
/// Accounts whose events are kept; beyond them, the accounts with the fewest events are evicted.
const MAX_ACCOUNTS: usize = 256;

/// An event of an account.
#[derive(Debug)]
pub(crate) struct Event {
    /// The id that `Last-Event-ID` carries.
    pub(crate) id: String,
    /// The domain that the event belongs to.
    pub(crate) domain: Option<DomainRowId>,
    pub(crate) body: Body,
}

/// The content of an event.
#[derive(Debug)]
pub(crate) enum Body {
    /// `email.received` of the message with this row id; its public id is the event's id.
    Received(MessageRowId),
    /// Any other event with its JSON.
    Json {
        /// `email.sent`, `email.bounced` or `delivery.updated`.
        event_type: &'static str,
        /// The JSON on one line.
        json: String,
    },
}

/// Publishes events to streams; clones share the events.
#[derive(Clone, Debug, Default)]
pub(crate) struct EventBus(Arc<Mutex<HashMap<AccountRowId, AccountEvents>>>);

#[derive(Debug)]
struct AccountEvents {
    events: VecDeque<Arc<Event>>,
    /// The number of the first event kept; events are numbered from 0.
    first: u64,
    /// The number of published events; wakes the streams.
    published: watch::Sender<u64>,
    streams: usize,
}

impl Default for AccountEvents {
    fn default() -> Self {
        Self { events: VecDeque::new(), first: 0, published: watch::Sender::new(0), streams: 0 }
    }
}

/// The account has as many streams as it may have.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("an account may have {MAX_STREAMS} streams")]
pub(crate) struct TooManyStreams;

impl EventBus {
    /// Publishes an event to the streams of an account.
    pub(crate) fn publish(&self, account: AccountRowId, event: Event) {
        let mut accounts = self.accounts();
        if accounts.len() >= MAX_ACCOUNTS && !accounts.contains_key(&account) {
            evict_one(&mut accounts);
        }
        let recent = accounts.entry(account).or_default();
        recent.events.push_back(Arc::new(event));
        if recent.events.len() > MAX_EVENTS {
            recent.events.pop_front();
            recent.first += 1;
        }
        recent.published.send_replace(recent.first + recent.events.len() as u64);
    }

    /// Opens a stream of an account's events after the event `last`, or from now on. Returns true as the second part
    /// when `last` is no longer known; the stream then starts with new events.
    ///
    /// # Errors
    /// The account has too many streams.
    pub(crate) fn follow(&self, account: AccountRowId, last: Option<&str>) -> Result<(Stream, bool), TooManyStreams> {
        let mut accounts = self.accounts();
        let recent = accounts.entry(account).or_default();
        if recent.streams >= MAX_STREAMS {
            return Err(TooManyStreams);
        }
        recent.streams += 1;
        let end = recent.first + recent.events.len() as u64;
        let found = last.map(|last| recent.events.iter().rposition(|event| event.id == last));
        let (next, gap) = match found {
            None => (end, false),
            Some(Some(at)) => (recent.first + at as u64 + 1, false),
            Some(None) => (end, true),
        };
        let published = recent.published.subscribe();
        Ok((Stream { bus: self.clone(), account, next, published }, gap))
    }

    fn accounts(&self) -> MutexGuard<'_, HashMap<AccountRowId, AccountEvents>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Evicts an account that no stream follows, if there is one.
fn evict_one(accounts: &mut HashMap<AccountRowId, AccountEvents>) {
    let quiet =
        accounts.iter().filter(|(_, recent)| recent.streams == 0).min_by_key(|(_, recent)| recent.events.len());
    if let Some(account) = quiet.map(|(account, _)| *account) {
        accounts.remove(&account);
    }
}

/// A position in the events of an account.
#[derive(Debug)]
pub(crate) struct Stream {
    bus: EventBus,
    account: AccountRowId,
    next: u64,
    published: watch::Receiver<u64>,
}

impl Stream {
    /// Returns the next event once there is one; `None` when it is no longer kept, because the stream is too far
    /// behind.
    pub(crate) async fn next(&mut self) -> Option<Arc<Event>> {
        loop {
            // Register before looking, so an event published meanwhile is not missed.
            self.published.borrow_and_update();
            if let Some(found) = self.poll_next_event()? {
                self.next += 1;
                return Some(found);
            }
            self.published.changed().await.ok()?;
        }
    }

    /// Waits until the stream is too far behind: its next event is no longer kept.
    pub(crate) async fn lagged(&mut self) {
        loop {
            self.published.borrow_and_update();
            if self.poll_next_event().is_none() || self.published.changed().await.is_err() {
                return;
            }
        }
    }

    #[expect(clippy::option_option, reason = "the outer None is an event no longer kept, the inner one none yet")]
    fn poll_next_event(&self) -> Option<Option<Arc<Event>>> {
        let accounts = self.bus.accounts();
        let recent = accounts.get(&self.account)?;
        let at = usize::try_from(self.next.checked_sub(recent.first)?).ok()?;
        Some(recent.events.get(at).cloned())
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        if let Some(recent) = self.bus.accounts().get_mut(&self.account) {
            recent.streams = recent.streams.saturating_sub(1);
        }
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests may panic")]

    use crate::id::RowId;
    use futures_util::FutureExt as _;

    use super::*;

    fn notify(all: &EventBus, account: AccountRowId, number: usize) {
        let body = Body::Json { event_type: "email.sent", json: "{}".to_owned() };
        all.publish(account, Event { id: format!("evt_{number}"), domain: None, body });
    }

    fn next(stream: &mut Stream) -> Option<Option<String>> {
        stream.next().now_or_never().map(|event| event.map(|event| event.id.clone()))
    }

    #[test]
    fn a_stream_begins_with_what_is_new_or_after_a_known_event() {
        let all = EventBus::default();
        notify(&all, RowId::new(1), 1);
        notify(&all, RowId::new(1), 2);
        let (mut stream, gap) = all.follow(RowId::new(1), None).unwrap();
        assert!(!gap);
        assert_eq!(next(&mut stream), None);
        let (mut resumed, gap) = all.follow(RowId::new(1), Some("evt_1")).unwrap();
        assert!(!gap);
        let (mut lost, gap) = all.follow(RowId::new(1), Some("evt_0")).unwrap();
        assert!(gap);
        notify(&all, RowId::new(1), 3);
        notify(&all, RowId::new(2), 4);
        let named = |id: &str| Some(Some(id.to_owned()));
        assert_eq!((next(&mut stream), next(&mut stream)), (named("evt_3"), None));
        assert_eq!(
            (next(&mut resumed), next(&mut resumed), next(&mut resumed)),
            (named("evt_2"), named("evt_3"), None)
        );
        assert_eq!((next(&mut lost), next(&mut lost)), (named("evt_3"), None));
    }

    #[test]
    fn who_is_a_thousand_events_behind_is_let_go() {
        let all = EventBus::default();
        let (mut slow, _) = all.follow(RowId::new(1), None).unwrap();
        (0..1_000).for_each(|number| notify(&all, RowId::new(1), number));
        assert_eq!(next(&mut slow), Some(Some("evt_0".to_owned())));
        (1_000..1_002).for_each(|number| notify(&all, RowId::new(1), number));
        assert_eq!(next(&mut slow), Some(None));
        assert!(all.follow(RowId::new(1), Some("evt_1")).unwrap().1, "no longer kept");
        assert!(!all.follow(RowId::new(1), Some("evt_2")).unwrap().1);
    }

    #[test]
    fn streams_and_accounts_are_limited() {
        let all = EventBus::default();
        let streams: Vec<_> = (0..20).map(|_| all.follow(RowId::new(1), None).unwrap()).collect();
        assert!(all.follow(RowId::new(1), None).is_err());
        drop(streams);
        let (mut followed, _) = all.follow(RowId::new(1), None).unwrap();
        (2..1_000).for_each(|account| notify(&all, RowId::new(account), 0));
        assert_eq!(all.accounts().len(), MAX_ACCOUNTS);
        notify(&all, RowId::new(1), 1);
        assert_eq!(next(&mut followed), Some(Some("evt_1".to_owned())), "a followed account is not forgotten");
    }
}
