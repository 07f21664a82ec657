//! Rate limit for the appliance's own mail to one mailbox, whoever asks for it: anybody may sign up with somebody
//! else's address, or name it as a destination.

use std::time::Duration;

use crate::clock::Timestamp;
use crate::mail::address::Mailbox;
use crate::rate_limit::FixedWindow;
use crate::secrets::token_hash;
use data_encoding::HEXLOWER;

const HOUR: Duration = Duration::from_secs(3600);
/// Per hour: the mail of a sign-up, and the repetitions that one account may ask for.
const MOST_AN_HOUR: u32 = 6;
const MOST_A_DAY: u32 = 12;

/// Proofs of addresses mailed lately, by mailbox.
pub(crate) struct StrangerMail {
    hour: FixedWindow,
    day: FixedWindow,
}

impl Default for StrangerMail {
    fn default() -> Self {
        Self { hour: FixedWindow::new(MOST_AN_HOUR, HOUR), day: FixedWindow::new(MOST_A_DAY, 24 * HOUR) }
    }
}

impl StrangerMail {
    /// True if one more may be mailed; addresses that differ in case, quotes or a `+` suffix are one mailbox.
    pub(crate) fn may_mail(&self, to: &Mailbox, now: Timestamp) -> bool {
        let key = key(to);
        let may = self.hour.check(&key, now).is_ok() && self.day.check(&key, now).is_ok();
        if !may {
            tracing::info!(
                domain = to.domain().as_str(),
                "a mailbox got as many proofs of addresses as it may; none is sent"
            );
        }
        may
    }

    /// Counts a mail that is sent.
    pub(crate) fn count(&self, to: &Mailbox, now: Timestamp) {
        let key = key(to);
        self.hour.count(&key, now);
        self.day.count(&key, now);
    }
}

/// Hashes the address, which may be long.
fn key(to: &Mailbox) -> String {
    HEXLOWER.encode(&token_hash(&to.without_subaddress()))
}
