//! Builds every part from the configuration, binds, starts the workers, drains and stops in order.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::accounts::{Accounts, Tickets};
use crate::activity::Feed;
use crate::clock::Clock;
use crate::config::Config;
use crate::datadir::DataDir;
use crate::dns::Resolver;
use crate::domain::check::{self, Checker};
use crate::domain::keys::KeyMaker;
use crate::domain::{Domains, recheck};
use crate::egress::{Egress, Guard, Policy, Target};
use crate::google::Google;
use crate::http::{self, Http};
use crate::inbound::spam::SpamCheck;
use crate::inbound::verify::{self, Verifier};
use crate::inbound::{self, Inbound};
use crate::jobs::{Handler, Jobs, Kind, Schedule, Track, Worker, WorkerConfig};
use crate::links::Links;
use crate::metrics::Metrics;
use crate::outbound::client::Timeouts;
use crate::outbound::deliver::Dispatcher;
use crate::outbound::mta_sts::MtaSts;
use crate::outbound::mx::Hosts;
use crate::outbound::notice::Notices;
use crate::outbound::pace::Pace;
use crate::outbound::release::Releases;
use crate::outbound::return_path::ReturnPaths;
use crate::outbound::sender::KeyCache;
use crate::outbound::tls::ClientTls;
use crate::outbound::transport::Transport;
use crate::outbound::{self, Outbound};
use crate::passwords::Passwords;
use crate::retention::Retention;
use crate::secrets::Secrets;
use crate::session::Tokens;
use crate::smtp_server::{self, MAX_FAILED_LOGINS, Role, SmtpServer};
use crate::store::objects::Objects;
use crate::store::{self, Db};
use crate::throttle::Window;
use crate::tls::{self, ServerTls};
use crate::uploads::Uploads;
use crate::webhook::deliver::Webhooks;
use crate::webhook::in_flight::InFlight;
use crate::webhook::passing::Passing;

/// How long sessions and attempts that run get to finish at a stop.
const GRACE: Duration = Duration::from_secs(20);
/// An attempt of a webhook ends after 15 s; a lane may have some waiting before it.
const POST_LEASE: Duration = Duration::from_secs(120);
/// An attempt to send ends after ten minutes, and may have waited for its turn.
const MAIL_LEASE: Duration = Duration::from_secs(20 * 60);
/// Where domains serve their MTA-STS policies.
const HTTPS_PORT: u16 = 443;
/// How often the files of the certificate are looked at.
const CERTIFICATE_EVERY: Duration = Duration::from_secs(60);

/// Why the server did not start, or stopped by itself; a sentence for the operator.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct StartError(pub String);

impl StartError {
    fn because(error: impl std::fmt::Display) -> Self {
        Self(error.to_string())
    }
}

/// Every part, built and bound; nothing runs yet.
pub struct Bound {
    config: Arc<Config>,
    clock: Clock,
    db: Db,
    jobs: Jobs,
    feed: Feed,
    secrets: Arc<Secrets>,
    accounts: Arc<Accounts>,
    domains: Arc<Domains>,
    metrics: Arc<Metrics>,
    tls: ServerTls,
    webhooks: Arc<Webhooks>,
    smtp: SmtpServer,
    /// With STARTTLS, and with TLS from the first octet.
    submissions: [SmtpServer; 2],
    http: Http,
    worker: Worker,
    retention: Retention,
    /// Held for its lock on the data directory.
    _data_dir: DataDir,
}

