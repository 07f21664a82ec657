//! Notices to systemd (`Type=notify`): ready, stopping, a line of status, and that the process is alive.
//!
//! Without systemd (no `NOTIFY_SOCKET`) each of them does nothing.

use sd_notify::NotifyState;

/// Says that every address is served.
pub(crate) fn ready() {
    tell(&[NotifyState::Ready, NotifyState::Status("serving")]);
}

/// Says that the stop has begun.
pub(crate) fn stopping() {
    tell(&[NotifyState::Stopping, NotifyState::Status("finishing what is in progress")]);
}

/// Says that the process is alive, for as long as the runtime schedules this task, at the interval that the unit asks
/// for (`WatchdogSec=`). A slow disk is no reason to stop: only a process that does nothing at all is restarted.
pub(crate) async fn keep_alive() {
    let Some(limit) = sd_notify::watchdog_enabled() else { return };
    let mut interval = tokio::time::interval(limit / 3);
    loop {
        interval.tick().await;
        // Sending waits while systemd does not read.
        drop(tokio::task::spawn_blocking(|| tell(&[NotifyState::Watchdog])).await);
    }
}

fn tell(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        tracing::debug!(%error, "systemd could not be notified");
    }
}
