//! Parses address lists (RFC 5322 §3.4): the mailboxes that a From or To field names, with their display names.
//!
//! Only literal text can be an address; an encoded word is a name, whatever it decodes to. Malformed lists are parsed
//! as far as possible; [`super::author`] decides which author can be trusted.

use super::NamedAddress;
use super::words;

/// Appends the mailboxes in `raw` to `out`, until `out` holds `limit`; returns false if there were more.
pub(crate) fn parse(raw: &[u8], limit: usize, out: &mut Vec<NamedAddress>) -> bool {
    let mut list = ListParser {
        out,
        limit,
        complete: true,
        item: Item::default(),
        last_semicolon: memchr::memrchr(b';', raw).map_or(0, |at| raw.len() - at),
        open_quote: false,
        open_comment: false,
        open_angle: false,
    };
    let mut rest = raw;
    while !rest.is_empty() && list.complete {
        rest = list.token(rest);
    }
    list.end_item();
    list.complete
}

/// The mailbox parsed so far.
#[derive(Default)]
struct Item<'x> {
    /// Tokens of the display name, or of an address without angle brackets.
    tokens: Vec<Token<'x>>,
    angle: Option<&'x [u8]>,
    /// The content of the last comment.
    comment: Option<&'x [u8]>,
    blank_before: bool,
    /// Index in `tokens` of the first token after the last comma.
    segment: usize,
}

struct Token<'x> {
    raw: &'x [u8],
    /// True if no whitespace separates it from the previous token.
    attached: bool,
    kind: Kind,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Word,
    /// `(…)`: part of a name only if an address in brackets follows.
    Comment,
    /// A comma, colon or semicolon. It separates mailboxes unless an address in brackets proves that it is part of a
    /// name.
    Separator,
    /// An unbalanced quote, bracket or parenthesis: not part of a name, and no address extends across it.
    Stray,
}

/// Maximum tokens of an unquoted display name with commas; anything longer is a list of something else.
const MAX_WORDS: usize = 200;

impl Item<'_> {
    /// True if a separator ends this mailbox: an unquoted name may contain one itself, but only if an address
    /// follows.
    fn is_mailbox(&self) -> bool {
        let segment = self.tokens.get(self.segment..).unwrap_or_default();
        self.angle.is_some()
            || self.tokens.is_empty()
            || self.tokens.len() > MAX_WORDS
            || runs(segment).any(|run| address_of(run).is_some())
    }
}

/// Splits tokens into runs that belong together. RFC 5322 §3.4.1, §4.4: whitespace and comments may surround the `@`
/// and the dots of an address.
fn runs<'t, 'x>(tokens: &'t [Token<'x>]) -> impl Iterator<Item = &'t [Token<'x>]> {
    let binds = |byte: Option<&u8>| matches!(byte, Some(b'@' | b'.'));
    tokens.chunk_by(move |prev, next| {
        let ends = |token: &Token<'_>| matches!(token.kind, Kind::Stray | Kind::Separator);
        let around_comment = prev.kind == Kind::Comment || next.kind == Kind::Comment;
        !ends(prev)
            && !ends(next)
            && (around_comment || next.attached || binds(prev.raw.last()) || binds(next.raw.first()))
    })
}

