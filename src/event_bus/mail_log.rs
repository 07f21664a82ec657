//! The log of what happens to mail (`docs/log.md`): one line for each event, and one vocabulary of fields for all.
//!
//! Lines hold no content and no secret. What strangers chose is bounded and cannot forge a line.

use std::borrow::Cow;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::clock::Timestamp;
use crate::mail::envelope::Peer;

/// Target of these lines, for filters like `info,mailkite::mail=warn`.
const MAIL: &str = "mailkite::mail";
/// Target of refused credentials, which fail2ban needs even where the lines about mail are off.
const AUTH: &str = "mailkite::auth";

/// Longest value, in characters; a list of recipients may be longer.
const VALUE_MAX: usize = 320;
const LIST_MAX: usize = 2_000;

macro_rules! events {
    ($($(#[$doc:meta])* $name:ident = $text:literal;)*) => {
        /// An event; its text is the line's message.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(crate) enum Event {
            $($(#[$doc])* $name,)*
        }

        impl Event {
            const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$name => $text,)*
                }
            }
        }

        /// The text of every event, and of a refused credential.
        #[cfg(test)]
        const TEXTS: &[&str] = &[$($text,)* AUTHENTICATION_FAILED];
    };
}

events! {
    /// A transaction was answered 250, an API request 2xx.
    Accepted = "mail accepted";
    /// A mail was refused at MAIL, at DATA or after it.
    Refused = "mail refused";
    RecipientRefused = "recipient refused";
    /// Recipients were left out because the account sends nothing to them.
    Suppressed = "recipient suppressed";
    /// Accepted and then not kept, by a rule.
    Dropped = "mail dropped";
    Duplicate = "duplicate suppressed";
    /// A forward route was held back.
    NotForwarded = "mail not forwarded";
    Delivered = "mail delivered";
    Deferred = "mail deferred";
    Bounced = "mail bounced";
    Complained = "complaint received";
    WebhookDelivered = "webhook delivered";
    /// An attempt failed; another one follows.
    WebhookFailed = "webhook failed";
    WebhookGivenUp = "webhook given up";
}

const AUTHENTICATION_FAILED: &str = "authentication failed";

/// The way by which mail or a credential came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Via {
    Mx,
    Submission,
    Api,
    /// `POST /v1/route`.
    Inject,
    /// Mail of this server to a domain received here.
    Local,
    /// Passwords, tickets, setup tokens and Google.
    Login,
    /// A token of the live stream.
    Stream,
    /// A signed or mailed link.
    Link,
}

impl Via {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Mx => "mx",
            Self::Submission => "submission",
            Self::Api => "api",
            Self::Inject => "inject",
            Self::Local => "local",
            Self::Login => "login",
            Self::Stream => "stream",
            Self::Link => "link",
        }
    }
}

/// Fields of a line; those that are `None` are left out.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Line<'a> {
    /// The host or client at the other end.
    pub(crate) peer: Option<IpAddr>,
    pub(crate) via: Option<Via>,
    /// Number of the SMTP session.
    pub(crate) session: Option<u64>,
    /// Public ids, separated by commas.
    pub(crate) message_id: Option<&'a str>,
    /// Envelope sender; empty is the null reverse-path.
    pub(crate) from: Option<&'a str>,
    /// Envelope recipients, separated by commas.
    pub(crate) to: Option<&'a str>,
    pub(crate) helo: Option<&'a str>,
    /// Version, or `none`.
    pub(crate) tls: Option<&'a str>,
    /// SMTP reply or HTTP status, as sent or received.
    pub(crate) reply: Option<&'a str>,
    pub(crate) reason: Option<&'a str>,
    /// Octets of mail data.
    pub(crate) size: Option<u64>,
    pub(crate) duration: Option<Duration>,
    pub(crate) route: Option<&'a str>,
    /// Remote mail host, or origin of a webhook.
    pub(crate) host: Option<&'a str>,
    pub(crate) delivery: Option<&'a str>,
    pub(crate) attempt: Option<u32>,
    pub(crate) next_attempt: Option<Timestamp>,
    /// True for a fault of this server: the line has the level of an error.
    pub(crate) fault: bool,
}

/// Returns true if these lines are wanted. Values that only they need are made after asking.
pub(crate) fn is_enabled() -> bool {
    tracing::enabled!(target: MAIL, tracing::Level::INFO)
}

/// Returns the number of a new SMTP session.
pub(crate) fn next_session() -> u64 {
    static SESSIONS: AtomicU64 = AtomicU64::new(1);
    SESSIONS.fetch_add(1, Ordering::Relaxed)
}

