//! The HTTP door: the API, attachment links, health and metrics. It stores nothing; whatever enqueues is a pipeline's.
//!
//! `table` is the router's whole table; the router, the OpenAPI document and the tests are made of it. `conventions`
//! wraps every answer (contract 1.1, 1.10), `error` is the one error form, `auth` says who asks.

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
mod middleware;
mod openapi;
mod pages;
mod paths;
mod realtime;
mod service;
mod streamed;
mod table;
mod write_timeout;

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
use crate::secrets::Secrets;
use crate::secrets::signed_links::Links;
use crate::store::Db;
use crate::store::blobs::objects::Objects;
use crate::webhook::attempt::deliver::Webhooks;

use connections::{ConnectionLimits, Connections};
use forwarded::Unbelieved;
use idempotency::Idempotency;
use limits::Limits;
use local::OwnNames;
use realtime::StreamTokens;
pub use table::table;

/// What the door is built from.
pub(crate) struct Dependencies {
    /// The configuration.
    pub(crate) config: Arc<Config>,
    /// What time it is.
    pub(crate) clock: Clock,
    /// The database.
    pub(crate) db: Db,
    /// Mail data on disk.
    pub(crate) objects: Objects,
    /// Signs and checks attachment links.
    pub(crate) links: Arc<Links>,
    /// Counters.
    pub(crate) metrics: Arc<Metrics>,
    /// What one account may have.
    pub(crate) account_limits: Arc<crate::limits::Limits>,
    /// What requests and answers are held within.
    pub(crate) memory: MemoryBudget,
    /// Opens what is sealed.
    pub(crate) secrets: Arc<Secrets>,
    /// Signing up and in.
    pub(crate) accounts: Arc<Accounts>,
    /// Adds and verifies domains.
    pub(crate) domains: Arc<Domains>,
    /// Asks Google who somebody is.
    pub(crate) google: Google,
    /// Takes messages for a route.
    pub(crate) inbound: Inbound,
    /// Keeps files of clients.
    pub(crate) uploads: Uploads,
    /// Takes mail to send.
    pub(crate) outbound: Outbound,
    /// Attempts what a person asks for.
    pub(crate) webhooks: Arc<Webhooks>,
    /// The event streams of accounts.
    pub(crate) realtime: EventBus,
}

/// What every handler may use.
pub(crate) struct AppInner {
    parts: Dependencies,
    limits: Limits,
    connections: Arc<Connections>,
    idempotency: Idempotency,
    /// The OpenAPI document, once somebody asked for it: making it takes megabytes.
    openapi: OnceCell<Bytes>,
    stream_tokens: StreamTokens,
    overviews: api::overview::OverviewCache,
    tls: ServerTls,
    own_names: OwnNames,
    unbelieved: Unbelieved,
    started_at: Timestamp,
    /// Cancelled when the door closes: streams end then.
    closing: CancellationToken,
}

impl Deref for AppInner {
    type Target = Dependencies;

    fn deref(&self) -> &Dependencies {
        &self.parts
    }
}

/// The door, as handlers share it.
pub(crate) type AppState = Arc<AppInner>;

/// The address a request came from.
#[derive(Clone, Copy, Debug)]
struct PeerAddress(SocketAddr);

/// Whether the connection of a request was accepted on a loopback address.
#[derive(Clone, Copy, Debug)]
struct OverLoopback(bool);

/// An address that could not be bound.
#[derive(Debug, thiserror::Error)]
#[error("cannot serve HTTP on {address}: {source}")]
pub(crate) struct BindError {
    address: SocketAddr,
    source: std::io::Error,
}

/// Every address of the door, bound; nothing is served yet.
pub(crate) struct Listeners {
    api: Vec<TcpListener>,
    addresses: Vec<SocketAddr>,
    metrics: Option<(TcpListener, SocketAddr)>,
}

/// The door.
pub(crate) struct Http {
    listeners: Listeners,
    tls: TlsAcceptor,
    app: AppState,
}

fn router(app: AppState) -> Router {
    // One method router for each path: axum joins methods only within one.
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
        .route("/metrics", get(service::metrics))
        .fallback(error::unknown_path)
        .layer(axum::middleware::from_fn_with_state(Arc::clone(&app), middleware::apply_to_metrics))
        .with_state(app)
}

impl Listeners {
    /// Binds every configured address.
    ///
    /// # Errors
    /// The first address that cannot be bound.
    pub(crate) fn bind(config: &Config) -> Result<Self, BindError> {
        let mut api = Vec::new();
        let mut addresses = Vec::new();
        for &address in &config.http.listen {
            let (listener, bound) = bind(address)?;
            api.push(listener);
            addresses.push(bound);
        }
        let metrics = match config.metrics.listen {
            Some(address) => Some(bind(address)?),
            None => None,
        };
        Ok(Self { api, addresses, metrics })
    }

    /// Where the API is to be served.
    pub(crate) fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// The same, and where the metrics are to be served.
    pub(crate) fn all_addresses(&self) -> impl Iterator<Item = SocketAddr> {
        let metrics = self.metrics.as_ref().map(|(_, address)| *address);
        self.addresses.iter().copied().chain(metrics)
    }
}

impl Http {
    /// The door at these addresses; each speaks HTTP and, with this certificate, HTTPS.
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
            unbelieved: Unbelieved::default(),
            parts,
            limits,
            connections,
            idempotency: Idempotency::default(),
            openapi: OnceCell::new(),
            stream_tokens: StreamTokens::default(),
            closing: CancellationToken::new(),
        };
        Self { listeners, tls: acceptor, app: Arc::new(app) }
    }

    /// Where it listens.
    pub(crate) fn addresses(&self) -> &[SocketAddr] {
        self.listeners.addresses()
    }

    /// Serves until `stop`; requests that run then have `grace` to finish.
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
            // Few ask for them.
            let caps = ConnectionLimits { connections: 64, of_address: 32, proxies: Vec::new() };
            let connections = Arc::new(Connections::new(caps));
            let router = metrics_router(self.app);
            tasks.spawn(listener::serve(listener, router, self.tls, connections, stop, grace));
        }
        tasks.close();
        tasks.wait().await;
    }
}

fn bind(address: SocketAddr) -> Result<(TcpListener, SocketAddr), BindError> {
    let bound = crate::process::host::listen(address).and_then(|listener| Ok((listener.local_addr()?, listener)));
    bound.map(|(address, listener)| (listener, address)).map_err(|source| BindError { address, source })
}