/// Opens the data directory, builds every part and binds every address.
///
/// # Errors
/// A sentence that says what is in the way.
pub async fn bind(config: Config, clock: Clock) -> Result<Bound, StartError> {
    crate::host::raise_file_limit();
    crate::host::survive_file_size_limit().map_err(StartError::because)?;
    let config = Arc::new(config);
    let data_dir = DataDir::open(&config.data_dir).map_err(StartError::because)?;
    let secrets = Arc::new(Secrets::open(&config.data_dir).map_err(StartError::because)?);
    let file = config.data_dir.join(store::FILE_NAME);
    data_dir.check_database(&file).map_err(StartError::because)?;
    let db = Db::open(&config.data_dir)
        .map_err(|error| StartError(format!("opening the database {}: {error}", file.display())))?;
    data_dir.note_database().map_err(StartError::because)?;
    let objects = Objects::open(&config.data_dir).map_err(StartError::because)?;
    let metrics = Arc::new(Metrics::default());
    let (jobs, feed) = (Jobs::default(), Feed::default());
    let resolver = Arc::new(Resolver::new(&config.dns.servers).map_err(StartError::because)?);
    let client_tls = tls::client_config(config.tls.ca_file.as_deref()).map_err(StartError::because)?;
    let server_tls = ServerTls::open(&config).map_err(StartError::because)?;
    let links = Arc::new(Links::new(&config.public_url, secrets.link_key(), None));

    let verifier = if config.dev {
        Verifier::skip(config.hostname.clone())
    } else {
        Verifier::new(Resolver::clone(&resolver), config.hostname.clone(), verify::BUDGET)
    };
    let spam = spam_check(&config, &client_tls, &resolver)?;
    let domains = Arc::new(Domains {
        db: db.clone(),
        secrets: Arc::clone(&secrets),
        config: Arc::clone(&config),
        checker: Checker::new(Resolver::fresh(&config.dns.servers).map_err(StartError::because)?, check::BUDGET),
        keys: KeyMaker::default(),
    });
    let outbound = Outbound::new(outbound::Parts {
        config: Arc::clone(&config),
        db: db.clone(),
        objects: objects.clone(),
        secrets: Arc::clone(&secrets),
        domains: Arc::clone(&domains),
        jobs: jobs.clone(),
        metrics: Arc::clone(&metrics),
        feed: feed.clone(),
        return_paths: ReturnPaths::new(secrets.return_path_key(), &config.hostname),
        keys: KeyCache::default(),
    });
    let inbound = Inbound::new(inbound::Parts {
        config: Arc::clone(&config),
        clock: clock.clone(),
        db: db.clone(),
        objects: objects.clone(),
        jobs: jobs.clone(),
        metrics: Arc::clone(&metrics),
        feed: feed.clone(),
        verifier,
        spam,
        outbound: outbound.clone(),
        fingerprint_key: secrets.fingerprint_key(),
    });
    let door = async |listen: &[SocketAddr], role: Role| {
        let (metrics, hostname) = (Arc::clone(&metrics), config.hostname.clone());
        let door =
            SmtpServer::bind(listen, role, &config.smtp, inbound.clone(), server_tls.clone(), metrics, hostname);
        door.await.map_err(StartError::because)
    };
    let smtp = door(&config.smtp.listen, Role::Mx).await?;
    let failures = Arc::new(Window::new(MAX_FAILED_LOGINS, Duration::from_secs(60)));
    let submission = |implicit_tls| {
        Role::Submission(smtp_server::Submission {
            outbound: outbound.clone(),
            db: db.clone(),
            clock: clock.clone(),
            failures: Arc::clone(&failures),
            implicit_tls,
        })
    };
    let submissions = [
        door(&config.submission.listen, submission(false)).await?,
        door(&config.submission.listen_tls, submission(true)).await?,
    ];
    let listeners = http::Listeners::bind(&config).map_err(StartError::because)?;
    let accounts = Arc::new(Accounts {
        db: db.clone(),
        jobs: jobs.clone(),
        secrets: Arc::clone(&secrets),
        passwords: Passwords::default(),
        tokens: Tokens::new(&secrets.session_key()),
        tickets: Tickets::default(),
        signup: config.auth.signup,
        dev: config.dev,
        public_url: config.public_url.clone(),
    });

    let policy = Policy {
        allow_localhost: config.webhook.allow_localhost,
        allow_networks: config.webhook.allow_networks.clone(),
    };
    let own_listeners: Vec<SocketAddr> = smtp
        .addresses()
        .iter()
        .chain(submissions.iter().flat_map(SmtpServer::addresses))
        .chain(listeners.addresses())
        .copied()
        .collect();
    let guard = Guard { policy: policy.clone(), own_listeners: own_listeners.clone() };
    let webhooks = Arc::new(Webhooks {
        db: db.clone(),
        objects: objects.clone(),
        secrets: Arc::clone(&secrets),
        links: Arc::clone(&links),
        egress: Egress::new(guard, &client_tls, Arc::clone(&resolver)),
        policy,
        metrics: Arc::clone(&metrics),
        feed: feed.clone(),
        jobs: jobs.clone(),
        budget: Webhooks::budget(),
        in_flight: InFlight::default(),
    });
    let google = Google::new(config.auth.google.clone(), &client_tls, Arc::clone(&resolver))
        .map_err(|error| StartError(format!("auth.google: {error}")))?;
    let http_parts = http::Parts {
        config: Arc::clone(&config),
        clock: clock.clone(),
        db: db.clone(),
        objects: objects.clone(),
        links: Arc::clone(&links),
        metrics: Arc::clone(&metrics),
        secrets: Arc::clone(&secrets),
        accounts: Arc::clone(&accounts),
        domains: Arc::clone(&domains),
        google,
        inbound: inbound.clone(),
        outbound: outbound.clone(),
        uploads: Uploads { db: db.clone(), objects: objects.clone(), links },
        webhooks: Arc::clone(&webhooks),
        realtime: feed.realtime.clone(),
    };
    let http = Http::new(listeners, http_parts, &server_tls);
    let transport = transport(&config, &client_tls, &resolver, own_listeners);
    let dispatcher = Arc::new(Dispatcher {
        outbound: outbound.clone(),
        transport,
        local: Arc::new(inbound),
        clock: clock.clone(),
        pace: Pace::new(config.outbound.domain_rate_per_minute),
        budget: Dispatcher::budget(),
    });
    let mail_schedule = Schedule::repeating(config.outbound.retry.clone());
    let sends = |handler| Track { handler, schedule: mail_schedule.clone(), lease: MAIL_LEASE };
    let schedule = Schedule::new(config.webhook.retry.clone());
    let posts = |handler| Track { handler, schedule: schedule.clone(), lease: POST_LEASE };
    let worker = Worker {
        db: db.clone(),
        clock: clock.clone(),
        jobs: jobs.clone(),
        tracks: HashMap::from([
            (Kind::Webhook, posts(Arc::clone(&webhooks) as Arc<dyn Handler>)),
            (Kind::Passing, posts(Arc::new(Passing { webhooks: Arc::clone(&webhooks) }) as Arc<dyn Handler>)),
            (Kind::Dispatch, sends(Arc::clone(&dispatcher) as Arc<dyn Handler>)),
            (Kind::Notice, sends(Arc::new(Notices { dispatcher }) as Arc<dyn Handler>)),
            (Kind::Release, sends(Arc::new(Releases { outbound }) as Arc<dyn Handler>)),
        ]),
        config: WorkerConfig {
            lane_width: config.webhook.lane_width,
            mail_lane_width: config.outbound.lane_width,
            max_in_flight: config.webhook.max_in_flight,
        },
    };
    let retention =
        Retention { db: db.clone(), objects, clock: clock.clone(), default_days: config.storage.retention_days };
    let tls = server_tls;
    Ok(Bound {
        config,
        clock,
        db,
        jobs,
        feed,
        secrets,
        accounts,
        domains,
        metrics,
        tls,
        webhooks,
        smtp,
        submissions,
        http,
        worker,
        retention,
        _data_dir: data_dir,
    })
}

