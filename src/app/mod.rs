//! Builds every service from the configuration, binds, starts the workers, drains and stops in order. It may use all
//! modules but `cli`; a new service is constructed in `parts` and started in [`Bound::run`].

pub(crate) mod control;
pub(crate) mod master_key;
mod parts;
mod start_error;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use self::control::Operations;
use self::parts::Parts;
pub use self::start_error::StartError;
use crate::accounts::Accounts;
use crate::clock::Clock;
use crate::config::Config;
use crate::domain::{Domains, recheck};
use crate::event_bus::Publisher;
use crate::http::{self, Http};
use crate::jobs::{Jobs, Worker};
use crate::metrics::Metrics;
use crate::net::tls::ServerTls;
use crate::outbound::forward::shared_domain;
use crate::process::control_socket::ControlSocket;
use crate::process::sockets::Sockets;
use crate::retention::Retention;
use crate::secrets::Secrets;
use crate::smtp_server::SmtpServer;
use crate::store::{self, Db, Failure};
use crate::webhook::Webhooks;

/// Time for running sessions and requests to finish at a stop.
const GRACE: Duration = Duration::from_secs(20);
/// The interval of checks for a renewed certificate.
const CERTIFICATE_EVERY: Duration = Duration::from_secs(60);

/// All services, built and bound; nothing runs yet.
pub struct Bound {
    parts: Parts,
    accounts: Arc<Accounts>,
    domains: Arc<Domains>,
    webhooks: Arc<Webhooks>,
    smtp: SmtpServer,
    /// With STARTTLS, and with implicit TLS.
    submissions: [SmtpServer; 2],
    http: Http,
    worker: Worker,
    retention: Retention,
    /// Commands on the host; `None` where the system allows no such socket.
    control: Option<(ControlSocket, Arc<Operations>)>,
}

/// Opens the data directory, builds every service and listens on every address, on `sockets` where they fit.
///
/// # Errors
/// A sentence that says what is wrong.
pub async fn bind(config: Config, clock: Clock, sockets: &Sockets) -> Result<Bound, StartError> {
    let shared_parts = Parts::open(config, clock)?;
    shared_parts.check_master_key().await?;
    let accounts = shared_parts.accounts();
    let config = Arc::clone(&shared_parts.config);
    let shared = shared_parts.db.read(move |connection| shared_domain(connection, &config));
    if let Ok(Some(warning)) = shared.await {
        tracing::warn!("{warning}");
    }
    let domains = shared_parts.domains()?;
    let outbound = shared_parts.outbound(Arc::clone(&domains));
    let inbound = shared_parts.inbound(outbound.clone())?;

    let dependencies = shared_parts.smtp_dependencies(&inbound);
    let smtp = shared_parts.mx_server(&dependencies, sockets).await?;
    let submissions = shared_parts.submission_servers(&dependencies, &outbound, sockets).await?;
    let listeners = http::Listeners::bind(&shared_parts.config, sockets).map_err(StartError::because)?;
    // Neither webhooks nor mail may ever go to one of these.
    let own: Vec<SocketAddr> = smtp
        .addresses()
        .iter()
        .chain(submissions.iter().flat_map(SmtpServer::addresses))
        .copied()
        .chain(listeners.all_addresses())
        .collect();

    let webhooks = shared_parts.webhooks(&own);
    let worker = shared_parts.worker(&webhooks, shared_parts.dispatcher(&outbound, &inbound, own), outbound.clone());
    let parts = shared_parts.http_dependencies(&accounts, &domains, inbound, outbound, &webhooks)?;
    let http = Http::new(listeners, parts, &shared_parts.server_tls);
    let retention = shared_parts.retention();
    let control = shared_parts.control(&accounts, &domains);
    Ok(Bound {
        parts: shared_parts,
        accounts,
        domains,
        webhooks,
        smtp,
        submissions,
        http,
        worker,
        retention,
        control,
    })
}

impl Bound {
    /// Returns the addresses that receive mail.
    pub fn smtp_addresses(&self) -> &[SocketAddr] {
        self.smtp.addresses()
    }

