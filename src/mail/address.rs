//! Mailboxes and domains (RFC 5321 §4.1.2).
