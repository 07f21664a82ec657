//! Parses one command line into a [`Command`] (RFC 5321 §4.1.1).
//!
//! Hand-written rather than a library's, because what it refuses is policy: `<postmaster>` is not `<>`, a quoted
//! local part is never split at another @, an overflowing SIZE is too large and never small. Deviations that devices
//! send and other servers accept, such as a path without brackets, are accepted where they are unambiguous.

use std::borrow::Cow;

use crate::mail::address::{AddressError, Domain, ForwardPath, Mailbox, ReversePath};
use crate::mail::reply::Reply;

/// Includes the source route; RFC 5321 §4.5.3.1.3 requires at least 256 octets.
const MAX_PATH: usize = 1000;
const BLANKS: [char; 2] = [' ', '\t'];
/// The length of STARTTLS.
const LONGEST_VERB: usize = 8;
const MAX_NAME: usize = 255;

/// A command with its arguments.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// EHLO with the client's name.
    Ehlo(String),
    /// HELO with the client's name.
    Helo(String),
    /// MAIL.
    Mail(MailArguments),
    /// RCPT.
    Rcpt(ForwardPath),
    /// DATA.
    Data,
    /// RSET.
    Rset,
    /// NOOP.
    Noop,
    /// VRFY.
    Vrfy,
    /// HELP.
    Help,
    /// STARTTLS.
    StartTls,
    /// AUTH.
    Auth {
        /// The mechanism's name in upper case.
        mechanism: String,
        /// The initial response in base64.
        initial: Option<String>,
    },
    /// QUIT.
    Quit,
}

/// The arguments of MAIL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MailArguments {
    /// The return address for bounces.
    pub reverse_path: ReversePath,
    /// SIZE of RFC 1870; saturated when it overflows.
    pub size: Option<u64>,
    /// BODY=8BITMIME of RFC 6152.
    pub eight_bit: bool,
    /// SMTPUTF8 of RFC 6531.
    pub smtputf8: bool,
    /// AUTH= of RFC 4954 §5; ignored, because the authenticated account is known anyway.
    pub auth: bool,
}

/// The reasons not to execute a line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Reply and go on with the session.
    Reply(Reply),
    /// Reply and close the connection: what follows cannot be SMTP.
    Close(Reply),
}

impl From<Reply> for Refusal {
    fn from(reply: Reply) -> Self {
        Self::Reply(reply)
    }
}

impl Command {
    /// Returns false if the command has a path that could not be used for sending.
    pub(crate) fn has_sendable_path(&self) -> bool {
        match self {
            Self::Mail(MailArguments { reverse_path: ReversePath::Mailbox(mailbox), .. })
            | Self::Rcpt(ForwardPath::Mailbox(mailbox)) => mailbox.is_sendable(),
            Self::Mail(MailArguments { reverse_path: ReversePath::Local(_), .. }) => false,
            _ => true,
        }
    }
}

/// Parses a line without its CRLF.
///
/// # Errors
/// The reply that refuses the line.
pub fn parse(line: &[u8]) -> Result<Command, Refusal> {
    let text = match std::str::from_utf8(line) {
        Ok(text) => Cow::Borrowed(text),
        // Hosts greet with names in any charset.
        Err(_) if is_greeting(line) => String::from_utf8_lossy(line),
        Err(_) => return Err(Reply::BAD_SYNTAX.into()),
    };
    if text.chars().any(|c| c.is_control() && c != '\t') {
        return Err(Reply::BAD_SYNTAX.into());
    }
    let (verb, rest) = text.split_once(BLANKS).unwrap_or((&text, ""));
    let rest = rest.trim_matches(BLANKS);
    let mut upper = [0_u8; LONGEST_VERB];
    let upper = upper.get_mut(..verb.len()).ok_or(Reply::UNKNOWN_COMMAND)?;
    upper.copy_from_slice(verb.as_bytes());
    upper.make_ascii_uppercase();
    match &*upper {
        b"EHLO" => Ok(Command::Ehlo(client_name(rest)?)),
        b"HELO" => Ok(Command::Helo(client_name(rest)?)),
        b"MAIL" => mail(rest).map(Command::Mail).map_err(Refusal::Reply),
        b"RCPT" => rcpt(rest).map(Command::Rcpt).map_err(Refusal::Reply),
        b"DATA" => without_arguments(rest, Command::Data),
        b"RSET" => without_arguments(rest, Command::Rset),
        b"QUIT" => without_arguments(rest, Command::Quit),
        b"STARTTLS" => without_arguments(rest, Command::StartTls),
        b"NOOP" => Ok(Command::Noop),
        b"HELP" => Ok(Command::Help),
        b"VRFY" if rest.is_empty() => Err(Reply::BAD_SYNTAX.into()),
        b"VRFY" => Ok(Command::Vrfy),
        b"AUTH" => auth(rest),
        b"EXPN" | b"ETRN" | b"TURN" | b"SEND" | b"SOML" | b"SAML" => Err(Reply::NOT_IMPLEMENTED.into()),
        // CHUNKING is not offered; the octets that would follow must not be read as commands.
        b"BDAT" => Err(Refusal::Close(Reply::NOT_IMPLEMENTED)),
        b"GET" | b"POST" | b"PUT" | b"HEAD" | b"DELETE" | b"OPTIONS" | b"CONNECT" | b"TRACE" | b"PATCH" | b"PRI" => {
            Err(Refusal::Close(Reply::NOT_SMTP))
        }
        _ => Err(Reply::UNKNOWN_COMMAND.into()),
    }
}

