//! Comma-separated mailboxes with display names as people write them: `a@b`, `Ada <a@b>`, `"Lovelace, Ada" <a@b>`.
//!
//! The grammar is RFC 5322 §3.4 without groups; comments are dropped. A display name may contain unquoted characters
//! that require quotes (`Acme, Inc. <a@b>`, `a < b <a@b>`), as long as no part of it could be an address. Control
//! characters are a separate error because they attempt a header injection.

use super::address::Mailbox;

/// Maximum items of one list, counting empty ones.
const MAX_ITEMS: usize = 1000;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamedMailbox {
    /// Unquoted; never empty.
    pub name: Option<String>,
    pub mailbox: Mailbox,
}

/// A text that is not a list of mailboxes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MailboxListError {
    /// CR, LF, NUL or another control character.
    #[error("an address must not hold control characters")]
    ControlCharacter,
    /// A part is not a mailbox.
    #[error("this is not a valid e-mail address")]
    Malformed,
    /// More than 1,000 items.
    #[error("there are too many e-mail addresses")]
    TooMany,
    /// Several mailboxes where exactly one is required.
    #[error("exactly one e-mail address is required")]
    Several,
}

/// Parses one or more comma-separated mailboxes. Empty items are skipped; a list without any mailbox is malformed.
///
/// # Errors
/// See [`MailboxListError`].
pub fn parse_list(text: &str) -> Result<Vec<NamedMailbox>, MailboxListError> {
    if text.chars().any(char::is_control) {
        return Err(MailboxListError::ControlCharacter);
    }
    let mut list = Vec::new();
    // Text before a comma without an `@` begins the display name of the next mailbox.
    let mut name = String::new();
    for item in split_items(text)? {
        if item.trim().is_empty() && name.is_empty() {
            continue;
        }
        let is_name = !item.contains('@');
        name.push_str(&item);
        if is_name {
            name.push(',');
        } else {
            list.push(parse_item(std::mem::take(&mut name).trim())?);
        }
    }
    if list.is_empty() || !name.is_empty() { Err(MailboxListError::Malformed) } else { Ok(list) }
}

/// Parses exactly one mailbox.
///
/// # Errors
/// See [`MailboxListError`].
pub fn parse_one(text: &str) -> Result<NamedMailbox, MailboxListError> {
    let mut list = match parse_list(text) {
        // Unbalanced quotes or parentheses.
        Err(MailboxListError::Malformed) => vec![parse_by_last_angle(text.trim())?],
        read => read?,
    };
    match (list.pop(), list.is_empty()) {
        (Some(only), true) => Ok(only),
        (Some(_), false) => Err(MailboxListError::Several),
        (None, _) => Err(MailboxListError::Malformed),
    }
}

/// Splits at top-level commas and drops comments.
fn split_items(text: &str) -> Result<Vec<String>, MailboxListError> {
    let mut items = vec![String::new()];
    let (mut quoted, mut escaped, mut angle, mut depth) = (false, false, false, 0_usize);
    for c in text.chars() {
        let in_comment = depth > 0;
        match c {
            _ if escaped => escaped = false,
            '\\' if quoted || in_comment => escaped = true,
            '"' if !in_comment => quoted = !quoted,
            '(' if !quoted => depth += 1,
            ')' if !quoted && in_comment => {
                depth -= 1;
                // RFC 5322 §3.2.2: a comment separates words as a space does.
                if depth == 0
                    && let Some(item) = items.last_mut().filter(|item| !item.ends_with(' '))
                {
                    item.push(' ');
                }
                continue;
            }
            '<' if !quoted && !in_comment => angle = true,
            '>' if !quoted && !in_comment => angle = false,
            ',' if !quoted && !in_comment && !angle => {
                if items.len() == MAX_ITEMS {
                    return Err(MailboxListError::TooMany);
                }
                items.push(String::new());
                continue;
            }
            _ => {}
        }
        if depth == 0
            && let Some(item) = items.last_mut()
        {
            item.push(c);
        }
    }
    if quoted || depth > 0 || angle { Err(MailboxListError::Malformed) } else { Ok(items) }
}

