//! What a refusal means, by who said it, to which command, with which codes and in which words: the one table
//! (contract 8.5).
//!
//! A reply code alone says little. Providers answer 550 to a spammer, to a host without a name, to the second message of a
//! minute and for a mailbox that is gone; only the last must keep an address from ever being written to again. So a mailbox
//! counts as gone only when a host says so of a recipient, and nothing in the reply speaks of anything else.

use crate::outbound::Verdict;

/// Who refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Speaker {
    /// A host of the recipient's domain.
    Host,
    /// The relay that the operator named: what it does not like is mostly its own client.
    Smarthost,
    /// A host of the recipient's domain in plain text, after TLS with it failed: it may well want TLS.
    WithoutTls,
    /// A delivery status notification about the recipient.
    Report,
    /// This server.
    Ours,
}

/// What was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    /// The session: greeting, EHLO, STARTTLS, AUTH.
    Session,
    /// MAIL.
    Mail,
    /// RCPT, or a report about one recipient.
    Rcpt,
    /// DATA, or the mail data.
    Data,
}

/// What a refusal means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Meaning {
    /// [`Verdict::Bounced`] or [`Verdict::Deferred`].
    pub(crate) verdict: Verdict,
    /// Whether the mailbox does not exist or is disabled, so that its address is suppressed.
    pub(crate) no_mailbox: bool,
    /// Whether it is about the client as such, so that any other message would fare the same.
    pub(crate) of_host: bool,
}

/// What `speaker` means by answering `code` with `text` at `stage`. `text` may begin with the code; a report has none.
pub(crate) fn meaning(speaker: Speaker, stage: Stage, code: Option<u16>, text: &str) -> Meaning {
    let words = Words::of(text);
    let permanent = match code {
        Some(code) => (500..600).contains(&code),
        None => words.codes.first().is_none_or(|status| status.class == 5),
    };
    let of_host = stage == Stage::Session
        || code == Some(421)
        || (stage == Stage::Mail && words.is_of_client())
        || words.is_of_load();
    if !permanent || stage == Stage::Session {
        return Meaning { verdict: Verdict::Deferred, no_mailbox: false, of_host };
    }
    let names_no_mailbox = words.codes.iter().any(Status::is_no_mailbox);
    let wants_tls = !names_no_mailbox
        && match speaker {
            Speaker::WithoutTls => true,
            Speaker::Host => words.wants_tls(),
            Speaker::Smarthost | Speaker::Report | Speaker::Ours => false,
        };
    if wants_tls || (words.says_later() && !words.is_of_recipient()) {
        return Meaning { verdict: Verdict::Deferred, no_mailbox: false, of_host: of_host || wants_tls };
    }
    let no_mailbox = stage == Stage::Rcpt
        && !words.is_policy()
        && match speaker {
            // A stranger's word: nothing but a code that says just that will do.
            Speaker::Report => words.codes.first().is_some_and(Status::is_no_mailbox),
            Speaker::Smarthost => names_no_mailbox,
            Speaker::Host | Speaker::WithoutTls | Speaker::Ours => words.is_no_mailbox(code),
        };
    Meaning { verdict: Verdict::Bounced, no_mailbox, of_host }
}

/// The enhanced status code in a refusal, if it has one.
pub(crate) fn status_of(text: &str) -> Option<String> {
    let status = text.split_whitespace().find_map(status)?;
    Some(format!("{}.{}.{}", status.class, status.subject, status.detail))
}

/// Whether a refusal says that the address we come from has no name in DNS, or another than it should: x.7.25
/// (RFC 7372 §3.3), or the words of those that have another code for it.
pub(crate) fn wants_reverse_name(text: &str) -> bool {
    const PHRASES: [&str; 16] = [
        "cannot find your hostname",
        "does not resolve",
        "forged",
        "host name lookup failed",
        "hostname lookup failed",
        "ip name lookup failed",
        "no dns name",
        "no host name",
        "reverse dns",
        "reverse-dns",
        "reverse hostname",
        "reverse lookup",
        "reverse mapping",
        "reverse name",
        "fcrdns",
        "ipv6 sending guidelines",
    ];
    let words = Words::of(text);
    let is_code = |status: &Status| (status.subject, status.detail) == (7, 25);
    words.codes.iter().any(is_code) || words.has_stem(&["ptr", "rdns"]) || words.has(&PHRASES)
}

