//! The daily check of domains that have something verified (contract 3.2), or whose keys are rotated (3.9).

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

/// Age at which a check is repeated.
const AGE: Duration = Duration::from_secs(86_400);
/// Interval at which due domains are looked for.
const EVERY: Duration = Duration::from_secs(300);
/// Domains of one round; the others follow in the next.
const ROUND: u32 = 100;
/// Domains checked concurrently; one whose servers do not answer takes its whole budget.
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

/// Runs one round as of `now` and returns how many domains were checked.
///
/// # Errors
/// Due domains could not be listed.
pub async fn round(domains: &Arc<Domains>, now: Timestamp) -> store::Result<usize> {
    let due = domains.db.read(move |connection| domains::list_due(connection, now.minus(AGE), ROUND)).await?;
    let checks = stream::iter(due).map(|domain| {
        let domains = Arc::clone(domains);
        // Each check runs in a task of its own: a panic in a library must not cost another domain its check.
        tokio::spawn(async move { check(&domains, domain, now).await })
    });
    let checked = checks.buffer_unordered(AT_ONCE).filter(|done| std::future::ready(matches!(done, Ok(true))));
    Ok(checked.count().await)
}

/// Checks one domain; true if the check was made.
async fn check(domains: &Domains, domain: DomainRow, now: Timestamp) -> bool {
    let (name, was_verified) = (domain.name.clone(), domain.verified);
    match domains.recheck(domain, now).await {
        Ok(verified) => {
            if was_verified && !verified.domain.verified {
                tracing::warn!(domain = %name, "its records failed for three days; mail for it is refused now");
            }
            true
        }
        // Removed meanwhile, or verified by another account at this very moment.
        Err(DomainError::Gone | DomainError::Taken | DomainError::Exists | DomainError::Rotating) => false,
        Err(error @ (DomainError::Store(_) | DomainError::Keys(_))) => {
            tracing::warn!(domain = %name, %error, "a domain was not checked; trying again later");
            false
        }
    }
}