/// Joins ids or addresses for a line.
pub(crate) fn join<T: AsRef<str>>(values: impl IntoIterator<Item = T>) -> String {
    let mut joined = String::new();
    for value in values {
        if joined.len() > LIST_MAX {
            break;
        }
        if !joined.is_empty() {
            joined.push(',');
        }
        joined.push_str(value.as_ref());
    }
    joined
}

impl<'a> Line<'a> {
    /// Creates a line about a mail that a peer hands in.
    pub(crate) fn of(via: Via, peer: &'a Peer) -> Self {
        let tls = peer.tls.as_ref().map_or("none", |tls| tls.version.as_str());
        Self { peer: Some(peer.address), via: Some(via), helo: Some(&peer.helo), tls: Some(tls), ..Self::default() }
    }

    /// Writes the line.
    pub(crate) fn log(&self, event: Event) {
        macro_rules! emit {
            ($level:ident) => {
                if tracing::enabled!(target: MAIL, tracing::Level::$level) {
                    let from = self.from.map(|from| if from.is_empty() { "<>" } else { from });
                    let from = from.map(|from| clean(from, VALUE_MAX));
                    let to = self.to.map(|to| clean(to, LIST_MAX));
                    let ids = self.message_id.map(|ids| clean(ids, LIST_MAX));
                    let [helo, reply, reason, host] =
                        [self.helo, self.reply, self.reason, self.host].map(|text| Some(clean(text?, VALUE_MAX)));
                    tracing::event!(
                        target: MAIL,
                        // Without the span of an HTTP request, the line begins with what happened.
                        parent: None,
                        tracing::Level::$level,
                        message = event.as_str(),
                        peer = self.peer.map(display),
                        via = self.via.map(Via::as_str),
                        session = self.session,
                        message_id = ids.as_deref(),
                        from = from.as_deref(),
                        to = to.as_deref(),
                        helo = helo.as_deref(),
                        tls = self.tls,
                        reply = reply.as_deref(),
                        reason = reason.as_deref(),
                        size = self.size,
                        duration_ms = self.duration.map(millis),
                        route = self.route,
                        host = host.as_deref(),
                        delivery = self.delivery,
                        attempt = self.attempt,
                        next_attempt = self.next_attempt.map(display),
                    );
                }
            };
        }
        if self.fault {
            emit!(ERROR);
        } else {
            emit!(INFO);
        }
    }
}

/// Writes the line of a refused credential. Nothing in it comes from the client but its address, so that a filter
/// which bans addresses cannot be fooled; user names are left out, since people type passwords there.
pub(crate) fn authentication_failed(via: Via, peer: IpAddr, reason: &str, reply: &str) {
    tracing::info!(
        target: AUTH,
        parent: None,
        message = AUTHENTICATION_FAILED,
        peer = %peer,
        via = via.as_str(),
        reason,
        reply,
    );
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// Returns a value that fits on a line: cut at `most` characters, without characters that end a line, steer a terminal
/// or change the direction of text.
fn clean(value: &str, most: usize) -> Cow<'_, str> {
    if value.len() <= most && value.bytes().all(|byte| matches!(byte, b' '..=b'~')) {
        return Cow::Borrowed(value);
    }
    let is_unsafe = |c: char| {
        c.is_control()
            || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
    };
    let mut kept: String = value.chars().take(most).map(|c| if is_unsafe(c) { '\u{fffd}' } else { c }).collect();
    if value.chars().nth(most).is_some() {
        kept.push('…');
    }
    Cow::Owned(kept)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_stays_on_its_line_and_within_its_bound() {
        assert!(matches!(clean("a@b.test", VALUE_MAX), Cow::Borrowed("a@b.test")));
        assert_eq!(
            clean("a\r\nb\u{1b}[2J\u{85}\u{2028}\u{202e}ü", VALUE_MAX),
            "a\u{fffd}\u{fffd}b\u{fffd}[2J\u{fffd}\u{fffd}\u{fffd}ü"
        );
        assert_eq!(clean("abcdef", 3), "abc…");
        assert_eq!(join(["a", "b"]), "a,b");
        assert!(join(std::iter::repeat_n("recipient@example.com", 10_000)).len() < LIST_MAX + 100);
    }

    #[test]
    fn the_manual_describes_every_event() {
        let manual = include_str!("../../docs/log.md");
        let rows = manual.lines().filter_map(|line| line.strip_prefix("| `")?.split_once("` |"));
        let listed: Vec<&str> =
            rows.map(|(text, _)| text).filter(|text| text.contains(' ') && !text.contains('`')).collect();
        assert_eq!(listed, TEXTS);
    }
}
