//! The composition root: the shared resources, and how each service is built from them. Nothing here runs or listens.
//!
//! [`super::bind`] calls these in the order of the levels; a service that another one needs is an argument.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::StartError;
use super::control::Operations;
use super::master_key::{self, FormerKeys};
use crate::accounts::google::Google;
use crate::accounts::{Accounts, Tickets};
use crate::clock::Clock;
use crate::config::Config;
use crate::content::uploads::Uploads;
use crate::domain::Domains;
use crate::domain::check::{self, Checker};
use crate::domain::keys::KeyMaker;
use crate::event_bus::Publisher;
use crate::http;
use crate::inbound::import::Importer;
use crate::inbound::spam::SpamCheck;
use crate::inbound::verify::{self, Verifier};
use crate::inbound::{self, Inbound};
use crate::jobs::{JobKind, Jobs, Registration, Schedule, Worker, WorkerConfig};
use crate::limits::Limits;
use crate::memory_budget::MemoryBudget;
use crate::metrics::Metrics;
use crate::net::dns::Resolver;
use crate::net::egress::{Egress, Guard, Policy, Target};
use crate::net::tls;
use crate::net::tls::ServerTls;
use crate::outbound::client::Timeouts;
use crate::outbound::queue::deliver::Dispatcher;
use crate::outbound::queue::rate_limiter::RateLimiter;
use crate::outbound::return_path::ReturnPaths;
use crate::outbound::submit::scheduled::ScheduledSends;
use crate::outbound::submit::sender::KeyCache;
use crate::outbound::system_mail::SystemMail;
use crate::outbound::transport::Transport;
use crate::outbound::transport::mta_sts::MtaSts;
use crate::outbound::transport::mx::MxResolver;
use crate::outbound::transport::tls::ClientTls;
use crate::outbound::{self, Outbound};
use crate::process::control_socket::ControlSocket;
use crate::process::data_dir::DataDir;
use crate::process::sockets::Sockets;
use crate::rate_limit::FixedWindow;
use crate::retention::Retention;
use crate::secrets::Secrets;
use crate::secrets::passwords::Passwords;
use crate::secrets::session_tokens::Tokens;
use crate::secrets::signed_links::Links;
use crate::smtp_server::{self, MAX_FAILED_LOGINS, Role, SmtpServer};
use crate::store::blobs::objects::Objects;
use crate::store::{self, Db, sealed};
use crate::webhook::Webhooks;
use crate::webhook::attempt::first_attempt_cache::FirstAttemptCache;
use crate::webhook::attempt::in_flight::InFlight;
use crate::webhook::attempt::zero_retention::ZeroRetentionAttempts;

/// A webhook attempt ends after 15 s; some may wait for a slot of the lane before it.
const POST_LEASE: Duration = Duration::from_secs(120);
/// A delivery attempt ends after twenty minutes, may fall back after a relay that took as long, and may wait for the
/// rate limit.
const MAIL_LEASE: Duration = Duration::from_secs(60 * 60);
/// Time for an attempt at a stop that may not be made twice (contract 3.8): longer than any attempt takes.
const POST_GRACE: Duration = Duration::from_secs(20);
/// Time for a delivery attempt at a stop: mail that is cut off after its last octet arrives twice (RFC 5321 §4.5.4.1).
const MAIL_GRACE: Duration = Duration::from_secs(20);
/// The port of MTA-STS policy hosts.
const HTTPS_PORT: u16 = 443;

/// The shared resources: the data directory, its stores, and the outgoing clients.
pub(super) struct Parts {
    pub(crate) config: Arc<Config>,
    pub(crate) clock: Clock,
    pub(crate) db: Db,
    pub(crate) secrets: Arc<Secrets>,
    former_keys: FormerKeys,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) limits: Arc<Limits>,
    memory: MemoryBudget,
    pub(crate) jobs: Jobs,
    first_attempt_cache: FirstAttemptCache,
    pub(crate) publisher: Publisher,
    pub(crate) server_tls: ServerTls,
    objects: Objects,
    links: Arc<Links>,
    resolver: Arc<Resolver>,
    client_tls: rustls::ClientConfig,
    /// Keeps the data directory locked.
    _data_dir: DataDir,
}

