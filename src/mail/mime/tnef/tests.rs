//! TNEF as programs send it, damaged and hostile.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests may panic")]

use proptest::prelude::*;

use super::*;

fn attribute(level: u8, id: u32, value: &[u8]) -> Vec<u8> {
    let length = u32::try_from(value.len()).unwrap();
    let sum = value.iter().fold(0_u16, |sum, byte| sum.wrapping_add(u16::from(*byte)));
    [&[level][..], &id.to_le_bytes(), &length.to_le_bytes(), value, &sum.to_le_bytes()].concat()
}

fn stream(attributes: &[Vec<u8>]) -> Vec<u8> {
    [&SIGNATURE.to_le_bytes()[..], &[1, 0], &attributes.concat()].concat()
}

fn property(kind: u16, id: u16, value: &[u8]) -> Vec<u8> {
    let padding = vec![0; value.len().wrapping_neg() % 4];
    let length = u32::try_from(value.len()).unwrap();
    [&kind.to_le_bytes()[..], &id.to_le_bytes(), &1_u32.to_le_bytes(), &length.to_le_bytes(), value, &padding]
        .concat()
}

fn properties(list: &[Vec<u8>]) -> Vec<u8> {
    [&u32::try_from(list.len()).unwrap().to_le_bytes()[..], &list.concat()].concat()
}

fn attachment(title: &str, data: &[u8]) -> Vec<u8> {
    let title = attribute(2, 0x0001_8010, title.as_bytes());
    [attribute(2, 0x0006_9002, &[0; 14]), title, attribute(2, 0x0006_800f, data)].concat()
}

/// Nests attached messages.
fn nested(depth: usize) -> Vec<u8> {
    let mut inner = stream(&[attachment("innermost.txt", b"x")]);
    for _ in 0..depth {
        let object = property(0x000d, 0x3701, &[&IID_MESSAGE[..], &inner].concat());
        let attached =
            [attribute(2, 0x0006_9002, &[0; 14]), attribute(2, 0x0006_9005, &properties(&[object]))].concat();
        inner = stream(&[attached]);
    }
    inner
}

#[test]
fn files_are_slices_of_the_stream_and_no_more_than_may_be() {
    let data = stream(&[attachment("a.txt", b"first"), attachment("b.txt", b"second"), attachment("c.txt", b"")]);
    let found = unpack(&data, 10, 100).unwrap();
    let contents: Vec<&[u8]> = found.files.iter().map(|file| &data[file.range.clone()]).collect();
    assert_eq!(contents, [&b"first"[..], b"second", b""]);
    assert!(!found.truncated);
    let fewer = unpack(&data, 2, 100).unwrap();
    assert_eq!((fewer.files.len(), fewer.truncated), (2, true));
    let many = stream(&vec![attribute(2, 0x0006_9002, &[]); 100_000]);
    assert_eq!(unpack(&many, 1000, 100).map(|found| (found.files.len(), found.truncated)), Some((0, true)));
}

#[test]
fn a_stream_that_is_cut_off_is_none_and_what_was_added_does_no_harm() {
    let data = stream(&[attachment("a.txt", b"first"), attachment("b.txt", b"second")]);
    for added in [&b""[..], b"\r\n", b"\0\0\0", b"\n-- \nA footer"] {
        assert_eq!(unpack(&[&data, added].concat(), 10, 100).unwrap().files.len(), 2, "{added:?}");
    }
    // The last checksum may be missing, but no octet of the last file.
    assert_eq!(unpack(&data[..data.len() - 2], 10, 100).unwrap().files.len(), 2);
    for cut in 1..9 {
        assert!(unpack(&data[..data.len() - 2 - cut], 10, 100).is_none(), "{cut}");
    }
    assert!(unpack(b"", 10, 100).is_none());
    assert!(unpack(b"\x78\x9f\x3e\x23\0\0", 10, 100).is_none());
}

#[test]
fn attached_messages_are_unpacked_to_a_depth() {
    for (depth, innermost) in [(1, true), (MAX_DEPTH, true), (MAX_DEPTH + 1, false), (100, false)] {
        let data = nested(depth);
        let found = unpack(&data, 1000, 100).unwrap();
        let names: Vec<&str> = found.files.iter().filter_map(|file| file.filename.as_deref()).collect();
        assert_eq!(names.contains(&"innermost.txt"), innermost, "{depth}: {names:?}");
    }
}

#[test]
fn properties_that_say_more_than_there_is_cost_nothing() {
    let many_of_nothing = [&[1, 0, 0, 0][..], &[0x01, 0x10, 0x07, 0x37], &[0xff; 4]].concat();
    let more_than_there_are = [&[0xff; 4][..], &property(0x001e, 0x3707, b"long.txt\0")].concat();
    for (list, name) in [(many_of_nothing, "a.txt"), (more_than_there_are, "long.txt")] {
        let data = stream(&[attachment("a.txt", b"x"), attribute(2, 0x0006_9005, &list)]);
        assert_eq!(unpack(&data, 10, 100).unwrap().files[0].filename.as_deref(), Some(name));
    }
}

#[test]
fn a_text_is_cut_to_its_limit() {
    let data = stream(&[attribute(1, 0x0002_800c, b"caf\xe9 au lait")]);
    let found = unpack(&data, 10, 4).unwrap();
    assert_eq!((found.text.as_deref(), found.truncated), (Some("caf"), true));
}

proptest! {
    #[test]
    fn whatever_is_in_a_stream_files_stand_in_it(
        changes in proptest::collection::vec((0_usize..1000, any::<u8>()), 0..8),
        depth in 0_usize..4,
    ) {
        let mut data = nested(depth);
        let length = data.len();
        for (at, byte) in changes {
            data[at % length] = byte;
        }
        if let Some(found) = unpack(&data, 5, 100) {
            prop_assert!(found.files.len() <= 5);
            for file in found.files {
                prop_assert!(data.get(file.range).is_some());
            }
        }
    }
}
