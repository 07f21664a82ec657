//! Rate limits of clients (contract 1.12, 2.3).

use std::time::Duration;

use crate::rate_limit::{AttemptLimiter, FixedWindow, TokenBuckets};

const MINUTE: Duration = Duration::from_secs(60);

pub(crate) struct Limits {
    /// Requests per credential.
    pub(crate) requests: TokenBuckets,
    /// 401 answers per client address.
    pub(crate) failures: FixedWindow,
    /// Failed logins per client address and e-mail.
    pub(crate) logins_of_pair: AttemptLimiter,
    /// Failed logins per client address.
    pub(crate) logins_of_address: AttemptLimiter,
    /// Failed logins per e-mail and untrusted proxy, whatever client it claims to forward for.
    pub(crate) logins_by_proxy: AttemptLimiter,
    /// All failed logins by an untrusted proxy.
    pub(crate) logins_of_proxy: AttemptLimiter,
    /// Sign-ups per client address.
    pub(crate) signups: FixedWindow,
    /// Sign-ups per untrusted proxy.
    pub(crate) signups_by_proxy: FixedWindow,
    /// Verification mails per account.
    pub(crate) verifications: FixedWindow,
}

impl Limits {
    /// Creates the limits with this request rate per credential; 0 is no limit.
    pub(crate) fn new(requests_per_second: u32) -> Self {
        Self {
            requests: TokenBuckets::new(requests_per_second),
            failures: FixedWindow::new(60, MINUTE),
            logins_of_pair: AttemptLimiter::new(5, 15 * MINUTE),
            logins_of_address: AttemptLimiter::new(50, 15 * MINUTE),
            // Wider than per client, so that one client behind the proxy does not lock out all others; it bounds
            // clients that can choose the claimed address.
            logins_by_proxy: AttemptLimiter::new(20, 15 * MINUTE),
            logins_of_proxy: AttemptLimiter::new(250, 15 * MINUTE),
            signups: FixedWindow::new(10, 60 * MINUTE),
            signups_by_proxy: FixedWindow::new(100, 60 * MINUTE),
            verifications: FixedWindow::new(5, 60 * MINUTE),
        }
    }
}
