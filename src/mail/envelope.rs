//! The envelope of one SMTP transaction.

use std::net::IpAddr;

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
    pub version: String,
    /// `TLS_AES_256_GCM_SHA384`.
    pub cipher: String,
}
