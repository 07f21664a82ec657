//! Little-endian numbers and slices, by their places in the whole.

use std::ops::Range;

/// Where reading stands.
pub(crate) struct Cursor<'d> {
    data: &'d [u8],
    at: usize,
    end: usize,
}

impl<'d> Cursor<'d> {
    /// At the beginning of a place.
    pub(crate) fn new(data: &'d [u8], place: Range<usize>) -> Self {
        Self { data, at: place.start, end: place.end.min(data.len()) }
    }

    /// The next octets and their place; none when there are not so many.
    pub(crate) fn take(&mut self, length: usize) -> Option<(&'d [u8], Range<usize>)> {
        let place = self.at..self.at.checked_add(length).filter(|end| *end <= self.end)?;
        let taken = self.data.get(place.clone())?;
        self.at = place.end;
        Some((taken, place))
    }

    /// Whether nothing is left.
    pub(crate) const fn is_at_end(&self) -> bool {
        self.at >= self.end
    }

    /// An octet.
    pub(crate) fn u8(&mut self) -> Option<u8> {
        self.take(1)?.0.first().copied()
    }

    /// Two octets.
    pub(crate) fn u16(&mut self) -> Option<u16> {
        self.take(2)?.0.first_chunk().map(|octets| u16::from_le_bytes(*octets))
    }

    /// Four octets.
    pub(crate) fn u32(&mut self) -> Option<u32> {
        self.take(4)?.0.first_chunk().map(|octets| u32::from_le_bytes(*octets))
    }
}
