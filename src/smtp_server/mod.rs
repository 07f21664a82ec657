//! The SMTP door: listens, talks, and hands every message to [`Inbound`]. It stores nothing itself.
//!
//! `listener` accepts, `session` talks, `command` parses, `phase` judges, `data` reads mail data, `room` bounds it.

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
use admission::MailDataBudget;
use listener::{ConnectionLimits, ConnectionTable};
use phase::TransactionLimits;
use session::Shared;
pub(crate) use session::{Role, Submission};

/// Failed logins of one address within a minute before the next one that fails ends its session. As with the API
/// (contract 1.12), keys that are good still work: nobody is locked out by a neighbour.
pub(crate) const MAX_FAILED_LOGINS: u32 = 60;

/// An address that could not be bound.
#[derive(Debug, thiserror::Error)]
#[error("cannot receive mail on {address}: {source}")]
pub(crate) struct BindError {
    address: SocketAddr,
    source: std::io::Error,
}

/// What every door is made of; clones share it.
#[derive(Clone)]
pub(crate) struct Dependencies {
    /// The pipeline that takes the mail.
    pub(crate) inbound: Inbound,
    /// The certificate.
    pub(crate) tls: ServerTls,
    /// Counters.
    pub(crate) metrics: Arc<Metrics>,
    /// Our name.
    pub(crate) hostname: String,
    /// For mail data while it is received.
    pub(crate) room: MailDataBudget,
}

/// The door, bound.
pub(crate) struct SmtpServer {
    listeners: Vec<TcpListener>,
    addresses: Vec<SocketAddr>,
    shared: Arc<Shared>,
    caps: Arc<ConnectionLimits>,
}

impl SmtpServer {
    /// Binds these addresses for a role; limits are those of `[smtp]`.
    ///
    /// # Errors
    /// The first address that cannot be bound.
    pub(crate) async fn bind(
        listen: &[SocketAddr],
        role: Role,
        config: &config::Smtp,
        parts: Dependencies,
    ) -> Result<Self, BindError> {
        let mut listeners = Vec::with_capacity(listen.len());
        let mut addresses = Vec::with_capacity(listen.len());
        for &address in listen {
            let bound =
                crate::process::host::listen(address).and_then(|listener| Ok((listener.local_addr()?, listener)));
            let (address, listener) = bound.map_err(|source| BindError { address, source })?;
            addresses.push(address);
            listeners.push(listener);
        }
        let caps = ConnectionLimits {
            max_sessions: config.max_sessions.min(role.files().limit()),
            max_sessions_per_address: config.max_sessions_per_address,
            proxies: config.proxy_protocol_from.clone(),
        };
        if matches!(role, Role::Mx) && caps.max_sessions < config.max_sessions {
            tracing::warn!(
                sessions = caps.max_sessions,
                "the limit of open files leaves room for fewer SMTP sessions"
            );
        }
        let shared = Shared {
            inbound: parts.inbound,
            role,
            metrics: parts.metrics,
            hostname: parts.hostname,
            tls: Some(TlsAcceptor::from(Arc::clone(parts.tls.config()))),
            bounds: TransactionLimits {
                max_message_bytes: config.max_message_bytes,
                max_recipients: config.max_recipients,
            },
            command_timeout: Duration::from_secs(config.command_timeout_secs),
            data_timeout: Duration::from_secs(config.data_timeout_secs),
            room: parts.room,
            stop: CancellationToken::new(),
            abort: CancellationToken::new(),
        };
        Ok(Self { listeners, addresses, shared: Arc::new(shared), caps: Arc::new(caps) })
    }

    /// Where it listens.
    pub(crate) fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// Serves until `stop`. Then idle sessions are told to come again; one in DATA has `grace` to finish.
    pub(crate) async fn run(self, stop: CancellationToken, grace: Duration) {
        let sessions = TaskTracker::new();
        let open = Arc::new(ConnectionTable::default());
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

/// For all doors together, as the budget and the limit of open files have it.
pub(crate) fn room(memory: MemoryBudget) -> MailDataBudget {
    MailDataBudget::new(memory, FileUse::Drafts.limit())
}
