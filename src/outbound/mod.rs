//! Outbound mail: a submission is composed, signed and stored in one transaction, and jobs deliver it to its remote
//! hosts (contract 8).
//!
//! [`transport`] is the network: hosts of a domain, sessions, verdicts. All steps before and after it use the store.

pub(crate) mod client;
pub(crate) mod forward;
pub(crate) mod message;
pub(crate) mod queue;
pub(crate) mod reports;
pub(crate) mod return_path;
pub(crate) mod submit;
pub(crate) mod system_mail;
pub(crate) mod transport;

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;

use crate::config::{Config, Smarthost};
use crate::domain::Domains;
use crate::event_bus::Publisher;
use crate::jobs::Jobs;
use crate::limits::Limits;
use crate::mail::address::{Domain, Mailbox};
use crate::mail::status_code::EnhancedStatusCode;
use crate::metrics::Metrics;
use crate::secrets::Secrets;
use crate::store::Db;
use crate::store::blobs::objects::Objects;
use message::ascii_form::AsciiForm;
use queue::hosts::Wait;
use queue::refusal::Stage;
use return_path::ReturnPaths;
use submit::sender::KeyCache;

/// Dependencies of sending.
pub(crate) struct Dependencies {
    /// The configuration in force.
    pub(crate) config: Arc<Config>,
    pub(crate) db: Db,
    pub(crate) objects: Objects,
    /// Decrypts signing keys.
    pub(crate) secrets: Arc<Secrets>,
    /// Generates signing keys.
    pub(crate) domains: Arc<Domains>,
    /// Notified of queued mail.
    pub(crate) jobs: Jobs,
    pub(crate) metrics: Arc<Metrics>,
    /// Limits per account.
    pub(crate) limits: Arc<Limits>,
    /// Publishes the events of live streams.
    pub(crate) publisher: Publisher,
    /// Authenticated envelope senders.
    pub(crate) return_paths: ReturnPaths,
    /// Signing keys in use.
    pub(crate) keys: KeyCache,
}

/// Accepts mail for sending; clones share their state.
#[derive(Clone)]
pub(crate) struct Outbound {
    parts: Arc<Dependencies>,
}

impl Outbound {
    /// Creates the sender from its dependencies.
    pub(crate) fn new(parts: Dependencies) -> Self {
        Self { parts: Arc::new(parts) }
    }

    /// Returns the authenticated envelope senders.
    pub(crate) fn return_paths(&self) -> &ReturnPaths {
        &self.parts.return_paths
    }
}

/// The next hop of mail.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Destination {
    /// The mail hosts of a domain (RFC 5321 §5.1).
    Domain(Domain),
    /// The relay that the operator configured.
    Smarthost(Arc<Smarthost>),
}

/// Mail for one or more recipients of one destination.
#[derive(Clone, Debug)]
pub struct DeliveryRequest {
    /// Envelope sender; `None` is the null reverse-path.
    pub reverse_path: Option<Mailbox>,
    /// Envelope recipients; at least one.
    pub recipients: Vec<Mailbox>,
    /// The mail data, CRLF line ends, not dot-stuffed.
    pub data: Bytes,
    /// Generates the form for hosts without SMTPUTF8 (RFC 6531), if `data` has an international header.
    pub ascii: Option<AsciiForm>,
}

/// The outcome of one recipient in one attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// The verdict on this recipient.
    pub verdict: Verdict,
    /// The remote host's reply code; `None` when no reply decided the outcome.
    pub code: Option<u16>,
    /// The enhanced status code of that reply, or of this server's own decision.
    pub(crate) status: Option<EnhancedStatusCode>,
    /// The reply as one line, `550 5.1.1 no such user`, or this server's own sentence, which begins with the status
    /// code. Printable; a reply is cut at 1,000 characters.
    pub diagnostic: String,
    /// The mailbox does not exist, so its address is suppressed.
    pub(crate) no_mailbox: bool,
    /// The command that was refused.
    pub(crate) stage: Stage,
}

/// The verdict of an attempt on a recipient.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The remote host took responsibility: its reply to the final dot was 2yz.
    Sent,
    /// Failed for now; retried later.
    Deferred,
    /// Failed permanently.
    Bounced,
}

/// The stored record of an attempt.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SessionRecord {
    /// Name of the host that decided it; `None` when no host was reached.
    pub host: Option<String>,
    /// Its address and port.
    pub address: Option<SocketAddr>,
    /// `TLSv1.3` or `TLSv1.2`, with ` (DANE)`, ` (MTA-STS)` or ` (verified)` when the host proved its name; `None`
    /// without TLS.
    pub tls: Option<String>,
    /// The dialog with every host that was tried, as `C:` and `S:` lines, without mail data and credentials; at most
    /// [`client::MAX_TRANSCRIPT`] octets.
    pub transcript: String,
}

/// The result of an attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeliveryResult {
    /// The outcome of each recipient, in the order of the delivery request.
    pub outcomes: Vec<Outcome>,
    /// The session record.
    pub record: SessionRecord,
    /// Set when nothing was tried, because every host is paused or has reached its connection limit.
    pub wait: Option<Wait>,
}

/// A host to try, with its addresses and TLS rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Host {
    /// Name in the MX record: an A-label without final dot.
    pub name: String,
    /// Preference of its MX record; hosts of one preference are equal.
    pub(crate) preference: u16,
    /// Its addresses in the order to try them, each permitted by the guard; at least one.
    pub addresses: Vec<SocketAddr>,
    /// Requirements on TLS.
    pub tls: TlsRule,
}

/// Requirements on TLS with a host.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum TlsRule {
    /// Encrypt if the host offers TLS, whatever its certificate; fall back to plain text if it does not, or if TLS
    /// fails.
    Opportunistic,
    /// Require a valid certificate for the host's name, or do not send: the domain's MTA-STS policy enforces it
    /// (RFC 8461 §5), or the operator requires it of the smarthost.
    Verified {
        /// The term used in the session record: `MTA-STS` or `verified`.
        by: &'static str,
    },
    /// Require a match with these TLSA records, or do not send (RFC 7672 §2.2).
    Dane(Arc<[transport::dane::Tlsa]>),
    /// Never use TLS; the operator configured this for the smarthost.
    Never,
}

/// Reason why a domain has no host to try: a status code of a transient or permanent failure, and a sentence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unroutable {
    pub(crate) status: EnhancedStatusCode,
    pub(crate) text: String,
}

impl Unroutable {
    /// Returns [`Verdict::Bounced`] or [`Verdict::Deferred`].
    pub fn verdict(&self) -> Verdict {
        self.status.class.into()
    }

    /// Returns `5.1.10 the domain takes no mail (null MX)` and the like.
    pub fn diagnostic(&self) -> String {
        format!("{} {}", self.status, self.text)
    }
}