fn parse_item(item: &str) -> Result<NamedMailbox, MailboxListError> {
    let malformed = |_| MailboxListError::Malformed;
    let Some(at) = angle_offset(item) else {
        return Ok(NamedMailbox { name: None, mailbox: Mailbox::parse(item).map_err(malformed)? });
    };
    let (name, rest) = item.split_at_checked(at).ok_or(MailboxListError::Malformed)?;
    let inner = rest.strip_prefix('<').and_then(|rest| rest.strip_suffix('>'));
    match inner.and_then(|inner| Mailbox::parse(inner.trim()).ok()) {
        Some(mailbox) => Ok(NamedMailbox { name: display_name(name), mailbox }),
        None => parse_by_last_angle(item),
    }
}

/// Parses a mailbox whose display name has a `<` or an unbalanced quote: the address follows the last `<`.
fn parse_by_last_angle(text: &str) -> Result<NamedMailbox, MailboxListError> {
    let parts = text.strip_suffix('>').and_then(|text| text.rsplit_once('<'));
    let (name, inner) = parts.ok_or(MailboxListError::Malformed)?;
    let mailbox = Mailbox::parse(inner.trim()).map_err(|_| MailboxListError::Malformed)?;
    if contains_address(name) {
        return Err(MailboxListError::Malformed);
    }
    Ok(NamedMailbox { name: display_name(name), mailbox })
}

/// True if a part of a display name could be meant as another mailbox.
fn contains_address(name: &str) -> bool {
    let in_angles = name.split('<').skip(1).filter_map(|rest| rest.split('>').next());
    let in_list = name.split([',', ';']);
    in_angles.chain(in_list).any(|text| Mailbox::parse(text.trim()).is_ok())
}

/// Returns the offset of the `<` in `Name <a@b>`.
fn angle_offset(item: &str) -> Option<usize> {
    let (mut quoted, mut escaped) = (false, false);
    for (at, c) in item.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' if quoted => escaped = true,
            '"' => quoted = !quoted,
            '<' if !quoted => return Some(at),
            _ => {}
        }
    }
    None
}

