//! The HTTP door: the API, attachment links, health and metrics. It stores nothing; whatever enqueues is a pipeline's.
//!
//! `router` is the whole table. `conventions` wraps every answer (contract 1.1, 1.10), `error` is the one error form.

mod api;
mod auth;
mod conventions;
mod error;
mod files;
mod pages;
mod service;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::Request;
use axum::routing::get;
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::ServiceExt;

use crate::clock::Clock;
use crate::config::Config;
use crate::links::Links;
use crate::metrics::Metrics;
use crate::store::Db;
use crate::store::objects::Objects;
use crate::webhook::deliver::Webhooks;

/// How long a client may take for a request's header.
const HEADER_DEADLINE: Duration = Duration::from_secs(15);
/// The largest request header.
const MAX_HEADER_BYTES: usize = 64 * 1024;
/// Connections at once.
const MAX_CONNECTIONS: usize = 4096;
const ACCEPT_BACKOFF: Duration = Duration::from_millis(100);

/// What the door is built from.
pub struct Parts {
    /// The configuration.
    pub config: Arc<Config>,
    /// What time it is.
    pub clock: Clock,
    /// The database.
    pub db: Db,
    /// Mail data on disk.
    pub objects: Objects,
    /// Signs and checks attachment links.
    pub links: Arc<Links>,
    /// Counters.
    pub metrics: Arc<Metrics>,
    /// Attempts what a person asks for.
    pub webhooks: Arc<Webhooks>,
}

/// What every handler may use.
type App = Arc<Parts>;

/// The address a request came from.
#[derive(Clone, Copy, Debug)]
struct PeerAddress(SocketAddr);

/// An address that could not be bound.
#[derive(Debug, thiserror::Error)]
#[error("cannot serve HTTP on {address}: {source}")]
pub struct BindError {
    address: SocketAddr,
    source: std::io::Error,
}

/// Every address of the door, bound; nothing is served yet.
pub struct Listeners {
    api: Vec<TcpListener>,
    addresses: Vec<SocketAddr>,
    metrics: Option<TcpListener>,
}

/// The door.
pub struct Http {
    listeners: Listeners,
    app: App,
}

/// The whole table.
fn router(app: App) -> Router {
    Router::new()
        .route("/", get(pages::landing))
        .route("/assets/landing.css", get(pages::style))
        .route("/api/health", get(service::health))
        .route("/api/ready", get(service::ready))
        .route("/metrics", get(service::metrics_with_token))
        .route("/att/{mid}/{idx}", get(files::download))
        .route("/v1/me", get(api::account::me))
        .route("/api/messages", get(api::messages::list))
        .route("/api/messages/{id}", get(api::messages::detail))
        .route("/api/messages/{id}/raw", get(api::messages::raw))
        .route("/api/deliveries/{id}/attempts", get(api::deliveries::attempts))
        .fallback(error::unknown_path)
        .method_not_allowed_fallback(error::unknown_path)
        .layer(axum::middleware::from_fn_with_state(Arc::clone(&app), conventions::apply))
        .with_state(app)
}

fn metrics_router(app: App) -> Router {
    Router::new().route("/metrics", get(service::metrics)).fallback(error::unknown_path).with_state(app)
}

impl Listeners {
    /// Binds every configured address.
    ///
    /// # Errors
    /// The first address that cannot be bound.
    pub async fn bind(config: &Config) -> Result<Self, BindError> {
        let mut api = Vec::new();
        let mut addresses = Vec::new();
        for &address in &config.http.listen {
            let (listener, bound) = bind(address).await?;
            api.push(listener);
            addresses.push(bound);
        }
        let metrics = match config.metrics.listen {
            Some(address) => Some(bind(address).await?.0),
            None => None,
        };
        Ok(Self { api, addresses, metrics })
    }

    /// Where the API is to be served.
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }
}

impl Http {
    /// The door at these addresses.
    pub fn new(listeners: Listeners, parts: Parts) -> Self {
        Self { listeners, app: Arc::new(parts) }
    }

    /// Where it listens.
    pub fn addresses(&self) -> &[SocketAddr] {
        self.listeners.addresses()
    }

    /// Serves until `stop`; requests that run then have `grace` to finish.
    pub async fn run(self, stop: CancellationToken, grace: Duration) {
        let tasks = TaskTracker::new();
        let router = router(Arc::clone(&self.app));
        for listener in self.listeners.api {
            tasks.spawn(serve(listener, router.clone(), stop.clone(), grace));
        }
        if let Some(listener) = self.listeners.metrics {
            tasks.spawn(serve(listener, metrics_router(self.app), stop, grace));
        }
        tasks.close();
        tasks.wait().await;
    }
}

async fn bind(address: SocketAddr) -> Result<(TcpListener, SocketAddr), BindError> {
    let bound = TcpListener::bind(address).await;
    bound
        .and_then(|listener| listener.local_addr().map(|address| (listener, address)))
        .map_err(|source| BindError { address, source })
}

async fn serve(listener: TcpListener, router: Router, stop: CancellationToken, grace: Duration) {
    let mut server = auto::Builder::new(TokioExecutor::new());
    server.http1().timer(TokioTimer::new()).header_read_timeout(HEADER_DEADLINE).max_buf_size(MAX_HEADER_BYTES);
    server.http2().timer(TokioTimer::new()).max_header_list_size(64 * 1024).max_concurrent_streams(100);
    let graceful = GracefulShutdown::new();
    let open = Arc::new(tokio::sync::Semaphore::new(MAX_CONNECTIONS));
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = stop.cancelled() => break,
        };
        let (stream, address) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "an HTTP connection could not be accepted");
                tokio::time::sleep(ACCEPT_BACKOFF).await;
                continue;
            }
        };
        // Over the cap the connection is closed unanswered.
        let Ok(permit) = Arc::clone(&open).try_acquire_owned() else { continue };
        drop(stream.set_nodelay(true));
        let service = router.clone().map_request(move |mut request: Request<Incoming>| {
            request.extensions_mut().insert(PeerAddress(address));
            request.map(axum::body::Body::new)
        });
        let connection =
            server.serve_connection(TokioIo::new(stream), TowerToHyperService::new(service)).into_owned();
        let connection = graceful.watch(connection);
        tokio::spawn(async move {
            // A client that breaks off is nothing to speak of.
            drop(connection.await);
            drop(permit);
        });
    }
    if tokio::time::timeout(grace, graceful.shutdown()).await.is_err() {
        tracing::warn!("HTTP requests were cut off by the shutdown");
    }
}
