//! Message-IDs that callers provide and that we write. Those in received mail are parsed more leniently, in
//! [`super::mime`].

/// Maximum octets of an id, so that it fits one line with the name of its field.
const MAX_ID: usize = 900;

/// Returns `<id>` for an id that refers to any message: programs generate ids of all kinds, and a reply has to repeat
/// them.
pub(crate) fn bracketed(id: &str) -> Option<String> {
    let fits = !id.is_empty() && id.bytes().all(|byte| byte.is_ascii_graphic() && !b"<>".contains(&byte));
    fits.then(|| format!("<{id}>"))
}

/// Returns the Message-ID of a message of ours: `<left@right>` with one `@` (RFC 5322 §3.6.4). The characters of both
/// sides are up to the caller, who will look the id up again. Missing brackets are added.
pub(crate) fn for_own_message(text: &str) -> Option<String> {
    let text = text.trim();
    let inner = match text.strip_prefix('<') {
        Some(text) => text.strip_suffix('>')?,
        None => text,
    };
    let (left, right) = inner.split_once('@')?;
    let fits = !left.is_empty() && !right.is_empty() && !right.contains('@') && inner.len() <= MAX_ID;
    bracketed(inner).filter(|_| fits)
}

#[cfg(test)]
mod tests {
    use super::{bracketed, for_own_message};

    #[test]
    fn an_own_id_has_two_sides() {
        for (text, id) in [
            ("<a@b>", Some("<a@b>")),
            (" a.b+c@d.test ", Some("<a.b+c@d.test>")),
            ("<a:1@[192.0.2.1]>", Some("<a:1@[192.0.2.1]>")),
            ("<a@b@c>", None),
            ("<@b>", None),
            ("<a@>", None),
            ("<a b@c>", None),
            ("<ä@c>", None),
            ("<a@b", None),
            ("<a@b> <c@d>", None),
            ("nonsense", None),
            ("", None),
        ] {
            assert_eq!(for_own_message(text).as_deref(), id, "{text}");
        }
        assert_eq!(for_own_message(&format!("<{}@c.test>", "a".repeat(900))), None);
    }

    #[test]
    fn any_id_can_be_named() {
        for id in ["9210.AA9@@host", "1234", "a@b"] {
            assert_eq!(bracketed(id), Some(format!("<{id}>")));
        }
        for bad in ["", "a b", "a>b", "ä@b"] {
            assert_eq!(bracketed(bad), None, "{bad}");
        }
    }
}
