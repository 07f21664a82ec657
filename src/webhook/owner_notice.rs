//! Mail that notifies an account's owner of an endpoint whose deliveries fail permanently (contract 9.5).

use std::time::Duration;

use crate::store::Connection;

use crate::clock::Timestamp;
use crate::jobs::{self, EnqueuedJob, JobSubject};
use crate::net::egress::Target;
use crate::store;
use crate::store::accounts;
use crate::store::accounts::notices;
use crate::store::webhooks::deliveries::DeliveryRow;
use crate::webhook::Webhooks;

/// Age at which the notice is no longer useful.
const LIFETIME: Duration = Duration::from_secs(3 * 86_400);

impl Webhooks {
    /// Queues the notice, unless one about the same endpoint was queued within a day; returns its job.
    pub(super) fn tell_owner(
        &self,
        tx: &Connection,
        delivery: &DeliveryRow,
        url: &str,
        error: Option<&str>,
        status_code: Option<u16>,
        now: Timestamp,
    ) -> store::Result<Option<EnqueuedJob>> {
        let endpoint = Target::lane_of(url);
        let Some(account) = accounts::find_by_row(tx, delivery.account_id)? else { return Ok(None) };
        let Some((_, domain)) = account.email.rsplit_once('@') else { return Ok(None) };
        // An unverified address may belong to a stranger.
        if !account.email_verified {
            return Ok(None);
        }
        // RFC 6761 §6.4: `.invalid` addresses never exist.
        if domain.ends_with(".invalid") || !notices::take_turn(tx, account.id, &endpoint, now)? {
            return Ok(None);
        }
        let why = match (status_code, error) {
            (Some(code), Some("http_status")) => format!("it answered with HTTP status {code}"),
            (_, Some(word)) => format!("the last attempt ended with \"{word}\""),
            (_, None) => "the last attempt failed".to_owned(),
        };
        let text = format!(
            "Deliveries to this webhook have failed for good:\r\n\r\n    {endpoint}\r\n\r\n\
             The first of them is {} ({}), which was tried {}: {why}.\r\n\r\n\
             Nothing is lost: while the message is stored, every delivery can be made again once the endpoint works,\r\n\
             with POST /api/deliveries/{}/retry at {}.\r\n\r\n\
             You get this mail at most once a day for each endpoint.\r\n",
            delivery.public_id,
            delivery.event_type,
            times(delivery.attempts + 1),
            delivery.public_id,
            self.links.public_url(),
        );
        let sealed = self.secrets.seal(notices::PURPOSE, text.as_bytes());
        let flow = jobs::mail_flow(domain, account.id);
        let subject = format!("Deliveries to {endpoint} are failing");
        let notice = notices::insert(tx, &account.email, &subject, &sealed, now, now.plus(LIFETIME))?;
        self.jobs.enqueue(tx, &flow, JobSubject::Notice(notice), now).map(Some)
    }
}

/// Formats a count in words.
fn times(count: u32) -> String {
    if count == 1 { "once".to_owned() } else { format!("{count} times") }
}
