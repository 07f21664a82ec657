//! Reads little-endian numbers and slices together with their ranges in the whole.

use std::ops::Range;

/// A read position within a range.
pub(crate) struct Cursor<'d> {
    data: &'d [u8],
    at: usize,
    end: usize,
}

impl<'d> Cursor<'d> {
    /// Starts at the beginning of a range.
    pub(crate) fn new(data: &'d [u8], range: Range<usize>) -> Self {
        Self { data, at: range.start, end: range.end.min(data.len()) }
    }

    /// Returns the next octets and their range; `None` if there are not as many.
    pub(crate) fn take(&mut self, length: usize) -> Option<(&'d [u8], Range<usize>)> {
        let range = self.at..self.at.checked_add(length).filter(|end| *end <= self.end)?;
        let taken = self.data.get(range.clone())?;
        self.at = range.end;
        Some((taken, range))
    }

    /// True at the end of the range.
    pub(crate) const fn is_at_end(&self) -> bool {
        self.at >= self.end
    }

    pub(crate) fn u8(&mut self) -> Option<u8> {
        self.take(1)?.0.first().copied()
    }

    pub(crate) fn u16(&mut self) -> Option<u16> {
        self.take(2)?.0.first_chunk().map(|octets| u16::from_le_bytes(*octets))
    }

    pub(crate) fn u32(&mut self) -> Option<u32> {
        self.take(4)?.0.first_chunk().map(|octets| u32::from_le_bytes(*octets))
    }
}
