//! Every SMTP reply that this server gives: one vocabulary (RFC 5321 §4.2, RFC 3463).

use std::borrow::Cow;

/// A reply of one line: code, enhanced status code and text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// RFC 5321 §4.2.1.
    pub code: u16,
    /// RFC 3463; empty where none belongs (greeting, 354).
    pub enhanced: &'static str,
    /// For people.
    pub text: Cow<'static, str>,
}

macro_rules! replies {
    ($($(#[$doc:meta])* $name:ident = $code:literal $enhanced:literal $text:literal;)*) => {
        #[cfg(test)]
        const ALL: &[Reply] = &[$(Reply::$name),*];

        impl Reply {$(
            $(#[$doc])*
            pub(crate) const $name: Self = Self { code: $code, enhanced: $enhanced, text: Cow::Borrowed($text) };
        )*}
    };
}

replies! {
    /// QUIT.
    BYE = 221 "2.0.0" "Bye";
    /// AUTH.
    AUTHENTICATED = 235 "2.7.0" "Authenticated";
    /// NOOP, RSET and their like.
    OK = 250 "2.0.0" "Ok";
    /// MAIL.
    SENDER_OK = 250 "2.1.0" "Sender ok";
    /// RCPT.
    RECIPIENT_OK = 250 "2.1.5" "Recipient ok";
    /// VRFY: RFC 5321 §3.5.3 lets a server not tell.
    CANNOT_VERIFY = 252 "2.1.5" "Cannot verify, but will take mail for it";
    /// HELP.
    HELP = 214 "2.0.0" "See RFC 5321";
    /// STARTTLS.
    READY_FOR_TLS = 220 "2.0.0" "Ready to start TLS";
    /// DATA.
    START_DATA = 354 "" "End data with <CRLF>.<CRLF>";
    /// The server stops.
    SHUTTING_DOWN = 421 "4.3.2" "Shutting down, please come again";
    /// A cap is reached.
    TOO_MANY_CONNECTIONS = 421 "4.7.0" "Too many connections, please come again";
    /// Junk.
    TOO_MANY_ERRORS = 421 "4.7.0" "Too many errors";
    /// Silence.
    TIMEOUT = 421 "4.4.2" "Timeout, closing the connection";
    /// Data at a trickle.
    TOO_SLOW = 421 "4.4.2" "Data too slow, closing the connection";
    /// Another protocol.
    NOT_SMTP = 421 "4.7.0" "This is an SMTP server";
    /// A domain of ours that is not verified yet.
    DOMAIN_PENDING = 450 "4.7.1" "Domain is not verified yet, please come again";
    /// Storage or internal trouble.
    STORAGE_TROUBLE = 451 "4.3.0" "Cannot store mail at the moment, please come again";
    /// Full disk, full memory.
    STORAGE_FULL = 452 "4.3.1" "Insufficient storage, please come again";
    /// RFC 3463 §3.3: the account has stored as much as it may; the sender comes again.
    MAILBOX_FULL = 452 "4.2.2" "Mailbox full, please come again later";
    /// RFC 5321 §4.5.3.1.10.
    TOO_MANY_RECIPIENTS = 452 "4.5.3" "Too many recipients";
    /// AUTH PLAIN without its response (RFC 4954 §4).
    AUTH_PLAIN = 334 "" "";
    /// AUTH LOGIN: "Username:".
    AUTH_USERNAME = 334 "" "VXNlcm5hbWU6";
    /// AUTH LOGIN: "Password:".
    AUTH_PASSWORD = 334 "" "UGFzc3dvcmQ6";
    /// Too many guesses from an address.
    TOO_MANY_GUESSES = 421 "4.7.0" "Too many failed logins, please come again later";
    /// A verb we do not know.
    UNKNOWN_COMMAND = 500 "5.5.1" "Unknown command";
    /// A command line that is too long.
    LINE_TOO_LONG = 500 "5.5.2" "Line too long";
    /// A command line that does not end in CRLF.
    BARE_NEWLINE_IN_COMMAND = 500 "5.5.2" "Lines must end in CRLF";
    /// Arguments that RFC 5321 does not allow.
    BAD_SYNTAX = 501 "5.5.2" "Syntax error in arguments";
    /// AUTH that the client broke off.
    AUTH_CANCELED = 501 "5.7.0" "Authentication canceled";
    /// AUTH with a mechanism that is not offered.
    UNKNOWN_MECHANISM = 504 "5.5.4" "Unknown authentication mechanism";
    /// AUTH or MAIL before STARTTLS (RFC 3207 §4).
    TLS_REQUIRED = 530 "5.7.0" "Must issue a STARTTLS command first";
    /// MAIL before AUTH.
    AUTH_REQUIRED = 530 "5.7.0" "Authentication required";
    /// A password that is no API key.
    BAD_CREDENTIALS = 535 "5.7.8" "Bad credentials; the password is an API key";
    /// A recipient that mail cannot be sent to.
    NO_DOMAIN = 550 "5.1.2" "Recipient needs a domain name";
    /// A From that is not the account's to use.
    FROM_REFUSED = 550 "5.7.1" "From domain is not yours, or not verified for sending";
    /// An account that has to prove its address first.
    ACCOUNT_UNVERIFIED = 550 "5.7.1" "Verify the e-mail address of your account first";
    /// Nobody may be sent to.
    ALL_SUPPRESSED = 550 "5.7.1" "Every recipient is on the suppression list";
    /// RFC 6409 §6.1.
    BAD_FROM = 550 "5.6.0" "Exactly one From field with exactly one mailbox is needed";
    /// A message that cannot be sent as it is.
    BAD_MESSAGE = 550 "5.6.0" "Message has a repeated header, or a NUL in one";
    /// One that nothing can be done about.
    LONG_LINE = 554 "5.6.0" "A line of over 998 octets that can neither be folded nor encoded";
    /// One that must not be changed.
    SEALED_LINE = 554 "5.6.3" "A signed or encrypted part has a line of over 998 octets, and must not be changed";
    /// A verb that we know and do not offer.
    NOT_IMPLEMENTED = 502 "5.5.1" "Command not implemented";
    /// A command out of order.
    BAD_SEQUENCE = 503 "5.5.1" "Bad sequence of commands";
    /// DATA without a recipient that was accepted.
    NO_RECIPIENTS = 503 "5.5.1" "No valid recipients";
    /// RFC 6531 §3.5.
    NEEDS_SMTPUTF8 = 553 "5.6.7" "Non-ASCII address without SMTPUTF8";
    /// No such mailbox.
    UNKNOWN_RECIPIENT = 550 "5.1.1" "No such recipient";
    /// Not one of our domains.
    RELAY_REFUSED = 550 "5.7.1" "Relaying denied";
    /// Mail to an SRS address.
    NOT_A_REPORT = 550 "5.7.1" "Only reports about forwarded mail are taken here";
    /// RFC 1870 §6.
    TOO_LARGE = 552 "5.3.4" "Message too large";
    /// A bare CR or LF: what comes next cannot be trusted to be a command.
    BARE_NEWLINE = 554 "5.6.0" "Bare CR or LF in message data";
    /// A line of data beyond every measure.
    DATA_LINE_TOO_LONG = 554 "5.6.0" "Line too long in message data";
    /// RFC 5321 §6.3.
    MAIL_LOOP = 554 "5.4.6" "Mail loop";
    /// RFC 5321 §4.1.1.11.
    UNKNOWN_PARAMETER = 555 "5.5.4" "Unknown MAIL or RCPT parameter";
}

impl Reply {
    /// The greeting.
    pub(crate) fn greeting(hostname: &str) -> Self {
        Self { code: 220, enhanced: "", text: format!("{hostname} ESMTP mailkite").into() }
    }

    /// The promise.
    pub(crate) fn accepted(id: &str) -> Self {
        Self { code: 250, enhanced: "2.0.0", text: format!("Ok: {id}").into() }
    }

    /// HELO.
    pub(crate) fn hello(hostname: &str) -> Self {
        Self { code: 250, enhanced: "", text: hostname.to_owned().into() }
    }

    /// Whether it refuses something for good.
    pub(crate) const fn is_permanent_failure(&self) -> bool {
        self.code >= 500
    }

    /// Appends it as it goes over the wire.
    pub fn write(&self, out: &mut Vec<u8>) {
        let digit = |value: u16| b'0' + u8::try_from(value % 10).unwrap_or(0);
        out.extend_from_slice(&[digit(self.code / 100), digit(self.code / 10), digit(self.code), b' ']);
        if !self.enhanced.is_empty() {
            out.extend_from_slice(self.enhanced.as_bytes());
            out.push(b' ');
        }
        out.extend_from_slice(self.text.as_bytes());
        out.extend_from_slice(b"\r\n");
    }
}

/// The reply to EHLO: the host's name, then one extension a line (RFC 5321 §4.1.1.1).
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
            let class = reply.enhanced.bytes().next();
            assert!(class.is_none() || class == line.first().copied(), "{reply:?}");
        }
    }

    #[test]
    fn the_last_line_of_the_ehlo_reply_is_marked() {
        let mut out = Vec::new();
        write_ehlo(&mut out, "mx.a.dev", &["PIPELINING".to_owned(), "SIZE 10".to_owned()]);
        assert_eq!(out, b"250-mx.a.dev\r\n250-PIPELINING\r\n250 SIZE 10\r\n");
    }
}
