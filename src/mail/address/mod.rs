//! Domains, mailboxes and SMTP paths (RFC 5321 §4.1.2, RFC 6531 §3.3), as values that are valid once parsed.
//!
//! Pure: uses only IDNA and the tables of invisible characters. The syntax of names and address literals changes in
//! `domain`, that of local parts and their canonical forms in `mailbox`, MAIL FROM and RCPT TO paths in `path`;
//! address lists with display names are `mailbox_list`'s and `mime::address`'s.

mod domain;
mod mailbox;
mod path;

pub use domain::Domain;
pub use mailbox::Mailbox;
pub(crate) use mailbox::canonical;
pub use path::{ForwardPath, ReversePath};

/// An address that cannot be parsed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// Violates the grammar of RFC 5321 §4.1.2.
    #[error("malformed address")]
    Syntax,
    #[error("address too long")]
    TooLong,
    /// An address literal such as `[192.0.2.1]` where a domain name is required.
    #[error("an address literal is not a domain name")]
    Literal,
}
