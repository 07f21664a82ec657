//! The lines of webhook attempts in the log of mail. Of a URL they hold the origin alone: path and query may be secret.

use std::time::Duration;

use crate::clock::Timestamp;
use crate::event_bus::Activity;
use crate::event_bus::mail_log::{self, Event, Line};
use crate::id::RouteId;
use crate::net::egress::Target;
use crate::store::webhooks::deliveries::{DeliveryRow, DeliveryStatus};

/// Logs an attempt that was made and recorded. `status` is what it left its delivery in.
pub(super) fn attempted(activity: &Activity, message_id: &str, route: Option<&RouteId>, status: DeliveryStatus) {
    if !mail_log::is_enabled() {
        return;
    }
    let line = Line { message_id: Some(message_id), route: route.map(RouteId::as_str), ..Line::default() };
    let (url, status_code, error, duration, line) = match activity {
        Activity::Attempted {
            delivery_id, url, attempt, status_code, error, duration_ms, next_attempt_at, ..
        } => {
            let next_attempt = next_attempt_at.map(Timestamp::from_millis);
            let line = Line { delivery: Some(delivery_id), attempt: Some(*attempt), next_attempt, ..line };
            (url, status_code, error, duration_ms, line)
        }
        Activity::ZeroRetentionAttempted { url, status_code, error, duration_ms, .. } => {
            (url, status_code, error, duration_ms, Line { attempt: Some(1), ..line })
        }
        Activity::Accepted { .. } | Activity::Sent { .. } => return,
    };
    let event = match (error, status) {
        (None, _) => Event::WebhookDelivered,
        (Some(_), DeliveryStatus::Failed) => Event::WebhookGivenUp,
        // A user's attempt changes nothing when it fails.
        (Some(_), DeliveryStatus::Pending | DeliveryStatus::Delivered) => Event::WebhookFailed,
    };
    let (host, reply) = (Target::lane_of(url), status_code.map(|status| status.to_string()));
    let duration = Some(Duration::from_millis(*duration));
    Line { reply: reply.as_deref(), reason: *error, duration, host: Some(&host), ..line }.log(event);
}

/// Logs a delivery that ended without another attempt.
pub(super) fn ended(delivery: &DeliveryRow, message_id: &str, reason: &str) {
    let host = Target::lane_of(&delivery.url);
    let line = Line {
        message_id: Some(message_id),
        reason: Some(reason),
        route: delivery.route_id.as_ref().map(RouteId::as_str),
        host: Some(&host),
        delivery: Some(delivery.public_id.as_str()),
        attempt: Some(delivery.attempts),
        ..Line::default()
    };
    line.log(Event::WebhookGivenUp);
}

/// Logs mail of a zero-retention domain whose route or content is gone.
pub(super) fn unattempted(message_id: &str, route: &RouteId) {
    let (reason, route) = (Some("gone"), Some(route.as_str()));
    Line { message_id: Some(message_id), reason, route, ..Line::default() }.log(Event::WebhookGivenUp);
}
