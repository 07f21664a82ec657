//! `mailkite serve`: runs the server for production, from a configuration file until a signal.

use std::path::Path;

use anyhow::Context;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::logs;
use crate::app::{self, StartError};
use crate::clock::Clock;
use crate::config::{self, Config};
use crate::net::tls;
use crate::process::service_manager;
use crate::process::sockets::Sockets;

/// Serves until SIGTERM or SIGINT; a second signal ends the process at once. SIGHUP reloads the certificate.
pub(crate) fn run(path: &Path) -> anyhow::Result<()> {
    let config = match Config::load(path) {
        Ok(config) => config,
        Err(problems) => {
            eprint!("{}", config::table(&problems));
            let refusal = format!("{} is not a valid configuration; nothing was started", path.display());
            return Err(StartError::Refused(refusal).into());
        }
    };
    let logs = logs::init(&config.log);
    let sockets = Sockets::from_systemd();
    super::serve_on_threads(async {
        let stop = stop_on_signal()?;
        let mut hangup = signal(SignalKind::hangup()).context("catching SIGHUP")?;
        let bound = app::bind(config, Clock::System, &sockets).await?;
        bound.metrics().count_dropped_lines(logs.dropped());
        let tls = bound.tls().clone();
        tokio::spawn(async move {
            while hangup.recv().await.is_some() {
                tls::log_reload(tls.reload().map(|()| true));
            }
        });
        for address in bound.smtp_addresses() {
            tracing::info!(%address, "receiving mail");
        }
        for address in bound.http_addresses() {
            tracing::info!(%address, "serving the API");
        }
        for address in bound.submission_addresses().into_iter().flatten() {
            tracing::info!(%address, "taking submissions");
        }
        match bound.accounts().setup_token().await {
            // The only secret in the log: the first sign-up consumes it (contract 2.2).
            Ok(Some(token)) => {
                let url = bound.config().public_url.trim_end_matches('/');
                tracing::info!(
                    setup_token = %token,
                    "this server has no owner yet; sign up with this token, or open {url}/#/setup/{token}"
                );
            }
            Ok(None) => {}
            Err(error) if error.is_full() => tracing::warn!(
                %error,
                "this server has no owner yet, and there is no room to store a setup token: nobody can sign up until \
                 there is room and the server is restarted"
            ),
            Err(error) => return Err(error).context("making the setup token"),
        }
        sockets.keep();
        service_manager::ready();
        tokio::spawn(service_manager::keep_alive());
        tokio::spawn({
            let stop = stop.clone();
            async move {
                stop.cancelled().await;
                service_manager::stopping();
            }
        });
        bound.run(stop).await.context("the server stopped by itself")?;
        tracing::info!("stopped");
        Ok(())
    })
}

/// Returns a token that the first SIGTERM or SIGINT cancels; the second ends the process.
pub(crate) fn stop_on_signal() -> anyhow::Result<CancellationToken> {
    let mut terminate = signal(SignalKind::terminate()).context("catching SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("catching SIGINT")?;
    let stop = CancellationToken::new();
    let stopping = stop.clone();
    tokio::spawn(async move {
        for second in [false, true] {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            if second {
                std::process::exit(130);
            }
            stopping.cancel();
        }
    });
    Ok(stop)
}
