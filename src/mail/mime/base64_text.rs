//! Detects plain text declared as base64, and text that mailing list software appended to base64 data.
//!
//! RFC 2045 §6.8 requires decoders to ignore octets outside the alphabet, which is right for noise. But the alphabet
//! contains the letters of a sentence, so prose would be decoded to octets that nobody sent.

/// Octets inspected at the beginning of a body, and at its end.
const SCAN_LIMIT: usize = 8 * 1024;
/// A line of so many base64 characters is always data; encoders write 60 to 76.
const LONG_LINE: usize = 60;

/// True if a body declared as base64 is prose: it has words, and no line that could be data.
pub(crate) fn is_prose(body: &[u8]) -> bool {
    let head = body.get(..SCAN_LIMIT).unwrap_or(body);
    let mut has_words = false;
    for line in head.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii).filter(|line| !line.is_empty()) {
        if (is_data(line) && (line.len() % 4 == 0 || line.len() >= LONG_LINE)) || padded_word(line).is_some() {
            return false;
        }
        has_words |= has_words_of_different_lengths(line);
    }
    has_words
}

/// Groups of base64 characters have one length, words of prose do not.
fn has_words_of_different_lengths(line: &[u8]) -> bool {
    let mut lengths = line.split(u8::is_ascii_whitespace).map(<[u8]>::len).filter(|length| *length > 0);
    let first = lengths.next();
    lengths.any(|length| Some(length) != first)
}

/// Returns the length of the padded word at the beginning of a line, if other text follows it.
fn padded_word(line: &[u8]) -> Option<usize> {
    let length = line.iter().position(u8::is_ascii_whitespace)?;
    let word = line.get(..length)?;
    (word.ends_with(b"=") && is_data(word)).then_some(length)
}

/// Returns the offset at which base64 data ends and text follows: a line that is not data after padding or an empty
/// line, a line of punctuation, or the remains of a delimiter; unless data continues after it.
pub(crate) fn end_of_data(body: &[u8]) -> usize {
    let from = body.len().saturating_sub(SCAN_LIMIT);
    let tail = body.get(from..).unwrap_or_default();
    let mut at = match from {
        0 => 0,
        _ => memchr::memchr(b'\n', tail).map_or(tail.len(), |end| end + 1),
    };
    // Text can only follow data.
    let (mut has_data, mut may_end) = (from > 0, false);
    let mut end = None;
    while let Some(rest) = tail.get(at..).filter(|rest| !rest.is_empty()) {
        let length = memchr::memchr(b'\n', rest).map_or(rest.len(), |end| end + 1);
        let line = rest.get(..length).unwrap_or_default().trim_ascii();
        if line.is_empty() {
            may_end = true;
        } else if let Some(word) = padded_word(line) {
            let indent = rest.len() - rest.trim_ascii_start().len();
            end = end.or(Some(from + at + indent + word));
            (has_data, may_end) = (true, true);
        } else if is_data(line) {
            end = end.filter(|_| line.len() < LONG_LINE);
            (has_data, may_end) = (true, line.ends_with(b"="));
        } else {
            if has_data && (may_end || is_separator(line) || is_close_delimiter(line)) {
                end = end.or(Some(from + at));
            }
            may_end = line.ends_with(b"=");
        }
        at += length;
    }
    end.unwrap_or(body.len())
}

fn is_data(line: &[u8]) -> bool {
    line.iter().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/' | b'='))
}

/// True for a line of punctuation, which separates what is above from what is below.
fn is_separator(line: &[u8]) -> bool {
    line.len() > 2 && line.iter().all(u8::is_ascii_punctuation)
}

fn is_close_delimiter(line: &[u8]) -> bool {
    line.len() > 4 && line.starts_with(b"--") && line.ends_with(b"--")
}

#[cfg(test)]
mod tests {
    use super::{end_of_data, is_prose};

    #[test]
    fn text_behind_the_data_is_none_of_it() {
        for (data, text) in [
            ("SGVsbG8=\r\n", "_____________\r\nlist mailing list\r\n"),
            ("SGVsbG8=\n", "To unsubscribe write to list@x.example\n"),
            ("SGVs\n\n", "Sent with a program that is free.\n\nHelp yourself\n"),
            ("SGVs\n", "-----------\nAd\n"),
            ("SGVs\n", "--left-over--\n\n"),
            ("SGVs\nbG8=", " and no more\n"),
        ] {
            assert_eq!(end_of_data(format!("{data}{text}").as_bytes()), data.len(), "{text}");
            let long = format!("{}\r\n", "QUJD".repeat(19)).repeat(500);
            assert_eq!(end_of_data(format!("{long}{data}{text}").as_bytes()), long.len() + data.len(), "{text}");
        }
    }

    #[test]
    fn noise_and_portions_stay_with_the_data() {
        let line = "QUJD".repeat(19);
        for body in [
            "SGVs\n bG8s!\n-- IHdv cmxk\nIQ==\n\nUFM=\n",
            "SGVsbG8=\nSGVsbG8=\n",
            "",
            "\n\n",
            "\nHere it comes:\nSGVs\n",
            &format!("SGVsbG8=\nAn advertisement.\n{line}\n"),
        ] {
            assert_eq!(end_of_data(body.as_bytes()), body.len(), "{body:?}");
        }
    }

    #[test]
    fn a_body_of_words_is_no_base64() {
        for body in
            ["It forgot to encode this.\r\n\r\nHello\r\n", "[removed part]", "Gr\u{fc}\u{df}e aus K\u{f6}ln\n"]
        {
            assert!(is_prose(body.as_bytes()), "{body}");
        }
        let noise = ["SGVs\n bG8s!\n-- IHdv cmxk\n", "SGVs bG8s IHdv\n", "SGVsbG8= ignored\n", "PGh0*bWw+Cg=="];
        for body in noise.into_iter().chain(["", "SGVsbG8\n"]) {
            assert!(!is_prose(body.as_bytes()), "{body}");
        }
    }
}
