//! Lines of mail data that every host accepts.

/// Maximum octets of a line, without CRLF (RFC 5322 §2.1.1, RFC 5321 §4.5.3.1.6).
pub(crate) const MAX_LINE: usize = 998;

/// True if a line exceeds the length that every host must accept.
pub(crate) fn has_long_line(octets: &[u8]) -> bool {
    // The line still has its CR.
    octets.split(|byte| *byte == b'\n').any(|line| line.len() > MAX_LINE + 1)
}

/// True for 7bit data (RFC 2045 §2.7): octets below 128 and no line too long, so that every host accepts it
/// unchanged.
pub(crate) fn is_seven_bit(octets: &[u8]) -> bool {
    octets.is_ascii() && !has_long_line(octets)
}
