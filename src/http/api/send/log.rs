//! The lines of sending in the log of mail.

use std::time::Instant;

use axum::http::StatusCode;

use crate::event_bus::mail_log::{self, Event, Line, Via};
use crate::http::client::ClientAddress;
use crate::outbound::submit::Submitted;
use crate::outbound::submit::submission::Submission;

/// The addresses of a message that may be accepted.
pub(super) struct Accepted {
    pub(super) from: String,
    pub(super) to: String,
}

impl Accepted {
    /// Returns the addresses of a submission; `None` if nobody will read of it.
    pub(super) fn of(submission: &Submission) -> Option<Self> {
        mail_log::is_enabled().then(|| {
            let Submission { from, to, cc, bcc, .. } = submission;
            let recipients = to.iter().chain(cc).chain(bcc).map(|one| one.mailbox.to_string());
            Self { from: from.mailbox.to_string(), to: mail_log::join(recipients) }
        })
    }

    pub(super) fn log(&self, client: &ClientAddress, submitted: &Submitted, status: StatusCode, began: Instant) {
        let line = Line {
            peer: Some(client.address),
            via: Some(Via::Api),
            message_id: Some(submitted.id.as_str()),
            from: Some(&self.from),
            to: Some(&self.to),
            reply: Some(status.as_str()),
            size: u64::try_from(submitted.size).ok(),
            duration: Some(began.elapsed()),
            ..Line::default()
        };
        line.log(Event::Accepted);
    }
}
