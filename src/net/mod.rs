//! The network, as a client: DNS ([`dns`]), outgoing HTTP ([`egress`]), certificates and TLS settings ([`tls`]).
//!
//! Uses the configuration alone. Every connection to a destination that users name is checked in [`egress`]; SMTP to
//! remote hosts is `outbound::client`'s. A new record type goes to [`dns`], a rule on destinations to [`egress`].

pub(crate) mod dns;
pub(crate) mod egress;
pub(crate) mod tls;
