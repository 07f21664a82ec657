//! Facts about this server (ours); some of them for its owner only.

use std::net::SocketAddr;
use std::path::Path;

use axum::Json;
use axum::extract::State;
use serde::Serialize;
use utoipa::ToSchema;

use crate::clock::Timestamp;
use crate::http::AppState;
use crate::http::auth::Caller;
use crate::http::error::ApiError;
use crate::net::tls::CertificateFacts;
use crate::process::data_dir::DataDir;
use crate::process::last_backup;
use crate::store;
use crate::store::accounts::stats;
use crate::store::disk;
use crate::store::disk::Sizes;

/// Facts and state of the server.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ServerView {
    #[schema(example = "0.1.0")]
    version: &'static str,
    hostname: String,
    started_at: Timestamp,
    uptime_seconds: i64,
    /// True in `mailkite dev`.
    dev: bool,
    /// Addresses on which mail is received.
    smtp: Vec<String>,
    /// Addresses for submission by mail clients.
    submission: Vec<String>,
    /// Queued work of the account.
    queue: QueueView,
    /// Null, like the following, for accounts that do not administer the server.
    disk: Option<DiskView>,
    sizes: Option<SizesView>,
    /// Time of the last complete backup; null if there was none.
    last_backup_at: Option<Timestamp>,
    certificate: Option<CertificateView>,
}

/// Queued work.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct QueueView {
    /// Deliveries of webhooks.
    webhooks: u64,
    /// Outbound messages.
    outbound: u64,
    /// Time since which the oldest of them waits.
    oldest_at: Option<Timestamp>,
}

impl From<stats::QueueCounts> for QueueView {
    fn from(waiting: stats::QueueCounts) -> Self {
        Self { webhooks: waiting.webhooks, outbound: waiting.outbound, oldest_at: waiting.oldest_at }
    }
}

/// The file system of the data directory.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct DiskView {
    /// Size in octets.
    pub(crate) total_bytes: u64,
    /// Octets that mail may still use.
    pub(crate) free_bytes: u64,
    /// The database and its WAL.
    pub(crate) database_bytes: u64,
}

impl DiskView {
    /// Reads the disk usage; `None` if it is not available.
    pub(crate) fn read(data_dir: &Path) -> Option<Self> {
        let size = |name: &str| std::fs::metadata(data_dir.join(name)).map_or(0, |found| found.len());
        let database_bytes = size(store::FILE_NAME) + size(&format!("{}-wal", store::FILE_NAME));
        let free_bytes = DataDir::free_bytes(data_dir).ok()?;
        let total_bytes = DataDir::total_bytes(data_dir).ok()?;
        Some(Self { total_bytes, free_bytes, database_bytes })
    }

    /// Returns true if less than a GiB, or a twentieth of the disk, is free.
    pub(crate) const fn is_nearly_full(&self) -> bool {
        self.free_bytes < 1 << 30 || self.free_bytes < self.total_bytes / 20
    }
}

/// Contents of the data directory, in octets.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct SizesView {
    /// The database, with its free pages.
    database_bytes: u64,
    free_page_bytes: u64,
    wal_bytes: u64,
    /// Mail that is too large for the database.
    mail_bytes: u64,
    upload_bytes: u64,
    /// Copies of the database from before an upgrade; removed after 30 days.
    schema_copy_bytes: u64,
}

impl From<Sizes> for SizesView {
    fn from(sizes: Sizes) -> Self {
        Self {
            database_bytes: sizes.database,
            free_page_bytes: sizes.free_pages,
            wal_bytes: sizes.wal,
            mail_bytes: sizes.mail,
            upload_bytes: sizes.uploads,
            schema_copy_bytes: sizes.schema_copies,
        }
    }
}

/// The server's TLS certificate.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct CertificateView {
    subject: String,
    not_after: Timestamp,
    self_signed: bool,
}

impl From<CertificateFacts> for CertificateView {
    fn from(facts: CertificateFacts) -> Self {
        Self { subject: facts.subject, not_after: facts.not_after, self_signed: facts.self_signed }
    }
}

/// `GET /api/server`
pub(crate) async fn facts(State(app): State<AppState>, caller: Caller) -> Result<Json<ServerView>, ApiError> {
    let account = caller.id();
    let waiting = app.db.read(move |connection| stats::waiting(connection, account)).await?;
    let now = app.clock.now();
    let addresses = |all: &[SocketAddr]| all.iter().map(ToString::to_string).collect::<Vec<_>>();
    let config = &app.config;
    let submission = [config.submission.listen.as_slice(), config.submission.listen_tls.as_slice()].concat();
    let is_admin = caller.account.is_admin;
    let data_dir = config.data_dir.clone();
    let sizes = match is_admin {
        true => Some(app.db.read_background(move |connection| disk::sizes(connection, &data_dir)).await?.into()),
        false => None,
    };
    Ok(Json(ServerView {
        version: env!("CARGO_PKG_VERSION"),
        hostname: config.hostname.clone(),
        started_at: app.started_at,
        uptime_seconds: now.as_secs() - app.started_at.as_secs(),
        dev: config.dev,
        smtp: addresses(&config.smtp.listen),
        submission: addresses(&submission),
        queue: waiting.into(),
        disk: DiskView::read(&config.data_dir).filter(|_| is_admin),
        sizes,
        last_backup_at: last_backup::read(&config.data_dir).filter(|_| is_admin),
        certificate: app.tls.facts().filter(|_| is_admin).map(Into::into),
    }))
}
