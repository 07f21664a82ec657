//! The daily look at domains that have something proven (contract 3.2).

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream;
use tokio_util::sync::CancellationToken;

use super::{DomainError, Domains};
use crate::clock::{Clock, Timestamp};
use crate::store;
use crate::store::accounts::domains;
use crate::store::accounts::domains::DomainRow;

/// How old a check gets before it is made again.
const AGE: Duration = Duration::from_secs(86_400);
/// How often it is looked whether one is due.
const EVERY: Duration = Duration::from_secs(300);
/// Domains of one round; the others have their turn in the next.
const ROUND: u32 = 100;
/// Domains looked at together; one whose servers are silent takes its whole budget.
const AT_ONCE: usize = 4;

/// Checks due domains again, a few at a time, until `stop`.
pub(crate) async fn run(domains: Arc<Domains>, clock: Clock, stop: CancellationToken) {
    let rounds = async {
        loop {
            tokio::time::sleep(EVERY).await;
            if let Err(error) = round(&domains, clock.now()).await {
                tracing::warn!(%error, "due domains could not be listed; trying again later");
            }
        }
    };
    tokio::select! {
        () = rounds => {}
        () = stop.cancelled() => {}
    }
}

/// One round as of `now`; how many domains were checked.
///
/// # Errors
/// Due domains could not be listed.
pub async fn round(domains: &Arc<Domains>, now: Timestamp) -> store::Result<usize> {
    let due = domains.db.read(move |connection| domains::list_due(connection, now.minus(AGE), ROUND)).await?;
    let checks = stream::iter(due).map(|domain| {
        let domains = Arc::clone(domains);
        // A task of its own: a fault in a library must cost no other domain its check.
        tokio::spawn(async move { check(&domains, domain, now).await })
    });
    let checked = checks.buffer_unordered(AT_ONCE).filter(|done| std::future::ready(matches!(done, Ok(true))));
    Ok(checked.count().await)
}

/// Whether the check was made.
async fn check(domains: &Domains, domain: DomainRow, now: Timestamp) -> bool {
    let (name, was_verified) = (domain.name.clone(), domain.verified);
    match domains.recheck(domain, now).await {
        Ok(verified) => {
            if was_verified && !verified.domain.verified {
                tracing::warn!(domain = %name, "its records failed for three days; mail for it is refused now");
            }
            true
        }
        // Removed meanwhile, or proven by another account in this very moment.
        Err(DomainError::Gone | DomainError::Taken | DomainError::Exists) => false,
        Err(error @ (DomainError::Store(_) | DomainError::Keys(_))) => {
            tracing::warn!(domain = %name, %error, "a domain was not checked; trying again later");
            false
        }
    }
}
