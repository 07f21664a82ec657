//! Outbound mail: what is submitted is composed, signed and stored in one transaction, and taken to its remote hosts by
//! jobs (contract 8).
//!
//! [`transport`] is the network: hosts of a domain, sessions, verdicts. Everything before and after it is the store's.

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
use crate::event_bus::Feed;
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

/// What sending is made of.
pub(crate) struct Dependencies {
    /// The configuration in force.
    pub(crate) config: Arc<Config>,
    /// The database.
    pub(crate) db: Db,
    /// Mail data on disk.
    pub(crate) objects: Objects,
    /// Opens signing keys.
    pub(crate) secrets: Arc<Secrets>,
    /// Makes signing keys.
    pub(crate) domains: Arc<Domains>,
    /// Hears of mail that waits.
    pub(crate) jobs: Jobs,
    /// Counters.
    pub(crate) metrics: Arc<Metrics>,
    /// What one account may have.
    pub(crate) limits: Arc<Limits>,
    /// Who wants to hear of it.
    pub(crate) feed: Feed,
    /// Envelope senders that prove themselves.
    pub(crate) return_paths: ReturnPaths,
    /// Signing keys in use.
    pub(crate) keys: KeyCache,
}

/// Takes mail to send; clones share it.
#[derive(Clone)]
pub(crate) struct Outbound {
    parts: Arc<Dependencies>,
}

impl Outbound {
    /// Sending, of these parts.
    pub(crate) fn new(parts: Dependencies) -> Self {
        Self { parts: Arc::new(parts) }
    }

    /// Envelope senders that prove themselves.
    pub(crate) fn return_paths(&self) -> &ReturnPaths {
        &self.parts.return_paths
    }
}

/// Where mail goes next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Destination {
    /// The mail hosts of a domain (RFC 5321 §5.1).
    Domain(Domain),
    /// The relay that the operator names.
    Smarthost(Arc<Smarthost>),
}

/// Mail that goes to some recipients of one destination.
#[derive(Clone, Debug)]
pub struct DeliveryRequest {
    /// Envelope sender; `None` is the null reverse-path.
    pub reverse_path: Option<Mailbox>,
    /// Envelope recipients; at least one.
    pub recipients: Vec<Mailbox>,
    /// The mail data, CRLF line ends, not dot-stuffed.
    pub data: Bytes,
    /// What makes the same for a host that takes no international headers (RFC 6531), where `data` has one.
    pub ascii: Option<AsciiForm>,
}

/// What became of one recipient in one attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// Which way it went.
    pub verdict: Verdict,
    /// The reply code of the remote host; none when no reply decided it.
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

/// Which way an attempt went for a recipient.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The remote host took responsibility: its reply to the final dot was 2yz.
    Sent,
    /// Not now.
    Deferred,
    /// Never.
    Bounced,
}

/// An attempt, as it is kept.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SessionRecord {
    /// Name of the host that decided it; none when no host was reached.
    pub host: Option<String>,
    /// Its address and port.
    pub address: Option<SocketAddr>,
    /// `TLSv1.3` or `TLSv1.2`, with ` (DANE)`, ` (MTA-STS)` or ` (verified)` when the host proved its name; none without TLS.
    pub tls: Option<String>,
    /// The dialog with every host that was tried, `C:` and `S:` lines, without mail data and credentials; at most
    /// [`transport::MAX_TRANSCRIPT`] octets.
    pub transcript: String,
}

/// What an attempt came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeliveryResult {
    /// For each recipient of the parcel, in its order.
    pub outcomes: Vec<Outcome>,
    /// How.
    pub receipt: SessionRecord,
    /// Nothing was tried, because every host pauses or has all the connections that it gets.
    pub wait: Option<Wait>,
}

/// A host to try, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Host {
    /// As the MX record names it: an A-label without final dot.
    pub name: String,
    /// The preference of its MX record; hosts of the same are equals.
    pub(crate) preference: u16,
    /// Its addresses in the order to try them, each permitted by the guard; at least one.
    pub addresses: Vec<SocketAddr>,
    /// What TLS has to prove.
    pub tls: TlsRule,
}

/// What TLS with a host has to prove.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum TlsRule {
    /// Encrypt if the host offers it, whatever its certificate; without TLS if it does not, or fails at it.
    Opportunistic,
    /// A valid certificate for the host's name, or no mail: the domain's MTA-STS policy enforces it (RFC 8461 §5), or
    /// the operator wants it of the smarthost.
    Verified {
        /// The word of the receipt: `MTA-STS` or `verified`.
        by: &'static str,
    },
    /// What these TLSA records say, or no mail (RFC 7672 §2.2).
    Dane(Arc<[transport::dane::Tlsa]>),
    /// Never; the operator wants it of the smarthost.
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