/// Parses the arguments of AUTH (RFC 4954 §4).
fn auth(rest: &str) -> Result<Command, Refusal> {
    let mut words = rest.split_ascii_whitespace();
    match (words.next(), words.next(), words.next()) {
        (Some(mechanism), initial, None) => {
            Ok(Command::Auth { mechanism: mechanism.to_ascii_uppercase(), initial: initial.map(str::to_owned) })
        }
        _ => Err(Reply::BAD_SYNTAX.into()),
    }
}

fn without_arguments(rest: &str, command: Command) -> Result<Command, Refusal> {
    if rest.is_empty() { Ok(command) } else { Err(Reply::BAD_SYNTAX.into()) }
}

fn is_greeting(line: &[u8]) -> bool {
    line.get(..5).is_some_and(|head| head.eq_ignore_ascii_case(b"EHLO ") || head.eq_ignore_ascii_case(b"HELO "))
}

/// Accepts any non-empty name: a domain or an address literal is required, but much else, such as two words, is seen
/// and harmless.
fn client_name(text: &str) -> Result<String, Reply> {
    if text.is_empty() || text.len() > MAX_NAME { Err(Reply::BAD_SYNTAX) } else { Ok(text.to_owned()) }
}

fn mail(rest: &str) -> Result<MailArguments, Reply> {
    let (path, parameters) = split_path(rest, "FROM")?;
    let mut arguments =
        MailArguments { reverse_path: ReversePath::Null, size: None, eight_bit: false, smtputf8: false, auth: false };
    let (mut size_seen, mut body_seen) = (false, false);
    for parameter in parameters.split_ascii_whitespace() {
        let (name, value) = parameter.split_once('=').map_or((parameter, None), |(name, value)| (name, Some(value)));
        match (name.to_ascii_uppercase().as_str(), value) {
            ("SIZE", Some(digits)) if !size_seen => {
                size_seen = true;
                arguments.size = Some(parse_size(digits)?);
            }
            ("BODY", Some(body)) if !body_seen => {
                body_seen = true;
                arguments.eight_bit = match body.to_ascii_uppercase().as_str() {
                    "7BIT" => false,
                    "8BITMIME" => true,
                    _ => return Err(Reply::BAD_SYNTAX),
                };
            }
            ("SMTPUTF8", None) if !arguments.smtputf8 => arguments.smtputf8 = true,
            ("AUTH", Some(_)) if !arguments.auth => arguments.auth = true,
            ("SIZE" | "BODY" | "SMTPUTF8", _) => return Err(Reply::BAD_SYNTAX),
            _ => return Err(Reply::UNKNOWN_PARAMETER),
        }
    }
    if !path.is_empty() {
        if !path.is_ascii() && !arguments.smtputf8 {
            return Err(Reply::NEEDS_SMTPUTF8);
        }
        let path = strip_source_route(path).and_then(ReversePath::parse_received);
        arguments.reverse_path = path.map_err(|_| Reply::BAD_SYNTAX)?;
    }
    Ok(arguments)
}

/// Parses SIZE: up to 20 digits (RFC 1870 §5); an overflow is too large, never small.
fn parse_size(digits: &str) -> Result<u64, Reply> {
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(Reply::BAD_SYNTAX);
    }
    Ok(digits.parse().unwrap_or(u64::MAX))
}