impl Parts {
    /// Opens the data directory and everything in it.
    pub(super) fn open(config: Config, clock: Clock) -> Result<Self, StartError> {
        crate::process::host::raise_file_limit();
        crate::process::host::survive_signals().map_err(StartError::because)?;
        let config = Arc::new(config);
        let data_dir = DataDir::open(&config.data_dir).map_err(StartError::from)?;
        master_key::settle(&config.data_dir).map_err(StartError::from)?;
        let secrets = Arc::new(Secrets::open(&config.data_dir).map_err(StartError::from)?);
        let file = config.data_dir.join(store::FILE_NAME);
        data_dir.check_database(&file).map_err(StartError::from)?;
        let db = Db::open(&config.data_dir).map_err(|error| match error {
            store::Error::Refused(_) => StartError::refused(error),
            _ => StartError::Failed(format!("opening the database {}: {error}", file.display())),
        })?;
        data_dir.record_database().map_err(StartError::because)?;
        let former_keys = FormerKeys::load(&config.data_dir, &secrets).map_err(StartError::because)?;
        Ok(Self {
            objects: Objects::open(&config.data_dir).map_err(StartError::because)?,
            links: Arc::new(Links::new(&config.public_url, secrets.link_key(), &former_keys.links)),
            resolver: Arc::new(Resolver::new(&config.dns.servers).map_err(StartError::because)?),
            client_tls: tls::client_config(config.tls.ca_file.as_deref()).map_err(StartError::because)?,
            server_tls: ServerTls::open(&config).map_err(StartError::because)?,
            metrics: Arc::new(Metrics::default()),
            limits: Arc::new(Limits::new(config.limits.clone())),
            memory: memory_budget(&config),
            jobs: Jobs::default(),
            first_attempt_cache: FirstAttemptCache::default(),
            publisher: Publisher::default(),
            config,
            clock,
            db,
            secrets,
            former_keys,
            _data_dir: data_dir,
        })
    }

    /// Refuses a master key that is not the one of the database: mail would be accepted, and no webhook signed.
    pub(super) async fn check_master_key(&self) -> Result<(), StartError> {
        let sample = self.db.read(sealed::sample).await.map_err(StartError::because)?;
        Ok(self.secrets.check_fits(&self.config.data_dir, sample)?)
    }

    pub(super) fn accounts(&self) -> Arc<Accounts> {
        Arc::new(Accounts {
            db: self.db.clone(),
            jobs: self.jobs.clone(),
            secrets: Arc::clone(&self.secrets),
            passwords: Passwords::default(),
            tokens: Tokens::new(&self.secrets.session_key()),
            tickets: Tickets::default(),
            strangers: Arc::default(),
            signup: self.config.auth.signup,
            dev: self.config.dev,
            public_url: self.config.public_url.clone(),
            most_sessions: self.config.limits.sessions,
        })
    }

    pub(super) fn domains(&self) -> Result<Arc<Domains>, StartError> {
        let uncached = Resolver::uncached(&self.config.dns.servers).map_err(StartError::because)?;
        Ok(Arc::new(Domains {
            db: self.db.clone(),
            secrets: Arc::clone(&self.secrets),
            config: Arc::clone(&self.config),
            checker: Checker::new(uncached, check::BUDGET),
            keys: KeyMaker::default(),
            limits: Arc::clone(&self.limits),
        }))
    }

    pub(super) fn outbound(&self, domains: Arc<Domains>) -> Outbound {
        Outbound::new(outbound::Dependencies {
            config: Arc::clone(&self.config),
            db: self.db.clone(),
            objects: self.objects.clone(),
            secrets: Arc::clone(&self.secrets),
            domains,
            jobs: self.jobs.clone(),
            metrics: Arc::clone(&self.metrics),
            limits: Arc::clone(&self.limits),
            publisher: self.publisher.clone(),
            return_paths: ReturnPaths::new(self.secrets.return_path_key(), self.config.forward_domain())
                .lasting(self.config.outbound.give_up_after, &self.config.hostname)
                .accepting(&self.former_keys.return_paths),
            keys: KeyCache::default(),
        })
    }

    pub(super) fn inbound(&self, outbound: Outbound) -> Result<Inbound, StartError> {
        let hostname = self.config.hostname.clone();
        let verifier = if self.config.dev {
            Verifier::skip(hostname)
        } else {
            Verifier::new(Resolver::clone(&self.resolver), hostname, verify::BUDGET)
        };
        Ok(Inbound::new(inbound::Dependencies {
            config: Arc::clone(&self.config),
            clock: self.clock.clone(),
            db: self.db.clone(),
            objects: self.objects.clone(),
            jobs: self.jobs.clone(),
            first_attempt_cache: self.first_attempt_cache.clone(),
            metrics: Arc::clone(&self.metrics),
            limits: Arc::clone(&self.limits),
            publisher: self.publisher.clone(),
            verifier,
            spam: self.spam_check()?,
            memory: self.memory.clone(),
            outbound,
            fingerprint_key: self.former_keys.fingerprint.unwrap_or_else(|| self.secrets.fingerprint_key()),
        }))
    }