/// What takes mail to remote hosts; none of our own listeners is one.
fn transport(
    config: &Config,
    tls: &rustls::ClientConfig,
    resolver: &Arc<Resolver>,
    own_listeners: Vec<SocketAddr>,
) -> Transport {
    let policy = Policy { allow_localhost: false, allow_networks: config.outbound.allow_networks.clone() };
    let guard = Guard { policy: policy.clone(), own_listeners };
    let sts = config.outbound.mta_sts.then(|| {
        let egress = Egress::new(guard.clone(), tls, Arc::clone(resolver));
        MtaSts::new(Arc::clone(resolver), egress, policy, HTTPS_PORT)
    });
    let hosts = Hosts::new(&config.outbound, &config.hostname, Arc::clone(resolver), guard, sts);
    Transport::new(config.hostname.clone(), Timeouts::default(), ClientTls::new(tls), hosts)
}

/// rspamd is the operator's own: its address needs no permission.
fn spam_check(
    config: &Config,
    tls: &rustls::ClientConfig,
    resolver: &Arc<Resolver>,
) -> Result<Option<SpamCheck>, StartError> {
    let Some(url) = &config.spam.rspamd_url else { return Ok(None) };
    let policy = Policy::everywhere();
    let check = format!("{}/checkv2", url.trim_end_matches('/'));
    let target = Target::parse(&check, &policy).map_err(|error| StartError(format!("spam.rspamd_url: {error}")))?;
    let egress = Egress::new(Guard { policy, own_listeners: Vec::new() }, tls, Arc::clone(resolver));
    Ok(Some(SpamCheck::new(target, egress)))
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
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The clock in use.
    pub const fn clock(&self) -> &Clock {
        &self.clock
    }

    /// The database.
    pub const fn db(&self) -> &Db {
        &self.db
    }

    /// The bell of the job engine.
    pub const fn jobs(&self) -> &Jobs {
        &self.jobs
    }

    /// What happens, as it happens.
    pub const fn feed(&self) -> &Feed {
        &self.feed
    }

    /// Seals and opens secrets.
    pub const fn secrets(&self) -> &Arc<Secrets> {
        &self.secrets
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
    pub const fn metrics(&self) -> &Arc<Metrics> {
        &self.metrics
    }

    /// The certificate of both doors.
    pub const fn tls(&self) -> &ServerTls {
        &self.tls
    }

    /// Attempts deliveries.
    pub const fn webhooks(&self) -> &Arc<Webhooks> {
        &self.webhooks
    }

    /// The sweep, to be run by hand.
    pub const fn retention(&self) -> &Retention {
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
        let rechecks = tokio::spawn(recheck::run(self.domains, self.clock, workers.clone()));
        let certificate = tokio::spawn(self.tls.watch(CERTIFICATE_EVERY, doors.clone()));
        let mut failure = self.db.failure();
        let failed = tokio::select! {
            () = stop.cancelled() => false,
            failed = failure.wait_for(|failed| *failed) => failed.is_ok(),
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
        if let Err(error) = self.db.settle().await {
            tracing::warn!(%error, "the WAL stays beside the database; keep both files together");
        }
        Ok(())
    }
}
