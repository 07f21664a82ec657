//! Requests and replies of the control socket: each a line of JSON; that of a batch of mails is followed by their
//! octets.

use serde::{Deserialize, Serialize};

use crate::clock::Timestamp;
use crate::inbound::import::ImportOutcome;

/// Mails of one batch of an import.
pub(crate) const MAX_BATCH: usize = 64;
/// Octets after which a batch is complete; a larger mail is a batch of its own.
pub(crate) const MAX_BATCH_OCTETS: usize = 4 * 1024 * 1024;
/// The longest line.
pub(super) const MAX_LINE: u64 = 256 * 1024;

/// A request of a command.
#[derive(Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Request {
    /// Adds an account; without a password, with a sign-in link.
    Add {
        email: String,
        admin: bool,
        password: Option<String>,
    },
    /// Replaces a password, or removes it for a sign-in link.
    ResetPassword {
        email: String,
        password: Option<String>,
    },
    SignInLink {
        email: String,
    },
    SetAdmin {
        email: String,
        admin: bool,
    },
    /// Counts what goes with an account that may be removed.
    Holdings {
        email: String,
    },
    Remove {
        email: String,
    },
    /// Rotates the DKIM keys of a domain.
    RotateDkim {
        domain: String,
    },
    /// Begins an import.
    Import {
        account: String,
        domain: Option<String>,
    },
    /// Mails of the import that was begun.
    Mails(Vec<MailHead>),
}

/// A mail whose octets follow.
#[derive(Deserialize, Serialize)]
pub(crate) struct MailHead {
    pub(super) received_at: Option<Timestamp>,
    pub(super) mail_from: Option<String>,
    pub(super) recipient: Option<String>,
    pub(super) octets: usize,
}

/// The record of a DKIM key.
#[derive(Debug, Deserialize, Serialize)]
pub(crate) struct DkimRecord {
    pub(crate) name: String,
    pub(crate) value: String,
    /// True if it is to be published for the rotation.
    pub(crate) is_new: bool,
}

/// The server's reply.
#[derive(Debug, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Reply {
    /// The account, with the link that was asked for.
    Opened {
        email: String,
        link: Option<String>,
    },
    Admin {
        email: String,
        changed: bool,
    },
    Holdings {
        email: String,
        domains: u64,
        messages: u64,
    },
    /// The records of the domain's DKIM keys.
    DkimRecords(Vec<DkimRecord>),
    /// The import may begin.
    Importing,
    /// Outcome of each mail of a batch.
    Stored(Vec<ImportOutcome>),
    /// Nothing was changed, for the reason of this sentence.
    Refused(String),
}
