//! Lines of mail data, as far as every host takes them.

/// Octets of a line at most, without CRLF (RFC 5322 §2.1.1, RFC 5321 §4.5.3.1.6).
pub(crate) const MAX_LINE: usize = 998;

/// Whether a line is longer than any host has to take.
pub(crate) fn has_long_line(octets: &[u8]) -> bool {
    // The CR of its end stands before what parts it.
    octets.split(|byte| *byte == b'\n').any(|line| line.len() > MAX_LINE + 1)
}

/// Whether octets go to any host as they are: 7 bits, and no long line.
pub(crate) fn is_seven_bit(octets: &[u8]) -> bool {
    octets.is_ascii() && !has_long_line(octets)
}
