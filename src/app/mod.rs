//! Builds every part from the configuration, binds, starts the workers, drains and stops in order.

mod parts;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use self::parts::Parts;
use crate::accounts::Accounts;
use crate::clock::Clock;
use crate::config::Config;
use crate::domain::{Domains, recheck};
use crate::event_bus::Feed;
use crate::http::{self, Http};
use crate::jobs::{Jobs, Worker};
use crate::metrics::Metrics;
use crate::net::tls::ServerTls;
use crate::outbound::forward::shared_domain;
use crate::retention::Retention;
use crate::secrets::Secrets;
use crate::smtp_server::SmtpServer;
use crate::store::Db;
use crate::webhook::attempt::deliver::Webhooks;

/// How long sessions and attempts that run get to finish at a stop.
const GRACE: Duration = Duration::from_secs(20);
/// How often the files of the certificate are looked at.
const CERTIFICATE_EVERY: Duration = Duration::from_secs(60);

/// Why the server did not start, or stopped by itself; a sentence for the operator.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct StartError(pub(crate) String);

impl StartError {
    fn because(error: impl std::fmt::Display) -> Self {
        Self(error.to_string())
    }

    /// Names the setting that the error is about.
    fn of<E: std::fmt::Display>(key: &'static str) -> impl Fn(E) -> Self {
        move |error| Self(format!("{key}: {error}"))
    }
}

/// Every part, built and bound; nothing runs yet.
pub struct Bound {
    ground: Parts,
    accounts: Arc<Accounts>,
    domains: Arc<Domains>,
    webhooks: Arc<Webhooks>,
    smtp: SmtpServer,
    /// With STARTTLS, and with TLS from the first octet.
    submissions: [SmtpServer; 2],
    http: Http,
    worker: Worker,
    retention: Retention,
}

/// Opens the data directory, builds every part and binds every address.
///
/// # Errors
/// A sentence that says what is in the way.
pub async fn bind(config: Config, clock: Clock) -> Result<Bound, StartError> {
    let ground = Parts::open(config, clock)?;
    let accounts = ground.accounts();
    let config = Arc::clone(&ground.config);
    let shared = ground.db.read(move |connection| shared_domain(connection, &config));
    if let Ok(Some(warning)) = shared.await {
        tracing::warn!("{warning}");
    }
    let domains = ground.domains()?;
    let outbound = ground.outbound(Arc::clone(&domains));
    let inbound = ground.inbound(outbound.clone())?;

    let doors = ground.smtp_parts(&inbound);
    let smtp = ground.receiving_door(&doors).await?;
    let submissions = ground.submission_doors(&doors, &outbound).await?;
    let listeners = http::Listeners::bind(&ground.config).map_err(StartError::because)?;
    // Neither webhooks nor mail ever go to one of these.
    let own: Vec<SocketAddr> = smtp
        .addresses()
        .iter()
        .chain(submissions.iter().flat_map(SmtpServer::addresses))
        .copied()
        .chain(listeners.all_addresses())
        .collect();

    let webhooks = ground.webhooks(&own);
    let worker = ground.worker(&webhooks, ground.dispatcher(&outbound, &inbound, own), outbound.clone());
    let parts = ground.http_parts(&accounts, &domains, inbound, outbound, &webhooks)?;
    let http = Http::new(listeners, parts, &ground.server_tls);
    let retention = ground.retention();
    Ok(Bound { ground, accounts, domains, webhooks, smtp, submissions, http, worker, retention })
}

impl Bound {
    /// Where mail is received.
    pub fn smtp_addresses(&self) -> &[SocketAddr] {
        self.smtp.addresses()
    }

    /// Where mail programs hand in mail: with STARTTLS, and with TLS from the first octet.
    pub fn submission_addresses(&self) -> [&[SocketAddr]; 2] {
        self.submissions.each_ref().map(SmtpServer::addresses)
    }

    /// Where the API is served.
    pub fn http_addresses(&self) -> &[SocketAddr] {
        self.http.addresses()
    }

    /// The configuration in force.
    pub(crate) fn config(&self) -> &Config {
        &self.ground.config
    }

    /// The clock in use.
    pub(crate) const fn clock(&self) -> &Clock {
        &self.ground.clock
    }

    /// The database.
    pub const fn db(&self) -> &Db {
        &self.ground.db
    }

    /// The bell of the job engine.
    pub const fn jobs(&self) -> &Jobs {
        &self.ground.jobs
    }

    /// What happens, as it happens.
    pub const fn feed(&self) -> &Feed {
        &self.ground.feed
    }

    /// Seals and opens secrets.
    pub const fn secrets(&self) -> &Arc<Secrets> {
        &self.ground.secrets
    }

    /// Signing up and in.
    pub const fn accounts(&self) -> &Arc<Accounts> {
        &self.accounts
    }

    /// Adds and verifies domains.
    pub const fn domains(&self) -> &Arc<Domains> {
        &self.domains
    }

    /// Counters.
    pub(crate) const fn metrics(&self) -> &Arc<Metrics> {
        &self.ground.metrics
    }

    /// The certificate of both doors.
    pub(crate) const fn tls(&self) -> &ServerTls {
        &self.ground.server_tls
    }

    /// Attempts deliveries.
    pub const fn webhooks(&self) -> &Arc<Webhooks> {
        &self.webhooks
    }

    /// The sweep, to be run by hand.
    pub(crate) const fn retention(&self) -> &Retention {
        &self.retention
    }

    /// Serves until `stop`, then drains: doors first, so that nothing new is promised, then the attempts.
    ///
    /// # Errors
    /// Storage failed for good; the process should end and be started again.
    pub async fn run(self, stop: CancellationToken) -> Result<(), StartError> {
        let doors = stop.child_token();
        let workers = CancellationToken::new();
        let smtp = tokio::spawn(self.smtp.run(doors.clone(), GRACE));
        let submissions = self.submissions.map(|door| tokio::spawn(door.run(doors.clone(), GRACE)));
        let http = tokio::spawn(self.http.run(doors.clone(), GRACE));
        let worker = tokio::spawn(self.worker.run(workers.clone(), GRACE));
        let retention = tokio::spawn(self.retention.run(workers.clone()));
        let rechecks = tokio::spawn(recheck::run(self.domains, self.ground.clock.clone(), workers.clone()));
        let certificate = tokio::spawn(self.ground.server_tls.clone().watch(CERTIFICATE_EVERY, doors.clone()));
        let mut failure = self.ground.db.failure();
        let failed = tokio::select! {
            () = stop.cancelled() => false,
            // Without its writer storage has failed as well.
            _ = failure.wait_for(|failed| *failed) => true,
        };
        doors.cancel();
        drop(tokio::join!(smtp, http, certificate));
        for submission in submissions {
            drop(submission.await);
        }
        workers.cancel();
        drop(tokio::join!(worker, retention, rechecks));
        if failed {
            return Err(StartError(
                "storage failed: after an fsync error nothing is believed until a restart reads the disk again"
                    .into(),
            ));
        }
        if let Err(error) = self.ground.db.checkpoint().await {
            tracing::warn!(%error, "the WAL stays beside the database; keep both files together");
        }
        Ok(())
    }
}