    /// The operator configures rspamd: its address needs no permission.
    fn spam_check(&self) -> Result<Option<SpamCheck>, StartError> {
        let Some(url) = &self.config.spam.rspamd_url else { return Ok(None) };
        let policy = Policy::allow_all();
        let check = format!("{}/checkv2", url.trim_end_matches('/'));
        let target = Target::parse(&check, &policy).map_err(StartError::of("spam.rspamd_url"))?;
        let egress = self.egress(Guard { policy, own_listeners: Vec::new() });
        Ok(Some(SpamCheck::new(target, egress)))
    }

    /// Returns the services that all SMTP listeners share.
    pub(super) fn smtp_dependencies(&self, inbound: &Inbound) -> smtp_server::Dependencies {
        smtp_server::Dependencies {
            inbound: inbound.clone(),
            tls: self.server_tls.clone(),
            metrics: Arc::clone(&self.metrics),
            hostname: self.config.hostname.clone(),
            budget: smtp_server::mail_data_budget(self.memory.clone()),
        }
    }

    /// Binds the listeners that receive mail from anybody.
    pub(super) async fn mx_server(
        &self,
        parts: &smtp_server::Dependencies,
        sockets: &Sockets,
    ) -> Result<SmtpServer, StartError> {
        self.bind_smtp(&self.config.smtp.listen, Role::Mx, parts, sockets).await
    }

    /// Binds the submission listeners: with STARTTLS, and with implicit TLS.
    pub(super) async fn submission_servers(
        &self,
        parts: &smtp_server::Dependencies,
        outbound: &Outbound,
        sockets: &Sockets,
    ) -> Result<[SmtpServer; 2], StartError> {
        let failures = Arc::new(FixedWindow::new(MAX_FAILED_LOGINS, Duration::from_secs(60)));
        let role = |implicit_tls| {
            Role::Submission(smtp_server::Submission {
                outbound: outbound.clone(),
                db: self.db.clone(),
                clock: self.clock.clone(),
                failures: Arc::clone(&failures),
                implicit_tls,
            })
        };
        let listen = &self.config.submission;
        Ok([
            self.bind_smtp(&listen.listen, role(false), parts, sockets).await?,
            self.bind_smtp(&listen.listen_tls, role(true), parts, sockets).await?,
        ])
    }

    async fn bind_smtp(
        &self,
        listen: &[SocketAddr],
        role: Role,
        parts: &smtp_server::Dependencies,
        sockets: &Sockets,
    ) -> Result<SmtpServer, StartError> {
        SmtpServer::bind(listen, role, &self.config.smtp, parts.clone(), sockets).await.map_err(StartError::because)
    }

    fn egress(&self, guard: Guard) -> Egress {
        Egress::new(guard, &self.client_tls, Arc::clone(&self.resolver))
    }

    pub(super) fn webhooks(&self, own_listeners: &[SocketAddr]) -> Arc<Webhooks> {
        let policy = Policy {
            allow_localhost: self.config.webhook.allow_localhost,
            allow_networks: self.config.webhook.allow_networks.clone(),
        };
        let guard = Guard { policy: policy.clone(), own_listeners: own_listeners.to_vec() };
        Arc::new(Webhooks {
            db: self.db.clone(),
            objects: self.objects.clone(),
            secrets: Arc::clone(&self.secrets),
            links: Arc::clone(&self.links),
            egress: self.egress(guard),
            policy,
            metrics: Arc::clone(&self.metrics),
            limits: Arc::clone(&self.limits),
            publisher: self.publisher.clone(),
            jobs: self.jobs.clone(),
            memory: self.memory.clone(),
            in_flight: InFlight::default(),
            first_attempt_cache: self.first_attempt_cache.clone(),
        })
    }

    pub(super) fn dispatcher(
        &self,
        outbound: &Outbound,
        inbound: &Inbound,
        own_listeners: Vec<SocketAddr>,
    ) -> Arc<Dispatcher> {
        Arc::new(Dispatcher {
            outbound: outbound.clone(),
            transport: self.transport(own_listeners),
            local: Arc::new(inbound.clone()),
            clock: self.clock.clone(),
            pace: RateLimiter::new(self.config.outbound.domain_rate_per_minute),
            memory: self.memory.clone(),
        })
    }

    /// Creates the transport to remote hosts, which refuses our own listeners.
    fn transport(&self, own_listeners: Vec<SocketAddr>) -> Transport {
        let settings = &self.config.outbound;
        let hostname = self.config.hostname.clone();
        let policy = Policy { allow_localhost: false, allow_networks: settings.allow_networks.clone() };
        let guard = Guard { policy: policy.clone(), own_listeners };
        let sts = settings
            .mta_sts
            .then(|| MtaSts::new(Arc::clone(&self.resolver), self.egress(guard.clone()), policy, HTTPS_PORT));
        let hosts = MxResolver::new(settings, &hostname, Arc::clone(&self.resolver), guard, sts);
        Transport::new(hostname, Timeouts::default(), ClientTls::new(&self.client_tls), hosts)
            .waking(self.jobs.clone(), self.clock.clone())
    }

