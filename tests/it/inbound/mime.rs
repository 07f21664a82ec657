//! `tests/fixtures/*.eml` read into the fields of the contract and compared with the `.json` beside each.
//!
//! `UPDATE_GOLDEN=1` writes what the code says. The goldens say what is right: check every change by hand.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};

use mailkite::testing::mail::mime::{self, Decoder, Mail, NamedAddress, Part};
use proptest::prelude::*;
use ring::digest::{SHA256, digest};
use serde_json::{Value, json};

fn fixtures() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
    let files = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let sorted: BTreeSet<PathBuf> = files.filter(|path| path.extension().is_some_and(|ext| ext == "eml")).collect();
    sorted.into_iter().collect()
}

fn named(list: &[NamedAddress]) -> Value {
    list.iter().map(|named| json!({ "address": named.address, "name": named.name })).collect()
}

/// The file as its link serves it: the slice of the raw message, decoded in small pieces; for a file in a
/// winmail.dat, the octets at its offset.
fn served(raw: &[u8], part: &Part) -> Vec<u8> {
    let offset = usize::try_from(part.offset).unwrap();
    let slice = &raw[offset..offset + usize::try_from(part.length).unwrap()];
    let mut decoder = Decoder::new(part.encoding);
    let mut file = Vec::new();
    for piece in slice.chunks(7) {
        decoder.feed(piece, &mut file);
    }
    decoder.finish(&mut file);
    match part.inner_offset.map(|offset| usize::try_from(offset).unwrap()) {
        Some(offset) => file[offset..offset + usize::try_from(part.size).unwrap()].to_vec(),
        None => file,
    }
}

fn attachment(raw: &[u8], part: &Part) -> Value {
    let file = served(raw, part);
    assert_eq!(file.len() as u64, part.size);
    let sha256 = digest(&SHA256, &file).as_ref().iter().fold(String::new(), |mut hex, byte| {
        write!(hex, "{byte:02x}").unwrap();
        hex
    });
    json!({
        "filename": part.filename,
        "contentType": part.content_type,
        "size": part.size,
        "contentId": part.content_id,
        "disposition": part.disposition.map(|disposition| disposition.as_str()),
        "sha256": sha256,
    })
}

fn fields(raw: &[u8], mail: &Mail) -> Value {
    json!({
        "from_candidates": named(&mail.header_from),
        "to_names": named(&mail.header_to),
        "subject": mail.subject,
        "text": mail.text,
        "html": mail.html,
        "message_id": mail.message_id,
        "in_reply_to": mail.in_reply_to,
        "attachments": mail.attachments.iter().map(|part| attachment(raw, part)).collect::<Value>(),
        "truncated": mail.truncated,
    })
}

#[test]
fn every_fixture_reads_as_its_golden_says() {
    let files = fixtures();
    assert!(files.len() >= 60);
    let mut wrong = String::new();
    for file in files {
        let raw = fs::read(&file).unwrap();
        let found = fields(&raw, &mime::parse(&raw));
        let golden = file.with_extension("json");
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            fs::write(&golden, format!("{found:#}\n")).unwrap();
            continue;
        }
        let expected: Value = serde_json::from_slice(&fs::read(&golden).unwrap()).unwrap();
        for (key, value) in expected.as_object().unwrap() {
            if found[key] != *value {
                let name = file.file_stem().unwrap().display();
                writeln!(wrong, "{name}: {key}\n  right: {value}\n  found: {}", found[key]).unwrap();
            }
        }
    }
    assert!(wrong.is_empty(), "\n{wrong}");
}

#[test]
fn fixtures_are_kept_byte_for_byte() {
    for file in fixtures() {
        let raw = fs::read(&file).unwrap();
        let lines = raw.split_inclusive(|byte| *byte == b'\n').filter(|line| line.ends_with(b"\n"));
        assert!(lines.into_iter().all(|line| line.ends_with(b"\r\n")), "{}", file.display());
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(400) })]

    #[test]
    fn a_damaged_fixture_is_still_read_and_its_files_are_served(
        which in any::<prop::sample::Index>(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>(), 0_usize..40), 1..12),
    ) {
        let files = fixtures();
        let mut raw = fs::read(which.get(&files)).unwrap();
        for (at, byte, cut) in changes {
            if raw.is_empty() {
                break;
            }
            let at = at.index(raw.len());
            match cut {
                0..20 => raw[at] = byte,
                20..30 => { raw.drain(at..(at + cut).min(raw.len())); }
                _ => { let end = (at + cut).min(raw.len()); let again = raw[at..end].to_vec(); raw.splice(at..at, again); }
            }
        }
        let mail = mime::parse(&raw);
        fields(&raw, &mail);
        let headers: Value = serde_json::from_str(&mime::Headers::read(&raw).to_json()).unwrap();
        prop_assert!(headers.is_object());
    }
}
