//! The envelope of one SMTP transaction.

use std::net::IpAddr;

use super::address::ReversePath;

/// What a session knows of its other side.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// The address it connects from.
    pub address: IpAddr,
    /// The name it greeted with.
    pub helo: String,
    /// Whether it said EHLO.
    pub esmtp: bool,
    /// The encryption of the session, if it is encrypted.
    pub tls: Option<TlsInfo>,
}

/// How a session is encrypted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsInfo {
    /// `TLSv1.3`.
    pub(crate) version: String,
    /// `TLS_AES_256_GCM_SHA384`.
    pub(crate) cipher: String,
}

/// The envelope of one transaction (RFC 5321 §2.3.1); recipients are what the door resolved them to.
#[derive(Clone, Debug)]
pub(crate) struct Envelope<R> {
    /// Who gets a bounce.
    pub(crate) reverse_path: ReversePath,
    /// Who gets the message; never empty at acceptance.
    pub(crate) recipients: Vec<R>,
    /// Whether MAIL asked for SMTPUTF8 (RFC 6531).
    pub(crate) smtputf8: bool,
    /// Whether MAIL declared 8BITMIME (RFC 6152).
    pub(crate) eight_bit: bool,
}

impl<R> Envelope<R> {
    /// The same with other recipients; those that become none are left out.
    pub(crate) fn map<T>(self, other: impl FnMut(R) -> Option<T>) -> Envelope<T> {
        Envelope {
            reverse_path: self.reverse_path,
            recipients: self.recipients.into_iter().filter_map(other).collect(),
            smtputf8: self.smtputf8,
            eight_bit: self.eight_bit,
        }
    }
}
