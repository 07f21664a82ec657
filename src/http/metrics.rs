//! `/metrics` (contract 2.1): every part of the server that has figures, and those of HTTP requests.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::http::header::{ACCEPT, CONTENT_TYPE};
use axum::http::{HeaderMap, Method, StatusCode};
use axum::response::{IntoResponse, Response};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::histogram::Histogram;

use super::auth::bearer;
use super::error::{ApiError, Code};
use super::{AppInner, AppState};
use crate::metrics::{Expose, Exposition, Format, RateLimit, buckets, text};
use crate::process::data_dir::DataDir;
use crate::process::last_backup;
use crate::process::usage::Usage;
use crate::secrets::token_hash;
use crate::store::figures::DatabaseFigures;

/// Time for the figures of the database; a scrape has ten seconds by default.
const DATABASE_MAX: Duration = Duration::from_secs(3);
const METHODS: [&str; 8] = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "other"];
const STATUSES: [&str; 4] = ["2xx", "3xx", "4xx", "5xx"];
/// Family of paths that no endpoint has.
const UNKNOWN: &str = "unknown";

/// Serves the metrics on their own listener.
pub(crate) async fn page(State(app): State<AppState>, headers: HeaderMap) -> Response {
    let accept: Vec<&str> = headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok()).collect();
    let format = Format::accepted(&accept.join(","));
    let now = app.clock.now();
    // The other figures are wanted most while the database does not answer.
    let read = app.db.read_background(move |connection| DatabaseFigures::read(connection, now));
    let database = tokio::time::timeout(DATABASE_MAX, read).await.ok().and_then(Result::ok);
    // Files of /proc and the file system are read.
    let rendered = tokio::task::spawn_blocking(move || text(format, parts(app, database)));
    match rendered.await {
        Ok(Ok(text)) => ([(CONTENT_TYPE, format.content_type())], text).into_response(),
        Ok(Err(_)) | Err(_) => ApiError::from(Code::Internal).into_response(),
    }
}

/// Serves the metrics on the main listener to clients with the token; for others the path does not exist.
pub(crate) async fn page_with_token(state: State<AppState>, headers: HeaderMap) -> Response {
    let genuine = match (bearer(&headers), &state.config.metrics.token) {
        // Hashes are compared, so the timing reveals nothing of the token.
        (Some(given), Some(token)) => token_hash(given) == token_hash(token),
        _ => false,
    };
    if genuine { page(state, headers).await } else { ApiError::not_found().into_response() }
}

/// Lists all parts that have figures.
fn parts(app: AppState, database: Option<DatabaseFigures>) -> Vec<Box<dyn Expose>> {
    app.metrics.set_objects(app.objects.damaged_count(), app.objects.kept_orphans());
    let mut parts: Vec<Box<dyn Expose>> = vec![
        Box::new(Arc::clone(&app.metrics)),
        Box::new(app.db.clone()),
        Box::new(Arc::clone(&app.account_limits)),
        Box::new(app.memory.clone()),
        Box::new(Arc::clone(&app.connections)),
        Box::new(app.webhooks.jobs.figures()),
        Box::new(Arc::clone(&app.requests)),
    ];
    // A database that cannot be read, or a /proc that is hidden, leaves the others.
    if let Some(database) = database {
        parts.push(Box::new(database));
    }
    if let Ok(usage) = Usage::read() {
        parts.push(Box::new(usage));
    }
    parts.push(Box::new(Host(app)));
    parts
}

/// Figures of what all parts use: disk, certificate, password hashes, build.
struct Host(AppState);

impl Expose for Host {
    fn expose(&self, exposition: &mut Exposition<'_>) -> fmt::Result {
        let app = &self.0;
        let (passwords, keys) = (app.accounts.passwords.queue_stats(), app.domains.keys.figures());
        let help = "Requests that wait for a password hash or an RSA key.";
        exposition.gauge("mailkite_costly_work_waiting", help, passwords.0 + keys.0)?;
        let help = "Such requests that were refused because too many waited.";
        exposition.counter("mailkite_costly_work_refused_total", help, passwords.1 + keys.1)?;
        let fsyncs = [("wal", app.db.fsync_times()), ("object", app.objects.fsync_times())];
        let help = "Duration of an fsync of the WAL, and of those of an object and its folder together.";
        exposition.histograms("mailkite_fsync_duration_seconds", help, "file", fsyncs)?;
        let folder = &app.config.data_dir;
        if let (Ok(free), Ok(total)) = (DataDir::free_bytes(folder), DataDir::total_bytes(folder)) {
            exposition.gauge("mailkite_disk_free_bytes", "Room on the disk of the data directory.", free)?;
            exposition.gauge("mailkite_disk_bytes", "Size of the disk of the data directory.", total)?;
        }
        if let Some(certificate) = app.tls.facts() {
            let name = "mailkite_certificate_expiry_timestamp_seconds";
            exposition.gauge(
                name,
                "Time at which the certificate in use expires.",
                certificate.not_after.as_secs(),
            )?;
        }
        let help = "Time of the last complete backup by mailkite backup; 0 until there was one.";
        let backup = last_backup::read(folder).map_or(0, |at| at.as_secs());
        exposition.gauge("mailkite_backup_timestamp_seconds", help, backup)?;
        let help = "Time at which the server started.";
        exposition.gauge("process_start_time_seconds", help, app.started_at.as_secs())?;
        let version = [([("version", env!("CARGO_PKG_VERSION"))], 1_u32)];
        exposition.gauges("mailkite_build_info", "The version that runs.", version)
    }
}

