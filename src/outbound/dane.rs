//! TLSA records: what they demand of a certificate (RFC 6698, RFC 7672).

/// A TLSA record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tlsa {
    /// Certificate usage; only 2 (DANE-TA) and 3 (DANE-EE) count for SMTP (RFC 7672 §3.1).
    pub usage: u8,
    /// 0: the whole certificate; 1: its public key.
    pub selector: u8,
    /// 0: as it is; 1: SHA-256; 2: SHA-512.
    pub matching: u8,
    /// What it has to equal.
    pub data: Vec<u8>,
}
