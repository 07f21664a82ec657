//! Filters redundant escape sequences of ISO-2022-JP (RFC 1468).
//!
//! Texts assembled from pieces, adjacent encoded words above all, switch to ASCII and back at each joint. The decoder
//! treats an escape sequence directly followed by another one as an attack; here the first of two is dropped, since
//! it selects nothing.

const ESCAPE: u8 = 0x1b;
const SEQUENCES: [&[u8]; 5] = [b"\x1b(B", b"\x1b(J", b"\x1b(I", b"\x1b$@", b"\x1b$B"];

/// Removes escape sequences that select nothing from a text that arrives in pieces.
#[derive(Default)]
pub(crate) struct EscapeFilter {
    /// A sequence, complete or not, held back until the next octet is known.
    pending: Vec<u8>,
}

impl EscapeFilter {
    /// Filters the next piece, including what was held back before it.
    pub(crate) fn feed(&mut self, bytes: &[u8]) -> Vec<u8> {
        let mut out = Vec::with_capacity(bytes.len() + self.pending.len());
        for byte in bytes {
            match (*byte, self.pending.len()) {
                (ESCAPE, _) => {
                    if !SEQUENCES.contains(&self.pending.as_slice()) {
                        out.extend_from_slice(&self.pending);
                    }
                    self.pending.clear();
                    self.pending.push(ESCAPE);
                }
                (byte, 0) => out.push(byte),
                (byte, 1 | 2) => self.pending.push(byte),
                (byte, _) => {
                    out.append(&mut self.pending);
                    out.push(byte);
                }
            }
        }
        out
    }

    /// Returns what was held back at the end of the text.
    pub(crate) fn finish(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.pending)
    }
}
