//! An in-memory cache of small mail that was accepted a moment ago, so that its first attempt needs no database read.
//! Anything missing here, too old, or older than a change of the routes is read from the database.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use hyper::body::Bytes;

use crate::id::{AccountRowId, DeliveryRowId};
use crate::store::messages::MessageRow;
use crate::store::webhooks::deliveries::DeliveryRow;
use crate::store::webhooks::routes::RouteRow;

/// Age at which an entry is discarded, because its row may have changed.
const MAX_AGE: Duration = Duration::from_millis(250);
/// Limit of cached mail data, in octets.
const MAX_OCTETS: usize = 4 * 1024 * 1024;

/// A delivery with all inputs of its payload, as the transaction stored them.
#[derive(Clone, Debug)]
pub(crate) struct CachedMessage {
    pub(crate) delivery: DeliveryRow,
    /// Its message, which has no attachments.
    pub(crate) message: Arc<MessageRow>,
    pub(crate) route: Arc<RouteRow>,
    /// Version of the account's routes that `route` was read at.
    pub(crate) version: u64,
}

/// Cached deliveries by row id; clones share them.
#[derive(Clone, Debug, Default)]
pub(crate) struct FirstAttemptCache {
    cached: Arc<Mutex<CacheMap>>,
}

#[derive(Debug, Default)]
struct CacheMap {
    mails: HashMap<DeliveryRowId, (CachedMessage, Bytes, Instant)>,
    /// Oldest first; may hold ids that `mails` no longer has.
    order: VecDeque<DeliveryRowId>,
    octets: usize,
}

impl FirstAttemptCache {
    /// Caches a delivery and its mail data for the first attempt.
    pub(crate) fn put(&self, message: CachedMessage, data: Bytes) {
        let mut cached = self.cached.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        cached.octets += data.len();
        cached.order.push_back(message.delivery.id);
        cached.mails.insert(message.delivery.id, (message, data, now));
        while let Some(oldest) = cached.order.front().copied() {
            let stays = cached.mails.get(&oldest).is_some_and(|(_, _, at)| now.duration_since(*at) < MAX_AGE);
            if stays && cached.octets <= MAX_OCTETS {
                break;
            }
            cached.order.pop_front();
            cached.remove(oldest);
        }
    }

    /// Removes and returns a delivery if its account's routes still have the version it was routed by.
    pub(crate) fn take(
        &self,
        delivery: DeliveryRowId,
        version_of: impl FnOnce(AccountRowId) -> u64,
    ) -> Option<(CachedMessage, Bytes)> {
        let (message, data, at) = self.cached.lock().unwrap_or_else(PoisonError::into_inner).remove(delivery)?;
        (message.version == version_of(message.delivery.account_id) && at.elapsed() < MAX_AGE)
            .then_some((message, data))
    }

    /// Clears the cache, which is small at any time: a message was removed, or a user retried a delivery.
    pub(crate) fn clear(&self) {
        *self.cached.lock().unwrap_or_else(PoisonError::into_inner) = CacheMap::default();
    }
}

impl CacheMap {
    fn remove(&mut self, delivery: DeliveryRowId) -> Option<(CachedMessage, Bytes, Instant)> {
        let removed = self.mails.remove(&delivery)?;
        self.octets = self.octets.saturating_sub(removed.1.len());
        Some(removed)
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests may panic")]

    use super::*;
    use crate::clock::Timestamp;
    use crate::id::RowId;
    use crate::id::{DeliveryId, MessageId, RouteId};
    use crate::store::messages::NewMessage;
    use crate::store::webhooks::deliveries::DeliveryStatus;
    use crate::store::webhooks::routes::Action;

    const NOW: Timestamp = Timestamp::from_millis(1_785_196_800_000);

    fn cached_message(id: DeliveryRowId) -> CachedMessage {
        let (message_id, route_id) = (MessageId::new(NOW), RouteId::new(NOW));
        let new = NewMessage {
            public_id: message_id.clone(),
            account_id: RowId::new(1),
            domain_id: None,
            route_id: None,
            mail_from: String::new(),
            from_addr: String::new(),
            from_name: None,
            to_addr: String::new(),
            to_name: None,
            subject: None,
            message_id_header: None,
            thread_id: None,
            spf: None,
            dkim: None,
            dmarc: None,
            spam: None,
            trace: String::new(),
            truncated: false,
            attachment_count: 0,
            size: 0,
            mail_data_id: RowId::new(1),
        };
        let route = RouteRow {
            public_id: route_id.clone(),
            account_id: RowId::new(1),
            domain_id: None,
            match_pattern: "*@a.test".to_owned(),
            action: Action::Webhook,
            destination: None,
            ack_mode: None,
            active: true,
            secret_sealed: None,
            previous_secret_sealed: None,
            previous_valid_until: None,
            is_domain_webhook: false,
            last_status: None,
            last_status_code: None,
            created_at: NOW,
            updated_at: NOW,
            on_auth_fail: crate::store::webhooks::routes::OnAuthFail::Refuse,
        };
        let delivery = DeliveryRow {
            id,
            public_id: DeliveryId::new(NOW),
            account_id: RowId::new(1),
            message: Some(RowId::new(1)),
            route_id: Some(route_id),
            event_id: message_id.to_string(),
            event_type: "email.received".to_owned(),
            url: String::new(),
            status: DeliveryStatus::Pending,
            attempts: 0,
            last_status_code: None,
            last_error: None,
            next_attempt_at: None,
            created_at: NOW,
            updated_at: NOW,
        };
        CachedMessage {
            delivery,
            message: Arc::new(new.into_row(RowId::new(1), NOW)),
            route: Arc::new(route),
            version: 3,
        }
    }

    #[test]
    fn a_delivery_is_taken_once_and_only_while_its_route_is_the_present_one() {
        let mail = FirstAttemptCache::default();
        for id in 1..=4 {
            mail.put(cached_message(RowId::new(id)), Bytes::from_static(b"data"));
        }
        assert_eq!(mail.take(RowId::new(1), |_| 3).unwrap().1, "data");
        assert!(mail.take(RowId::new(1), |_| 3).is_none());
        assert!(mail.take(RowId::new(2), |_| 4).is_none(), "a route may have changed");
        assert!(mail.take(RowId::new(3), |_| 3).is_some());
        mail.clear();
        assert!(mail.take(RowId::new(4), |_| 3).is_none());
        assert_eq!(mail.cached.lock().unwrap().octets, 0);
    }

    #[test]
    fn the_oldest_go_when_there_are_too_many_octets() {
        let mail = FirstAttemptCache::default();
        let data = Bytes::from(vec![b'x'; MAX_OCTETS / 4]);
        for id in 1..=6 {
            mail.put(cached_message(RowId::new(id)), data.clone());
        }
        assert!(mail.take(RowId::new(1), |_| 3).is_none() && mail.take(RowId::new(2), |_| 3).is_none());
        let cached = mail.cached.lock().unwrap();
        assert!(cached.octets <= MAX_OCTETS && cached.mails.len() <= 4 && cached.order.len() == cached.mails.len());
    }
}
