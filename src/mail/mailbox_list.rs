//! Mailboxes with display names as people write them: `a@b`, `Ada <a@b>`, `"Lovelace, Ada" <a@b>`, with commas between.
//!
//! The grammar is RFC 5322 §3.4 without groups; comments are dropped. Control characters are told apart from other
//! faults, because they are an attempt on a header.

use super::address::Mailbox;

/// Items of one list, empty ones included.
const MAX_ITEMS: usize = 1000;

/// A mailbox with its display name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamedMailbox {
    /// The display name, unquoted; never empty.
    pub name: Option<String>,
    /// `local@domain`.
    pub mailbox: Mailbox,
}

/// Why a text is no list of mailboxes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MailboxListError {
    /// It holds CR, LF, NUL or another control character.
    #[error("an address must not hold control characters")]
    ControlCharacter,
    /// A part of it is no mailbox.
    #[error("that is no valid e-mail address")]
    Malformed,
    /// There are more than anybody lists.
    #[error("there are too many e-mail addresses")]
    TooMany,
    /// There are several where one is due.
    #[error("exactly one e-mail address is due")]
    Several,
}

/// One or more mailboxes with commas between; empty items are skipped, none at all is malformed.
///
/// # Errors
/// See [`MailboxListError`].
pub fn parse_list(text: &str) -> Result<Vec<NamedMailbox>, MailboxListError> {
    if text.chars().any(char::is_control) {
        return Err(MailboxListError::ControlCharacter);
    }
    let items = split(text)?;
    let list: Vec<NamedMailbox> = items
        .iter()
        .map(|item| item.trim())
        .filter(|item| !item.is_empty())
        .map(parse_item)
        .collect::<Result<_, _>>()?;
    if list.is_empty() { Err(MailboxListError::Malformed) } else { Ok(list) }
}

/// Exactly one mailbox.
///
/// # Errors
/// See [`MailboxListError`].
pub fn parse_one(text: &str) -> Result<NamedMailbox, MailboxListError> {
    let mut list = parse_list(text)?;
    match (list.pop(), list.is_empty()) {
        (Some(only), true) => Ok(only),
        (Some(_), false) => Err(MailboxListError::Several),
        (None, _) => Err(MailboxListError::Malformed),
    }
}

/// The items between top-level commas, their comments dropped.
fn split(text: &str) -> Result<Vec<String>, MailboxListError> {
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
                // RFC 5322 §3.2.2: a comment parts words as a blank does.
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
    let Some(at) = angle_of(item) else {
        return Ok(NamedMailbox { name: None, mailbox: Mailbox::parse(item).map_err(malformed)? });
    };
    let (name, rest) = item.split_at_checked(at).ok_or(MailboxListError::Malformed)?;
    let inner = rest.strip_prefix('<').and_then(|rest| rest.strip_suffix('>')).ok_or(MailboxListError::Malformed)?;
    let mailbox = Mailbox::parse(inner.trim()).map_err(malformed)?;
    Ok(NamedMailbox { name: display_name(name)?, mailbox })
}

/// Where the address of `Name <a@b>` begins.
fn angle_of(item: &str) -> Option<usize> {
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

/// A name without its quotes; characters that want quotes are let pass without, for people do so.
fn display_name(text: &str) -> Result<Option<String>, MailboxListError> {
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
            '<' | '>' if !quoted => return Err(MailboxListError::Malformed),
            _ => name.push(c),
        }
    }
    let name = name.trim();
    Ok((!name.is_empty()).then(|| name.to_owned()))
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests may panic")]

    use proptest::prelude::*;

    use super::*;

    fn shown(text: &str) -> Vec<(Option<String>, String)> {
        parse_list(text).unwrap().into_iter().map(|one| (one.name, one.mailbox.to_string())).collect()
    }

    #[test]
    fn the_forms_that_people_write() {
        let plain = |address: &str| (None, address.to_owned());
        let named = |name: &str, address: &str| (Some(name.to_owned()), address.to_owned());
        assert_eq!(shown("a@b.test"), [plain("a@b.test")]);
        assert_eq!(shown(" <a@b.test> "), [plain("a@b.test")]);
        assert_eq!(shown("Ada Lovelace <ada@b.test>"), [named("Ada Lovelace", "ada@b.test")]);
        assert_eq!(shown("\"Lovelace, Ada\" <ada@b.test>"), [named("Lovelace, Ada", "ada@b.test")]);
        assert_eq!(shown(r#""The \"Countess\"" <ada@b.test>"#), [named("The \"Countess\"", "ada@b.test")]);
        assert_eq!(shown("Jörg 🦀 <j@b.test>"), [named("Jörg 🦀", "j@b.test")]);
        assert_eq!(
            shown("a@b.test, B <b@b.test>,c@b.test,"),
            [plain("a@b.test"), named("B", "b@b.test"), plain("c@b.test")]
        );
        assert_eq!(shown("a@b.test (home, sweet)"), [plain("a@b.test")]);
        assert_eq!(shown("\"a,b\"@b.test"), [plain("\"a,b\"@b.test")]);
        assert_eq!(shown("x@bücher.example"), [plain("x@xn--bcher-kva.example")]);
        assert_eq!(shown("Acme, Inc <a@b.test>".replace("Acme, ", "\"Acme, \" ").as_str()).len(), 1);
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
