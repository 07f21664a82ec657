//! Overview of an account's mail: counts over time, state of its endpoints, problems that need attention (ours).
//!
//! Counts are stored per minute, the rest comes from a sample of the newest deliveries. Answers are cached for a
//! moment, so that a dashboard that asks at every event costs no more than one that does not.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use crate::id::{AccountRowId, MessageRowId};
use crate::store::Connection;
use axum::Json;
use axum::extract::State;
use moka::sync::Cache;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::{IntoParams, ToSchema};

use super::server::{DiskView, QueueView};
use crate::clock::Timestamp;
use crate::http::AppState;
use crate::http::auth::Caller;
use crate::http::error::{ApiError, Code};
use crate::http::extract::Query;
use crate::store;
use crate::store::accounts::domains;
use crate::store::accounts::stats;
use crate::store::accounts::stats::Steps;
use crate::store::webhooks::deliveries::DeliveryRow;
use crate::store::webhooks::deliveries::DeliveryStatus;
use crate::store::webhooks::delivery_list;

/// Lifetime of a cached answer.
const CACHE_LIFETIME: Duration = Duration::from_secs(2);
const MAX_CACHED: u64 = 1_000;
const MAX_ENDPOINTS: usize = 20;
/// A certificate that expires sooner needs attention.
const CERTIFICATE_SOON: Duration = Duration::from_secs(14 * 86_400);

/// Account and range.
type Key = (AccountRowId, &'static str);

/// Cached answers, with their creation times.
pub(crate) struct OverviewCache(Cache<Key, (Timestamp, Value)>);

impl Default for OverviewCache {
    fn default() -> Self {
        Self(Cache::new(MAX_CACHED))
    }
}

impl OverviewCache {
    fn find(&self, key: Key, now: Timestamp) -> Option<Value> {
        let (made, answer) = self.0.get(&key)?;
        (made <= now && now.since(made) < CACHE_LIFETIME).then_some(answer)
    }

    fn insert(&self, key: Key, now: Timestamp, answer: Value) {
        self.0.insert(key, (now, answer));
    }
}

/// `GET /api/overview`
#[derive(Deserialize, IntoParams)]
pub(crate) struct OverviewQuery {
    /// `hour`, `day` (default) or `week`.
    range: Option<String>,
}

#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Overview {
    /// `hour`, `day` or `week`.
    range: &'static str,
    /// Length of a bucket: a minute, an hour or six.
    bucket_ms: i64,
    /// Oldest first, empty ones too.
    buckets: Vec<Bucket>,
    totals: Totals,
    /// Share of finished deliveries that were delivered; null if none finished.
    success_rate: Option<f64>,
    latency_ms: Latency,
    queue: QueueView,
    /// From the newest 2,000 deliveries: at most twenty, failing ones first.
    endpoints: Vec<EndpointView>,
    /// Problems that need attention.
    attention: Vec<Attention>,
}

/// A time interval.
#[derive(Serialize, ToSchema)]
struct Bucket {
    /// Start of the interval.
    at: Timestamp,
    /// Messages that arrived.
    received: u64,
    /// Messages accepted for sending.
    sent: u64,
    /// Deliveries of events in this interval that were acknowledged.
    delivered: u64,
    /// Deliveries of events in this interval that failed permanently.
    failed: u64,
}

/// Sums over all buckets.
#[derive(Clone, Copy, Default, Serialize, ToSchema)]
struct Totals {
    received: u64,
    sent: u64,
    delivered: u64,
    failed: u64,
}

/// Time from event to acknowledgement, of the newest 2,000 deliveries.
#[derive(Clone, Copy, Default, Serialize, ToSchema)]
struct Latency {
    p50: Option<i64>,
    p99: Option<i64>,
}

/// State of an endpoint.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct EndpointView {
    url: String,
    domain: Option<String>,
    route_id: Option<String>,
    delivered: u64,
    failed: u64,
    waiting: u64,
    /// Of the latest attempt; null if no attempt got an answer.
    last_status_code: Option<u16>,
    last_attempt_at: Option<Timestamp>,
    /// Earliest time of the next attempt while the endpoint pauses after failures.
    paused_until: Option<Timestamp>,
}

impl EndpointView {
    /// Returns true if the endpoint pauses, or its latest attempt failed and more than one delivery is waiting or
    /// failed.
    fn is_failing(&self) -> bool {
        let well = self.last_status_code.is_some_and(|code| (200..300).contains(&code));
        let behind = self.last_attempt_at.is_some() && self.failed + self.waiting > 1;
        self.paused_until.is_some() || (behind && (self.delivered == 0 || !well))
    }
}

