//! Outbound mail: what is submitted is composed, signed and stored in one transaction, and taken to its remote hosts by
//! jobs (contract 8).
//!
//! [`transport`] is the network: hosts of a domain, sessions, verdicts. Everything before and after it is the store's.

mod arc;
pub mod ascii_form;
pub mod client;
pub mod compose;
pub mod dane;
pub mod deliver;
mod delivery_report;
pub mod draft;
mod failure_report;
pub mod forward;
pub mod hand_in;
pub mod mta_sts;
pub mod mx;
pub mod notice;
mod outcome;
pub mod own_header;
pub mod pace;
pub mod peers;
pub mod refusal;
pub mod release;
pub mod return_path;
pub mod returned;
pub mod schedule;
pub mod sender;
pub mod settle;
pub mod sign;
pub mod submit;
pub mod template;
pub mod tls;
pub mod transport;

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;

use crate::activity::Feed;
use crate::config::{Config, Smarthost};
use crate::domain::Domains;
use crate::jobs::Jobs;
use crate::limits::Limits;
use crate::mail::address::{Domain, Mailbox};
use crate::metrics::Metrics;
use crate::secrets::Secrets;
use crate::store::Db;
use crate::store::objects::Objects;
use ascii_form::AsciiForm;
use peers::Wait;
use refusal::Stage;
use return_path::ReturnPaths;
use sender::KeyCache;

/// What sending is made of.
pub struct Parts {
    /// The configuration in force.
    pub config: Arc<Config>,
    /// The database.
    pub db: Db,
    /// Mail data on disk.
    pub objects: Objects,
    /// Opens signing keys.
    pub secrets: Arc<Secrets>,
    /// Makes signing keys.
    pub domains: Arc<Domains>,
    /// Hears of mail that waits.
    pub jobs: Jobs,
    /// Counters.
    pub metrics: Arc<Metrics>,
    /// What one account may have.
    pub limits: Arc<Limits>,
    /// Who wants to hear of it.
    pub feed: Feed,
    /// Envelope senders that prove themselves.
    pub return_paths: ReturnPaths,
    /// Signing keys in use.
    pub keys: KeyCache,
}

/// Takes mail to send; clones share it.
#[derive(Clone)]
pub struct Outbound {
    parts: Arc<Parts>,
}

impl Outbound {
    /// Sending, of these parts.
    pub fn new(parts: Parts) -> Self {
        Self { parts: Arc::new(parts) }
    }

    /// Envelope senders that prove themselves.
    pub fn return_paths(&self) -> &ReturnPaths {
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
pub struct Parcel {
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
    /// The reply as one line, `550 5.1.1 no such user`, or our own sentence, which begins with an enhanced status code.
    /// Printable, at most 1,000 characters.
    pub diagnostic: String,
    /// Whether it says that the mailbox does not exist, so that its address is suppressed.
    pub no_mailbox: bool,
    /// What was refused.
    pub stage: Stage,
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
pub struct Receipt {
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
pub struct Transmitted {
    /// For each recipient of the parcel, in its order.
    pub outcomes: Vec<Outcome>,
    /// How.
    pub receipt: Receipt,
    /// Nothing was tried, because every host pauses or has all the connections that it gets.
    pub wait: Option<Wait>,
}

/// A host to try, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Host {
    /// As the MX record names it: an A-label without final dot.
    pub name: String,
    /// The preference of its MX record; hosts of the same are equals.
    pub preference: u16,
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
    Dane(Arc<[dane::Tlsa]>),
    /// Never; the operator wants it of the smarthost.
    Never,
}

/// Why a domain has no host to try.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unroutable {
    /// [`Verdict::Bounced`] or [`Verdict::Deferred`].
    pub verdict: Verdict,
    /// `5.1.10 the domain takes no mail (null MX)`.
    pub diagnostic: String,
}
