//! The network as a client: names ([`dns`]), outgoing HTTP ([`egress`]), certificates and TLS settings ([`tls`]).
//!
//! Uses the configuration alone. Whatever this server connects to on a stranger's word is checked in [`egress`]; SMTP to
//! remote hosts is `outbound::client`'s.

pub(crate) mod dns;
pub(crate) mod egress;
pub(crate) mod tls;
