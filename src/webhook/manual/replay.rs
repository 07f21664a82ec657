//! Batches of attempts requested by a user: bulk retry (contract 6.3) and replay to a route (6.4); also ends the
//! pending deliveries of a removed route (4.4).

use std::collections::HashMap;
use std::sync::Arc;

use crate::store::Connection;
use futures_util::future::join_all;

use super::retry_now::{Manual, Refused};
use crate::clock::Timestamp;
use crate::id::{AccountRowId, DeliveryId, DeliveryRowId, DomainRowId, JobRowId, MessageId, MessageRowId, RouteId};
use crate::store::webhooks::deliveries;
use crate::store::webhooks::deliveries::DeliveryStatus;
use crate::store::webhooks::deliveries::{DeliveryRow, NewDelivery};
use crate::store::webhooks::routes;
use crate::store::webhooks::routes::RouteRow;
use crate::store::{self, jobs, messages, search};
use crate::webhook::attempt::deliver::Webhooks;

/// Limit of ids in one call, and of the attempts that result from them (contract 1.9).
pub(crate) const BULK_MAX: usize = 50;
/// Deliveries ended in one transaction.
const END_STEP: u32 = 500;

/// The owner of the deliveries and messages that an id may refer to; others are not found.
#[derive(Clone, Copy, Debug)]
pub struct Scope {
    /// The account.
    pub account: AccountRowId,
    /// The one domain of a scoped key; a message belongs to a domain, and its deliveries belong to the same one.
    pub domain: Option<DomainRowId>,
}

/// A target of a retry, by the id that the client gave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Item {
    /// One delivery.
    Delivery(String),
    /// The latest delivery of a message to each route.
    Message(String),
    /// All messages of a thread.
    Thread(String),
}

/// The result of one attempt, or of an id without one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BulkResult {
    /// The requested id.
    pub id: String,
    /// The delivery it refers to, if there is one.
    pub delivery: Option<DeliveryId>,
    /// The answer, or the code of contract 6.3 that says why there is none.
    pub outcome: Result<Manual, &'static str>,
}

/// The reason a bulk call did nothing.
#[derive(Debug, thiserror::Error)]
pub enum BulkError {
    /// The call needs 1 to 50 ids, and at most 50 attempts that result from them.
    #[error("expected 1 to {BULK_MAX} ids that stand for at most {BULK_MAX} attempts")]
    Count,
    /// A storage error; some attempts may have been made.
    #[error(transparent)]
    Store(#[from] store::Error),
}

store::transaction_error!(BulkError);

/// Target of an id, or the code in its result (contract 6.3): one bad id does not fail the others.
type Resolved<T> = Result<T, &'static str>;

/// An id of the request with one delivery it refers to, or the reason there is none.
struct Planned {
    id: String,
    target: Resolved<DeliveryRow>,
}

impl Webhooks {
    /// Retries all deliveries that the ids refer to, in parallel. Results are in the order of `items`; an id with
    /// several deliveries has one result for each. A delivery that several ids refer to is attempted once.
    ///
    /// # Errors
    /// Too many or no ids or attempts, or a storage error.
    pub async fn retry_many(
        self: &Arc<Self>,
        scope: Scope,
        items: Vec<Item>,
        now: Timestamp,
    ) -> Result<Vec<BulkResult>, BulkError> {
        if items.is_empty() || items.len() > BULK_MAX {
            return Err(BulkError::Count);
        }
        let plan = self.db.try_read(move |connection| resolve_all(connection, scope, items)).await?;
        self.attempt_all(plan, now).await
    }

    /// Posts stored inbound messages to a webhook route; a message without a delivery to that route gets one. Results
    /// are in the order of `message_ids`.
    ///
    /// # Errors
    /// Too many or no ids, or a storage error.
    pub async fn deliver_route(
        self: &Arc<Self>,
        scope: Scope,
        route: RouteId,
        message_ids: Vec<String>,
        now: Timestamp,
    ) -> Result<Vec<BulkResult>, BulkError> {
        if message_ids.is_empty() || message_ids.len() > BULK_MAX {
            return Err(BulkError::Count);
        }
        let plan = self.db.write(move |tx| {
            let route = routes::find(tx, &route)?.filter(|route| route.active);
            let planned = |id: String| -> store::Result<Planned> {
                let target = resolve_target(tx, scope, route.as_ref(), &id, now)?;
                Ok(Planned { id, target })
            };
            message_ids.into_iter().map(planned).collect::<store::Result<Vec<_>>>()
        });
        self.attempt_all(plan.await?, now).await
    }

