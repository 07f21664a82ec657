//! Ends a delivery whose message cannot be posted as it was accepted because its object is missing or damaged.
//!
//! It counts as an attempt and fails permanently: the bytes on disk would be wrong each time, and a pending delivery
//! would hide that. An error that says nothing about the object (no descriptor, a failed read) is retried instead.

use std::sync::Arc;

use crate::store::Connection;

use super::deliver::Webhooks;
use crate::clock::Timestamp;
use crate::event_bus::Activity;
use crate::id::{AttemptId, DomainRowId};
use crate::jobs::{AfterCommit, AttemptResult, Health, Verdict};
use crate::metrics::Counter;
use crate::store;
use crate::store::webhooks::attempts::Attempt;
use crate::store::webhooks::deliveries::DeliveryStatus;
use crate::store::webhooks::deliveries::{DeliveryRow, Progress};
use crate::store::webhooks::{attempts, deliveries};
use crate::webhook::events::delivery_updated;
use crate::webhook::events::delivery_updated::DeliveryState;

/// The `last_error` value (contract 6.1).
pub(crate) const WORD: &str = "message_damaged";

/// A delivery whose stored message is no longer what was accepted.
pub(crate) struct Damaged {
    pub(crate) delivery: DeliveryRow,
    pub(crate) domain: Option<DomainRowId>,
    /// The URL it would have been posted to.
    pub(crate) url: String,
}

impl Webhooks {
    /// Settles the job of such a delivery.
    pub(crate) fn attempted_damaged(self: Arc<Self>, damaged: Damaged, now: Timestamp) -> AttemptResult {
        self.metrics.add(Counter::WebhooksRejected);
        let record = move |tx: &Connection, _| self.record_damaged(tx, damaged, now);
        AttemptResult { verdict: Verdict::Failed, health: Health::Unknown, record: Box::new(record) }
    }

    fn record_damaged(
        self: Arc<Self>,
        tx: &Connection,
        damaged: Damaged,
        now: Timestamp,
    ) -> store::Result<Option<AfterCommit>> {
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
        Ok(Some(Box::new(move || {
            let standing = DeliveryState {
                status: DeliveryStatus::Failed,
                attempts: attempt.attempt,
                last_status_code: delivery.last_status_code,
                paused_until: self.paused_until(&url, delivery.account_id, now),
            };
            let event = delivery_updated::event(&delivery, &delivery.event_id, domain, standing, now);
            self.publisher.realtime.publish(delivery.account_id, event);
            self.publisher.publish(|| Activity::Attempted {
                delivery_id: delivery.public_id.to_string(),
                message_id: delivery.event_id,
                url,
                attempt: attempt.attempt,
                status_code: None,
                error: Some(WORD),
                status: DeliveryStatus::Failed.as_str(),
                duration_ms: 0,
                next_attempt_at: None,
            });
        })))
    }
}
