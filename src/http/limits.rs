//! Rate limits of clients (contract 1.12, 2.3).

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;

use crate::rate_limit::{AttemptLimiter, FixedWindow, TokenBuckets};

const MINUTE: Duration = Duration::from_secs(60);

pub(crate) struct Limits {
    /// Requests per credential.
    pub(crate) requests: TokenBuckets,
    /// 401 answers per client address.
    pub(crate) failures: FixedWindow,
    /// Failed logins per client address and e-mail.
    pub(crate) logins_per_client_and_email: AttemptLimiter,
    /// Failed logins per client address.
    pub(crate) logins_per_client: AttemptLimiter,
    /// Failed logins per e-mail and untrusted proxy, whatever client it claims to forward for.
    pub(crate) logins_per_proxy_and_email: AttemptLimiter,
    /// All failed logins by an untrusted proxy.
    pub(crate) logins_per_proxy: AttemptLimiter,
    /// Sign-ups per client address.
    pub(crate) signups_per_client: FixedWindow,
    /// Sign-ups per untrusted proxy.
    pub(crate) signups_per_proxy: FixedWindow,
    /// Verification mails per account.
    pub(crate) verifications: FixedWindow,
    /// Mails with a link for a new password, per client address.
    pub(crate) password_links_per_client: FixedWindow,
    /// The same per untrusted proxy.
    pub(crate) password_links_per_proxy: FixedWindow,
    /// Those being enqueued at once.
    pub(crate) password_links_at_once: Arc<Semaphore>,
}

impl Limits {
    /// Creates the limits with this request rate per credential; 0 is no limit.
    pub(crate) fn new(requests_per_second: u32) -> Self {
        Self {
            requests: TokenBuckets::new(requests_per_second),
            failures: FixedWindow::new(60, MINUTE),
            logins_per_client_and_email: AttemptLimiter::new(5, 15 * MINUTE),
            logins_per_client: AttemptLimiter::new(50, 15 * MINUTE),
            // Wider than per client, so that one client behind the proxy does not lock out all others; it bounds
            // clients that can choose the claimed address.
            logins_per_proxy_and_email: AttemptLimiter::new(20, 15 * MINUTE),
            logins_per_proxy: AttemptLimiter::new(250, 15 * MINUTE),
            signups_per_client: FixedWindow::new(10, 60 * MINUTE),
            signups_per_proxy: FixedWindow::new(100, 60 * MINUTE),
            verifications: FixedWindow::new(5, 60 * MINUTE),
            password_links_per_client: FixedWindow::new(10, 60 * MINUTE),
            password_links_per_proxy: FixedWindow::new(100, 60 * MINUTE),
            password_links_at_once: Arc::new(Semaphore::new(16)),
        }
    }
}
