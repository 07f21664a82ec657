//! The SMTP replies of this server: one constant for each (RFC 5321 §4.2, RFC 3463).

use std::borrow::Cow;
use std::fmt;

use super::status_code::EnhancedStatusCode;

/// A reply of one line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// RFC 5321 §4.2.1.
    pub code: u16,
    /// `None` for the greeting, the reply to HELO and 3yz replies, which carry no enhanced code (RFC 2034 §4).
    pub status: Option<EnhancedStatusCode>,
    pub text: Cow<'static, str>,
}

macro_rules! replies {
    ($($(#[$doc:meta])* $name:ident = $code:literal $($status:ident)? $text:literal;)*) => {
        #[cfg(test)]
        const ALL: &[Reply] = &[$(Reply::$name),*];

        impl Reply {$(
            $(#[$doc])*
            pub(crate) const $name: Self =
                Self { code: $code, status: replies!(@status $($status)?), text: Cow::Borrowed($text) };
        )*}
    };
    (@status) => { None };
    (@status $status:ident) => { Some(EnhancedStatusCode::$status) };
}

replies! {
    /// QUIT.
    BYE = 221 OK "Bye";
    /// AUTH.
    AUTHENTICATED = 235 AUTHENTICATION_SUCCEEDED "Authenticated";
    /// NOOP, RSET and the like.
    OK = 250 OK "Ok";
    /// MAIL.
    SENDER_OK = 250 SENDER_VALID "Sender ok";
    /// RCPT.
    RECIPIENT_OK = 250 RECIPIENT_VALID "Recipient ok";
    /// VRFY: RFC 5321 §3.5.3 lets a server withhold the answer.
    CANNOT_VERIFY = 252 RECIPIENT_VALID "Cannot verify, but will take mail for it";
    /// HELP.
    HELP = 214 OK "See RFC 5321";
    /// STARTTLS.
    READY_FOR_TLS = 220 OK "Ready to start TLS";
    /// DATA.
    START_DATA = 354 "End data with <CRLF>.<CRLF>";
    /// The server is stopping.
    SHUTTING_DOWN = 421 SYSTEM_NOT_ACCEPTING "Shutting down, please come again";
    /// The limit of all connections, or of one address, is reached.
    TOO_MANY_CONNECTIONS = 421 TRANSIENT_SECURITY "Too many connections, please come again";
    /// A limit of errors, refused recipients or commands of one session.
    TOO_MANY_ERRORS = 421 TRANSIENT_SECURITY "Too many errors";
    /// The client sent nothing in time.
    TIMEOUT = 421 BAD_CONNECTION "Timeout, closing the connection";
    /// The message data arrives below the minimum rate.
    TOO_SLOW = 421 BAD_CONNECTION "Data too slow, closing the connection";
    /// The client speaks HTTP or another protocol.
    NOT_SMTP = 421 TRANSIENT_SECURITY "This is an SMTP server";
    /// The domain is hosted here, but not verified yet.
    DOMAIN_PENDING = 450 TRANSIENT_NOT_AUTHORIZED "Domain is not verified yet, please come again";
    /// Storage failed, or another internal error.
    STORAGE_FAILURE = 451 TRANSIENT_SYSTEM "Cannot store mail at the moment, please come again";
    /// The disk or the memory budget is full.
    STORAGE_FULL = 452 SYSTEM_FULL "Insufficient storage, please come again";
    /// RFC 3463 §3.3: the account has used its quota. Transient, so that the sender tries again.
    MAILBOX_FULL = 452 MAILBOX_FULL "Mailbox full, please come again later";
    /// RFC 5321 §4.5.3.1.10.
    TOO_MANY_RECIPIENTS = 452 TOO_MANY_RECIPIENTS "Too many recipients";
    /// AUTH PLAIN without its response (RFC 4954 §4).
    AUTH_PLAIN = 334 "";
    /// AUTH LOGIN: "Username:".
    AUTH_USERNAME = 334 "VXNlcm5hbWU6";
    /// AUTH LOGIN: "Password:".
    AUTH_PASSWORD = 334 "UGFzc3dvcmQ6";
    /// An address made too many failed login attempts.
    TOO_MANY_GUESSES = 421 TRANSIENT_SECURITY "Too many failed logins, please come again later";
    /// Unknown verb.
    UNKNOWN_COMMAND = 500 INVALID_COMMAND "Unknown command";
    LINE_TOO_LONG = 500 SYNTAX_ERROR "Line too long";
    BARE_NEWLINE_IN_COMMAND = 500 SYNTAX_ERROR "Lines must end in CRLF";
    /// Arguments that RFC 5321 does not allow.
    BAD_SYNTAX = 501 SYNTAX_ERROR "Syntax error in arguments";
    /// The client canceled AUTH with `*` (RFC 4954 §4).
    AUTH_CANCELED = 501 PERMANENT_SECURITY "Authentication canceled";
    /// AUTH with a mechanism that is not offered.
    UNKNOWN_MECHANISM = 504 INVALID_ARGUMENTS "Unknown authentication mechanism";
    /// AUTH or MAIL before STARTTLS (RFC 3207 §4).
    TLS_REQUIRED = 530 PERMANENT_SECURITY "Must issue a STARTTLS command first";
    /// MAIL before AUTH.
    AUTH_REQUIRED = 530 PERMANENT_SECURITY "Authentication required";
    /// The password is not a valid API key.
    BAD_CREDENTIALS = 535 CREDENTIALS_INVALID "Bad credentials; the password is an API key";
    /// A recipient without a domain (submission).
    NO_DOMAIN = 550 BAD_SYSTEM "Recipient needs a domain name";
    /// The account may not send from this domain.
    FROM_REFUSED = 550 NOT_AUTHORIZED "From domain is not yours, or not verified for sending";
    /// The account has not verified its own address yet.
    ACCOUNT_UNVERIFIED = 550 NOT_AUTHORIZED "Verify the e-mail address of your account first";
    /// All recipients are suppressed.
    ALL_SUPPRESSED = 550 NOT_AUTHORIZED "Every recipient is on the suppression list";
    /// RFC 6409 §6.1.
    BAD_FROM = 550 MEDIA "Exactly one From field with exactly one mailbox is needed";
    /// The header cannot be sent as submitted.
    BAD_MESSAGE = 550 MEDIA "Message has a repeated header, or a NUL in one";
    /// A line over the limit of RFC 5322 §2.1.1 that no encoding can shorten.
    LONG_LINE = 554 MEDIA "A line of over 998 octets that can neither be folded nor encoded";
    /// The same within a signed or encrypted part, which re-encoding would break.
    SEALED_LINE = 554 CONVERSION_NOT_SUPPORTED
        "A signed or encrypted part has a line of over 998 octets, and must not be changed";
    /// A known verb that is not offered.
    NOT_IMPLEMENTED = 502 INVALID_COMMAND "Command not implemented";
    /// A command out of order.
    BAD_SEQUENCE = 503 INVALID_COMMAND "Bad sequence of commands";
    /// DATA without an accepted recipient.
    NO_RECIPIENTS = 503 INVALID_COMMAND "No valid recipients";
    /// RFC 6531 §3.5.
    NEEDS_SMTPUTF8 = 553 NON_ASCII_ADDRESS "Non-ASCII address without SMTPUTF8";
    UNKNOWN_RECIPIENT = 550 BAD_MAILBOX "No such recipient";
    /// The domain is not hosted here.
    RELAY_REFUSED = 550 NOT_AUTHORIZED "Relaying denied";
    /// Mail to an SRS address that is not a bounce.
    NOT_A_REPORT = 550 NOT_AUTHORIZED "Only reports about forwarded mail are taken here";
    /// RFC 1870 §6.
    TOO_LARGE = 552 MESSAGE_TOO_BIG "Message too large";
    /// A bare CR or LF: nothing after it can be trusted to be a command (SMTP smuggling).
    BARE_NEWLINE = 554 MEDIA "Bare CR or LF in message data";
    /// A line of message data over the hard limit.
    DATA_LINE_TOO_LONG = 554 MEDIA "Line too long in message data";
    /// RFC 5321 §6.3.
    MAIL_LOOP = 554 ROUTING_LOOP "Mail loop";
    /// RFC 5321 §4.1.1.11.
    UNKNOWN_PARAMETER = 555 INVALID_ARGUMENTS "Unknown MAIL or RCPT parameter";
}

impl Reply {
    pub(crate) fn greeting(hostname: &str) -> Self {
        Self { code: 220, status: None, text: format!("{hostname} ESMTP mailkite").into() }
    }

    /// The reply to the final dot: the message is stored durably, and this server is responsible for it.
    pub(crate) fn accepted(id: &str) -> Self {
        Self { code: 250, status: Some(EnhancedStatusCode::OK), text: format!("Ok: {id}").into() }
    }

    /// The reply to HELO.
    pub(crate) fn hello(hostname: &str) -> Self {
        Self { code: 250, status: None, text: hostname.to_owned().into() }
    }

    pub(crate) const fn is_permanent_failure(&self) -> bool {
        self.code >= 500
    }

    /// Appends the line as it goes over the wire.
    pub fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(format!("{self}\r\n").as_bytes());
    }
}

impl fmt::Display for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { code, status, text } = self;
        match status {
            Some(status) => write!(f, "{code} {status} {text}"),
            None => write!(f, "{code} {text}"),
        }
    }
}

