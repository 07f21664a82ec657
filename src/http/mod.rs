//! The HTTP server: the API, attachment links, the dashboard's files, health and metrics. It may use every lower level;
//! an operation that enqueues jobs belongs to `inbound`, `outbound`, `webhook`, `domain` or `accounts`, not here.
//!
//! A new endpoint is a row in `table` and a handler in `api`: the router, the OpenAPI document and the tests are built
//! from the rows, and `authorize` enforces the credential class that a row names. Rules for every request (contract
//! 1.1, 1.10) belong to `middleware`, error codes to `error`, connections to `listener`, figures to `metrics`.

mod api;
mod auth;
mod authorize;
mod body;
mod client;
mod connections;
mod dashboard;
mod drain_on_close;
pub(crate) mod endpoint;
pub(crate) mod error;
mod extract;
mod files;
mod forwarded;
pub(crate) mod idempotency;
mod json;
mod limits;
mod listener;
pub(crate) mod local;
mod memory;
mod metrics;
mod middleware;
mod openapi;
mod pages;
mod paths;
mod realtime;
mod service;
mod streamed;
mod table;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::routing::{MethodRouter, get};
use tokio::net::TcpListener;
use tokio::sync::OnceCell;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::accounts::Accounts;
use crate::accounts::google::Google;
use crate::clock::{Clock, Timestamp};
use crate::config::Config;
use crate::content::uploads::Uploads;
use crate::domain::Domains;
use crate::event_bus::realtime::EventBus;
use crate::inbound::Inbound;
use crate::memory_budget::MemoryBudget;
use crate::metrics::Metrics;
use crate::net::tls::ServerTls;
use crate::outbound::Outbound;
use crate::process::host::FileUse;
use crate::process::sockets::Sockets;
use crate::secrets::Secrets;
use crate::secrets::signed_links::Links;
use crate::store::Db;
use crate::store::blobs::objects::Objects;
use crate::webhook::Webhooks;

pub(crate) use api::messages::ExportedDetail;
use connections::{ConnectionLimits, Connections};
use forwarded::UntrustedProxies;
use idempotency::Idempotency;
use limits::Limits;
use local::OwnNames;
use metrics::RequestMetrics;
use realtime::StreamTokens;
pub use table::table;

/// Services that the server is built from.
pub(crate) struct Dependencies {
    pub(crate) config: Arc<Config>,
    pub(crate) clock: Clock,
    pub(crate) db: Db,
    pub(crate) objects: Objects,
    pub(crate) links: Arc<Links>,
    pub(crate) metrics: Arc<Metrics>,
    /// Limits per account.
    pub(crate) account_limits: Arc<crate::limits::Limits>,
    /// Budget for the bodies of requests and responses.
    pub(crate) memory: MemoryBudget,
    pub(crate) secrets: Arc<Secrets>,
    pub(crate) accounts: Arc<Accounts>,
    pub(crate) domains: Arc<Domains>,
    pub(crate) google: Google,
    pub(crate) inbound: Inbound,
    pub(crate) uploads: Uploads,
    pub(crate) outbound: Outbound,
    /// For attempts that a person asks for.
    pub(crate) webhooks: Arc<Webhooks>,
    pub(crate) realtime: EventBus,
}

/// State that every handler may use.
pub(crate) struct AppInner {
    parts: Dependencies,
    limits: Limits,
    connections: Arc<Connections>,
    requests: Arc<RequestMetrics>,
    idempotency: Idempotency,
    /// The OpenAPI document, built on the first request for it: building takes megabytes.
    openapi: OnceCell<Bytes>,
    stream_tokens: StreamTokens,
    overviews: api::overview::OverviewCache,
    tls: ServerTls,
    own_names: OwnNames,
    untrusted_proxies: UntrustedProxies,
    started_at: Timestamp,
    /// Cancelled at shutdown, which ends event streams.
    closing: CancellationToken,
}

impl Deref for AppInner {
    type Target = Dependencies;

    fn deref(&self) -> &Dependencies {
        &self.parts
    }
}

pub(crate) type AppState = Arc<AppInner>;

/// TCP peer of the request.
#[derive(Clone, Copy, Debug)]
struct PeerAddress(SocketAddr);

/// True if the connection was accepted on a loopback address.
#[derive(Clone, Copy, Debug)]
struct OverLoopback(bool);

#[derive(Debug, thiserror::Error)]
#[error("cannot serve HTTP on {address}: {source}")]
pub(crate) struct BindError {
    address: SocketAddr,
    source: std::io::Error,
}

/// All bound addresses; nothing is served yet.
pub(crate) struct Listeners {
    api: Vec<TcpListener>,
    addresses: Vec<SocketAddr>,
    metrics: Option<(TcpListener, SocketAddr)>,
}

pub(crate) struct Http {
    listeners: Listeners,
    tls: TlsAcceptor,
    app: AppState,
}

