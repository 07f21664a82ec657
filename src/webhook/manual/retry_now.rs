//! One attempt requested by a user (contract 6.2): immediate, whatever the lane's backlog.
//!
//! It is prepared, posted and recorded by the same code as the engine's attempt. Success removes the waiting job;
//! failure leaves it unchanged.

use std::sync::Arc;
use std::time::Instant;

use crate::clock::Timestamp;
use crate::id::{DeliveryRowId, JobRowId};
use crate::net::egress::EgressError;
use crate::store;
use crate::store::jobs;
use crate::store::webhooks::deliveries;
use crate::store::webhooks::deliveries::DeliveryStatus;
use crate::webhook::attempt::deliver::{Lookup, Trigger, Webhooks, begins};
use crate::webhook::flow_of;

/// The answer of an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Manual {
    /// Success by the route's ack mode.
    pub ok: bool,
    /// The HTTP status.
    pub status: u16,
}

/// The reason a user's attempt has no answer.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    /// The message was removed or dropped.
    #[error("the message is not stored any more")]
    MessageExpired,
    /// The message's object is missing or damaged.
    #[error("the stored message is missing or damaged")]
    MessageDamaged,
    /// The route was removed or is inactive.
    #[error("the route was removed or is inactive")]
    RouteGone,
    /// Another attempt of this delivery is running.
    #[error("an attempt of this delivery is in progress")]
    AttemptInProgress,
    /// The request was posted, and no HTTP answer came.
    #[error("no HTTP answer: {0}")]
    DeliveryFailed(EgressError),
    /// A storage error; the attempt may have been made and not recorded.
    #[error(transparent)]
    Store(#[from] store::Error),
}

impl Webhooks {
    /// Attempts a delivery now, in any state: rebuilt, signed anew, with its route's current URL and secrets.
    ///
    /// Success makes it `delivered` and ends its automatic retries; failure changes neither its state nor its step of
    /// the retry schedule. The attempt counts. It is made and recorded even if the caller stops waiting.
    ///
    /// # Errors
    /// Nothing was attempted (the account may be full, for example), or nothing answered; see [`Refused`].
    pub async fn retry(self: &Arc<Self>, delivery: DeliveryRowId, now: Timestamp) -> Result<Manual, Refused> {
        let jobs = self.db.read(move |connection| {
            let row = deliveries::find_by_row(connection, delivery)?;
            let pending: Vec<DeliveryRowId> =
                row.filter(|row| row.status == DeliveryStatus::Pending).map(|row| row.id).into_iter().collect();
            jobs::find_by_deliveries(connection, &pending)
        });
        let jobs = jobs.await?.into_iter().map(|(_, job)| job).collect();
        self.attempt_now(delivery, jobs, now).await
    }

    /// Does the same as [`Webhooks::retry`], with the delivery's `jobs` already known.
    pub(crate) async fn attempt_now(
        self: &Arc<Self>,
        delivery: DeliveryRowId,
        jobs: Vec<JobRowId>,
        now: Timestamp,
    ) -> Result<Manual, Refused> {
        // A separate task, because a client that disconnects must not leave an attempt unrecorded.
        let attempt = tokio::spawn(Arc::clone(self).attempt_by_hand(delivery, jobs, now));
        attempt.await.unwrap_or(Err(Refused::Store(store::Error::Stopped)))
    }

    async fn attempt_by_hand(
        self: Arc<Self>,
        delivery: DeliveryRowId,
        jobs: Vec<JobRowId>,
        now: Timestamp,
    ) -> Result<Manual, Refused> {
        // Held until the attempt is recorded.
        let Some(guard) = self.in_flight.enter(delivery) else { return Err(Refused::AttemptInProgress) };
        self.first_attempt_cache.clear();
        let waiting = Instant::now();
        let (found, _permit) = self.prepare(delivery, Trigger::Manual, now).await?;
        let prepared = match found {
            Lookup::Ready(prepared) => prepared,
            Lookup::Ended(Some((_, "route_gone"))) => return Err(Refused::RouteGone),
            Lookup::Ended(_) => return Err(Refused::MessageExpired),
            Lookup::Damaged(_) => return Err(Refused::MessageDamaged),
        };
        // The captured answer has to be stored, so a user's attempts are limited; automatic ones are bounded by the
        // schedule.
        let (limits, account) = (Arc::clone(&self.limits), prepared.delivery.account_id);
        self.db.read(move |connection| limits.admit_mail(connection, account)).await?;
        let posted = self.exchange(*prepared, Trigger::Manual, begins(now, waiting)).await;
        let delivered = posted.is_delivered();
        let answered = posted.answer.as_ref().map(|answer| Manual { ok: delivered, status: answer.status });
        let answered = answered.map_err(|error| Refused::DeliveryFailed(*error));
        let this = Arc::clone(&self);
        let flow = flow_of(posted.url(), posted.delivery().account_id);
        let recorded = self.db.write(move |tx| {
            let before = posted.delivery();
            let (status, next_attempt_at) =
                if delivered { (DeliveryStatus::Delivered, None) } else { (before.status, before.next_attempt_at) };
            if delivered {
                jobs::delete_all(tx, &jobs)?;
            }
            this.record(tx, posted, status, next_attempt_at)
        });
        let recorded = recorded.await?;
        drop(guard);
        if delivered {
            // Deliveries that wait for the endpoint need not do so any longer.
            self.jobs.probe(&flow, now);
        }
        recorded.into_iter().for_each(|recorded| self.publish(recorded));
        answered
    }
}
