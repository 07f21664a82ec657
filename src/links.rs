//! HMAC-signed attachment links (contract 7.1).