/// Words by which a refusal is about the sender, its host or the content, as beginnings of words.
const POLICY: &[&str] = &[
    "abus",
    "attachment",
    "auth",
    "banned",
    "blackhole",
    "blacklist",
    "block",
    "bulk",
    "client",
    "connection",
    "content",
    "country",
    "denied",
    "deny",
    "denylist",
    "dkim",
    "dmarc",
    "dnsbl",
    "ehlo",
    "encrypt",
    "fcrdns",
    "forbid",
    "forged",
    "frequen",
    "graylist",
    "greylist",
    "hello",
    "helo",
    "hostname",
    "ip",
    "junk",
    "limit",
    "malware",
    "moderat",
    "permission",
    "permit",
    "phish",
    "polic",
    "prohibit",
    "protocol",
    "ptr",
    "quota",
    "rate",
    "rbl",
    "rdns",
    "reput",
    "restrict",
    "reverse",
    "security",
    "sender",
    "size",
    "spam",
    "spf",
    "spoof",
    "ssl",
    "starttls",
    "submit",
    "subscri",
    "suspicious",
    "throttl",
    "tls",
    "trust",
    "unauth",
    "unsolicit",
    "virus",
];
/// Phrases of the same kind.
const POLICY_PHRASES: &[&str] = &[
    "is listed",
    "listed at",
    "listed by",
    "listed in",
    "listed on",
    "mail loop",
    "members",
    "not accepted from",
    "not allowed",
    "not relay",
    "not wanted",
    "open relay",
    "relay access",
    "relay denied",
    "relay not",
    "relaying",
    "to relay",
    "too big",
    "too large",
    "too many",
    "you are ",
    "your domain",
    "your host",
    "your ip",
    "your mail ",
    "your message",
    "your network",
    "your server",
];
/// Words of a sender, its domain or its host, of which a host may say too that they do not exist. They count where no
/// code says who is meant.
const SENDER: &[&str] = &[
    "absender",
    "afzender",
    "avsändare",
    "callback",
    "callout",
    "dns",
    "envelope",
    "feature",
    "from",
    "mailfrom",
    "maintenance",
    "mittente",
    "mx",
    "nadawc",
    "originator",
    "remetente",
    "remitente",
    "resolv",
    "return",
    "sending",
    "service",
    "отправител",
];
/// Phrases of the same kind.
const SENDER_PHRASES: &[&str] = &[
    "domain does not exist",
    "domain must",
    "domain not found",
    "domain of",
    "expediteur",
    "expéditeur",
    "no such command",
    "no such domain",
    "no such host",
    "unknown domain",
    "your account",
    "your address",
    "your e-mail",
    "your email",
    "发件人",
    "寄件者",
    "送信者",
];
/// Nouns for a mailbox, and what may be said of them to say that they are no more.
const MAILBOX: &[&str] = &["account", "address", "inbox", "konto", "mailbox", "recipient", "user"];
const GONE: &[&str] = &["closed", "deactivated", "deleted", "disabled", "expired", "inactive", "terminated"];

