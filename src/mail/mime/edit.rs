//! Edits ranges of a message and keeps everything else octet for octet.

use std::ops::Range;

use super::base64_lines::{LineEncoder, encoded_capacity};
use super::{Encoding, decode};

/// A range of the message and its replacement.
pub(crate) struct Edit {
    pub(crate) range: Range<usize>,
    pub(crate) replacement: Replacement,
}

pub(crate) enum Replacement {
    Octets(Vec<u8>),
    /// The range, decoded from `declared` and encoded as base64, with a line break at the end if `line_break`.
    Base64 {
        declared: Encoding,
        line_break: bool,
    },
}

impl Edit {
    pub(crate) const fn octets(range: Range<usize>, octets: Vec<u8>) -> Self {
        Self { range, replacement: Replacement::Octets(octets) }
    }

    /// Shifts the edit into a message that contains this one at `base`.
    pub(crate) fn shifted(self, base: usize) -> Self {
        Self { range: shift(&self.range, base), ..self }
    }

    /// Returns the number of octets added at most.
    fn growth(&self) -> usize {
        match &self.replacement {
            Replacement::Octets(octets) => octets.len(),
            Replacement::Base64 { .. } => encoded_capacity(self.range.len()).saturating_sub(self.range.len()) + 2,
        }
    }

    fn write(&self, raw: &[u8], out: &mut Vec<u8>) {
        match &self.replacement {
            Replacement::Octets(octets) => out.extend_from_slice(octets),
            Replacement::Base64 { declared, line_break } => {
                let mut lines = LineEncoder::new(out);
                decode::in_pieces(*declared, raw.get(self.range.clone()).unwrap_or_default(), |piece| {
                    lines.feed(piece);
                    true
                });
                lines.finish();
                out.extend_from_slice(if *line_break { b"\r\n" } else { b"" });
            }
        }
    }
}

pub(crate) const fn shift(range: &Range<usize>, by: usize) -> Range<usize> {
    range.start + by..range.end + by
}

/// Applies edits, which must be in order. Costs the memory of the result.
pub(crate) fn apply(raw: &[u8], edits: &[Edit]) -> Vec<u8> {
    let mut out = Vec::with_capacity(raw.len() + edits.iter().map(Edit::growth).sum::<usize>());
    let mut done = 0;
    for edit in edits {
        out.extend_from_slice(raw.get(done..edit.range.start).unwrap_or_default());
        edit.write(raw, &mut out);
        done = edit.range.end;
    }
    out.extend_from_slice(raw.get(done..).unwrap_or_default());
    out
}

/// True if everything in `within` that the edits, which must be in order, leave unchanged is ASCII.
pub(crate) fn is_ascii_outside(raw: &[u8], edits: &[Edit], within: Range<usize>) -> bool {
    let first = edits.partition_point(|edit| edit.range.start < within.start);
    let mut done = within.start;
    for edit in edits.get(first..).unwrap_or_default().iter().take_while(|edit| edit.range.start < within.end) {
        if !raw.get(done..edit.range.start).unwrap_or_default().is_ascii() {
            return false;
        }
        done = done.max(edit.range.end);
    }
    raw.get(done..within.end).unwrap_or_default().is_ascii()
}
