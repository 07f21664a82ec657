//! Decompresses RTF ([MS-OXRTFCP]): references into a window of the last 4,096 octets, which initially holds common
//! RTF.

use super::cursor::Cursor;

const COMPRESSED: u32 = 0x7546_5a4c;
const UNCOMPRESSED: u32 = 0x414c_454d;
const WINDOW: usize = 4096;
const INITIAL: &[u8] =
    b"{\\rtf1\\ansi\\mac\\deff0\\deftab720{\\fonttbl;}{\\f0\\fnil \\froman \\fswiss \\fmodern \\fscript \
    \\fdecor MS Sans SerifSymbolArialTimes New RomanCourier{\\colortbl\\red0\\green0\\blue0\r\n\\par \
    \\pard\\plain\\f0\\fs20\\b\\i\\u\\tab\\tx";

/// Returns the RTF, at most `max` octets of it; `None` if the data is damaged or not compressed RTF.
pub(crate) fn unpack(packed: &[u8], max: usize) -> Option<Vec<u8>> {
    let mut cursor = Cursor::new(packed, 0..packed.len());
    let (_, size, kind, _) = (cursor.u32()?, cursor.u32()?, cursor.u32()?, cursor.u32()?);
    let size = usize::try_from(size).ok()?.min(max);
    let rest = packed.get(16..)?;
    if kind == UNCOMPRESSED {
        return rest.get(..rest.len().min(size)).map(<[u8]>::to_vec);
    }
    if kind != COMPRESSED || size == 0 {
        return None;
    }
    let mut window = [0; WINDOW];
    window.get_mut(..INITIAL.len())?.copy_from_slice(INITIAL);
    let mut at = INITIAL.len();
    let mut out = Vec::with_capacity(size.min(packed.len().saturating_mul(8)));
    let mut put = |byte: u8, at: &mut usize, window: &mut [u8; WINDOW]| {
        out.push(byte);
        if let Some(slot) = window.get_mut(*at) {
            *slot = byte;
        }
        *at = (*at + 1) % WINDOW;
        out.len() < size
    };
    let mut bytes = rest.iter().copied();
    'runs: while let Some(control) = bytes.next() {
        for bit in 0..8 {
            if control >> bit & 1 == 0 {
                let Some(byte) = bytes.next() else { break 'runs };
                if !put(byte, &mut at, &mut window) {
                    break 'runs;
                }
                continue;
            }
            let (Some(high), Some(low)) = (bytes.next(), bytes.next()) else { break 'runs };
            let reference = usize::from(u16::from_be_bytes([high, low]));
            let (from, length) = (reference >> 4, (reference & 15) + 2);
            // A reference to the write position marks the end.
            if from == at {
                break 'runs;
            }
            for step in 0..length {
                let byte = window.get((from + step) % WINDOW).copied().unwrap_or_default();
                if !put(byte, &mut at, &mut window) {
                    break 'runs;
                }
            }
        }
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests may panic")]

    use super::*;

    #[test]
    fn the_examples_of_the_specification_unpack() {
        assert_eq!(INITIAL.len(), 207);
        // [MS-OXRTFCP] §3.1.1 and §3.1.2.
        let simple = [
            0x2d, 0, 0, 0, 0x2b, 0, 0, 0, 0x4c, 0x5a, 0x46, 0x75, 0xf1, 0xc5, 0xc7, 0xa7, 0x03, 0x00, 0x0a, 0x00,
            0x72, 0x63, 0x70, 0x67, 0x31, 0x32, 0x35, 0x42, 0x32, 0x0a, 0xf3, 0x20, 0x68, 0x65, 0x6c, 0x09, 0x00,
            0x20, 0x62, 0x77, 0x05, 0xb0, 0x6c, 0x64, 0x7d, 0x0a, 0x80, 0x0f, 0xa0,
        ];
        let text = b"{\\rtf1\\ansi\\ansicpg1252\\pard hello world}\r\n";
        assert_eq!(unpack(&simple, 1000).unwrap(), text);
        assert_eq!(unpack(&simple, 10).unwrap(), &text[..10]);
        let crossing = [
            0x1a, 0, 0, 0, 0x1c, 0, 0, 0, 0x4c, 0x5a, 0x46, 0x75, 0xe2, 0xd4, 0x4b, 0x51, 0x41, 0x00, 0x04, 0x20,
            0x57, 0x58, 0x59, 0x5a, 0x0d, 0x6e, 0x7d, 0x01, 0x0e, 0xb0,
        ];
        assert_eq!(unpack(&crossing, 1000).unwrap(), b"{\\rtf1 WXYZWXYZWXYZWXYZWXYZ}");
    }

    #[test]
    fn what_is_stored_plainly_or_is_none_of_it() {
        let plain = |kind: &[u8; 4]| [&[9, 0, 0, 0, 6, 0, 0, 0], &kind[..], &[0; 4], b"{\\rtf}xx"].concat();
        assert_eq!(unpack(&plain(b"MELA"), 1000).unwrap(), b"{\\rtf}");
        assert_eq!(unpack(&plain(b"ZIP!"), 1000), None);
        assert_eq!(unpack(b"LZFu", 1000), None);
    }
}