/// A problem that needs attention.
#[derive(Serialize, ToSchema)]
struct Attention {
    /// `domain_unverified`, `endpoint_failing`, `deliveries_failed`, `bounces`, `certificate`, `disk`,
    /// `objects_damaged` or `objects_orphaned`.
    kind: &'static str,
    title: String,
    detail: String,
    /// Path of the dashboard's screen for it.
    link: Option<String>,
}

/// `GET /api/overview`
pub(crate) async fn overview(
    State(app): State<AppState>,
    caller: Caller,
    Query(query): Query<OverviewQuery>,
) -> Result<Json<Value>, ApiError> {
    let (range, step_ms, count) = match query.range.as_deref().unwrap_or("day") {
        "hour" => ("hour", 60_000, 60),
        "day" | "" => ("day", 3_600_000, 24),
        "week" => ("week", 21_600_000, 28),
        _ => return Err(ApiError::field(Code::BadQuery, "range", "range is hour, day or week")),
    };
    let now = app.clock.now();
    let key = (caller.id(), range);
    if let Some(answer) = app.overviews.find(key, now) {
        return Ok(Json(answer));
    }
    // Buckets begin at whole minutes and hours; the last one contains the present.
    let last = now.as_millis() - now.as_millis().rem_euclid(step_ms);
    let from = Timestamp::from_millis(last - step_ms * (count - 1));
    let steps = Steps { from, step_ms, count: usize::try_from(count).unwrap_or(0) };
    let account = caller.id();
    let webhooks = Arc::clone(&app.webhooks);
    let pause = move |url: &str| webhooks.paused_until(url, account, now);
    let mut overview = app.db.read(move |connection| gather(connection, account, range, steps, pause)).await?;
    if caller.account.is_admin {
        overview.attention.extend(server_problems(&app, now));
    }
    let answer = serde_json::to_value(overview).map_err(|_| Code::Internal)?;
    app.overviews.insert(key, now, answer.clone());
    Ok(Json(answer))
}

fn gather(
    connection: &Connection,
    account: AccountRowId,
    range: &'static str,
    steps: Steps,
    pause: impl Fn(&str) -> Option<Timestamp>,
) -> store::Result<Overview> {
    let counts = stats::count(connection, account, steps)?;
    let mut totals = Totals::default();
    let mut bounced = 0;
    let mut buckets = Vec::with_capacity(steps.count);
    for (at, step) in (0_i64..).zip(counts) {
        let bucket = Bucket {
            at: Timestamp::from_millis(steps.from.as_millis() + at * steps.step_ms),
            received: step.received,
            sent: step.sent,
            delivered: step.delivered,
            failed: step.failed,
        };
        totals.received += bucket.received;
        totals.sent += bucket.sent;
        totals.delivered += bucket.delivered;
        totals.failed += bucket.failed;
        bounced += step.bounced;
        buckets.push(bucket);
    }
    let ended = totals.delivered + totals.failed;
    let sample = stats::sample(connection, account, steps.from)?;
    let mut endpoints = endpoints(connection, &sample)?;
    for endpoint in &mut endpoints {
        endpoint.paused_until = pause(&endpoint.url);
    }
    let unverified: Vec<String> = domains::list(connection, account, None)?
        .into_iter()
        .filter(|row| !row.verified)
        .map(|row| row.name)
        .collect();
    Ok(Overview {
        range,
        bucket_ms: steps.step_ms,
        buckets,
        success_rate: (ended > 0).then(|| totals.delivered as f64 / ended as f64),
        latency_ms: latency(&sample),
        queue: stats::waiting(connection, account)?.into(),
        attention: attention(&endpoints, totals, bounced, &unverified),
        totals,
        endpoints,
    })
}

fn latency(sample: &[DeliveryRow]) -> Latency {
    let delivered = sample.iter().filter(|row| row.status == DeliveryStatus::Delivered);
    let mut waits: Vec<i64> = delivered
        .map(|row| row.updated_at.as_millis() - row.created_at.as_millis())
        .map(|wait| wait.max(0))
        .collect();
    waits.sort_unstable();
    let at = |share: usize| waits.get((waits.len() * share / 100).min(waits.len().saturating_sub(1))).copied();
    Latency { p50: at(50), p99: at(99) }
}

