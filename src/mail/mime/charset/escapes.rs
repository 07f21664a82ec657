//! The escape sequences of ISO-2022-JP (RFC 1468).
//!
//! Texts that were put together of pieces, adjacent encoded words above all, go back to ASCII and out of it again at each
//! joint. The decoder takes a sequence that nothing follows but another one for an attempt to hide something; here the first
//! of two is left out, for it selects nothing.

const ESCAPE: u8 = 0x1b;
const SEQUENCES: [&[u8]; 5] = [b"\x1b(B", b"\x1b(J", b"\x1b(I", b"\x1b$@", b"\x1b$B"];

/// A text that comes in pieces, without the sequences that select nothing.
#[derive(Default)]
pub(crate) struct EscapeFilter {
    /// The beginning of a sequence, or a whole one, until it is known what follows.
    pending: Vec<u8>,
}

impl EscapeFilter {
    /// The next piece, with what was held back before it.
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

    /// The end of the text.
    pub(crate) fn finish(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.pending)
    }
}
