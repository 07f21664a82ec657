//! The SMTP server: speaks SMTP and passes every message to [`Inbound`] or [`crate::outbound`]; it stores nothing
//! itself.
//!
//! It may use every lower level. A new command goes to `command` (parsing), `phase` (order) and `session`
//! (execution); limits on connections to `listener`, on mail data to `admission`; `data` reads what follows DATA,
//! `stream` switches to TLS.

pub(crate) mod admission;
pub(crate) mod command;
pub(crate) mod data;
mod listener;
pub(crate) mod phase;
pub(crate) mod session;
mod stream;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::config;
use crate::inbound::Inbound;
use crate::memory_budget::MemoryBudget;
use crate::metrics::Metrics;
use crate::net::tls::ServerTls;
use crate::process::host::FileUse;
use crate::process::sockets::Sockets;
use admission::MailDataBudget;
use listener::{ConnectionLimits, ConnectionTable};
use phase::TransactionLimits;
use session::Shared;
pub(crate) use session::{Role, Submission};

/// Failed logins of one address within a minute after which the next failure ends its session. As in the API
/// (contract 1.12) valid keys still work: a neighbour locks nobody out.
pub(crate) const MAX_FAILED_LOGINS: u32 = 60;

/// An address that could not be bound.
#[derive(Debug, thiserror::Error)]
#[error("cannot receive mail on {address}: {source}")]
pub(crate) struct BindError {
    address: SocketAddr,
    source: std::io::Error,
}

/// The services that every SMTP listener shares.
#[derive(Clone)]
pub(crate) struct Dependencies {
    pub(crate) inbound: Inbound,
    pub(crate) tls: ServerTls,
    pub(crate) metrics: Arc<Metrics>,
    /// Our own host name.
    pub(crate) hostname: String,
    pub(crate) budget: MailDataBudget,
}

/// A bound SMTP server.
pub(crate) struct SmtpServer {
    listeners: Vec<TcpListener>,
    addresses: Vec<SocketAddr>,
    shared: Arc<Shared>,
    limits: Arc<ConnectionLimits>,
}

impl SmtpServer {
    /// Binds these addresses for a role, with the limits of `[smtp]`.
    ///
    /// # Errors
    /// The first address that cannot be bound.
    pub(crate) async fn bind(
        listen: &[SocketAddr],
        role: Role,
        config: &config::Smtp,
        dependencies: Dependencies,
        sockets: &Sockets,
    ) -> Result<Self, BindError> {
        let mut listeners = Vec::with_capacity(listen.len());
        let mut addresses = Vec::with_capacity(listen.len());
        for &address in listen {
            let bound = sockets.listen(address).and_then(|listener| Ok((listener.local_addr()?, listener)));
            let (address, listener) = bound.map_err(|source| BindError { address, source })?;
            addresses.push(address);
            listeners.push(listener);
        }
        let limits = ConnectionLimits {
            max_sessions: config.max_sessions.min(role.files().limit()),
            max_sessions_per_address: config.max_sessions_per_address,
            proxies: config.proxy_protocol_from.clone(),
        };
        if matches!(role, Role::Mx) && limits.max_sessions < config.max_sessions {
            tracing::warn!(
                sessions = limits.max_sessions,
                "the limit of open files leaves room for fewer SMTP sessions"
            );
        }
        let shared = Shared {
            inbound: dependencies.inbound,
            role,
            metrics: dependencies.metrics,
            hostname: dependencies.hostname,
            tls: Some(TlsAcceptor::from(Arc::clone(dependencies.tls.config()))),
            limits: TransactionLimits {
                max_message_bytes: config.max_message_bytes,
                max_recipients: config.max_recipients,
            },
            command_timeout: Duration::from_secs(config.command_timeout_secs),
            data_timeout: Duration::from_secs(config.data_timeout_secs),
            budget: dependencies.budget,
            stop: CancellationToken::new(),
            abort: CancellationToken::new(),
        };
        Ok(Self { listeners, addresses, shared: Arc::new(shared), limits: Arc::new(limits) })
    }

    pub(crate) fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// Serves until `stop`. Then idle sessions get 421, and those in a dialog have `grace` to finish their transaction.
    pub(crate) async fn run(self, stop: CancellationToken, grace: Duration) {
        let sessions = TaskTracker::new();
        let open = Arc::new(ConnectionTable::default());
        let accepting = TaskTracker::new();
        for listener in self.listeners {
            accepting.spawn(listener::serve(
                listener,
                Arc::clone(&self.shared),
                Arc::clone(&open),
                Arc::clone(&self.limits),
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

/// The budget of all SMTP listeners, within the memory budget and the limit of open files.
pub(crate) fn mail_data_budget(memory: MemoryBudget) -> MailDataBudget {
    MailDataBudget::new(memory, FileUse::SpoolFiles.limit())
}
