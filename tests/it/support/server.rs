//! The real server in this process: every part, on port 0, over a temporary data directory.
//!
//! [`Server::stop`] drains it and then looks at what it leaves: no job unless the test expects it, a sound database, an
//! object file for every row that names one.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use mailkite::testing::accounts::Accounts;
use mailkite::testing::app::{self, Sockets, StartError};
use mailkite::testing::bootstrap;
use mailkite::testing::clock::{Clock, Timestamp};
use mailkite::testing::config::{Config, Smarthost, SmarthostSecurity};
use mailkite::testing::domain::Domains;
use mailkite::testing::event_bus::Activity;
use mailkite::testing::id::RouteId;
use mailkite::testing::jobs::Jobs;
use mailkite::testing::retention::{Retention, Swept};
use mailkite::testing::secrets::Secrets;
use mailkite::testing::store::accounts::domains::DomainRow;
use mailkite::testing::store::blobs::objects::Objects;
use mailkite::testing::store::webhooks::routes::{AckMode, Action, NewRoute, SECRET_PURPOSE};
use mailkite::testing::store::{self, Db};
use mailkite::testing::webhook::Webhooks;
use rusqlite::{Connection, OptionalExtension};
use tempfile::TempDir;
use tokio::sync::broadcast;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::api::Api;
use super::database::{assert_sound, open_database, seed, unowned_domain};
use super::smtp::{SmtpClient, SmtpReply};

/// Limit for anything that a test waits for.
pub(crate) const DEADLINE: Duration = Duration::from_secs(30);
/// The server's host name.
pub(crate) const HOSTNAME: &str = "mx.mailkite.test";

/// A running server.
pub(crate) struct Server {
    pub smtp: SocketAddr,
    pub http: SocketAddr,
    /// Submission with STARTTLS, and with implicit TLS; off unless the test configures it.
    pub submission: [SocketAddr; 2],
    pub clock: Clock,
    pub db: Db,
    pub webhooks: Arc<Webhooks>,
    pub domains: Arc<Domains>,
    /// The owner's verified domain.
    pub inbox: DomainRow,
    data_dir: PathBuf,
    _dir: TempDir,
    jobs: Jobs,
    pub accounts: Arc<Accounts>,
    pub secrets: Arc<Secrets>,
    activity: broadcast::Receiver<Activity>,
    stop: CancellationToken,
    running: JoinHandle<Result<(), StartError>>,
}

/// A webhook route with its secret.
#[derive(Clone, Debug)]
pub(crate) struct Webhook {
    pub route: RouteId,
    pub secret: String,
    pub url: String,
}

/// The recorded outcome of a webhook attempt.
#[derive(Clone, Debug)]
pub(crate) struct RecordedAttempt {
    pub attempt: u32,
    pub status: &'static str,
    pub status_code: Option<u16>,
    pub error: Option<&'static str>,
    pub next_attempt_at: Option<Timestamp>,
    pub url: String,
}

impl Server {
    /// A server with the test's defaults.
    pub(crate) async fn start() -> Self {
        Self::start_with(Clock::System, |_| {}).await
    }

    /// A server on this clock whose configuration `adjust` has changed.
    pub(crate) async fn start_with(clock: Clock, adjust: impl FnOnce(&mut Config)) -> Self {
        Self::launch(clock, adjust, true).await
    }

    /// The same without any account: it has no owner, and [`Server::inbox`] does not exist.
    pub(crate) async fn start_unowned(clock: Clock, adjust: impl FnOnce(&mut Config)) -> Self {
        Self::launch(clock, adjust, false).await
    }