    /// Creates the worker, with a handler for each kind of job.
    pub(super) fn worker(&self, webhooks: &Arc<Webhooks>, dispatcher: Arc<Dispatcher>, outbound: Outbound) -> Worker {
        let (webhook, mail) = (&self.config.webhook, &self.config.outbound);
        let schedule = Schedule::new(webhook.retry.clone());
        let mail_schedule = Schedule::repeating(mail.retry.clone());
        let zero_retention = Arc::new(ZeroRetentionAttempts { webhooks: Arc::clone(webhooks) });
        let notices = Arc::new(SystemMail { dispatcher: Arc::clone(&dispatcher) });
        let scheduled = Arc::new(ScheduledSends { outbound });
        let webhook_job =
            Registration::new(Arc::clone(webhooks), schedule.clone(), POST_LEASE).give_up_after(schedule.whole());
        let dispatch_job = Registration::new(dispatcher, mail_schedule.clone(), MAIL_LEASE)
            .give_up_after(mail.give_up_after)
            .grace(MAIL_GRACE);
        Worker {
            db: self.db.clone(),
            clock: self.clock.clone(),
            jobs: self.jobs.clone(),
            kinds: HashMap::from([
                (JobKind::Webhook, webhook_job),
                (JobKind::ZeroRetention, Registration::new(zero_retention, schedule, POST_LEASE).grace(POST_GRACE)),
                (JobKind::Dispatch, dispatch_job),
                (JobKind::Notice, Registration::new(notices, mail_schedule.clone(), MAIL_LEASE).grace(MAIL_GRACE)),
                (JobKind::ScheduledSend, Registration::new(scheduled, mail_schedule, MAIL_LEASE)),
            ]),
            config: WorkerConfig {
                lane_width: webhook.lane_width,
                mail_lane_width: mail.paced_lane_width(),
                max_in_flight: webhook.max_in_flight,
            },
            stop: CancellationToken::new(),
        }
    }

    pub(super) fn http_dependencies(
        &self,
        accounts: &Arc<Accounts>,
        domains: &Arc<Domains>,
        inbound: Inbound,
        outbound: Outbound,
        webhooks: &Arc<Webhooks>,
    ) -> Result<http::Dependencies, StartError> {
        let google = Google::new(self.config.auth.google.clone(), &self.client_tls, Arc::clone(&self.resolver));
        let links = Arc::clone(&self.links);
        Ok(http::Dependencies {
            config: Arc::clone(&self.config),
            clock: self.clock.clone(),
            db: self.db.clone(),
            objects: self.objects.clone(),
            links: Arc::clone(&links),
            metrics: Arc::clone(&self.metrics),
            account_limits: Arc::clone(&self.limits),
            memory: self.memory.clone(),
            secrets: Arc::clone(&self.secrets),
            accounts: Arc::clone(accounts),
            domains: Arc::clone(domains),
            google: google.map_err(StartError::of("auth.google"))?,
            inbound,
            outbound,
            uploads: Uploads {
                db: self.db.clone(),
                objects: self.objects.clone(),
                links,
                limits: Arc::clone(&self.limits),
            },
            webhooks: Arc::clone(webhooks),
            realtime: self.publisher.realtime.clone(),
        })
    }

    /// Listens for commands on the host. Without the socket they need the server stopped.
    pub(super) fn control(
        &self,
        accounts: &Arc<Accounts>,
        domains: &Arc<Domains>,
    ) -> Option<(ControlSocket, Arc<Operations>)> {
        let socket = match ControlSocket::listen(&self.config.data_dir) {
            Ok(socket) => socket,
            Err(error) => {
                tracing::warn!(%error, "commands on the host, such as mailkite user, cannot reach this server");
                return None;
            }
        };
        let importer = Importer {
            db: self.db.clone(),
            objects: self.objects.clone(),
            limits: Arc::clone(&self.limits),
            clock: self.clock.clone(),
            hostname: self.config.hostname.clone(),
            default_days: self.config.storage.retention_days,
        };
        let operations = Operations {
            accounts: Arc::clone(accounts),
            domains: Arc::clone(domains),
            objects: self.objects.clone(),
            importer,
            clock: self.clock.clone(),
        };
        Some((socket, Arc::new(operations)))
    }

    pub(super) fn retention(&self) -> Retention {
        Retention {
            db: self.db.clone(),
            objects: self.objects.clone(),
            clock: self.clock.clone(),
            default_days: self.config.storage.retention_days,
        }
    }
}

/// Creates the budget of all services from the configuration.
fn memory_budget(config: &Config) -> MemoryBudget {
    let octets = |bytes: u64| usize::try_from(bytes).unwrap_or(usize::MAX);
    MemoryBudget::new(octets(config.limits.memory_bytes), octets(config.smtp.memory_bytes))
}