/// Parses a run as an address, unless part of it is an encoded word.
fn address_of(run: &[Token<'_>]) -> Option<String> {
    let joined: Vec<u8> = run.iter().flat_map(|token| token.raw).copied().collect();
    let encoded = run.iter().any(|token| token.raw.starts_with(b"=?"));
    normalize(&joined).or_else(|| normalize(without_apostrophes(&joined)?)).filter(|_| !encoded)
}

struct ListParser<'x, 'o> {
    out: &'o mut Vec<NamedAddress>,
    limit: usize,
    complete: bool,
    item: Item<'x>,
    /// Octets from the last semicolon to the end: a group ends at one (RFC 5322 §3.4).
    last_semicolon: usize,
    /// Set after an unclosed quote or comment: its delimiter is text from there on. This keeps the time linear.
    open_quote: bool,
    open_comment: bool,
    open_angle: bool,
}

impl<'x> ListParser<'x, '_> {
    /// Consumes one token from the beginning of `raw` and returns the rest.
    fn token(&mut self, raw: &'x [u8]) -> &'x [u8] {
        let Some((first, tail)) = raw.split_first() else { return raw };
        match first {
            blank if blank.is_ascii_whitespace() => self.item.blank_before = true,
            b',' | b';' if self.item.is_mailbox() => self.end_item(),
            b',' | b';' => {
                let rest = self.push(raw, 1, Kind::Separator);
                self.item.segment = self.item.tokens.len();
                return rest;
            }
            b':' if raw.len() > self.last_semicolon && self.last_semicolon > 0 => {
                self.item = Item::default(); // what stood before was the name of a group
            }
            b':' => return self.push(raw, 1, Kind::Separator),
            b'<' => {
                if self.item.angle.is_some() {
                    self.end_item();
                }
                // Some senders double the brackets.
                let doubled = tail.iter().take_while(|byte| **byte == b'<').count();
                let tail = tail.get(doubled..).unwrap_or_default();
                let end = self.end_of_angle(tail);
                self.item.angle = tail.get(..end);
                return tail.get(end + 1..).unwrap_or_default();
            }
            b'"' if !self.open_quote => match end_of_quote(tail) {
                Some(end) => return self.push(raw, end + 2, Kind::Word),
                None => {
                    self.open_quote = true;
                    return self.push(raw, 1, Kind::Stray);
                }
            },
            b'(' if !self.open_comment => match end_of_comment(tail) {
                Some(end) => {
                    self.item.comment = tail.get(..end);
                    if self.item.angle.is_none() {
                        self.push(raw, end + 2, Kind::Comment);
                    }
                    return tail.get(end + 1..).unwrap_or_default();
                }
                None => {
                    self.open_comment = true;
                    return self.push(raw, 1, Kind::Stray);
                }
            },
            b'=' if raw.starts_with(b"=?") => {
                match words::encoded_word(raw.get(..raw.len().min(1000)).unwrap_or(raw)) {
                    Some(word) => return self.push(raw, word.length, Kind::Word),
                    None => return self.push(raw, 2, Kind::Word),
                }
            }
            b'[' => {
                let literal = memchr::memchr2(b']', b'\n', tail.get(..tail.len().min(100)).unwrap_or(tail));
                return self.push(raw, literal.map_or(1, |end| end + 2), Kind::Word);
            }
            b'>' | b')' | b'"' | b'(' => return self.push(raw, 1, Kind::Stray),
            _ => {
                let special = |byte: &u8| byte.is_ascii_whitespace() || b",;:<>\"()[".contains(byte);
                return self.push(raw, raw.iter().position(special).unwrap_or(raw.len()), Kind::Word);
            }
        }
        tail
    }

    fn push(&mut self, raw: &'x [u8], length: usize, kind: Kind) -> &'x [u8] {
        // Consume at least one byte, or the loop over the list would not end.
        let (token, rest) = raw.split_at_checked(length.max(1)).unwrap_or((raw, &[]));
        let attached = !self.item.blank_before && !self.item.tokens.is_empty();
        self.item.tokens.push(Token { raw: token, attached, kind });
        self.item.blank_before = false;
        rest
    }

    fn end_of_angle(&mut self, tail: &[u8]) -> usize {
        let mut quoted = false;
        let mut escaped = false;
        let mut closes = |byte: &u8| {
            match byte {
                _ if escaped => escaped = false,
                b'\\' => escaped = quoted,
                b'"' => quoted = !quoted,
                b'>' => return !quoted,
                _ => {}
            }
            false
        };
        let end = if self.open_angle { None } else { tail.iter().position(&mut closes) };
        // An unclosed quote hides no bracket.
        let end = end.or_else(|| {
            self.open_angle = true;
            memchr::memchr(b'>', tail)
        });
        end.unwrap_or(tail.len())
    }

    fn end_item(&mut self) {
        let item = std::mem::take(&mut self.item);
        if let Some(angle) = item.angle {
            if let Some(address) = normalize(angle).or_else(|| normalize(without_decoration(angle))) {
                let words = |token: &&Token<'_>| token.kind != Kind::Comment;
                let name = if item.tokens.iter().any(|token| token.kind == Kind::Word) {
                    name_of(item.tokens.iter())
                } else {
                    name_of(item.tokens.iter().filter(words))
                };
                self.add(address, name.or_else(|| item.comment.map(words::decode_text)));
            }
            return;
        }
        // No angle brackets followed, so separators are not part of a name.
        for segment in item.tokens.split(|token| matches!(token.raw, b"," | b";")) {
            self.add_bare(segment, item.comment);
        }
    }

    /// Adds mailboxes without angle brackets: a run of attached tokens that parses as an address is one, the rest is
    /// its name.
    fn add_bare(&mut self, tokens: &[Token<'x>], comment: Option<&'x [u8]>) {
        // Text before a colon is the name of a group without an end.
        let tokens = tokens.rsplit(|token| token.raw == b":").next().unwrap_or_default();
        let mut addresses = Vec::new();
        let mut names = Vec::new();
        for run in runs(tokens) {
            match address_of(run) {
                Some(address) => addresses.push(address),
                None => names.extend(run.iter().filter(|token| token.kind != Kind::Comment)),
            }
        }
        let name = name_of(names.into_iter()).or_else(|| comment.map(words::decode_text));
        // Several addresses without a comma between them have no common name.
        let mut name = name.filter(|_| addresses.len() == 1);
        for address in addresses {
            self.add(address, name.take());
        }
    }

    fn add(&mut self, address: String, name: Option<String>) {
        if self.out.len() >= self.limit {
            self.complete = false;
            return;
        }
        let name = name.filter(|name| !name.is_empty()).map(super::cut_for_display);
        self.out.push(NamedAddress { address, name });
    }
}

pub(super) fn end_of_quote(tail: &[u8]) -> Option<usize> {
    let mut escaped = false;
    tail.iter().position(|byte| {
        let ends = *byte == b'"' && !escaped;
        escaped = *byte == b'\\' && !escaped;
        ends
    })
}

pub(super) fn end_of_comment(tail: &[u8]) -> Option<usize> {
    let mut depth = 1_usize;
    let mut escaped = false;
    tail.iter().position(|byte| {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'(' => depth += 1,
            b')' => depth -= 1,
            _ => {}
        }
        depth == 0
    })
}

fn name_of<'t, 'x: 't>(tokens: impl Iterator<Item = &'t Token<'x>>) -> Option<String> {
    let mut phrase = Vec::new();
    let mut blank = false;
    for token in tokens {
        blank |= !token.attached;
        if token.kind == Kind::Stray {
            continue;
        }
        if std::mem::take(&mut blank) && !phrase.is_empty() {
            phrase.push(b' ');
        }
        match token.raw {
            [b'"', quoted @ .., b'"'] => push_unquoted(quoted, &mut phrase),
            raw => phrase.extend_from_slice(raw),
        }
    }
    let name = words::decode_text(&phrase);
    (!name.is_empty()).then_some(name)
}

fn push_unquoted(quoted: &[u8], out: &mut Vec<u8>) {
    let mut escaped = false;
    for byte in quoted {
        if *byte == b'\\' && !escaped {
            escaped = true;
        } else {
            escaped = false;
            out.push(*byte);
        }
    }
}

/// Removes what some programs put around the address in brackets: quotes, apostrophes, more brackets, the `mailto:`
/// scheme.
fn without_decoration(angle: &[u8]) -> &[u8] {
    let mut address = angle.trim_ascii();
    if address.get(..7).is_some_and(|scheme| scheme.eq_ignore_ascii_case(b"mailto:")) {
        let rest = address.get(7..).unwrap_or_default();
        address = rest.split(|byte| *byte == b'?').next().unwrap_or_default();
    }
    let quoted = |quote: &[u8]| address.strip_prefix(quote)?.strip_suffix(quote);
    quoted(b"\"").or_else(|| quoted(b"'")).unwrap_or(address)
}

fn without_apostrophes(address: &[u8]) -> Option<&[u8]> {
    address.strip_prefix(b"'")?.strip_suffix(b"'")
}

/// Returns `local@domain` with the domain as A-labels in lower case, or `None` if this is not an address.
pub(super) fn normalize(raw: &[u8]) -> Option<String> {
    let text = String::from_utf8(without_blanks(raw)?).ok()?;
    let text = text.as_str();
    // RFC 5322 §4.4: source routes are ignored.
    let text = if text.starts_with('@') { text.split_once(':')?.1 } else { text };
    let (local, domain) = text.rsplit_once('@')?;
    if local.is_empty() || local.len() > 255 || local.chars().any(char::is_control) {
        return None;
    }
    let domain = normalize_domain(domain)?;
    if is_quoted(local) || is_dot_atom(local) {
        return Some(format!("{local}@{domain}"));
    }
    Some(format!("{}@{domain}", as_quoted_string(local)?))
}

/// True if a local part is a single quoted string.
pub(super) fn is_quoted(local: &str) -> bool {
    let inner = local.strip_prefix('"').map(str::as_bytes);
    local.len() > 2 && inner.and_then(end_of_quote) == Some(local.len() - 2)
}

/// True if a local part is words separated by dots, none of them quoted or encoded.
pub(super) fn is_dot_atom(local: &str) -> bool {
    let plain = |c: char| !c.is_control() && !c.is_whitespace() && !"()<>[]:;@\\,\"".contains(c);
    local.chars().all(plain) && !(local.contains("=?") && local.contains("?="))
}

/// Converts the obsolete form of RFC 5322 §4.4, words separated by dots with some of them quoted, to the equivalent
/// quoted string.
fn as_quoted_string(local: &str) -> Option<String> {
    let mut text = Vec::new();
    let mut rest = local.as_bytes();
    loop {
        let end = match rest {
            [b'"', tail @ ..] => end_of_quote(tail)? + 2,
            _ => memchr::memchr2(b'.', b'"', rest).unwrap_or(rest.len()),
        };
        let (word, after) = rest.split_at_checked(end)?;
        match word {
            [b'"', quoted @ .., b'"'] => push_unquoted(quoted, &mut text),
            [] => return None,
            atom => is_dot_atom(std::str::from_utf8(atom).ok()?).then(|| text.extend_from_slice(atom))?,
        }
        match after {
            [] => break,
            [b'.', next @ ..] => rest = next,
            _ => return None,
        }
        text.push(b'.');
    }
    let text = String::from_utf8(text).ok()?;
    Some(format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\"")))
}