fn rcpt(rest: &str) -> Result<ForwardPath, Reply> {
    let (path, parameters) = split_path(rest, "TO")?;
    if !parameters.is_empty() {
        return Err(Reply::UNKNOWN_PARAMETER);
    }
    // RFC 5321 §4.5.1: case-insensitive and without a domain.
    if path.eq_ignore_ascii_case("postmaster") {
        return Ok(ForwardPath::Postmaster);
    }
    let mailbox = strip_source_route(path).and_then(Mailbox::parse_received);
    mailbox.map(ForwardPath::Mailbox).map_err(|_| Reply::BAD_SYNTAX)
}

/// Splits into the path without its angle brackets and the parameters that follow. An empty path is the null path,
/// which is valid only as `<>`.
fn split_path<'l>(rest: &'l str, keyword: &str) -> Result<(&'l str, &'l str), Reply> {
    let (head, body) = rest.split_at_checked(keyword.len()).ok_or(Reply::BAD_SYNTAX)?;
    // Blanks around the colon are not allowed but common.
    let body = body.trim_start_matches(BLANKS).strip_prefix(':').map(|body| body.trim_start_matches(BLANKS));
    let body = body.filter(|_| head.eq_ignore_ascii_case(keyword)).ok_or(Reply::BAD_SYNTAX)?;
    let (path, behind) = match after_bracket(body) {
        Some(inside) => {
            let end = find_unquoted(inside, &['>']).ok_or(Reply::BAD_SYNTAX)?;
            let (path, behind) = inside.split_at_checked(end).ok_or(Reply::BAD_SYNTAX)?;
            let trimmed = path.trim_matches(BLANKS);
            if trimmed.is_empty() && !path.is_empty() {
                return Err(Reply::BAD_SYNTAX);
            }
            (trimmed, behind.strip_prefix('>').unwrap_or_default())
        }
        None => {
            let end = find_unquoted(body, &BLANKS).unwrap_or(body.len());
            let (path, behind) = body.split_at_checked(end).ok_or(Reply::BAD_SYNTAX)?;
            // A parameter is not a sender, and two addresses are ambiguous.
            let is_parameter = path.contains('=') && find_unquoted(path, &['@']).is_none();
            if path.is_empty() || is_parameter || behind.trim_start_matches(BLANKS).starts_with('<') {
                return Err(Reply::BAD_SYNTAX);
            }
            (path, behind)
        }
    };
    let separated = behind.is_empty() || behind.starts_with(BLANKS);
    if !separated || path.len() > MAX_PATH {
        return Err(Reply::BAD_SYNTAX);
    }
    Ok((path, behind.trim_matches(BLANKS)))
}

/// Returns the text after the opening bracket, which a display name may precede; `None` for a path without brackets.
fn after_bracket(body: &str) -> Option<&str> {
    let (name, behind) = body.split_at_checked(find_unquoted(body, &['<'])?)?;
    // A bracket inside a parameter is not a path's, and a bracket after an address would start a second one.
    let other = name.contains('@') || find_unquoted(name, &['=', '>']).is_some();
    if other { None } else { behind.strip_prefix('<') }
}

/// Returns the offset of the first of these characters outside quoted strings.
fn find_unquoted(text: &str, wanted: &[char]) -> Option<usize> {
    let (mut quoted, mut escaped) = (false, false);
    let found = text.char_indices().find(|(_, c)| {
        match c {
            _ if escaped => escaped = false,
            '\\' if quoted => escaped = true,
            '"' => quoted = !quoted,
            _ => return !quoted && wanted.contains(c),
        }
        false
    });
    found.map(|(at, _)| at)
}

