//! The HTTP door: the API, attachment links, health and metrics. It stores nothing; whatever enqueues is a pipeline's.
//!
//! `router` is the whole table. `conventions` wraps every answer (contract 1.1, 1.10), `error` is the one error form.

mod api;
mod auth;
mod conventions;
mod error;
mod files;
mod listener;
mod pages;
mod service;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::routing::get;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::clock::Clock;
use crate::config::Config;
use crate::links::Links;
use crate::metrics::Metrics;
use crate::store::Db;
use crate::store::objects::Objects;
use crate::tls::ServerTls;

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

/// The door, bound.
pub struct Http {
    listeners: Vec<TcpListener>,
    addresses: Vec<SocketAddr>,
    metrics: Option<TcpListener>,
    tls: TlsAcceptor,
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

impl Http {
    /// Binds every configured address; each speaks HTTP and, with this certificate, HTTPS.
    ///
    /// # Errors
    /// The first address that cannot be bound.
    pub async fn bind(parts: Parts, tls: &ServerTls) -> Result<Self, BindError> {
        let mut listeners = Vec::new();
        let mut addresses = Vec::new();
        for &address in &parts.config.http.listen {
            let (listener, bound) = bind(address)?;
            listeners.push(listener);
            addresses.push(bound);
        }
        let metrics = match parts.config.metrics.listen {
            Some(address) => Some(bind(address)?.0),
            None => None,
        };
        let tls = TlsAcceptor::from(tls.https_config());
        Ok(Self { listeners, addresses, metrics, tls, app: Arc::new(parts) })
    }

    /// Where it listens.
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// Serves until `stop`; requests that run then have `grace` to finish.
    pub async fn run(self, stop: CancellationToken, grace: Duration) {
        let tasks = TaskTracker::new();
        let router = router(Arc::clone(&self.app));
        for listener in self.listeners {
            tasks.spawn(listener::serve(listener, router.clone(), self.tls.clone(), stop.clone(), grace));
        }
        if let Some(listener) = self.metrics {
            tasks.spawn(listener::serve(listener, metrics_router(self.app), self.tls, stop, grace));
        }
        tasks.close();
        tasks.wait().await;
    }
}

fn bind(address: SocketAddr) -> Result<(TcpListener, SocketAddr), BindError> {
    let bound = crate::host::listen(address).and_then(|listener| Ok((listener.local_addr()?, listener)));
    bound.map(|(address, listener)| (listener, address)).map_err(|source| BindError { address, source })
}