fn endpoints(connection: &Connection, sample: &[DeliveryRow]) -> store::Result<Vec<EndpointView>> {
    let mut found: HashMap<&str, (EndpointView, Option<MessageRowId>)> = HashMap::new();
    for row in sample {
        let (endpoint, _) = found.entry(&row.url).or_insert_with(|| {
            let endpoint = EndpointView {
                url: row.url.clone(),
                domain: None,
                route_id: row.route_id.as_ref().map(ToString::to_string),
                delivered: 0,
                failed: 0,
                waiting: 0,
                last_status_code: None,
                last_attempt_at: None,
                paused_until: None,
            };
            (endpoint, row.message)
        });
        match row.status {
            DeliveryStatus::Delivered => endpoint.delivered += 1,
            DeliveryStatus::Failed => endpoint.failed += 1,
            DeliveryStatus::Pending => endpoint.waiting += 1,
        }
        if row.attempts > 0 && endpoint.last_attempt_at < Some(row.updated_at) {
            (endpoint.last_attempt_at, endpoint.last_status_code) = (Some(row.updated_at), row.last_status_code);
        }
    }
    let mut all: Vec<_> = found.into_values().collect();
    all.sort_by_key(|(one, _)| std::cmp::Reverse((one.failed, one.waiting, one.delivered)));
    all.truncate(MAX_ENDPOINTS);
    all.into_iter()
        .map(|(mut one, message)| {
            let about = message.map(|message| delivery_list::about(connection, message)).transpose()?.flatten();
            if let Some(domain) = about.and_then(|about| about.domain) {
                one.domain = domains::find_by_row(connection, domain)?.map(|row| row.name);
            }
            Ok(one)
        })
        .collect()
}

fn attention(endpoints: &[EndpointView], totals: Totals, bounced: u64, unverified: &[String]) -> Vec<Attention> {
    let one = |kind, title: String, detail: &str, link: &str| Attention {
        kind,
        title,
        detail: detail.to_owned(),
        link: Some(link.to_owned()),
    };
    let mut found = Vec::new();
    for endpoint in endpoints.iter().filter(|one| one.is_failing()).take(3) {
        let last_status = endpoint.last_status_code.map_or_else(
            || "It gives no answer.".to_owned(),
            |code| format!("It answered with HTTP status {code} last."),
        );
        let title = format!("{} is failing", endpoint.url);
        let pauses =
            if endpoint.paused_until.is_some() { " Its deliveries wait; one at a time tries it." } else { "" };
        found.push(one("endpoint_failing", title, &format!("{last_status}{pauses}"), "deliveries"));
    }
    if totals.failed > 0 {
        let (title, detail) = (
            format!("{} failed for good", plural(totals.failed, "delivery", "deliveries")),
            "Nothing is lost: while their messages are stored they can be made again.",
        );
        found.push(one("deliveries_failed", title, detail, "deliveries?status=failed"));
    }
    if bounced > 0 {
        let title = format!("{} came back", plural(bounced, "message", "messages"));
        found.push(one(
            "bounces",
            title,
            "The remote host's words stand with each recipient.",
            "messages?status=bounced",
        ));
    }
    for name in unverified.iter().take(3) {
        let detail = "Mail to it is refused until its DNS records are found.";
        found.push(one("domain_unverified", format!("{name} is not verified"), detail, &format!("domains/{name}")));
    }
    found
}

/// Lists problems that only the operator can solve.
fn server_problems(app: &AppState, now: Timestamp) -> Vec<Attention> {
    let mut found = Vec::new();
    if let Some(facts) = app.tls.facts().filter(|facts| facts.not_after < now.plus(CERTIFICATE_SOON)) {
        let title = if facts.not_after < now { "The certificate has ended" } else { "The certificate ends soon" };
        let detail = format!("It is valid until {}.", facts.not_after.iso());
        found.push(Attention {
            kind: "certificate",
            title: title.to_owned(),
            detail,
            link: Some("settings".to_owned()),
        });
    }
    if DiskView::read(&app.config.data_dir).is_some_and(|disk| disk.is_nearly_full()) {
        found.push(Attention {
            kind: "disk",
            title: "The disk is nearly full".to_owned(),
            detail: "When it is, mail is put off until there is room.".to_owned(),
            link: Some("settings".to_owned()),
        });
    }
    let objects = [
        (
            "objects_damaged",
            app.objects.damaged_count(),
            "is missing or damaged",
            "are missing or damaged",
            "Their messages cannot be shown or delivered. On the server, mailkite audit lists them.",
        ),
        (
            "objects_orphaned",
            app.objects.kept_orphans(),
            "has no row",
            "have no row",
            "The database may be an older one. Nothing is removed; on the server, run mailkite recover.",
        ),
    ];
    for (kind, count, one, many, detail) in objects.into_iter().filter(|(_, count, ..)| *count > 0) {
        let title =
            format!("{} {}", plural(count, "stored object", "stored objects"), if count == 1 { one } else { many });
        found.push(Attention { kind, title, detail: detail.to_owned(), link: None });
    }
    found
}

fn plural(count: u64, one: &str, many: &str) -> String {
    format!("{count} {}", if count == 1 { one } else { many })
}