/// Strips the source route that may begin a path, `@one.example,@[192.0.2.1]:` (RFC 5321 §4.1.2: A-d-l). It is
/// ignored (RFC 5321 §4.1.1.3, appendix C).
fn strip_source_route(path: &str) -> Result<&str, AddressError> {
    if !path.starts_with('@') {
        return Ok(path);
    }
    let mut rest = path;
    loop {
        rest = rest.strip_prefix('@').ok_or(AddressError::Syntax)?;
        let end = if rest.starts_with('[') { rest.find(']').map(|end| end + 1) } else { rest.find([',', ':']) };
        let (host, behind) = end.and_then(|end| rest.split_at_checked(end)).ok_or(AddressError::Syntax)?;
        if !host.starts_with('[') {
            Domain::parse(host)?;
        }
        if let Some(mailbox) = behind.strip_prefix(':') {
            return Ok(mailbox);
        }
        rest = behind.strip_prefix(',').ok_or(AddressError::Syntax)?;
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, clippy::panic, reason = "tests may panic")]

    use super::*;

    fn mail(line: &str) -> Result<MailArguments, Refusal> {
        match parse(line.as_bytes())? {
            Command::Mail(arguments) => Ok(arguments),
            other => panic!("{other:?}"),
        }
    }

    fn rcpt(line: &str) -> Result<String, Refusal> {
        match parse(line.as_bytes())? {
            Command::Rcpt(ForwardPath::Mailbox(mailbox)) => Ok(mailbox.to_string()),
            Command::Rcpt(ForwardPath::Postmaster) => Ok("postmaster".into()),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn mail_takes_the_null_path_and_its_parameters() {
        let null = mail("MAIL FROM:<>").unwrap();
        assert_eq!(null.reverse_path, ReversePath::Null);
        let full = mail("mail from:<a@b.dev> size=1000 BODY=8BITMIME SMTPUTF8").unwrap();
        assert_eq!((full.size, full.eight_bit, full.smtputf8), (Some(1000), true, true));
        assert_eq!(mail("MAIL FROM:<a@b.dev> SIZE=99999999999999999999999999").unwrap().size, Some(u64::MAX));
        assert_eq!(mail("MAIL FROM:<a@b.dev> SIZE=-1"), Err(Reply::BAD_SYNTAX.into()));
        assert_eq!(mail("MAIL FROM:<a@b.dev> RET=HDRS"), Err(Reply::UNKNOWN_PARAMETER.into()));
        assert_eq!(mail("MAIL FROM:<\u{fc}@b.dev>"), Err(Reply::NEEDS_SMTPUTF8.into()));
        assert_eq!(mail("MAIL FROM:<a@b.dev>SIZE=1"), Err(Reply::BAD_SYNTAX.into()));
    }

    #[test]
    fn a_path_is_read_where_it_says_one_thing_alone() {
        let path = |line: &str| mail(line).map(|arguments| arguments.reverse_path.to_string());
        for (line, read) in [
            ("MAIL FROM:raid@maker.example", "raid@maker.example"),
            ("MAIL FROM: raid@maker.example SIZE=100", "raid@maker.example"),
            ("MAIL FROM:\t<raid@maker.example>\t", "raid@maker.example"),
            ("MAIL FROM :<raid@maker.example>", "raid@maker.example"),
            ("MAIL FROM:< raid@maker.example >", "raid@maker.example"),
            ("MAIL FROM:HP Scanner <raid@maker.example> SIZE=1", "raid@maker.example"),
            ("MAIL FROM:\"Scanner, <2nd floor>\" <raid@maker.example>", "raid@maker.example"),
            ("MAIL FROM:\"a b@c\"@maker.example SIZE=1", "\"a b@c\"@maker.example"),
            ("MAIL FROM:a=b@maker.example", "a=b@maker.example"),
            ("MAIL FROM:<scanner>", "scanner"),
            ("MAIL FROM:scanner", "scanner"),
            ("MAIL FROM:<ilo.@maker.example>", "ilo.@maker.example"),
            ("MAIL FROM:<@one.example:ilo..x@maker.example>", "ilo..x@maker.example"),
        ] {
            assert_eq!(path(line).as_deref(), Ok(read), "{line}");
        }
        for bad in [
            "MAIL FROM:",
            "MAIL FROM: ",
            "MAIL FROM:< >",
            "MAIL FROM:SIZE=100",
            "MAIL FROM:scanner=1",
            "MAIL FROM:a@b.dev <c@d.dev>",
            "MAIL FROM:\"a@b.dev\" <c@d.dev>",
            "MAIL FROM:a@b.dev,c@d.dev",
            "MAIL FROM:<a@b.dev",
            "MAIL FROM:a@b.dev>",
            "MAIL FROM:\"a b@c.dev",
            "MAIL FROM:<<a@b.dev>>",
            "MAIL FROM:<one.example:a@b.dev>",
        ] {
            let refused = path(bad);
            assert!(refused.is_err(), "{bad}: {refused:?}");
        }
        assert_eq!(mail("MAIL FROM:a@b.dev SIZE=100").unwrap().size, Some(100));
        assert!(mail("MAIL FROM:a@b.dev AUTH=<>").unwrap().auth, "brackets of a parameter are none of a path");
        assert_eq!(mail("MAIL FROM:<>").unwrap().reverse_path, ReversePath::Null);
    }

    #[test]
    fn a_client_may_call_itself_as_it_likes() {
        for name in ["HP Scanner", "under_score", "[10.0.0.1", "192.0.2.1", "a\tb", "localhost.", "(none)"] {
            assert_eq!(parse(format!("EHLO {name}").as_bytes()), Ok(Command::Ehlo(name.to_owned())));
        }
        assert_eq!(parse(b"helo B\xdcRO"), Ok(Command::Helo("B\u{fffd}RO".to_owned())));
        assert_eq!(parse(b"MAIL FROM:<B\xdcRO@x.test>"), Err(Reply::BAD_SYNTAX.into()));
        for bad in [&b"EHLO"[..], b"EHLO  ", b"EHLO a\x07"] {
            assert_eq!(parse(bad), Err(Reply::BAD_SYNTAX.into()));
        }
    }

    #[test]
    fn postmaster_is_not_the_null_path_and_the_null_path_is_no_recipient() {
        assert_eq!(rcpt("RCPT TO:<Postmaster>").unwrap(), "postmaster");
        assert_eq!(rcpt("RCPT TO:<>"), Err(Reply::BAD_SYNTAX.into()));
    }

    #[test]
    fn recipients_are_never_split_at_another_at_sign() {
        assert_eq!(rcpt("RCPT TO:<\"a@evil.example\"@inbox.test>").unwrap(), "\"a@evil.example\"@inbox.test");
        assert_eq!(rcpt("RCPT TO:<\"a>b\"@inbox.test>").unwrap(), "\"a>b\"@inbox.test");
        assert_eq!(rcpt("RCPT TO:<@one.example,@two.example:bob@inbox.test>").unwrap(), "bob@inbox.test");
        assert_eq!(rcpt("RCPT TO:<bob%evil.example@inbox.test>").unwrap(), "bob%evil.example@inbox.test");
        assert_eq!(rcpt("RCPT TO:<@[IPv6:::1],@a.example:bob@inbox.test>").unwrap(), "bob@inbox.test");
        assert_eq!(rcpt("RCPT TO:<@a.example:\"x:y\"@inbox.test>").unwrap(), "\"x:y\"@inbox.test");
        assert_eq!(rcpt("RCPT TO:<bob@[192.0.2.1]>").unwrap(), "bob@[192.0.2.1]");
        assert_eq!(rcpt("RCPT TO:bob@inbox.test").unwrap(), "bob@inbox.test");
        for bad in [
            "RCPT TO:bob@inbox.test>",
            "RCPT TO:<bob@inbox.test",
            "RCPT TO:<a@b@c>",
            "RCPT TO:<a\u{1}@b>",
            "RCPT",
            "RCPT TO:<@:bob@inbox.test>",
            "RCPT TO:<@one.example bob@inbox.test>",
            "RCPT TO:<@one.example,two.example:bob@inbox.test>",
            "RCPT TO:<@x y:bob@inbox.test>",
            "RCPT TO:<@one.example:>",
        ] {
            assert_eq!(rcpt(bad), Err(Reply::BAD_SYNTAX.into()), "{bad}");
        }
    }

    #[test]
    fn verbs_are_known_in_any_case_and_no_longer_than_the_longest() {
        assert_eq!(parse(b"starttls"), Ok(Command::StartTls));
        assert_eq!(parse(b"Quit  "), Ok(Command::Quit));
        assert_eq!(parse(b"QUIT now"), Err(Reply::BAD_SYNTAX.into()));
        for unknown in ["STARTTLSX", "DATAA", "", "\u{e9}HLO x", "VERYLONGVERBINDEED x"] {
            assert_eq!(parse(unknown.as_bytes()), Err(Reply::UNKNOWN_COMMAND.into()), "{unknown:?}");
        }
    }

    #[test]
    fn other_protocols_are_told_and_closed() {
        assert_eq!(parse(b"GET / HTTP/1.1"), Err(Refusal::Close(Reply::NOT_SMTP)));
        assert_eq!(parse(b"BDAT 10 LAST"), Err(Refusal::Close(Reply::NOT_IMPLEMENTED)));
        assert_eq!(parse(b"HELLO"), Err(Reply::UNKNOWN_COMMAND.into()));
    }
}
