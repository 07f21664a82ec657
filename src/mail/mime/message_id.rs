//! Message identifiers (RFC 5322 §3.6.4), as Message-ID and In-Reply-To have them.

/// Longer ones are not kept; no line of a header is longer.
const MAX_ID: usize = 998;

/// Ids of a field that are looked at.
const MAX_IDS: usize = 1_000;

/// The id of a Message-ID field, with its angle brackets; one without gets them.
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

/// The id of the message that an In-Reply-To field says to be answered. Old programs write a sentence about it, in which the id
/// comes last and the people may be named in brackets too: `is_person` says whether an address is theirs.
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

/// Whether there is more than ids in a value.
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

/// What stands between angle brackets, one after the other.
struct BracketedIds<'v>(&'v str);

impl<'v> Iterator for BracketedIds<'v> {
    type Item = &'v str;

    fn next(&mut self) -> Option<&'v str> {
        let (_, rest) = self.0.split_once('<')?;
        let (id, after) = rest.split_once('>')?;
        self.0 = after;
        // Of `<<id>` the inner bracket counts.
        Some(id.rsplit('<').next().unwrap_or(id))
    }
}

/// An id with its brackets. No blank belongs into one; where there is, it was folded in its middle.
fn bracketed(id: &str) -> Option<String> {
    let id: String = id.chars().filter(|c| !c.is_whitespace()).collect();
    (!id.is_empty() && id.len() <= MAX_ID).then(|| format!("<{id}>"))
}

#[cfg(test)]
mod tests {
    use super::{replied_to, of_field};

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
