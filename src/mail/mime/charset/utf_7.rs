//! Decodes UTF-7 (RFC 2152), whose shifted runs are base64 of UTF-16.

use crate::mail::mime::decode::{Encoding, decode_part};

/// Decodes plain text.
pub(crate) fn decode(bytes: &[u8]) -> String {
    decode_with(bytes, |c| !c.is_control() || c.is_ascii_whitespace())
}

/// Decodes HTML. A run that contains markup characters stays encoded, so that `+ADw-script+AD4-` cannot bypass a
/// filter.
pub(crate) fn decode_markup(bytes: &[u8]) -> String {
    decode_with(bytes, |c| !matches!(c, '<' | '>' | '&' | '"' | '\'' | '`') && !c.is_control())
}

fn decode_with(bytes: &[u8], is_harmless: fn(char) -> bool) -> String {
    let mut out = String::with_capacity(bytes.len());
    let mut rest = bytes;
    while let Some((first, tail)) = rest.split_first() {
        rest = tail;
        if *first != b'+' {
            out.push(if first.is_ascii() { char::from(*first) } else { char::REPLACEMENT_CHARACTER });
            continue;
        }
        let length =
            tail.iter().take_while(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/')).count();
        let (run, after) = tail.split_at_checked(length).unwrap_or_default();
        let closed = after.first() == Some(&b'-');
        rest = after.get(usize::from(closed)..).unwrap_or_default();
        match shifted(run).filter(|text| text.chars().all(is_harmless)) {
            _ if run.is_empty() && closed => out.push('+'),
            Some(text) => out.push_str(&text),
            None => {
                out.push('+');
                out.extend(run.iter().map(|byte| char::from(*byte)));
                out.extend(closed.then_some('-'));
            }
        }
    }
    out
}

fn shifted(run: &[u8]) -> Option<String> {
    let bytes = decode_part(Encoding::Base64, run);
    let (pairs, _) = bytes.as_chunks::<2>();
    let text: String =
        char::decode_utf16(pairs.iter().map(|pair| u16::from_be_bytes(*pair))).collect::<Result<_, _>>().ok()?;
    (!text.is_empty()).then_some(text)
}

#[cfg(test)]
mod tests {
    use super::{decode, decode_markup};

    #[test]
    fn every_shift_of_a_text_is_read() {
        for (raw, text) in [
            ("Gr+APwA3w-e +- 1", "Gr\u{fc}\u{df}e + 1"),
            ("sie sagte +ACI-Gr+APwA3w-e+ACI-", "sie sagte \"Gr\u{fc}\u{df}e\""),
            ("+ACEAIgAj-", "!\"#"),
            ("+AOQ. +AOQ", "\u{e4}. \u{e4}"),
            ("one+AA0ACg-two", "one\r\ntwo"),
            ("+2D3eAA-", "\u{1f600}"),
            ("+AA- 1+1 +", "+AA- 1+1 +"),
        ] {
            assert_eq!(decode(raw.as_bytes()), text, "{raw}");
        }
    }

    #[test]
    fn nothing_becomes_markup() {
        assert_eq!(decode_markup(b"+ADw-script+AD4-alert(1) Gr+APw-n"), "+ADw-script+AD4-alert(1) Gr\u{fc}n");
    }
}