/// Phrases by which a refusal speaks of a time to come, though its code is for ever.
const LATER: &[&str] = &[
    "24-hour",
    "daily limit",
    "frequency limit",
    "hourly limit",
    "per day",
    "per hour",
    "per minute",
    "rate exceeded",
    "rate limit",
    "slow down",
    "too fast",
    "too frequent",
    "too many connections",
    "too many messages",
    "too many recipients",
    "too quickly",
    "sending limit",
    "sending rate",
];
/// Phrases of a mailbox that is not there.
const NO_MAILBOX: &[&str] = &[
    "account not found",
    "address not found",
    "address unknown",
    "cannot be found",
    "desconhecid",
    "desconocid",
    "does not exist",
    "does not have a",
    "doesn't exist",
    "doesn't have a",
    "existe pas",
    "existiert nicht",
    "inconnu",
    "inexist",
    "invalid address",
    "invalid mailbox",
    "invalid recipient",
    "invalid user",
    "mailbox not found",
    "mailbox unavailable",
    "nicht gefunden",
    "nie istnieje",
    "no account",
    "no existe",
    "no longer active",
    "no longer available",
    "no longer exist",
    "no longer here",
    "no longer in use",
    "no longer valid",
    "no mailbox",
    "no recipient",
    "no such",
    "no user",
    "non existent",
    "non-existent",
    "nonexistent",
    "not a valid mailbox",
    "not a valid user",
    "not exist",
    "not found in",
    "not known",
    "not local",
    "not our customer",
    "não existe",
    "onbekend",
    "recipient not found",
    "recipient unknown",
    "sconosciut",
    "unbekannt",
    "undeliverable address",
    "unknown account",
    "unknown address",
    "unknown local",
    "unknown mailbox",
    "unknown recipient",
    "unknown user",
    "unroutable",
    "unrouteable",
    "user doesn't",
    "user has left",
    "user has moved",
    "user not",
    "user not found",
    "user unknown",
    "не найден",
    "не существует",
    "неизвест",
    "不存在",
    "存在しません",
    "없는",
];

/// An enhanced status code (RFC 3463 §2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Status {
    class: u16,
    subject: u16,
    detail: u16,
}

impl Status {
    /// Of an address that does not exist, or of a domain that takes no mail.
    fn is_no_mailbox(&self) -> bool {
        self.class == 5 && self.subject == 1 && matches!(self.detail, 1 | 2 | 3 | 6 | 10)
    }

    /// That of a host which has no code for its reason (RFC 3463 §3.1), or writes one of syntax for any.
    const fn says_nothing(self) -> bool {
        matches!((self.subject, self.detail), (0, 0) | (5, 0))
    }
}

/// A refusal as it is judged.
struct Words {
    /// In lower case, without URLs and addresses, whose words are not the host's.
    text: String,
    codes: Vec<Status>,
}

impl Words {
    fn of(text: &str) -> Self {
        let lower = text.to_lowercase();
        let own = |word: &&str| !word.contains("://") && !word.starts_with("www.");
        // Something may stand behind an address without a blank.
        let behind =
            |word| if str::contains(word, '@') { word.rsplit(['>', ')']).next().unwrap_or_default() } else { word };
        let is_word = |word: &&str| !word.is_empty() && !word.contains('@');
        let kept: Vec<&str> = lower.split_whitespace().filter(own).map(behind).filter(is_word).collect();
        Self { codes: lower.split_whitespace().filter_map(status).collect(), text: kept.join(" ") }
    }

    /// Whether a word begins with one of `stems`; very short ones have to be the word.
    fn has_stem(&self, stems: &[&str]) -> bool {
        let mut words = self.text.split(|c: char| !c.is_alphanumeric() && c != '\'');
        words.any(|word| stems.iter().any(|stem| if stem.len() < 4 { word == *stem } else { word.starts_with(stem) }))
    }

    /// Whether it says that a mailbox is no more: `the account has been disabled`, or `<x@y> is disabled`, without the
    /// address.
    fn says_gone(&self) -> bool {
        let words =
            self.text.split(|c: char| !c.is_alphanumeric()).filter(|word| word.chars().any(char::is_alphabetic));
        let words: Vec<&str> = words.collect();
        let is_gone = |at: usize| {
            let before = words.get(at.saturating_sub(4)..at).unwrap_or_default();
            let is_noun = |word: &&str| MAILBOX.iter().any(|noun| word.starts_with(noun));
            before.iter().any(is_noun) || before.iter().all(|word| ["is", "has", "been", "was"].contains(word))
        };
        words.iter().enumerate().any(|(at, word)| GONE.contains(word) && is_gone(at))
    }

    fn has(&self, phrases: &[&str]) -> bool {
        phrases.iter().any(|phrase| self.text.contains(phrase))
    }

