//! The envelope of one SMTP transaction.

use std::net::IpAddr;

use super::address::ReversePath;

/// The SMTP client at the other end of a session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// The source address of the connection.
    pub address: IpAddr,
    /// The argument of HELO or EHLO.
    pub helo: String,
    /// True after EHLO, false after HELO.
    pub esmtp: bool,
    /// `None` without TLS.
    pub tls: Option<TlsInfo>,
}

/// The TLS parameters of a session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsInfo {
    /// For example `TLSv1.3`.
    pub(crate) version: String,
    /// For example `TLS_AES_256_GCM_SHA384`.
    pub(crate) cipher: String,
}

/// The envelope of one transaction (RFC 5321 §2.3.1). Recipients are what the SMTP server resolved them to.
#[derive(Clone, Debug)]
pub(crate) struct Envelope<R> {
    pub(crate) reverse_path: ReversePath,
    /// Never empty at acceptance.
    pub(crate) recipients: Vec<R>,
    /// Set by the MAIL parameter SMTPUTF8 (RFC 6531).
    pub(crate) smtputf8: bool,
    /// Set by the MAIL parameter BODY=8BITMIME (RFC 6152).
    pub(crate) eight_bit: bool,
}

impl<R> Envelope<R> {
    /// Maps the recipients; those mapped to `None` are left out.
    pub(crate) fn map<T>(self, other: impl FnMut(R) -> Option<T>) -> Envelope<T> {
        Envelope {
            reverse_path: self.reverse_path,
            recipients: self.recipients.into_iter().filter_map(other).collect(),
            smtputf8: self.smtputf8,
            eight_bit: self.eight_bit,
        }
    }
}
