//! MAPI properties in the attributes of a stream ([MS-OXTNEF] §2.1.3.4).

use std::ops::Range;

use super::Text;
use super::cursor::Cursor;

/// The properties that are read ([MS-OXPROPS]).
pub(crate) const SUBJECT: u16 = 0x0037;
pub(crate) const BODY: u16 = 0x1000;
pub(crate) const RTF: u16 = 0x1009;
pub(crate) const HTML: u16 = 0x1013;
pub(crate) const INTERNET_CODE_PAGE: u16 = 0x3fde;
pub(crate) const DISPLAY_NAME: u16 = 0x3001;
pub(crate) const DATA: u16 = 0x3701;
pub(crate) const FILE_NAME: u16 = 0x3704;
pub(crate) const LONG_FILE_NAME: u16 = 0x3707;
pub(crate) const MIME_TAG: u16 = 0x370e;
pub(crate) const CONTENT_ID: u16 = 0x3712;
pub(crate) const FLAGS: u16 = 0x3714;
pub(crate) const HIDDEN: u16 = 0x7ffe;

const READ_PROPERTIES: [u16; 13] = [
    SUBJECT,
    BODY,
    RTF,
    HTML,
    INTERNET_CODE_PAGE,
    DISPLAY_NAME,
    DATA,
    FILE_NAME,
    LONG_FILE_NAME,
    MIME_TAG,
    CONTENT_ID,
    FLAGS,
    HIDDEN,
];

const OBJECT: u16 = 0x000d;
const STRING: u16 = 0x001e;
const UNICODE: u16 = 0x001f;
const BINARY: u16 = 0x0102;
/// Flag of a type: the property has several values.
const MULTIPLE: u16 = 0x1000;
/// Ids from here on belong to named properties.
const NAMED: u16 = 0x8000;

/// A property; the first of several values.
#[derive(Clone)]
pub(crate) struct Property<'d> {
    kind: u16,
    /// Texts are without their trailing zeros.
    pub(crate) value: &'d [u8],
    /// The range of `value`.
    pub(crate) range: Range<usize>,
}

impl<'d> Property<'d> {
    /// Returns the value if it is a text.
    pub(crate) fn text(&self) -> Option<Text<'d>> {
        match self.kind {
            STRING => Some(Text::Narrow(self.value)),
            UNICODE => Some(Text::Wide(self.value)),
            _ => None,
        }
    }

    /// True for an object, which begins with the identifier of its interface.
    pub(crate) const fn is_object(&self) -> bool {
        self.kind == OBJECT
    }

    fn new(kind: u16, value: &'d [u8], range: Range<usize>) -> Self {
        let length = match kind {
            STRING => value.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1),
            UNICODE => {
                let units = value.as_chunks::<2>().0;
                units.iter().rposition(|unit| *unit != [0, 0]).map_or(0, |last| 2 * (last + 1))
            }
            _ => value.len(),
        };
        let range = range.start..range.start + length;
        Self { kind, value: value.get(..length).unwrap_or_default(), range }
    }
}

/// The properties of a message or attachment.
#[derive(Default)]
pub(crate) struct Properties<'d>(Vec<(u16, Property<'d>)>);

impl<'d> Properties<'d> {
    /// Reads the properties in a range, until one is damaged.
    pub(crate) fn read(data: &'d [u8], range: Range<usize>) -> Self {
        let mut properties = Self::default();
        let mut cursor = Cursor::new(data, range);
        let count = cursor.u32().unwrap_or_default();
        for _ in 0..count {
            if properties.read_one(&mut cursor).is_none() {
                break;
            }
        }
        properties
    }

    fn read_one(&mut self, cursor: &mut Cursor<'d>) -> Option<()> {
        let (kind, id) = (cursor.u16()?, cursor.u16()?);
        if id >= NAMED {
            // The property set of the name; then a number or the name.
            cursor.take(16)?;
            match cursor.u32()? {
                0 => cursor.take(4)?,
                _ => take_sized(cursor)?,
            };
        }
        let single = kind & !MULTIPLE;
        let is_sized = matches!(single, OBJECT | STRING | UNICODE | BINARY);
        let values = if is_sized || kind & MULTIPLE != 0 { cursor.u32()? } else { 1 };
        if values > 1 && fixed_size(single) == Some(0) {
            return None;
        }
        for number in 0..values {
            let (value, range) = if is_sized { take_sized(cursor)? } else { cursor.take(fixed_size(single)?)? };
            if number == 0 && id < NAMED && READ_PROPERTIES.contains(&id) && self.get(id).is_none() {
                self.0.push((id, Property::new(single, value, range)));
            }
        }
        Some(())
    }

    pub(crate) fn get(&self, id: u16) -> Option<&Property<'d>> {
        self.0.iter().find(|(known, _)| *known == id).map(|(_, property)| property)
    }

    pub(crate) fn text(&self, id: u16) -> Option<Text<'d>> {
        self.get(id)?.text()
    }

    pub(crate) fn number(&self, id: u16) -> Option<u32> {
        self.get(id)?.value.first_chunk().map(|octets| u32::from_le_bytes(*octets))
    }
}

/// Reads a value preceded by its length and padded to a multiple of four.
fn take_sized<'d>(cursor: &mut Cursor<'d>) -> Option<(&'d [u8], Range<usize>)> {
    let length = usize::try_from(cursor.u32()?).ok()?;
    let found = cursor.take(length)?;
    cursor.take(length.wrapping_neg() % 4)?;
    Some(found)
}

/// Returns the size of a type's values in octets, padded to a multiple of four.
const fn fixed_size(kind: u16) -> Option<usize> {
    match kind {
        0x0001 => Some(0),
        0x0002 | 0x0003 | 0x0004 | 0x000a | 0x000b => Some(4),
        0x0005 | 0x0006 | 0x0007 | 0x0014 | 0x0040 => Some(8),
        0x0048 => Some(16),
        _ => None,
    }
}
