//! How often a client may ask (contract 1.12, 2.3).

use std::time::Duration;

use crate::rate_limit::{AttemptLimiter, FixedWindow, TokenBuckets};

const MINUTE: Duration = Duration::from_secs(60);

/// All limits of the door.
pub(crate) struct Limits {
    /// Requests of one credential.
    pub(crate) requests: TokenBuckets,
    /// 401 answers to one client address.
    pub(crate) failures: FixedWindow,
    /// Failed logins of one client address and e-mail.
    pub(crate) logins_of_pair: AttemptLimiter,
    /// Failed logins of one client address.
    pub(crate) logins_of_address: AttemptLimiter,
    /// Failed logins for one e-mail by one proxy that is not trusted, whomever it says it speaks for.
    pub(crate) logins_by_proxy: AttemptLimiter,
    /// All failed logins by such a proxy.
    pub(crate) logins_of_proxy: AttemptLimiter,
    /// Sign-ups of one client address.
    pub(crate) signups: FixedWindow,
    /// Sign-ups by one proxy that is not trusted.
    pub(crate) signups_by_proxy: FixedWindow,
    /// Verification mails of one account.
    pub(crate) verifications: FixedWindow,
}

impl Limits {
    /// The limits, with so many requests a second for each credential; 0 is no limit.
    pub(crate) fn new(requests_per_second: u32) -> Self {
        Self {
            requests: TokenBuckets::new(requests_per_second),
            failures: FixedWindow::new(60, MINUTE),
            logins_of_pair: AttemptLimiter::new(5, 15 * MINUTE),
            logins_of_address: AttemptLimiter::new(50, 15 * MINUTE),
            // Wider than for one client, so that one stranger behind it does not lock out everybody; and a bound for
            // whoever can choose the claimed address.
            logins_by_proxy: AttemptLimiter::new(20, 15 * MINUTE),
            logins_of_proxy: AttemptLimiter::new(250, 15 * MINUTE),
            signups: FixedWindow::new(10, 60 * MINUTE),
            signups_by_proxy: FixedWindow::new(100, 60 * MINUTE),
            verifications: FixedWindow::new(5, 60 * MINUTE),
        }
    }
}
