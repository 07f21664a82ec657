//! What a permanent failure says of a mailbox (contract 8.5).

/// Enhanced codes (RFC 3463) of a mailbox that does not exist or is disabled.
const DEAD: &[&str] = &["5.1.1", "5.1.2", "5.1.3", "5.1.6", "5.1.10", "5.2.1"];
/// Reply codes that say so where no enhanced code does (RFC 5321 §4.2.3).
const DEAD_CODES: &[u16] = &[550, 551, 553];

/// Whether a report says that the mailbox does not exist. It is a stranger's word, so only an enhanced code that says just
/// that will do: no reply code alone, and none of a mailbox that is there.
pub fn is_no_mailbox(diagnostic: &str) -> bool {
    enhanced_code(diagnostic).is_some_and(|code| code.starts_with("5.1.") && DEAD.contains(&code))
}

/// Whether a permanent failure says that the mailbox does not exist or is disabled. The enhanced code decides where
/// there is one, so a refusal by policy (5.7.x) never counts.
///
/// `diagnostic` begins with a reply code, an enhanced code, or both: `550 5.1.1 no such user`.
pub fn is_dead_mailbox(code: Option<u16>, diagnostic: &str) -> bool {
    match enhanced_code(diagnostic) {
        Some(enhanced) => DEAD.contains(&enhanced),
        None => code.is_some_and(|code| DEAD_CODES.contains(&code)),
    }
}

/// The enhanced status code that a diagnostic begins with, after the reply code if there is one (RFC 2034 §4).
pub fn enhanced_code(diagnostic: &str) -> Option<&str> {
    let mut words = diagnostic.split_ascii_whitespace();
    let first = words.next()?;
    let reply_code = first.get(..3).filter(|head| head.bytes().all(|byte| byte.is_ascii_digit()));
    if is_enhanced(first) {
        return Some(first);
    }
    // `550-5.1.1` is how a continued reply looks.
    let second = match (reply_code, first.get(3..)) {
        (Some(_), Some("")) => words.next()?,
        (Some(_), Some(rest)) => rest.strip_prefix('-')?,
        _ => return None,
    };
    is_enhanced(second).then_some(second)
}

/// `class.subject.detail`, class 2, 4 or 5 (RFC 3463 §2).
fn is_enhanced(word: &str) -> bool {
    let mut parts = word.split('.');
    let class = parts.next().is_some_and(|class| matches!(class, "2" | "4" | "5"));
    let number = |part: Option<&str>| {
        part.is_some_and(|part| (1..=3).contains(&part.len()) && part.bytes().all(|byte| byte.is_ascii_digit()))
    };
    class && number(parts.next()) && number(parts.next()) && parts.next().is_none()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dead_mailboxes() {
        for (code, diagnostic) in [
            (Some(550), "550 5.1.1 no such user"),
            (Some(550), "550-5.1.1 The email account that you tried to reach does not exist."),
            (Some(553), "553 5.1.3 bad address"),
            (None, "5.1.10 the domain takes no mail"),
            (None, "5.1.2 there is no such domain"),
            (Some(554), "554 5.2.1 mailbox disabled"),
            (Some(550), "550 no such user here"),
            (Some(551), "551 not local"),
            (Some(553), "553"),
        ] {
            assert!(is_dead_mailbox(code, diagnostic), "{diagnostic}");
        }
    }

    #[test]
    fn a_report_has_to_say_that_there_is_no_mailbox() {
        for told in ["5.1.1", "550 5.1.1 no such user", "550-5.1.10 no mail", "5.1.6"] {
            assert!(is_no_mailbox(told), "{told}");
        }
        for told in ["550 no such user", "5.2.1", "5.1.8", "550 5.7.1 5.1.1", "4.1.1", "returned as undeliverable"] {
            assert!(!is_no_mailbox(told), "{told}");
        }
    }

    #[test]
    fn everything_else() {
        for (code, diagnostic) in [
            (Some(550), "550 5.7.1 blocked by policy"),
            (Some(550), "550 5.7.26 unauthenticated"),
            (Some(552), "552 5.2.2 mailbox full"),
            (Some(554), "554 rejected"),
            (Some(552), "552 too large"),
            (None, "5.4.7 not delivered in time; the last answer was: 450 4.1.1 later"),
            (None, "returned as undeliverable"),
            (Some(550), "550 5.1.11 something new"),
        ] {
            assert!(!is_dead_mailbox(code, diagnostic), "{diagnostic}");
        }
        assert_eq!(enhanced_code("5.1.1.1 x"), None);
        assert_eq!(enhanced_code("6.1.1 x"), None);
        assert_eq!(enhanced_code(""), None);
    }
}
