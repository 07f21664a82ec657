//! The gates that forwarded mail passes (contract 4.6).

use super::Forward;
use crate::event_bus::mail_log::{self, Event, Line};
use crate::mail::address::Mailbox;
use crate::mail::status_code::EnhancedStatusCode;
use crate::store::{self, Connection, messages};

/// The gate that holds a message back (contract 4.6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Gate {
    /// The account's e-mail address is not verified.
    Unverified,
    /// The destination is not confirmed.
    Unproven,
    /// The destination is on the account's suppression list.
    Suppressed,
    /// The author is not authenticated.
    Refused,
}

impl Gate {
    /// Returns the value stored as the route's last outcome.
    pub(crate) const fn word(self) -> &'static str {
        match self {
            Self::Unverified => "unverified",
            Self::Unproven => "unproven",
            Self::Suppressed => "suppressed",
            Self::Refused => "refused",
        }
    }

    /// Returns the status code of a recipient that is not forwarded to.
    pub(crate) const fn status(self) -> EnhancedStatusCode {
        EnhancedStatusCode::NOT_AUTHORIZED
    }

    /// Returns the text of the recipient's diagnostic, without the status code.
    pub(crate) const fn sentence(self) -> &'static str {
        match self {
            Self::Unverified => "not forwarded: the account's e-mail address is not verified",
            Self::Unproven => "not forwarded: the destination has not confirmed that it wants this mail",
            Self::Suppressed => "not forwarded: the destination is suppressed",
            Self::Refused => "not forwarded: its From address is not authenticated",
        }
    }

    /// Logs that it holds a message back.
    pub(super) fn log(self, tx: &Connection, forward: Forward<'_>, to: &Mailbox) -> store::Result<()> {
        if !mail_log::is_enabled() {
            return Ok(());
        }
        let named = forward.message.map(|message| messages::find_name(tx, message)).transpose()?.flatten();
        let to = to.to_string();
        let line = Line {
            message_id: named.as_ref().map(|(id, _)| id.as_str()),
            from: Some(forward.mail_from),
            to: Some(&to),
            reason: Some(self.word()),
            route: Some(forward.route.as_str()),
            ..Line::default()
        };
        line.log(Event::NotForwarded);
        Ok(())
    }
}
