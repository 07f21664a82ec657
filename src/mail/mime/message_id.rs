//! Parses message identifiers (RFC 5322 §3.6.4) in Message-ID and In-Reply-To fields of received mail.

/// Longer ids are ignored; no header line may be longer.
const MAX_ID: usize = 998;

/// Maximum ids inspected in a field.
const MAX_IDS: usize = 1_000;

/// Returns the id of a Message-ID field, with its angle brackets, which are added if missing.
pub(crate) fn of_field(value: &str) -> Option<String> {
    let mut ids = BracketedIds(value);
    match ids.next() {
        Some(first) => bracketed(first),
        None => {
            let id = value.trim_matches(['<', '>']).trim();
            bracketed(id).filter(|_| !id.contains(char::is_whitespace))
        }
    }
}

/// Returns the id that an In-Reply-To field refers to. Old programs write a sentence around it, in which the id comes
/// last and people may be named in brackets too: `is_person` is true for their addresses.
pub(crate) fn replied_to(value: &str, is_person: impl Fn(&str) -> bool) -> Option<String> {
    let has_prose = has_prose(value);
    let mut last = None;
    for id in BracketedIds(value).take(MAX_IDS) {
        let Some(found) = bracketed(id) else { continue };
        let address = found.trim_matches(['<', '>']);
        if is_person(address) {
            continue;
        }
        if !has_prose {
            return Some(found);
        }
        last = Some(found);
    }
    if last.is_some() || value.contains('<') {
        last
    } else {
        of_field(value).filter(|id| !is_person(id.trim_matches(['<', '>'])))
    }
}

/// True if the value has more than ids.
fn has_prose(value: &str) -> bool {
    let mut depth = 0_usize;
    value.chars().any(|c| {
        match c {
            '<' => depth += 1,
            '>' => depth = depth.saturating_sub(1),
            _ => {}
        }
        depth == 0 && c.is_alphanumeric()
    })
}

/// Iterates over the texts in angle brackets.
struct BracketedIds<'v>(&'v str);

impl<'v> Iterator for BracketedIds<'v> {
    type Item = &'v str;

    fn next(&mut self) -> Option<&'v str> {
        let (_, rest) = self.0.split_once('<')?;
        let (id, after) = rest.split_once('>')?;
        self.0 = after;
        // In `<<id>` the inner bracket counts.
        Some(id.rsplit('<').next().unwrap_or(id))
    }
}

/// Adds angle brackets to an id. Whitespace inside it comes from folding and is removed.
fn bracketed(id: &str) -> Option<String> {
    let id: String = id.chars().filter(|c| !c.is_whitespace()).collect();
    (!id.is_empty() && id.len() <= MAX_ID).then(|| format!("<{id}>"))
}

#[cfg(test)]
mod tests {
    use super::{of_field, replied_to};

    #[test]
    fn an_id_is_read_wherever_it_was_folded() {
        for (value, id) in [
            ("<a@x>", Some("<a@x>")),
            ("<a@ x>", Some("<a@x>")),
            ("<9210. AA9 @host>", Some("<9210.AA9@host>")),
            ("a@x", Some("<a@x>")),
            ("<<a@x>>", Some("<a@x>")),
            ("<a@x> (added by y)", Some("<a@x>")),
            ("a b", None),
            ("<>", None),
            ("", None),
        ] {
            assert_eq!(of_field(value).as_deref(), id, "{value}");
        }
        assert_eq!(of_field(&format!("<{}>", "x".repeat(999))), None);
    }

    #[test]
    fn what_is_answered_is_no_person() {
        let is_person = |address: &str| address == "ann@x.example";
        for (value, id) in [
            ("<a@x>", Some("<a@x>")),
            ("<a@x> <b@x>", Some("<a@x>")),
            ("<a@x>,<b@x>", Some("<a@x>")),
            ("Message from Bob <bob@y.example> of today <a@x>", Some("<a@x>")),
            ("<a@x> from Ann <ann@x.example>", Some("<a@x>")),
            ("Your message of \"Mon, 5 Oct 2026 10:00:00 +0200.\" <a@x>", Some("<a@x>")),
            ("a@x", Some("<a@x>")),
            ("<ann@x.example>", None),
            ("ann@x.example", None),
            ("your message of Tuesday", None),
        ] {
            assert_eq!(replied_to(value, is_person).as_deref(), id, "{value}");
        }
    }
}
