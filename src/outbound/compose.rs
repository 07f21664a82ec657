//! A submission becomes mail data (RFC 5322).
