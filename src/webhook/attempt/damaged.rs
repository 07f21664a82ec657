//! Ends a delivery whose message cannot be posted as it was accepted because its object is missing or damaged.
//!
//! It counts as an attempt and fails permanently: the bytes on disk would be wrong each time, and a pending delivery
//! would hide that. An error that says nothing about the object (no descriptor, a failed read) is retried instead.

use crate::store::Connection;

use super::prepare::Damaged;
use super::record::{ChangedDelivery, Recorded};
use crate::clock::Timestamp;
use crate::event_bus::Activity;
use crate::id::AttemptId;
use crate::store;
use crate::store::webhooks::attempts::Attempt;
use crate::store::webhooks::deliveries::{DeliveryStatus, Progress};
use crate::store::webhooks::{attempts, deliveries};
use crate::webhook::Webhooks;

/// The `last_error` value (contract 6.1).
pub(crate) const WORD: &str = "message_damaged";

impl Webhooks {
    /// Records that such a delivery failed; `None` if it no longer waits.
    pub(super) fn record_damaged(
        &self,
        tx: &Connection,
        damaged: Damaged,
        now: Timestamp,
    ) -> store::Result<Option<Recorded>> {
        let Damaged { delivery, domain, url } = damaged;
        let present = deliveries::find_by_row(tx, delivery.id)?;
        // The message may have been removed meanwhile, and its object with it.
        if present.is_none_or(|row| row.message != delivery.message || row.status != DeliveryStatus::Pending) {
            return Ok(None);
        }
        let attempt = Attempt {
            public_id: AttemptId::new(now),
            attempt: delivery.attempts + 1,
            manual: false,
            request_url: url.clone(),
            request_headers: "{}".to_owned(),
            status_code: None,
            response_headers: None,
            response_body: None,
            response_truncated: false,
            error: Some(WORD.to_owned()),
            duration_ms: 0,
            created_at: now,
        };
        attempts::insert(tx, delivery.id, &attempt)?;
        let progress = Progress {
            status: DeliveryStatus::Failed,
            url: &url,
            status_code: None,
            error: Some(WORD),
            next_attempt_at: None,
        };
        deliveries::record_attempt(tx, delivery.id, attempt.attempt, &progress, now)?;
        let activity = Activity::Attempted {
            delivery_id: delivery.public_id.to_string(),
            message_id: delivery.event_id.clone(),
            url: url.clone(),
            attempt: attempt.attempt,
            status_code: None,
            error: Some(WORD),
            status: DeliveryStatus::Failed.as_str(),
            duration_ms: 0,
            next_attempt_at: None,
        };
        let account = delivery.account_id;
        let changed = ChangedDelivery {
            message: delivery.event_id.clone(),
            domain,
            status: DeliveryStatus::Failed,
            attempts: attempt.attempt,
            last_status_code: delivery.last_status_code,
            url,
            at: now,
            delivery,
        };
        Ok(Some(Recorded { changed: Some(changed), activity: Some(activity), ..Recorded::new(account) }))
    }
}