/// Removes the whitespace and comments that may surround the words of an address (RFC 5322 §3.4.1, §4.4); `None` if
/// two words are separated by nothing else.
fn without_blanks(raw: &[u8]) -> Option<Vec<u8>> {
    let mut out: Vec<u8> = Vec::with_capacity(raw.len());
    let mut blank = false;
    let mut rest = raw;
    while let Some((first, tail)) = rest.split_first() {
        let parts = |byte: &u8| b"@.,:".contains(byte);
        match first {
            _ if first.is_ascii_whitespace() => (blank, rest) = (true, tail),
            b'(' => (blank, rest) = (true, tail.get(end_of_comment(tail)? + 1..)?),
            _ => {
                if blank && !parts(first) && out.last().is_some_and(|last| !parts(last)) {
                    return None;
                }
                blank = false;
                let quoted = (*first == b'"').then(|| end_of_quote(tail)).flatten();
                let (word, after) = rest.split_at_checked(quoted.map_or(1, |end| end + 2))?;
                out.extend_from_slice(word);
                rest = after;
            }
        }
    }
    Some(out)
}

pub(super) fn normalize_domain(domain: &str) -> Option<String> {
    if let Some(literal) = domain.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        let fits =
            !literal.is_empty() && literal.bytes().all(|byte| byte.is_ascii_hexdigit() || b".:IPv".contains(&byte));
        return fits.then(|| domain.to_owned());
    }
    let domain = domain.strip_suffix('.').unwrap_or(domain);
    let ascii = if domain.is_ascii() { domain.to_ascii_lowercase() } else { idna::domain_to_ascii(domain).ok()? };
    let label = |label: &str| {
        !label.is_empty()
            && label.len() <= 63
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
    };
    (ascii.len() <= 253 && ascii.split('.').all(label)).then_some(ascii)
}

#[cfg(test)]
mod tests;
