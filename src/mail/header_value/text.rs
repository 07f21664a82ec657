//! Text in header fields: as it stands where it can be, else in encoded words, where RFC 2047 §5 lets them stand.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;

/// A word of a text that becomes encoded words: with a blank before it, a line has room for anything shorter.
const MAX_WORD: usize = 900;

/// A display name, quoted; in encoded words where it is not ASCII, or would be taken for such.
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

/// A phrase as it is written without quotes where it can be.
pub(crate) fn phrase_or_atoms(text: &str) -> String {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b" !#$%&'*+-/=?^_`{|}~".contains(&byte);
    if text.bytes().all(is_plain) && !looks_encoded(text) { text.to_owned() } else { phrase(text) }
}

/// The value of an unstructured field. Its words stand as they are; those that would not arrive so become encoded words
/// (RFC 2047 §5).
pub(crate) fn unstructured(text: &str) -> String {
    let mut value = String::with_capacity(text.len() + 16);
    // Blanks and words behind an encoded word, which another one right after them would swallow (RFC 2047 §6.2).
    let mut encoding = String::new();
    let mut blanks = String::new();
    // A reader that is generous joins what blanks part, so one word alone does not tell.
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

/// Whether a reader may find an encoded word in a text.
fn looks_encoded(text: &str) -> bool {
    let Some((_, rest)) = text.split_once("=?") else { return false };
    // Charset and encoding have their own question marks before the end.
    rest.rfind("?=").and_then(|end| rest.get(..end)).is_some_and(|inner| inner.matches('?').count() >= 2)
}

/// RFC 2047 §2; nothing for nothing.
pub(crate) fn encoded_words(text: &str) -> String {
    /// Octets that fit an encoded word of 75 characters.
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