    /// Ends the pending deliveries of removed or stopped routes (`route_gone`), in batches; returns how many.
    ///
    /// Call it after the commit that removed or stopped them. Deliveries that a crash leaves pending are ended by the
    /// job engine when they are due. A running attempt is not interrupted: only its success counts.
    pub async fn end_routes(self: &Arc<Self>, routes: Vec<RouteId>, now: Timestamp) -> store::Result<usize> {
        let this = Arc::clone(self);
        let ending = tokio::spawn(async move {
            let routes: Arc<[RouteId]> = routes.into();
            let (mut after, mut ended) = (JobRowId::new(0), 0);
            loop {
                let asked = Arc::clone(&routes);
                let step =
                    this.db.read(move |c| deliveries::list_pending_of_routes(c, &asked, after, END_STEP)).await?;
                let Some((last, _)) = step.last().copied() else { return Ok(ended) };
                after = last;
                ended += step.len();
                let asked = Arc::clone(&routes);
                this.db.write_nosync(move |tx| end_step(tx, &asked, &step, now)).await?;
            }
        });
        ending.await.unwrap_or(Err(store::Error::Stopped))
    }

    async fn attempt_all(self: &Arc<Self>, plan: Vec<Planned>, now: Timestamp) -> Result<Vec<BulkResult>, BulkError> {
        let rows = plan.iter().filter_map(|planned| planned.target.as_ref().ok());
        let pending: Vec<DeliveryRowId> =
            rows.clone().filter(|row| row.status == DeliveryStatus::Pending).map(|row| row.id).collect();
        let mut waiting: HashMap<DeliveryRowId, Vec<JobRowId>> = rows.map(|row| (row.id, Vec::new())).collect();
        for (delivery, job) in self.db.read(move |connection| jobs::find_by_deliveries(connection, &pending)).await? {
            waiting.entry(delivery).or_default().push(job);
        }
        let attempts = waiting.into_iter().map(|(delivery, jobs)| async move {
            let outcome = match self.attempt_now(delivery, jobs, now).await {
                Ok(answered) => Ok(answered),
                Err(refused) => Err(reason(refused)?),
            };
            Ok((delivery, outcome))
        });
        let outcomes = join_all(attempts).await.into_iter().collect::<store::Result<HashMap<_, _>>>()?;
        let result = |Planned { id, target }| match target {
            Ok(row) => {
                let outcome = outcomes.get(&row.id).copied().unwrap_or(Err("not_found"));
                BulkResult { id, delivery: Some(row.public_id), outcome }
            }
            Err(word) => BulkResult { id, delivery: None, outcome: Err(word) },
        };
        Ok(plan.into_iter().map(result).collect())
    }
}

/// Returns the code of contract 6.3; a storage error has none.
fn reason(refused: Refused) -> store::Result<&'static str> {
    match refused {
        Refused::MessageExpired => Ok("message_expired"),
        Refused::MessageDamaged => Ok("content_damaged"),
        Refused::RouteGone => Ok("route_gone"),
        Refused::AttemptInProgress => Ok("attempt_in_progress"),
        Refused::DeliveryFailed(_) => Ok("delivery_failed"),
        Refused::Store(error) => Err(error),
    }
}