    /// Returns the submission addresses: with STARTTLS, and with implicit TLS.
    pub fn submission_addresses(&self) -> [&[SocketAddr]; 2] {
        self.submissions.each_ref().map(SmtpServer::addresses)
    }

    /// Returns the addresses of the API.
    pub fn http_addresses(&self) -> &[SocketAddr] {
        self.http.addresses()
    }

    pub(crate) fn config(&self) -> &Config {
        &self.parts.config
    }

    pub(crate) const fn clock(&self) -> &Clock {
        &self.parts.clock
    }

    /// Returns the database.
    pub const fn db(&self) -> &Db {
        &self.parts.db
    }

    /// Returns the job queue.
    pub const fn jobs(&self) -> &Jobs {
        &self.parts.jobs
    }

    /// Returns the feed of activity.
    pub const fn publisher(&self) -> &Publisher {
        &self.parts.publisher
    }

    /// Returns the master key's operations.
    pub const fn secrets(&self) -> &Arc<Secrets> {
        &self.parts.secrets
    }

    /// Returns the sign-up and sign-in service.
    pub const fn accounts(&self) -> &Arc<Accounts> {
        &self.accounts
    }

    /// Returns the domain service.
    pub const fn domains(&self) -> &Arc<Domains> {
        &self.domains
    }

    pub(crate) const fn metrics(&self) -> &Arc<Metrics> {
        &self.parts.metrics
    }

    /// Returns the certificate of SMTP and HTTP.
    pub(crate) const fn tls(&self) -> &ServerTls {
        &self.parts.server_tls
    }

    /// Returns the webhook service.
    pub const fn webhooks(&self) -> &Arc<Webhooks> {
        &self.webhooks
    }

    /// Returns the retention sweep, to run it by hand.
    pub(crate) const fn retention(&self) -> &Retention {
        &self.retention
    }

    /// Serves until `stop`, then ends the attempts, and last the listeners: while a hanging webhook is waited for, mail
    /// is still accepted.
    ///
    /// # Errors
    /// Storage failed for good; the process should exit and be restarted.
    pub async fn run(self, stop: CancellationToken) -> Result<(), StartError> {
        let listeners = CancellationToken::new();
        let workers = self.worker.stop.clone();
        let smtp = tokio::spawn(self.smtp.run(listeners.clone(), GRACE));
        let submissions = self.submissions.map(|server| tokio::spawn(server.run(listeners.clone(), GRACE)));
        let http = tokio::spawn(self.http.run(listeners.clone(), GRACE));
        let commands =
            self.control.map(|(socket, work)| tokio::spawn(control::serve(socket, work, listeners.clone())));
        let worker = tokio::spawn(self.worker.run());
        let retention = tokio::spawn(self.retention.run(workers.clone()));
        let rechecks = tokio::spawn(recheck::run(self.domains, self.parts.clock.clone(), workers.clone()));
        let certificate = tokio::spawn(self.parts.server_tls.clone().watch(CERTIFICATE_EVERY, listeners.clone()));
        let mut failure = self.parts.db.failure();
        let failed = tokio::select! {
            () = stop.cancelled() => None,
            // If the writer is gone, storage has failed as well.
            failed = failure.wait_for(Option::is_some) => {
                Some(failed.map_or(None, |failed| failed.clone()).unwrap_or(Failure::Panicked))
            }
        };
        if failed.is_some() {
            // Nothing can be accepted any more.
            listeners.cancel();
        }
        workers.cancel();
        drop(tokio::join!(worker, retention, rechecks));
        listeners.cancel();
        drop(tokio::join!(smtp, http, certificate));
        for submission in submissions {
            drop(submission.await);
        }
        if let Some(commands) = commands {
            drop(commands.await);
        }
        if let Some(failure) = failed {
            if matches!(failure, Failure::Unreadable(_)) {
                store::suspect_damage(&self.parts.config.data_dir);
            }
            return Err(StartError::Failed(format!("storage failed: {failure}")));
        }
        if let Err(error) = self.parts.db.checkpoint().await {
            tracing::warn!(%error, "the WAL could not be merged into the database; keep both files together");
        }
        Ok(())
    }
}
