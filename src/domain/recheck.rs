//! The daily look at domains that have something proven (contract 3.2).

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::{DomainError, Domains};
use crate::clock::{Clock, Timestamp};
use crate::store::{self, domains};

/// How old a check gets before it is made again.
const AGE: Duration = Duration::from_secs(86_400);
/// How often it is looked whether one is due.
const EVERY: Duration = Duration::from_secs(300);
/// Domains of one round; the others have their turn in the next.
const ROUND: u32 = 100;

/// Checks due domains again, one after the other, until `stop`.
pub async fn run(domains: Arc<Domains>, clock: Clock, stop: CancellationToken) {
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
pub async fn round(domains: &Domains, now: Timestamp) -> store::Result<usize> {
    let due = domains.db.read(move |connection| domains::list_due(connection, now.minus(AGE), ROUND)).await?;
    let mut checked = 0;
    for domain in due {
        let (name, was_verified) = (domain.name.clone(), domain.verified);
        match domains.recheck(domain, now).await {
            Ok(verified) => {
                checked += 1;
                if was_verified && !verified.domain.verified {
                    tracing::warn!(domain = %name, "its records failed for three days; mail for it is refused now");
                }
            }
            // Removed meanwhile, or proven by another account in this very moment.
            Err(DomainError::Gone | DomainError::Taken | DomainError::Exists) => {}
            Err(error @ (DomainError::Store(_) | DomainError::Keys(_))) => {
                tracing::warn!(domain = %name, %error, "a domain was not checked; trying again later");
            }
        }
    }
    Ok(checked)
}
