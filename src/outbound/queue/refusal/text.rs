//! The text of a refusal, prepared for matching, and the questions that are asked of it.

use super::phrases::{
    DISABLED, LOAD_PHRASES, MAILBOX_NOUNS, NO_MAILBOX_PHRASES, POLICY, POLICY_PHRASES, REVERSE_DNS_PHRASES, SENDER,
    SENDER_PHRASES, TEMPORARY_PHRASES,
};
use crate::mail::status_code::EnhancedStatusCode;

/// True for the codes of an address that does not exist, and of a domain that takes no mail.
pub(crate) fn is_no_mailbox(code: EnhancedStatusCode) -> bool {
    code.is_permanent() && code.subject == 1 && matches!(code.detail, 1 | 2 | 3 | 6 | 10)
}

pub(super) struct RefusalText {
    /// In lower case, without URLs and addresses, which may hold any word.
    text: String,
    /// The enhanced codes of the text, in their order; a report's Status field first.
    pub(super) codes: Vec<EnhancedStatusCode>,
}

impl RefusalText {
    pub(super) fn parse(text: &str) -> Self {
        let lower = text.to_lowercase();
        let is_no_url = |word: &&str| !word.contains("://") && !word.starts_with("www.");
        // Text may follow an address without a blank.
        let after_address =
            |word| if str::contains(word, '@') { word.rsplit(['>', ')']).next().unwrap_or_default() } else { word };
        let is_word = |word: &&str| !word.is_empty() && !word.contains('@');
        let words: Vec<&str> =
            lower.split_whitespace().filter(is_no_url).map(after_address).filter(is_word).collect();
        Self { codes: EnhancedStatusCode::find_in(&lower).collect(), text: words.join(" ") }
    }

    /// True if a word begins with one of `stems`. A stem of fewer than four letters has to be the whole word.
    fn has_stem(&self, stems: &[&str]) -> bool {
        let mut words = self.text.split(|c: char| !c.is_alphanumeric() && c != '\'');
        words.any(|word| stems.iter().any(|stem| if stem.len() < 4 { word == *stem } else { word.starts_with(stem) }))
    }

    fn has_phrase(&self, phrases: &[&str]) -> bool {
        phrases.iter().any(|phrase| self.text.contains(phrase))
    }

    /// True for `the account has been disabled`, and for `<x@y> is disabled`, whose address is left out.
    fn is_mailbox_disabled(&self) -> bool {
        let words =
            self.text.split(|c: char| !c.is_alphanumeric()).filter(|word| word.chars().any(char::is_alphabetic));
        let words: Vec<&str> = words.collect();
        let is_about_mailbox = |at: usize| {
            let before = words.get(at.saturating_sub(4)..at).unwrap_or_default();
            let is_noun = |word: &&str| MAILBOX_NOUNS.iter().any(|noun| word.starts_with(noun));
            before.iter().any(is_noun) || before.iter().all(|word| ["is", "has", "been", "was"].contains(word))
        };
        words.iter().enumerate().any(|(at, word)| DISABLED.contains(word) && is_about_mailbox(at))
    }

    /// True if it is about the sender, its host or the content.
    pub(super) fn is_policy(&self) -> bool {
        self.codes.iter().any(|code| code.subject == 7) || self.has_stem(POLICY) || self.has_phrase(POLICY_PHRASES)
    }

    pub(super) fn is_temporary(&self) -> bool {
        self.has_phrase(TEMPORARY_PHRASES) || self.has_stem(&["graylist", "greylist", "later", "temporar", "throttl"])
    }

    /// True if a code says that it is about the mailbox, whatever the words: a full one is not a matter of rates.
    pub(super) fn has_permanent_mailbox_code(&self) -> bool {
        let is_full_or_disabled = |code: EnhancedStatusCode| code.subject == 2 && matches!(code.detail, 1..=3);
        self.codes.iter().any(|&code| code.is_permanent() && (is_no_mailbox(code) || is_full_or_disabled(code)))
    }

    /// True if the host is overloaded or limits rates, for this client or for all.
    pub(super) fn is_overload(&self) -> bool {
        let is_about_recipient = self.codes.iter().any(|code| matches!(code.subject, 1 | 2));
        !is_about_recipient && (self.has_phrase(LOAD_PHRASES) || self.has_stem(&["concurren", "overload", "throttl"]))
    }

    /// True if the host requires TLS: x.7.10 and x.7.11 (RFC 5248), or the words of RFC 3207 §4.
    pub(super) fn requires_tls(&self) -> bool {
        let is_code = |code: &EnhancedStatusCode| code.subject == 7 && matches!(code.detail, 10 | 11);
        let requires = self.has_stem(&["must", "need", "requir", "issue", "only"]);
        self.codes.iter().any(is_code) || (requires && self.has_stem(&["starttls", "tls", "ssl", "encrypt"]))
    }

    /// True if it is about the client's address.
    pub(super) fn is_about_client(&self) -> bool {
        self.has_stem(&["blacklist", "block", "connection", "dnsbl", "frequen", "ip", "ptr", "rbl", "rdns", "reput"])
    }

    /// True if the client's address lacks a matching name in DNS.
    pub(super) fn requires_reverse_dns(&self) -> bool {
        let is_code = |code: &EnhancedStatusCode| (code.subject, code.detail) == (7, 25);
        self.codes.iter().any(is_code) || self.has_stem(&["ptr", "rdns"]) || self.has_phrase(REVERSE_DNS_PHRASES)
    }

    /// True if the mailbox does not exist or is disabled: by all enhanced codes that name a condition; without such a
    /// code, by the words; without either, by the reply code.
    pub(super) fn is_no_mailbox(&self, code: u16) -> bool {
        // RFC 3463 §3.1 has x.0.0 for a host without a code for its reason; some write one of syntax for any.
        let names_condition = |code: &&EnhancedStatusCode| !matches!((code.subject, code.detail), (0 | 5, 0));
        let codes: Vec<&EnhancedStatusCode> = self.codes.iter().filter(names_condition).collect();
        match codes.as_slice() {
            [] if self.has_stem(SENDER) || self.has_phrase(SENDER_PHRASES) => false,
            [] if self.has_phrase(NO_MAILBOX_PHRASES) || self.is_mailbox_disabled() => true,
            // RFC 5321 §4.2.3 has these for a mailbox, where no reason is given.
            [] => self.codes.is_empty() && matches!(code, 550 | 551 | 553) && !self.has_words(),
            codes => codes.iter().all(|&&code| is_no_mailbox(code) || code == EnhancedStatusCode::permanent(2, 1)),
        }
    }

    fn has_words(&self) -> bool {
        self.text.chars().any(char::is_alphabetic)
    }
}
