//! The part of a message that a DKIM signature with relaxed body canonicalization covers.

/// Returns `mail` without the whitespace and empty lines at the end of its body, which relaxed canonicalization
/// ignores (RFC 6376 §3.4.4).
///
/// mail-auth ignores trailing empty lines, but not trailing lines of whitespace alone; without them it computes the
/// same hash as everybody else.
pub(crate) fn without_trailing_blanks(mail: &[u8]) -> &[u8] {
    let body = memchr::memmem::find(mail, b"\r\n\r\n").map_or(mail.len(), |end| end + 4);
    let blank = |byte: &u8| matches!(byte, b' ' | b'\t' | b'\r' | b'\n');
    let end = mail.iter().rposition(|byte| !blank(byte)).map_or(0, |last| last + 1);
    mail.get(..end.max(body)).unwrap_or(mail)
}

#[cfg(test)]
mod tests {
    use super::without_trailing_blanks;

    #[test]
    fn only_the_end_of_the_body_goes() {
        let cases: [(&[u8], &[u8]); 6] = [
            (b"A: b\r\n\r\na\r\n \r\n\t\r\n", b"A: b\r\n\r\na"),
            (b"A: b\r\n\r\na \r\n\r\n b  \r\n", b"A: b\r\n\r\na \r\n\r\n b"),
            (b"A: b\r\n\r\na", b"A: b\r\n\r\na"),
            (b"A: b\r\n\r\n \r\n\r\n", b"A: b\r\n\r\n"),
            (b"A: b \r\n", b"A: b \r\n"),
            (b"", b""),
        ];
        for (mail, wanted) in cases {
            assert_eq!(without_trailing_blanks(mail), wanted, "{}", String::from_utf8_lossy(mail));
        }
    }
}