/// Unquotes a display name, unless its quotes are unbalanced. Characters that require quotes are accepted without
/// them, as people write them so.
fn display_name(text: &str) -> Option<String> {
    let mut name = String::with_capacity(text.len());
    let (mut quoted, mut escaped) = (false, false);
    for c in text.trim().chars() {
        match c {
            _ if escaped => {
                escaped = false;
                name.push(c);
            }
            '\\' if quoted => escaped = true,
            '"' => quoted = !quoted,
            _ => name.push(c),
        }
    }
    let name = if quoted { text.trim() } else { name.trim() };
    (!name.is_empty()).then(|| name.to_owned())
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests may panic")]

    use proptest::prelude::*;

    use super::*;

    fn parsed(text: &str) -> Vec<(Option<String>, String)> {
        parse_list(text).unwrap().into_iter().map(|one| (one.name, one.mailbox.to_string())).collect()
    }

    #[test]
    fn the_forms_that_people_write() {
        let plain = |address: &str| (None, address.to_owned());
        let named = |name: &str, address: &str| (Some(name.to_owned()), address.to_owned());
        assert_eq!(parsed("a@b.test"), [plain("a@b.test")]);
        assert_eq!(parsed(" <a@b.test> "), [plain("a@b.test")]);
        assert_eq!(parsed("Ada Lovelace <ada@b.test>"), [named("Ada Lovelace", "ada@b.test")]);
        assert_eq!(parsed("\"Lovelace, Ada\" <ada@b.test>"), [named("Lovelace, Ada", "ada@b.test")]);
        assert_eq!(parsed(r#""The \"Countess\"" <ada@b.test>"#), [named("The \"Countess\"", "ada@b.test")]);
        assert_eq!(parsed("Jörg 🦀 <j@b.test>"), [named("Jörg 🦀", "j@b.test")]);
        assert_eq!(
            parsed("a@b.test, B <b@b.test>,c@b.test,"),
            [plain("a@b.test"), named("B", "b@b.test"), plain("c@b.test")]
        );
        assert_eq!(parsed("a@b.test (home, sweet)"), [plain("a@b.test")]);
        assert_eq!(parsed("\"a,b\"@b.test"), [plain("\"a,b\"@b.test")]);
        assert_eq!(parsed("x@bücher.example"), [plain("x@xn--bcher-kva.example")]);
        assert_eq!(parsed("Acme, Inc <a@b.test>".replace("Acme, ", "\"Acme, \" ").as_str()).len(), 1);
    }

    #[test]
    fn a_display_name_without_quotes_may_hold_what_wants_them() {
        for (text, name) in [
            ("Acme, Inc. <a@b.test>", "Acme, Inc."),
            ("Acme,Inc <a@b.test>", "Acme,Inc"),
            ("Fuller, Jo, Dr. <a@b.test>", "Fuller, Jo, Dr."),
            ("Acme,, Inc <a@b.test>", "Acme,, Inc"),
            ("a < b <a@b.test>", "a < b"),
            ("a > b <a@b.test>", "a > b"),
            ("I <3 mail <a@b.test>", "I <3 mail"),
            ("<<Acme>> <a@b.test>", "<<Acme>>"),
            ("Sales <EU> <a@b.test>", "Sales <EU>"),
            ("a < b, c <a@b.test>", "a < b, c"),
            ("Acme: a, b; c <a@b.test>", "Acme: a, b; c"),
            ("\"Acme\", Inc. <a@b.test>", "Acme, Inc."),
            ("R&D @ Acme, Inc. <a@b.test>", "R&D @ Acme, Inc."),
        ] {
            let one = parse_one(text).unwrap();
            assert_eq!((one.name.as_deref(), one.mailbox.to_string().as_str()), (Some(name), "a@b.test"), "{text}");
        }
        for (text, name) in [
            ("5\" pipes <a@b.test>", "5\" pipes"),
            ("\"Acme, Inc. <a@b.test>", "\"Acme, Inc."),
            ("Acme (EU <a@b.test>", "Acme (EU"),
            ("Acme EU) <a@b.test>", "Acme EU)"),
        ] {
            assert_eq!(parse_one(text).unwrap().name.as_deref(), Some(name), "{text}");
        }
        let named = |name: &str, address: &str| (Some(name.to_owned()), address.to_owned());
        assert_eq!(
            parsed("Acme, Inc. <a@b.test>, c@b.test, Fuller, Jo <d@b.test>"),
            [named("Acme, Inc.", "a@b.test"), (None, "c@b.test".to_owned()), named("Fuller, Jo", "d@b.test")]
        );
        assert_eq!(parsed("a < b <a@b.test>, c@b.test").len(), 2);
        assert_eq!(parsed("c@b.test, Inc. <a@b.test>"), [(None, "c@b.test".to_owned()), named("Inc.", "a@b.test")]);
    }

    #[test]
    fn a_name_that_could_be_an_address_of_its_own_is_none() {
        for bad in [
            "Ada <b@b.test> <c@b.test>",
            "\"Bob, b@b.test <c@b.test>",
            "x < y, b@b.test, z <c@b.test>",
            "b@b.test; \"Bob <c@b.test>",
            "Bob, a@b.test x",
            "Bob, a@b.test",
            "a@b.test, Bob",
        ] {
            assert_eq!(parse_one(bad), Err(MailboxListError::Malformed), "{bad}");
        }
        assert_eq!(parse_one("b@b.test, Inc. <c@b.test>"), Err(MailboxListError::Several));
    }

    #[test]
    fn what_is_no_list() {
        for bad in [
            "",
            " ",
            ",",
            "a",
            "a@",
            "@b.test",
            "a@b@c.test",
            "Ada <a@b.test",
            "Ada a@b.test>",
            "<a@b.test> x",
            "a@b.test b@b.test",
            "\"open <a@b.test>",
            "Friends: a@b.test;",
            "<>",
            "Ada <>",
            "a@b.test (open",
            "a@b(x).test",
            "a@b(x)c.test",
            "Ada <a(x)b@b.test>",
            "a@b.test\".c.test",
            "a@b.test>.c.test",
            "a@b.test).c.test",
            "Ada <b@b.test> <c@b.test>",
        ] {
            assert_eq!(parse_list(bad), Err(MailboxListError::Malformed), "{bad}");
        }
        for bad in ["a@b.test\r\nBcc: c@d.test", "A\0 <a@b.test>", "\ta@b.test", "\"A\nB\" <a@b.test>"] {
            assert_eq!(parse_list(bad), Err(MailboxListError::ControlCharacter), "{bad}");
        }
        assert_eq!(parse_one("a@b.test, c@d.test"), Err(MailboxListError::Several));
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in "\\PC{0,60}") {
            let _ = parse_list(&text);
        }
    }
}
