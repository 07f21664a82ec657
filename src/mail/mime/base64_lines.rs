//! Encodes octets that arrive in pieces as base64 in lines of 76 characters (RFC 2045 §6.8).

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;

/// Octets encoded in one line.
const LINE_OCTETS: usize = 57;
const LINE: usize = 76;

/// Encodes octets as base64 lines, without a line break at the end.
pub(crate) fn base64_lines(content: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(encoded_capacity(content.len()));
    let mut lines = LineEncoder::new(&mut out);
    lines.feed(content);
    lines.finish();
    out
}

/// Returns the maximum encoded length of `octets` octets.
pub(crate) const fn encoded_capacity(octets: usize) -> usize {
    octets.div_ceil(LINE_OCTETS) * (LINE + 2)
}

/// Writes base64 lines to `out`, without a line break at the end.
pub(crate) struct LineEncoder<'o> {
    out: &'o mut Vec<u8>,
    /// Octets of an incomplete line.
    pending: Vec<u8>,
    has_line: bool,
}

impl<'o> LineEncoder<'o> {
    pub(crate) fn new(out: &'o mut Vec<u8>) -> Self {
        Self { out, pending: Vec::with_capacity(LINE_OCTETS), has_line: false }
    }

    pub(crate) fn feed(&mut self, piece: &[u8]) {
        let missing = (LINE_OCTETS - self.pending.len()).min(piece.len());
        let (head, piece) = piece.split_at_checked(missing).unwrap_or((piece, &[]));
        self.pending.extend_from_slice(head);
        if self.pending.len() < LINE_OCTETS {
            return;
        }
        let whole = std::mem::take(&mut self.pending);
        self.line(&whole);
        self.pending = whole;
        self.pending.clear();
        let mut whole = piece.chunks_exact(LINE_OCTETS);
        for line in &mut whole {
            self.line(line);
        }
        self.pending.extend_from_slice(whole.remainder());
    }

    pub(crate) fn finish(mut self) {
        if !self.pending.is_empty() {
            let rest = std::mem::take(&mut self.pending);
            self.line(&rest);
        }
    }

    fn line(&mut self, octets: &[u8]) {
        if std::mem::replace(&mut self.has_line, true) {
            self.out.extend_from_slice(b"\r\n");
        }
        let mut line = [0; LINE];
        // The buffer always has room for a line.
        let length = BASE64.encode_slice(octets, &mut line).unwrap_or(0);
        self.out.extend_from_slice(line.get(..length).unwrap_or_default());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_of_any_size_make_the_lines_of_the_whole() {
        let content: Vec<u8> = (0..=255).cycle().take(1000).collect();
        for length in [0, 1, 56, 57, 58, 113, 114, 115, 1000] {
            let content = content.get(..length).unwrap_or_default();
            let encoded: Vec<String> = content.chunks(LINE_OCTETS).map(|line| BASE64.encode(line)).collect();
            for size in [1, 20, 56, 57, 58, 200, 2000] {
                let mut out = Vec::new();
                let mut lines = LineEncoder::new(&mut out);
                content.chunks(size).for_each(|piece| lines.feed(piece));
                lines.finish();
                assert_eq!(out, encoded.join("\r\n").into_bytes(), "{length} in {size}");
                assert!(out.len() <= encoded_capacity(length));
            }
        }
    }
}
