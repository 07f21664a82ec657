//! The mail hosts of a domain (RFC 5321 §5.1).
