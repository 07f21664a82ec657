//! The last events of each account, and the streams that follow them (contract 10).
//!
//! Told after the commit, never before. What is kept of an event is small: mail that was received is looked up when
//! it is written to a stream. Nothing here outlives the process; who comes back to a position that is not known any
//! more is told so.

use crate::id::{AccountRowId, DomainRowId, MessageRowId};
use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

/// Events kept for an account.
const KEPT: usize = 1_000;
/// Streams of an account at most.
const MAX_STREAMS: usize = 20;
/// Accounts whose events are kept; beyond them those that were quiet for longest are forgotten.
const MAX_ACCOUNTS: usize = 256;

/// Something that happened.
#[derive(Debug)]
pub(crate) struct Event {
    /// What `Last-Event-ID` names.
    pub(crate) id: String,
    /// The domain that it belongs to.
    pub(crate) domain: Option<DomainRowId>,
    /// What there is to tell.
    pub(crate) body: Body,
}

/// What an event tells.
#[derive(Debug)]
pub(crate) enum Body {
    /// `email.received`, of the message with this row id and the event's own id.
    Received(MessageRowId),
    /// Another event with its JSON.
    Told {
        /// `email.sent`, `email.bounced` or `delivery.updated`.
        event_type: &'static str,
        /// One line.
        json: String,
    },
}

/// Where events are told and followed; clones share it.
#[derive(Clone, Debug, Default)]
pub(crate) struct EventBus(Arc<Mutex<HashMap<AccountRowId, Ring>>>);

#[derive(Debug)]
struct Ring {
    events: VecDeque<Arc<Event>>,
    /// The number of the first event kept; they are counted from 0.
    first: u64,
    /// How many were told.
    told: watch::Sender<u64>,
    streams: usize,
}

impl Default for Ring {
    fn default() -> Self {
        Self { events: VecDeque::new(), first: 0, told: watch::Sender::new(0), streams: 0 }
    }
}

/// An account has all the streams that it may have.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("an account may have {MAX_STREAMS} streams")]
pub(crate) struct TooManyStreams;

impl EventBus {
    /// Tells the streams of an account.
    pub(crate) fn publish(&self, account: AccountRowId, event: Event) {
        let mut rings = self.rings();
        if rings.len() >= MAX_ACCOUNTS && !rings.contains_key(&account) {
            forget_one(&mut rings);
        }
        let ring = rings.entry(account).or_default();
        ring.events.push_back(Arc::new(event));
        if ring.events.len() > KEPT {
            ring.events.pop_front();
            ring.first += 1;
        }
        ring.told.send_replace(ring.first + ring.events.len() as u64);
    }

    /// A stream of an account's events after the one called `last`, or from now on. The second part says whether `last` is
    /// not known any more; then the stream begins with new events.
    ///
    /// # Errors
    /// The account has too many.
    pub(crate) fn follow(&self, account: AccountRowId, last: Option<&str>) -> Result<(Stream, bool), TooManyStreams> {
        let mut rings = self.rings();
        let ring = rings.entry(account).or_default();
        if ring.streams >= MAX_STREAMS {
            return Err(TooManyStreams);
        }
        ring.streams += 1;
        let end = ring.first + ring.events.len() as u64;
        let found = last.map(|last| ring.events.iter().rposition(|event| event.id == last));
        let (next, gap) = match found {
            None => (end, false),
            Some(Some(at)) => (ring.first + at as u64 + 1, false),
            Some(None) => (end, true),
        };
        let news = ring.told.subscribe();
        Ok((Stream { all: self.clone(), account, next, news }, gap))
    }

    fn rings(&self) -> MutexGuard<'_, HashMap<AccountRowId, Ring>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Makes room by forgetting an account that nobody follows, if there is one.
fn forget_one(rings: &mut HashMap<AccountRowId, Ring>) {
    let quiet = rings.iter().filter(|(_, ring)| ring.streams == 0).min_by_key(|(_, ring)| ring.events.len());
    if let Some(account) = quiet.map(|(account, _)| *account) {
        rings.remove(&account);
    }
}

/// A position in the events of an account.
#[derive(Debug)]
pub(crate) struct Stream {
    all: EventBus,
    account: AccountRowId,
    next: u64,
    news: watch::Receiver<u64>,
}

impl Stream {
    /// The next event, once there is one; `None` when it is not kept any more, because the stream is too far behind.
    pub(crate) async fn next(&mut self) -> Option<Arc<Event>> {
        loop {
            // Before the look, so that what comes after it is noticed.
            self.news.borrow_and_update();
            if let Some(found) = self.poll_next_event()? {
                self.next += 1;
                return Some(found);
            }
            self.news.changed().await.ok()?;
        }
    }

    /// Waits until the stream is too far behind: the next event is not kept any more.
    pub(crate) async fn lost(&mut self) {
        loop {
            self.news.borrow_and_update();
            if self.poll_next_event().is_none() || self.news.changed().await.is_err() {
                return;
            }
        }
    }

    #[expect(clippy::option_option, reason = "nothing yet, and nothing any more")]
    fn poll_next_event(&self) -> Option<Option<Arc<Event>>> {
        let rings = self.all.rings();
        let ring = rings.get(&self.account)?;
        let at = usize::try_from(self.next.checked_sub(ring.first)?).ok()?;
        Some(ring.events.get(at).cloned())
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        if let Some(ring) = self.all.rings().get_mut(&self.account) {
            ring.streams = ring.streams.saturating_sub(1);
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
        let body = Body::Told { event_type: "email.sent", json: "{}".to_owned() };
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
        let (mut fresh, gap) = all.follow(RowId::new(1), None).unwrap();
        assert!(!gap);
        assert_eq!(next(&mut fresh), None);
        let (mut resumed, gap) = all.follow(RowId::new(1), Some("evt_1")).unwrap();
        assert!(!gap);
        let (mut lost, gap) = all.follow(RowId::new(1), Some("evt_0")).unwrap();
        assert!(gap);
        notify(&all, RowId::new(1), 3);
        notify(&all, RowId::new(2), 4);
        let named = |id: &str| Some(Some(id.to_owned()));
        assert_eq!((next(&mut fresh), next(&mut fresh)), (named("evt_3"), None));
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
        let (mut kept, _) = all.follow(RowId::new(1), None).unwrap();
        (2..1_000).for_each(|account| notify(&all, RowId::new(account), 0));
        assert_eq!(all.rings().len(), MAX_ACCOUNTS);
        notify(&all, RowId::new(1), 1);
        assert_eq!(next(&mut kept), Some(Some("evt_1".to_owned())), "a followed account is not forgotten");
    }
}