impl AppInner {
    /// Returns the answer to a request beyond a rate limit, which is counted.
    pub(crate) fn rate_limited(&self, limit: RateLimit) -> impl Fn(u64) -> ApiError {
        move |retry_after_secs| {
            self.metrics.rate_limited.add(limit);
            ApiError::rate_limited(retry_after_secs)
        }
    }
}

/// Requests by family of paths, method and class of the status. Families come from the endpoint table, never from a
/// request.
#[derive(Debug)]
pub(crate) struct RequestMetrics {
    families: BTreeMap<&'static str, Family>,
    unknown: Family,
}

#[derive(Debug)]
struct Family {
    counters: [[Counter; STATUSES.len()]; METHODS.len()],
    duration: Histogram,
}

impl Family {
    fn new() -> Self {
        Self { counters: Default::default(), duration: Histogram::new(buckets::HTTP.iter().copied()) }
    }

    fn is_used(&self) -> bool {
        self.counters.iter().flatten().any(|counter| counter.get() > 0)
    }
}

impl RequestMetrics {
    /// Takes the paths of the endpoint table.
    pub(crate) fn new(paths: impl IntoIterator<Item = &'static str>) -> Self {
        let names: BTreeSet<&'static str> = paths.into_iter().map(family).collect();
        Self { families: names.into_iter().map(|name| (name, Family::new())).collect(), unknown: Family::new() }
    }

    /// Counts a request to an endpoint's path, as the table spells it.
    pub(crate) fn count(&self, path: Option<&str>, method: &Method, status: StatusCode, took: Duration) {
        let known = path.and_then(|path| self.families.get(family(path)));
        let found = known.unwrap_or(&self.unknown);
        let method = METHODS.iter().position(|word| *word == method.as_str()).unwrap_or(METHODS.len() - 1);
        let class = usize::from(status.as_u16() / 100).saturating_sub(2);
        if let Some(counter) = found.counters.get(method).and_then(|statuses| statuses.get(class)) {
            counter.inc();
        }
        found.duration.observe(took.as_secs_f64());
    }

    fn used(&self) -> impl Iterator<Item = (&'static str, &Family)> {
        let all = self.families.iter().map(|(name, family)| (*name, family));
        all.chain([(UNKNOWN, &self.unknown)]).filter(|(_, family)| family.is_used())
    }
}

impl Expose for RequestMetrics {
    fn expose(&self, exposition: &mut Exposition<'_>) -> fmt::Result {
        let counted = self.used().flat_map(|(name, family)| {
            METHODS.iter().zip(&family.counters).flat_map(move |(method, statuses)| {
                STATUSES.iter().zip(statuses).map(move |(status, counter)| {
                    ([("family", name), ("method", *method), ("status", *status)], counter.get())
                })
            })
        });
        let counted = counted.filter(|(_, count)| *count > 0);
        exposition.counters("mailkite_http_requests_total", "HTTP requests, by family of paths.", counted)?;
        let durations = self.used().map(|(name, family)| (name, &family.duration));
        let help = "Time until the response to an HTTP request begins.";
        exposition.histograms("mailkite_http_request_duration_seconds", help, "family", durations)
    }
}

/// Returns the family of a path: the resource of an API path, else the part of the server.
fn family(path: &str) -> &str {
    let mut segments = path.split('/').skip(1);
    match (segments.next(), segments.next()) {
        (Some("api" | "v1"), Some(resource)) => resource.trim_end_matches(".json"),
        (Some("att"), _) => "files",
        (Some("metrics"), _) => "metrics",
        _ => "dashboard",
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests may panic")]

    use super::*;

    #[test]
    fn requests_are_counted_by_the_endpoint_and_never_by_what_the_client_wrote() {
        let requests = RequestMetrics::new(["/", "/api/routes/{id}", "/api/routes", "/v1/send/batch"]);
        let (ok, took) = (StatusCode::OK, Duration::from_millis(2));
        requests.count(Some("/api/routes/{id}"), &Method::GET, ok, took);
        requests.count(Some("/api/routes"), &Method::GET, StatusCode::CREATED, took);
        requests.count(Some("/"), &Method::from_bytes(b"BREW").unwrap(), StatusCode::IM_A_TEAPOT, took);
        requests.count(None, &Method::POST, StatusCode::NOT_FOUND, took);
        let text = text(Format::Prometheus, vec![Box::new(Arc::new(requests))]).unwrap();
        let counted: Vec<&str> =
            text.lines().filter(|line| line.starts_with("mailkite_http_requests_total")).collect();
        assert_eq!(
            counted,
            [
                "mailkite_http_requests_total{family=\"dashboard\",method=\"other\",status=\"4xx\"} 1",
                "mailkite_http_requests_total{family=\"routes\",method=\"GET\",status=\"2xx\"} 2",
                "mailkite_http_requests_total{family=\"unknown\",method=\"POST\",status=\"4xx\"} 1",
            ]
        );
        assert!(text.contains("mailkite_http_request_duration_seconds_count{family=\"routes\"} 2\n"), "{text}");
        assert!(!text.contains("family=\"send\""), "{text}");
    }
}
