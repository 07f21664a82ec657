//! The SMTP door: listens, talks, and hands every message to [`Inbound`]. It stores nothing itself.
//!
//! `listener` accepts, `session` talks, `command` parses, `phase` judges, `data` reads mail data.

pub mod command;
pub mod data;
mod listener;
pub mod phase;
pub mod session;
mod stream;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::config;
use crate::inbound::Inbound;
use crate::metrics::Metrics;
use crate::tls::ServerTls;
use listener::{Caps, Open};
use phase::Bounds;
use session::{MEMORY_UNIT, Shared};
pub use session::{Role, Submission};

/// Failed logins of one address within a minute before more are not even looked at (contract 1.12).
pub const MAX_FAILED_LOGINS: u32 = 60;
/// Descriptors that storage and outgoing connections keep for themselves.
const RESERVED_FILES: u64 = 256;

/// An address that could not be bound.
#[derive(Debug, thiserror::Error)]
#[error("cannot receive mail on {address}: {source}")]
pub struct BindError {
    address: SocketAddr,
    source: std::io::Error,
}

/// The door, bound.
pub struct SmtpServer {
    listeners: Vec<TcpListener>,
    addresses: Vec<SocketAddr>,
    shared: Arc<Shared>,
    caps: Arc<Caps>,
}

impl SmtpServer {
    /// Binds these addresses for a role; limits are those of `[smtp]`.
    ///
    /// # Errors
    /// The first address that cannot be bound.
    pub async fn bind(
        listen: &[SocketAddr],
        role: Role,
        config: &config::Smtp,
        inbound: Inbound,
        tls: ServerTls,
        metrics: Arc<Metrics>,
        hostname: String,
    ) -> Result<Self, BindError> {
        let mut listeners = Vec::with_capacity(listen.len());
        let mut addresses = Vec::with_capacity(listen.len());
        for &address in listen {
            let bound = crate::host::listen(address).and_then(|listener| Ok((listener.local_addr()?, listener)));
            let (address, listener) = bound.map_err(|source| BindError { address, source })?;
            addresses.push(address);
            listeners.push(listener);
        }
        let files = crate::host::file_limit().saturating_sub(RESERVED_FILES) / 2;
        let caps = Caps {
            max_sessions: config.max_sessions.min(usize::try_from(files).unwrap_or(usize::MAX)).max(1),
            max_sessions_per_address: config.max_sessions_per_address,
            proxies: config.proxy_protocol_from.clone(),
        };
        let units = usize::try_from(config.memory_bytes).unwrap_or(usize::MAX) / MEMORY_UNIT;
        let shared = Shared {
            inbound,
            role,
            metrics,
            hostname,
            tls: Some(TlsAcceptor::from(Arc::clone(tls.config()))),
            bounds: Bounds { max_message_bytes: config.max_message_bytes, max_recipients: config.max_recipients },
            command_timeout: Duration::from_secs(config.command_timeout_secs),
            data_timeout: Duration::from_secs(config.data_timeout_secs),
            memory: Arc::new(Semaphore::new(units.min(Semaphore::MAX_PERMITS))),
            stop: CancellationToken::new(),
            abort: CancellationToken::new(),
        };
        Ok(Self { listeners, addresses, shared: Arc::new(shared), caps: Arc::new(caps) })
    }

    /// Where it listens.
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// Serves until `stop`. Then idle sessions are told to come again; one in DATA has `grace` to finish.
    pub async fn run(self, stop: CancellationToken, grace: Duration) {
        let sessions = TaskTracker::new();
        let open = Arc::new(Open::default());
        let accepting = TaskTracker::new();
        for listener in self.listeners {
            accepting.spawn(listener::serve(
                listener,
                Arc::clone(&self.shared),
                Arc::clone(&open),
                Arc::clone(&self.caps),
                sessions.clone(),
                stop.clone(),
            ));
        }
        stop.cancelled().await;
        self.shared.stop.cancel();
        accepting.close();
        accepting.wait().await;
        sessions.close();
        if tokio::time::timeout(grace, sessions.wait()).await.is_err() {
            tracing::warn!(
                sessions = sessions.len(),
                "sessions were cut off by the shutdown; their mail was not accepted"
            );
            self.shared.abort.cancel();
            sessions.wait().await;
        }
    }
}