fn resolve_all(connection: &Connection, scope: Scope, items: Vec<Item>) -> Result<Vec<Planned>, BulkError> {
    let mut plan: Vec<Planned> = Vec::new();
    for item in items {
        let (id, targets) = match item {
            Item::Delivery(id) => {
                let found = match DeliveryId::parse(&id) {
                    Some(id) => deliveries::find_in_scope(connection, &id, scope.account, scope.domain)?,
                    None => None,
                };
                (id, found.map(|row| vec![row]).ok_or("not_found"))
            }
            Item::Message(id) => {
                let message = find_message(connection, scope, &id)?;
                let targets = message.map(|message| latest(connection, &[message])).transpose()?;
                (id, targets.unwrap_or(Err("not_found")))
            }
            Item::Thread(id) => {
                let thread = search::list_thread(connection, scope.account, &id, scope.domain)?;
                let targets = if thread.is_empty() { Err("not_found") } else { latest(connection, &thread)? };
                (id, targets)
            }
        };
        match targets {
            Ok(rows) => plan.extend(rows.into_iter().map(|row| Planned { id: id.clone(), target: Ok(row) })),
            Err(word) => plan.push(Planned { id, target: Err(word) }),
        }
        if attempts(&plan) > BULK_MAX {
            return Err(BulkError::Count);
        }
    }
    Ok(plan)
}

/// Returns the number of attempts in a plan: one for each delivery.
fn attempts(plan: &[Planned]) -> usize {
    let mut rows: Vec<DeliveryRowId> =
        plan.iter().filter_map(|planned| planned.target.as_ref().ok()).map(|row| row.id).collect();
    rows.sort_unstable();
    rows.dedup();
    rows.len()
}

/// Returns the latest delivery per route of each message; stops soon after the limit is exceeded.
fn latest(connection: &Connection, messages: &[MessageRowId]) -> store::Result<Resolved<Vec<DeliveryRow>>> {
    let mut rows = Vec::new();
    for message in messages {
        rows.extend(deliveries::list_latest(connection, *message)?);
        if rows.len() > BULK_MAX {
            break;
        }
    }
    Ok(if rows.is_empty() { Err("no_delivery") } else { Ok(rows) })
}

fn find_message(connection: &Connection, scope: Scope, id: &str) -> store::Result<Option<MessageRowId>> {
    let Some(id) = MessageId::parse(id) else { return Ok(None) };
    messages::find_in_scope(connection, &id, scope.account, scope.domain)
}

/// Returns the delivery of a message to `route`, created if missing, or the reason it cannot be.
fn resolve_target(
    tx: &Connection,
    scope: Scope,
    route: Option<&RouteRow>,
    id: &str,
    now: Timestamp,
) -> store::Result<Resolved<DeliveryRow>> {
    let Some(id) = MessageId::parse(id) else { return Ok(Err("not_found")) };
    let Some(message) = messages::find_in_scope(tx, &id, scope.account, scope.domain)? else {
        return Ok(Err("not_found"));
    };
    match messages::replayable(tx, message)? {
        None => return Ok(Err("not_found")),
        Some(false) => return Ok(Err("message_expired")),
        Some(true) => {}
    }
    let Some((route, url)) = route.and_then(|route| Some((route, route.destination.as_deref()?))) else {
        return Ok(Err("route_gone"));
    };
    if let Some(row) = deliveries::find_received(tx, message, &route.public_id)? {
        return Ok(Ok(row));
    }
    let new = NewDelivery { account_id: scope.account, message, message_id: &id, route_id: &route.public_id, url };
    let made = deliveries::insert_replayed(tx, &new, now)?;
    Ok(deliveries::find_by_row(tx, made)?.ok_or("not_found"))
}

/// Ends the deliveries of `step`, pairs of job and delivery, that are unchanged; a claimed job finds its delivery
/// ended.
fn end_step(
    tx: &Connection,
    ids: &[RouteId],
    step: &[(JobRowId, DeliveryRowId)],
    now: Timestamp,
) -> store::Result<()> {
    // Meanwhile a domain's webhook may have been restored, or a stopped route restarted.
    let mut gone = Vec::with_capacity(ids.len());
    for route in ids {
        if routes::find(tx, route)?.is_none_or(|row| !row.active) {
            gone.push(route);
        }
    }
    for (job, delivery) in step {
        let row = deliveries::find_by_row(tx, *delivery)?;
        if row.and_then(|row| row.route_id).is_some_and(|route| gone.contains(&&route)) {
            deliveries::end(tx, *delivery, "route_gone", now)?;
            jobs::delete_waiting(tx, *job)?;
        }
    }
    Ok(())
}
