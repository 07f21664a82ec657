//! Text in header fields: as it is where possible, else in encoded words, where RFC 2047 §5 allows them.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;

/// Longer words are encoded: a line has room for anything shorter with a space before it.
const MAX_WORD: usize = 900;

/// Formats a display name as a quoted string, or as encoded words if it is not ASCII or could be mistaken for an
/// encoded word.
pub(crate) fn phrase(name: &str) -> String {
    if !name.is_ascii() || looks_encoded(name) || name.split(' ').any(|word| word.len() > MAX_WORD) {
        return encoded_words(name);
    }
    let mut quoted = String::with_capacity(name.len() + 2);
    quoted.push('"');
    for c in name.chars() {
        if matches!(c, '"' | '\\') {
            quoted.push('\\');
        }
        quoted.push(c);
    }
    quoted.push('"');
    quoted
}

/// Formats a phrase, without quotes if it needs none.
pub(crate) fn phrase_or_atoms(text: &str) -> String {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b" !#$%&'*+-/=?^_`{|}~".contains(&byte);
    if text.bytes().all(is_plain) && !looks_encoded(text) { text.to_owned() } else { phrase(text) }
}

/// Formats the value of an unstructured field. Words stay as they are; those that would not survive become encoded
/// words (RFC 2047 §5).
pub(crate) fn unstructured(text: &str) -> String {
    let mut value = String::with_capacity(text.len() + 16);
    // Words to encode, with the whitespace between them: a decoder drops the whitespace between adjacent encoded
    // words (RFC 2047 §6.2), so one word has to carry it.
    let mut encoding = String::new();
    let mut blanks = String::new();
    // A lenient decoder matches encoded words across whitespace, so checking single words is not enough.
    let protect = looks_encoded(text);
    for token in text.split_inclusive([' ', '\t']) {
        let (word, blank) = match token.strip_suffix([' ', '\t']) {
            Some(word) => (word, token.get(word.len()..).unwrap_or_default()),
            None => (token, ""),
        };
        if !word.is_ascii() || word.len() > MAX_WORD || (protect && (word.contains("=?") || word.contains("?="))) {
            if encoding.is_empty() {
                value.push_str(&blanks);
            } else {
                encoding.push_str(&blanks);
            }
            blanks.clear();
            encoding.push_str(word);
        } else if !word.is_empty() {
            value.push_str(&encoded_words(&std::mem::take(&mut encoding)));
            value.push_str(&std::mem::take(&mut blanks));
            value.push_str(word);
        }
        blanks.push_str(blank);
    }
    value.push_str(&encoded_words(&encoding));
    value
}

/// True if a decoder may find an encoded word in the text.
fn looks_encoded(text: &str) -> bool {
    let Some((_, rest)) = text.split_once("=?") else { return false };
    // The charset and the encoding each end with a question mark of their own.
    rest.rfind("?=").and_then(|end| rest.get(..end)).is_some_and(|inner| inner.matches('?').count() >= 2)
}

/// Formats encoded words (RFC 2047 §2); empty for an empty text.
pub(crate) fn encoded_words(text: &str) -> String {
    /// Octets that fit into an encoded word of 75 characters.
    const FIT: usize = 45;
    let mut words = String::new();
    let mut rest = text;
    while !rest.is_empty() {
        let (now, later) = rest.split_at(rest.floor_char_boundary(FIT));
        let separator = if words.is_empty() { "" } else { " " };
        words.extend([separator, "=?utf-8?B?", &BASE64.encode(now), "?="]);
        rest = later;
    }
    words
}