fn router(app: AppState) -> Router {
    // One method router per path: axum merges methods only within one.
    let mut paths: BTreeMap<&'static str, MethodRouter<AppState>> = BTreeMap::new();
    for endpoint in table() {
        let path = paths.remove(endpoint.path).unwrap_or_default();
        paths.insert(endpoint.path, path.merge(authorize::authorized(endpoint, &app)));
    }
    let router = paths.into_iter().fold(Router::new(), |router, (path, methods)| router.route(path, methods));
    router
        .fallback(error::unknown_path)
        .method_not_allowed_fallback(error::unknown_path)
        .layer(axum::middleware::from_fn_with_state(Arc::clone(&app), middleware::apply))
        .with_state(app)
}

fn metrics_router(app: AppState) -> Router {
    Router::new()
        .route("/metrics", get(metrics::page))
        .fallback(error::unknown_path)
        .layer(axum::middleware::from_fn_with_state(Arc::clone(&app), middleware::apply_to_metrics))
        .with_state(app)
}

impl Listeners {
    /// Binds every configured address.
    ///
    /// # Errors
    /// The first address that cannot be bound.
    pub(crate) fn bind(config: &Config, sockets: &Sockets) -> Result<Self, BindError> {
        let mut api = Vec::new();
        let mut addresses = Vec::new();
        for &address in &config.http.listen {
            let (listener, bound) = bind(address, sockets)?;
            api.push(listener);
            addresses.push(bound);
        }
        let metrics = match config.metrics.listen {
            Some(address) => Some(bind(address, sockets)?),
            None => None,
        };
        Ok(Self { api, addresses, metrics })
    }

    /// Returns the addresses of the API.
    pub(crate) fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// Returns the addresses of the API and of the metrics.
    pub(crate) fn all_addresses(&self) -> impl Iterator<Item = SocketAddr> {
        let metrics = self.metrics.as_ref().map(|(_, address)| *address);
        self.addresses.iter().copied().chain(metrics)
    }
}

impl Http {
    /// Creates the server; every listener speaks HTTP and, with the certificate in `tls`, HTTPS.
    pub(crate) fn new(listeners: Listeners, parts: Dependencies, tls: &ServerTls) -> Self {
        let acceptor = TlsAcceptor::from(tls.https_config());
        let http = &parts.config.http;
        let connections = Arc::new(Connections::new(ConnectionLimits {
            connections: http.max_connections.min(FileUse::Http.limit()),
            of_address: http.max_connections_per_address,
            proxies: http.trusted_proxies.clone(),
        }));
        let limits = Limits::new(parts.config.http.rate_limit);
        let app = AppInner {
            started_at: parts.clock.now(),
            tls: tls.clone(),
            own_names: OwnNames::new(&parts.config.public_url, &parts.config.hostname),
            overviews: api::overview::OverviewCache::default(),
            untrusted_proxies: UntrustedProxies::default(),
            parts,
            limits,
            connections,
            requests: Arc::new(RequestMetrics::new(table().iter().map(|endpoint| endpoint.path))),
            idempotency: Idempotency::default(),
            openapi: OnceCell::new(),
            stream_tokens: StreamTokens::default(),
            closing: CancellationToken::new(),
        };
        Self { listeners, tls: acceptor, app: Arc::new(app) }
    }

    pub(crate) fn addresses(&self) -> &[SocketAddr] {
        self.listeners.addresses()
    }

    /// Serves until `stop`; requests in progress then get `grace` to finish.
    pub(crate) async fn run(self, stop: CancellationToken, grace: Duration) {
        let tasks = TaskTracker::new();
        let router = router(Arc::clone(&self.app));
        let (stopped, closing) = (stop.clone(), self.app.closing.clone());
        tasks.spawn(async move {
            stopped.cancelled().await;
            closing.cancel();
        });
        for listener in self.listeners.api {
            let (router, connections) = (router.clone(), Arc::clone(&self.app.connections));
            tasks.spawn(listener::serve(listener, router, self.tls.clone(), connections, stop.clone(), grace));
        }
        if let Some((listener, _)) = self.listeners.metrics {
            // Few clients scrape the metrics.
            let limits = ConnectionLimits { connections: 64, of_address: 32, proxies: Vec::new() };
            let connections = Arc::new(Connections::new(limits));
            let router = metrics_router(self.app);
            tasks.spawn(listener::serve(listener, router, self.tls, connections, stop, grace));
        }
        tasks.close();
        tasks.wait().await;
    }
}

fn bind(address: SocketAddr, sockets: &Sockets) -> Result<(TcpListener, SocketAddr), BindError> {
    let bound = sockets.listen(address).and_then(|listener| Ok((listener.local_addr()?, listener)));
    bound.map(|(address, listener)| (listener, address)).map_err(|source| BindError { address, source })
}