/// Appends the reply to EHLO: the host's name, then one extension a line (RFC 5321 §4.1.1.1).
pub(crate) fn write_ehlo(out: &mut Vec<u8>, hostname: &str, extensions: &[String]) {
    let lines = std::iter::once(hostname).chain(extensions.iter().map(String::as_str));
    let last = extensions.len();
    for (index, line) in lines.enumerate() {
        out.extend_from_slice(if index == last { b"250 " } else { b"250-" });
        out.extend_from_slice(line.as_bytes());
        out.extend_from_slice(b"\r\n");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reply_is_one_line_of_printable_ascii_whose_codes_agree() {
        for reply in ALL.iter().cloned().chain([Reply::greeting("mx.a.dev"), Reply::accepted("msg_1")]) {
            let mut wire = Vec::new();
            reply.write(&mut wire);
            let line = wire.strip_suffix(b"\r\n").unwrap_or_default();
            assert!(line.starts_with(format!("{} ", reply.code).as_bytes()), "{reply:?}");
            assert!(line.iter().all(|byte| (b' '..=b'~').contains(byte)), "{reply:?}");
            // RFC 5321 §4.5.3.1.5.
            assert!(wire.len() <= 512, "{reply:?}");
            // RFC 2034 §4: the class is the first digit of the code.
            let class = reply.status.map(|status| status.class.digit());
            assert!(class.is_none_or(|class| class == reply.code / 100), "{reply:?}");
            // RFC 2034 §4: every 2yz, 4yz and 5yz reply has one, but the greeting and the reply to HELO.
            assert_eq!(
                class.is_none(),
                matches!(reply.code, 220 | 300..400) && reply != Reply::READY_FOR_TLS,
                "{reply:?}"
            );
        }
    }

    #[test]
    fn the_last_line_of_the_ehlo_reply_is_marked() {
        let mut out = Vec::new();
        write_ehlo(&mut out, "mx.a.dev", &["PIPELINING".to_owned(), "SIZE 10".to_owned()]);
        assert_eq!(out, b"250-mx.a.dev\r\n250-PIPELINING\r\n250 SIZE 10\r\n");
    }
}