    async fn launch(clock: Clock, adjust: impl FnOnce(&mut Config), owned: bool) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut config = config(&dir.path().join("data"));
        adjust(&mut config);
        let data_dir = config.data_dir.clone();
        let bound = app::bind(config, clock.clone(), &Sockets::default()).await.unwrap();
        let (db, secrets) = (bound.db().clone(), Arc::clone(bound.secrets()));
        let inbox = if owned { seed(&db, &secrets, clock.now()).await } else { unowned_domain(clock.now()) };
        let stop = CancellationToken::new();
        Self {
            smtp: bound.smtp_addresses()[0],
            http: bound.http_addresses()[0],
            submission: bound
                .submission_addresses()
                .map(|addresses| addresses.first().copied().unwrap_or_else(|| SocketAddr::from(([127, 0, 0, 1], 1)))),
            clock,
            db,
            webhooks: Arc::clone(bound.webhooks()),
            domains: Arc::clone(bound.domains()),
            inbox,
            data_dir,
            _dir: dir,
            jobs: bound.jobs().clone(),
            accounts: Arc::clone(bound.accounts()),
            secrets,
            activity: bound.publisher().listen(),
            running: tokio::spawn(bound.run(stop.clone())),
            stop,
        }
    }

    /// The data directory.
    pub(crate) fn data_dir(&self) -> &Path {
        &self.data_dir
    }

    /// Runs a write.
    pub(crate) async fn write<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Connection, &Secrets, Timestamp) -> store::Result<T> + Send + 'static,
    ) -> T {
        let (secrets, now) = (Arc::clone(&self.secrets), self.clock.now());
        self.db.write(move |tx| work(tx, &secrets, now)).await.unwrap()
    }

    /// Runs a query for one value.
    pub(crate) async fn query<T>(&self, sql: &'static str) -> T
    where
        T: rusqlite::types::FromSql + Send + 'static,
    {
        self.db.read(move |connection| Ok(connection.query_row(sql, [], |row| row.get(0))?)).await.unwrap()
    }

    /// The lenient webhook of all of inbox.test.
    pub(crate) async fn webhook(&self, url: &str) -> Webhook {
        self.route("*@inbox.test", AckMode::Lenient, url).await
    }

    /// A webhook route of the owner.
    pub(crate) async fn route(&self, matching: &str, ack_mode: AckMode, url: &str) -> Webhook {
        let new = NewRoute {
            account_id: self.inbox.account_id,
            domain_id: (!matching.starts_with('/')).then_some(self.inbox.id),
            match_pattern: matching.to_owned(),
            action: Action::Webhook,
            destination: Some(url.to_owned()),
            ack_mode: Some(ack_mode),
            is_domain_webhook: false,
            secret_sealed: None,
        };
        let (route, secret) = self.write(|tx, secrets, now| bootstrap::webhook_route(tx, secrets, new, now)).await;
        Webhook { route, secret, url: url.to_owned() }
    }

    /// Adds a route of the owner without destination.
    pub(crate) async fn plain_route(&self, matching: &str, action: Action) -> RouteId {
        let new = NewRoute {
            account_id: self.inbox.account_id,
            domain_id: Some(self.inbox.id),
            match_pattern: matching.to_owned(),
            action,
            destination: None,
            ack_mode: None,
            is_domain_webhook: false,
            secret_sealed: None,
        };
        self.write(move |tx, _, now| store::webhooks::routes::insert(tx, &new, now)).await
    }

    /// Adds a verified domain to the owner's account.
    pub(crate) async fn add_domain(&self, name: &'static str) {
        let account = self.inbox.account_id;
        self.write(move |tx, _, now| bootstrap::verified_domain(tx, account, name, now)).await;
    }

    /// Runs the sweep of what is past its retention, which is 30 days.
    pub(crate) async fn sweep(&self) -> Swept {
        let retention = Retention {
            db: self.db.clone(),
            objects: Objects::open(self.data_dir()).unwrap(),
            clock: self.clock.clone(),
            default_days: 30,
        };
        retention.sweep(self.clock.now()).await.unwrap()
    }

    /// Another account with this verified domain, and the webhook of all of it.
    pub(crate) async fn other_account(&self, domain: &'static str, url: &str) -> Webhook {
        let url = url.to_owned();
        self.write(move |tx, secrets, now| {
            let account = store::accounts::insert(
                tx,
                store::accounts::NewAccount {
                    email: format!("owner@{domain}"),
                    email_verified: true,
                    ..Default::default()
                },
                now,
            )?;
            let domain = bootstrap::verified_domain(tx, account.id, domain, now)?;
            let (route, secret) = bootstrap::domain_webhook(tx, secrets, &domain, &url, now)?;
            Ok(Webhook { route, secret, url })
        })
        .await
    }

    /// Gives a route a new secret, the old one still valid for 24 hours; returns the new one.
    pub(crate) async fn rotate(&self, hook: &Webhook) -> String {
        let route = hook.route.clone();
        self.write(move |tx, secrets, now| {
            let secret = mailkite::testing::secrets::new_webhook_secret();
            let sealed = secrets.seal(SECRET_PURPOSE, secret.as_bytes());
            store::webhooks::routes::rotate_secret(tx, &route, &sealed, now.plus(Duration::from_secs(86_400)), now)?;
            Ok(secret)
        })
        .await
    }

    /// The owner's API key.
    pub(crate) async fn api_key(&self) -> String {
        self.write(|tx, secrets, now| {
            Ok(mailkite::testing::bootstrap::owner(tx, secrets, "owner@mailkite.test", now)?.1)
        })
        .await
    }

    /// A token of a session of the owner's.
    pub(crate) async fn owner_session(&self) -> String {
        self.write(|tx, secrets, now| {
            let account = store::accounts::find_owner(tx)?.unwrap();
            let (token, claims) = mailkite::testing::secrets::session_tokens::Tokens::new(&secrets.session_key())
                .issue(&account.public_id, now);
            let session = store::accounts::sessions::NewSession {
                jti: claims.jti,
                account: account.id,
                client_address: "192.0.2.1".to_owned(),
                user_agent: String::new(),
                expires_at: Timestamp::from_millis(claims.exp * 1000),
            };
            store::accounts::sessions::insert(tx, &session, 0, now)?;
            Ok(token)
        })
        .await
    }

    /// A GET of the API with the owner's key: status and JSON.
    pub(crate) async fn api(&self, path: &str) -> (u16, serde_json::Value) {
        let answer = self.owner().await.get(path).await;
        (answer.status, answer.json)
    }

    /// A client of the API without credential.
    pub(crate) fn anonymous(&self) -> Api {
        Api::anonymous(self.http)
    }

    /// A client of the API with the owner's key.
    pub(crate) async fn owner(&self) -> Api {
        self.anonymous().with(self.api_key().await)
    }

    /// Sends one mail on a connection of its own; the reply to its data.
    pub(crate) async fn mail(&self, to: &str, message: &str) -> SmtpReply {
        SmtpClient::connect_and_greet(self.smtp).await.mail("ada@example.com", &[to], message).await
    }

    /// Sends one mail with this subject to `to`, which must be accepted; its message id.
    pub(crate) async fn accepted(&self, to: &str, subject: &str) -> String {
        let reply = self.mail(to, &message(subject)).await;
        assert_eq!(reply.code, 250, "{reply:?}");
        let text = reply.text();
        let id = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').find(|word| word.starts_with("msg_"));
        id.unwrap_or_else(|| panic!("no message id in {text:?}")).to_owned()
    }

    /// Waits for the next activity that `select` takes; `what` is for its failure.
    async fn next_activity<T>(&mut self, what: &str, select: impl Fn(Activity) -> Option<T>) -> T {
        let next = async {
            loop {
                if let Some(selected) = select(self.activity.recv().await.unwrap()) {
                    return selected;
                }
            }
        };
        let selected = timeout(DEADLINE, next).await;
        assert!(selected.is_ok(), "no {what} within {DEADLINE:?}");
        selected.unwrap()
    }

    /// The next webhook attempt once it is recorded.
    pub(crate) async fn next_attempt(&mut self) -> RecordedAttempt {
        self.next_activity("attempt was recorded", |activity| match activity {
            Activity::Attempted { attempt, status, status_code, error, next_attempt_at, url, .. } => {
                let next_attempt_at = next_attempt_at.map(Timestamp::from_millis);
                Some(RecordedAttempt { attempt, status, status_code, error, next_attempt_at, url })
            }
            _ => None,
        })
        .await
    }

    /// The next recipient that was settled or deferred: address, status, diagnostic.
    pub(crate) async fn next_recipient(&mut self) -> (String, &'static str, String) {
        self.next_activity("recipient was settled", |activity| match activity {
            Activity::Sent { to, status, diagnostic, .. } => Some((to, status, diagnostic)),
            _ => None,
        })
        .await
    }

    /// Advances a manual clock and wakes the job engine for mail to a domain.
    pub(crate) fn advance_mail(&self, by: Duration, domain: &str) {
        self.clock.advance(by);
        self.jobs.wake(&mailkite::testing::jobs::mail_flow(domain, self.inbox.account_id), self.clock.now());
    }

    /// Wakes the job engine for scheduled messages.
    pub(crate) fn wake_scheduled_sends(&self) {
        let flow = mailkite::testing::jobs::Flow::new(
            mailkite::testing::outbound::submit::RELEASE_LANE,
            self.inbox.account_id,
        );
        self.jobs.wake(&flow, self.clock.now());
    }

    /// The outcome of the next zero-retention mail, once it is removed: status, code, error.
    pub(crate) async fn next_zero_retention_attempt(&mut self) -> (&'static str, Option<u16>, Option<&'static str>) {
        self.next_activity("zero-retention mail was removed", |activity| match activity {
            Activity::ZeroRetentionAttempted { status, status_code, error, .. } => Some((status, status_code, error)),
            _ => None,
        })
        .await
    }

    /// Advances a manual clock and wakes the job engine for the endpoint `url`.
    pub(crate) fn advance(&self, by: Duration, url: &str) {
        self.clock.advance(by);
        self.jobs.wake(&mailkite::testing::webhook::flow_of(url, self.inbox.account_id), self.clock.now());
    }

    /// Waits until a query gives `wanted`; no row and a null are values that are not there yet. For changes
    /// without an event; it repeats the query at once.
    pub(crate) async fn until<T>(&self, sql: &'static str, wanted: T)
    where
        T: rusqlite::types::FromSql + PartialEq + std::fmt::Debug + Send + 'static,
    {
        let found = async || {
            let asked = self.db.read(move |connection| {
                Ok(connection.query_row(sql, [], |row| row.get::<_, Option<T>>(0)).optional()?.flatten())
            });
            asked.await.unwrap()
        };
        let asked = async {
            while found().await.as_ref() != Some(&wanted) {
                tokio::task::yield_now().await;
            }
        };
        let reached = timeout(DEADLINE, asked).await;
        assert!(reached.is_ok(), "{sql} never gave {wanted:?} but {:?}", found().await);
    }

    /// Requests a stop, as SIGTERM does, without waiting for it.
    pub(crate) fn begin_stop(&self) {
        self.stop.cancel();
    }

    /// Drains it and checks what it leaves; no job may be left but mails of the appliance's own.
    pub(crate) async fn stop(self) {
        self.stop_with_jobs(0).await;
    }

    /// As [`Self::stop`], with this many jobs waiting.
    pub(crate) async fn stop_with_jobs(self, jobs: i64) {
        assert_eq!(self.stop_with_any_jobs().await, jobs, "jobs that are left");
    }

    /// As [`Self::stop`]; how many jobs are waiting.
    pub(crate) async fn stop_with_any_jobs(self) -> i64 {
        self.stop.cancel();
        let ended = timeout(DEADLINE, self.running).await;
        assert!(ended.is_ok(), "it did not stop within {DEADLINE:?}");
        ended.unwrap().unwrap().unwrap();
        assert_sound(&self.data_dir);
        let connection = open_database(&self.data_dir);
        connection.query_row("SELECT count(*) FROM job WHERE kind <> 'notice'", [], |row| row.get(0)).unwrap()
    }
}

/// The configuration of the tests: every port free, webhooks to this machine, as in production otherwise.
pub(crate) fn config(data_dir: &Path) -> Config {
    let any_port = SocketAddr::from(([127, 0, 0, 1], 0));
    let mut config = Config {
        hostname: HOSTNAME.to_owned(),
        public_url: "https://mail.mailkite.test".to_owned(),
        data_dir: data_dir.to_owned(),
        ..Config::default()
    };
    config.smtp.listen = vec![any_port];
    config.http.listen = vec![any_port];
    config.metrics.listen = None;
    config.webhook.allow_localhost = true;
    // Mail that a test sends to no host of its own stays queued: nothing listens there.
    config.outbound.smarthost = Some(Arc::new(Smarthost {
        host: "127.0.0.1".to_owned(),
        port: 1,
        security: SmarthostSecurity::None,
        username: None,
        password: None,
        fallback: false,
    }));
    config.submission.listen = Vec::new();
    config.submission.listen_tls = Vec::new();
    config
}

/// A small mail with this subject.
pub(crate) fn message(subject: &str) -> String {
    format!(
        "From: Ada Lovelace <ada@example.com>\r\nTo: Support <support@inbox.test>\r\nSubject: {subject}\r\n\
         Message-ID: <{}@example.com>\r\n\r\nDoes it branch?\r\n",
        subject.replace(' ', ".")
    )
}