    fn is_policy(&self) -> bool {
        self.codes.iter().any(|status| status.subject == 7) || self.has_stem(POLICY) || self.has(POLICY_PHRASES)
    }

    fn says_later(&self) -> bool {
        self.has(LATER) || self.has_stem(&["graylist", "greylist", "later", "temporar", "throttl"])
    }

    /// Whether it is about the mailbox by its code, whatever its words: a full one is not a matter of rates.
    fn is_of_recipient(&self) -> bool {
        let is_full_or_disabled = |status: &Status| status.subject == 2 && matches!(status.detail, 1..=3);
        self.codes.iter().any(|status| status.class == 5 && (status.is_no_mailbox() || is_full_or_disabled(status)))
    }

    /// Whether the host has no room or no time for more, from us or from anybody.
    fn is_of_load(&self) -> bool {
        const PHRASES: [&str; 10] = [
            "rate limit",
            "rate-limit",
            "rate exceeded",
            "server is busy",
            "server busy",
            "slow down",
            "too many connections",
            "too many messages",
            "too much mail from",
            "insufficient system",
        ];
        let is_of_recipient = self.codes.iter().any(|status| matches!(status.subject, 1 | 2));
        !is_of_recipient && (self.has(&PHRASES) || self.has_stem(&["concurren", "overload", "throttl"]))
    }

    /// Whether it wants TLS: x.7.10 and x.7.11 (RFC 5248), or the words of RFC 3207 §4.
    fn wants_tls(&self) -> bool {
        let is_code = |status: &Status| status.subject == 7 && matches!(status.detail, 10 | 11);
        let wants = self.has_stem(&["must", "need", "requir", "issue", "only"]);
        self.codes.iter().any(is_code) || (wants && self.has_stem(&["starttls", "tls", "ssl", "encrypt"]))
    }

    fn is_of_client(&self) -> bool {
        self.has_stem(&["blacklist", "block", "connection", "dnsbl", "frequen", "ip", "ptr", "rbl", "rdns", "reput"])
    }

    fn says_nothing(&self) -> bool {
        !self.text.chars().any(char::is_alphabetic)
    }

    fn is_no_mailbox(&self, code: Option<u16>) -> bool {
        let codes: Vec<&Status> = self.codes.iter().filter(|status| !status.says_nothing()).collect();
        match codes.as_slice() {
            [] if self.has_stem(SENDER) || self.has(SENDER_PHRASES) => false,
            [] if self.has(NO_MAILBOX) || self.says_gone() => true,
            // RFC 5321 §4.2.3 has these for a mailbox, where nothing is said of the reason.
            [] => self.codes.is_empty() && matches!(code, Some(550 | 551 | 553)) && self.says_nothing(),
            codes => {
                let is_disabled = |status: &&Status| (status.class, status.subject, status.detail) == (5, 2, 1);
                codes.iter().all(|status| status.is_no_mailbox() || is_disabled(status))
            }
        }
    }
}

/// The enhanced status code that a word is, whatever signs stand around it: `5.7.1`, `(#5.7.1)`, `550-5.7.1`, `5.1.1:`.
fn status(word: &str) -> Option<Status> {
    let word = word.trim_matches(|c: char| !c.is_ascii_alphanumeric());
    // `550-5.1.1` is how a continued reply looks, `#smtp;550` how a report names its source.
    let word = word.rsplit(['-', ';', '#', '(', '[', '=', ':']).find(|part| part.contains('.')).unwrap_or(word);
    let mut parts = word.split('.');
    let mut number = |most: usize| {
        let part = parts.next().filter(|part| (1..=most).contains(&part.len()))?;
        part.bytes().all(|byte| byte.is_ascii_digit()).then(|| part.parse::<u16>().ok())?
    };
    let (class, subject, detail) = (number(1)?, number(3)?, number(3)?);
    (parts.next().is_none() && matches!(class, 2 | 4 | 5)).then_some(Status { class, subject, detail })
}

#[cfg(test)]
mod tests;
