//! Authenticated envelope senders: bounce addresses, and SRS addresses for forwarded mail.
//!
//! Only this server can create one, so mail to one reports on something that was really sent, and strangers cannot
//! use them. Remote hosts may change the case of a local part, so tags are case-insensitive.

use std::time::Duration;

use data_encoding::BASE32HEX_NOPAD;
use ring::hmac;

use crate::clock::Timestamp;
use crate::id::MessageId;
use crate::mail::address::Mailbox;
use crate::secrets::FormerKey;

const BOUNCE: &str = "bounce+";
const SRS0: &str = "SRS0=";
const SRS1: &str = "SRS1=";
/// Octets of the MAC in a bounce tag.
const PROOF: usize = 8;
/// Octets of a message id.
const ID: usize = 12;
/// Octets of the MAC in an SRS tag: eight characters.
const SRS_PROOF: usize = 5;
/// Days that other hosts retry before they give up and report it (RFC 5321 §4.5.4.1).
const OTHERS_TRY: i64 = 5;
/// Days that this server retries by default.
const WE_TRY: i64 = 3;
/// Time for which addresses of a former key are accepted: abuse reports come weeks later.
const FORMER: Duration = Duration::from_secs(90 * 86_400);
const DAY: i64 = 86_400;
/// SRS counts days modulo this number, as two base-32 characters.
const SRS_CYCLE: i64 = 1024;
/// Limit of a local part (RFC 5321 §4.5.3.1.1).
const MAX_LOCAL: usize = 64;
const BASE62: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/// Creates and verifies envelope senders.
pub struct ReturnPaths {
    key: hmac::Key,
    hostname: String,
    /// The former domain of these addresses, where they are still accepted.
    former: Option<String>,
    /// Days that an SRS address stays valid.
    srs_days: i64,
    /// The sender used in place of one that has no SRS form.
    fallback: Option<Mailbox>,
    /// Those of former keys, and the end of their acceptance.
    earlier: Vec<(Self, Timestamp)>,
}

/// The decoded form of one of our addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReturnPath {
    /// A message sent from here, to one of its recipients.
    Bounce(BounceTag),
    /// The original sender of a forwarded message.
    Srs(Mailbox),
}

/// The contents of a bounce address, which proves that a message went to one recipient with it as envelope sender. A
/// report sent to it says nothing about the other recipients.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BounceTag {
    /// The message that was sent.
    pub message: MessageId,
    /// The recipient's index in it, from 0. `None` for addresses of an earlier version, which did not identify the
    /// recipient.
    pub recipient: Option<u16>,
}

impl ReturnPaths {
    /// Uses this key for the MACs; SRS addresses are at `hostname`.
    pub fn new(key: [u8; 32], hostname: &str) -> Self {
        Self {
            key: hmac::Key::new(hmac::HMAC_SHA256, &key),
            hostname: hostname.to_owned(),
            former: None,
            srs_days: WE_TRY + OTHERS_TRY,
            fallback: Mailbox::parse(&format!("postmaster@{hostname}")).ok(),
            earlier: Vec::new(),
        }
    }

    /// Sets the lifetime to cover mail that this server retries for `give_up_after`; addresses at `former` are
    /// accepted too.
    pub(crate) fn lasting(self, give_up_after: Duration, former: &str) -> Self {
        let days = i64::try_from(give_up_after.as_secs().div_ceil(86_400)).unwrap_or(WE_TRY);
        Self { srs_days: days.min(SRS_CYCLE / 2) + OTHERS_TRY, former: Some(former.to_owned()), ..self }
    }

    /// Accepts addresses that were made with these keys, too.
    pub(crate) fn accepting(self, former: &[FormerKey]) -> Self {
        let earlier = former.iter().map(|former| {
            let paths = Self {
                key: hmac::Key::new(hmac::HMAC_SHA256, &former.key),
                hostname: self.hostname.clone(),
                former: self.former.clone(),
                srs_days: self.srs_days,
                fallback: None,
                earlier: Vec::new(),
            };
            (paths, former.replaced_at.plus(FORMER))
        });
        let earlier = earlier.collect();
        Self { earlier, ..self }
    }

    /// Returns `bounce+<tag>@<domain>` for a message to one of its recipients; the tag is the message's id, the
    /// recipient's index and the MAC.
    pub fn bounce(&self, message: &MessageId, recipient: u16, domain: &str) -> Option<Mailbox> {
        let mut octets = id_octets(message.suffix())?;
        octets.extend(recipient.to_be_bytes());
        octets.extend_from_slice(&self.bounce_proof(message.suffix(), Some(recipient))?);
        let tag = BASE32HEX_NOPAD.encode(&octets).to_ascii_lowercase();
        Mailbox::parse(&format!("{BOUNCE}{tag}@{domain}")).ok()
    }

    /// Returns `SRS0=<mac>=<day>=<domain>=<local>@<hostname>`; for a sender that is an SRS address already, SRS1 with
    /// the first forwarder's domain and the day right behind the MAC, since other forwarders take both for one tag. A
    /// sender that is too long for that, or not of a form that mail is sent with, becomes [`ReturnPaths::nobody`]:
    /// bounces could not reach it anyway.
    pub fn srs(&self, sender: &Mailbox, now: Timestamp) -> Option<Mailbox> {
        let (local, domain) = (sender.local(), sender.domain().as_str());
        let rewritten = match strip_prefix_any_case(local, "SRS1=").or_else(|| strip_prefix_any_case(local, "SRS0="))
        {
            // The first forwarder authenticated its own part; our part goes before it.
            Some(_) => {
                let first = first_forwarder(local, domain)?;
                let day = srs_day(now);
                format!("{SRS1}{}{day}={first}", self.srs_proof(SRS1, &format!("{day}={first}"))?)
            }
            None => {
                let day = srs_day(now);
                let rest = format!("{domain}={local}");
                format!("{SRS0}{}={day}={rest}", self.srs_proof(SRS0, &format!("{day}={rest}"))?)
            }
        };
        if rewritten.len() > MAX_LOCAL {
            return self.nobody();
        }
        Mailbox::parse(&format!("{rewritten}@{}", self.hostname)).ok().or_else(|| self.nobody())
    }

    /// Returns the postmaster, for a sender that has no SRS form.
    pub(crate) fn nobody(&self) -> Option<Mailbox> {
        self.fallback.clone()
    }

    /// Decodes one of our addresses; `None` when it is not of our form, its MAC is wrong, or it has expired.
    pub fn read(&self, address: &Mailbox, now: Timestamp) -> Option<ReturnPath> {
        let mut earlier = self.earlier.iter().filter(|(_, until)| now < *until);
        self.read_own(address, now).or_else(|| earlier.find_map(|(paths, _)| paths.read_own(address, now)))
    }

    fn read_own(&self, address: &Mailbox, now: Timestamp) -> Option<ReturnPath> {
        let local = address.local();
        if let Some(tag) = strip_prefix_any_case(local, BOUNCE) {
            return self.read_bounce(tag).map(ReturnPath::Bounce);
        }
        let domain = address.domain().as_str();
        let ours = [Some(&self.hostname), self.former.as_ref()];
        if !ours.into_iter().flatten().any(|name| name.eq_ignore_ascii_case(domain)) {
            return None;
        }
        if let Some(rest) = strip_prefix_any_case(local, SRS0) {
            return self.read_srs0(rest, now).map(ReturnPath::Srs);
        }
        let (tag, rest) = strip_prefix_any_case(local, SRS1)?.split_once('=')?;
        let (proof, day) = tag.split_at_checked(tag.len().checked_sub(2)?)?;
        (self.is_srs_proof(SRS1, proof, &format!("{day}={rest}")) && self.is_fresh(day, now)).then_some(())?;
        let (host, inner) = rest.split_once("==")?;
        Mailbox::parse(&format!("SRS0={inner}@{host}")).ok().map(ReturnPath::Srs)
    }

    fn read_bounce(&self, tag: &str) -> Option<BounceTag> {
        let octets = BASE32HEX_NOPAD.decode(tag.to_ascii_uppercase().as_bytes()).ok()?;
        let (id, rest) = octets.split_at_checked(ID)?;
        let (recipient, proof) = rest.split_at_checked(rest.len().checked_sub(PROOF)?)?;
        let recipient = match recipient {
            [] => None,
            [high, low] => Some(u16::from_be_bytes([*high, *low])),
            _ => return None,
        };
        let suffix = id_of(id)?;
        let wanted = self.bounce_proof(&suffix, recipient)?;
        let message = MessageId::parse(&format!("{}{suffix}", MessageId::PREFIX))?;
        is_same(&wanted, proof).then_some(BounceTag { message, recipient })
    }

    fn bounce_proof(&self, suffix: &str, recipient: Option<u16>) -> Option<[u8; PROOF]> {
        match recipient {
            Some(recipient) => self.proof("bounce", &format!("{suffix}/{recipient}")),
            None => self.proof("bounce", suffix),
        }
    }

    fn read_srs0(&self, rest: &str, now: Timestamp) -> Option<Mailbox> {
        let (proof, rest) = rest.split_once('=')?;
        if !self.is_srs_proof(SRS0, proof, rest) {
            return None;
        }
        let (day, rest) = rest.split_once('=')?;
        let (domain, local) = rest.split_once('=')?;
        self.is_fresh(day, now).then(|| Mailbox::parse(&format!("{local}@{domain}")).ok())?
    }

    /// Returns true if an address of that day is still valid.
    fn is_fresh(&self, day: &str, now: Timestamp) -> bool {
        srs_day_number(day).is_some_and(|made| (now.as_secs() / DAY - made).rem_euclid(SRS_CYCLE) <= self.srs_days)
    }

    /// Computes the MAC of the text in lower case, since remote hosts may have changed its case. It includes the
    /// form, because an SRS0 address read as SRS1 would name somebody else, and vice versa.
    fn srs_octets(&self, form: &str, text: &str) -> Option<[u8; SRS_PROOF]> {
        self.proof(if form == SRS1 { "srs1" } else { "srs" }, &text.to_lowercase())
    }

    fn srs_proof(&self, form: &str, text: &str) -> Option<String> {
        Some(BASE32HEX_NOPAD.encode(&self.srs_octets(form, text)?))
    }

    fn is_srs_proof(&self, form: &str, given: &str, text: &str) -> bool {
        let decoded = BASE32HEX_NOPAD.decode(given.to_ascii_uppercase().as_bytes());
        let wanted = self.srs_octets(form, text);
        wanted.zip(decoded.ok()).is_some_and(|(wanted, decoded)| is_same(&wanted, &decoded))
    }

    fn proof<const N: usize>(&self, purpose: &str, text: &str) -> Option<[u8; N]> {
        let mut context = hmac::Context::with_key(&self.key);
        context.update(purpose.as_bytes());
        context.update(b"\0");
        context.update(text.as_bytes());
        context.sign().as_ref().first_chunk::<N>().copied()
    }
}

/// Compares in constant time.
fn is_same(wanted: &[u8], given: &[u8]) -> bool {
    let differs = wanted.iter().zip(given).fold(0, |sum, (a, b)| sum | (a ^ b));
    wanted.len() == given.len() && differs == 0
}

fn strip_prefix_any_case<'t>(text: &'t str, prefix: &str) -> Option<&'t str> {
    let (head, rest) = text.split_at_checked(prefix.len())?;
    head.eq_ignore_ascii_case(prefix).then_some(rest)
}

/// Returns `<first forwarder>==<its tag>` of an SRS address.
fn first_forwarder(local: &str, domain: &str) -> Option<String> {
    match strip_prefix_any_case(local, SRS1) {
        Some(rest) => rest.split_once('=').map(|(_, rest)| rest.to_owned()).filter(|rest| rest.contains("==")),
        None => strip_prefix_any_case(local, SRS0).map(|rest| format!("{domain}=={rest}")),
    }
}

fn srs_day(now: Timestamp) -> String {
    let day = (now.as_secs() / DAY).rem_euclid(SRS_CYCLE);
    let digit = |value: i64| usize::try_from(value).ok().and_then(|at| b"0123456789ABCDEFGHIJKLMNOPQRSTUV".get(at));
    [digit(day / 32), digit(day % 32)].into_iter().flatten().map(|byte| char::from(*byte)).collect()
}

fn srs_day_number(text: &str) -> Option<i64> {
    let mut day = 0;
    for c in text.chars() {
        day = day * 32 + i64::from(c.to_digit(32)?);
    }
    (text.len() == 2).then_some(day)
}

/// Packs sixteen base-62 characters, six bits each.
fn id_octets(suffix: &str) -> Option<Vec<u8>> {
    let mut bits: u128 = 0;
    for byte in suffix.bytes() {
        let value = BASE62.iter().position(|known| *known == byte)?;
        bits = (bits << 6) | u128::try_from(value).ok()?;
    }
    (suffix.len() == 16).then(|| bits.to_be_bytes().get(4..).map(<[u8]>::to_vec))?
}

fn id_of(octets: &[u8]) -> Option<String> {
    let mut whole = [0; 16];
    whole.get_mut(4..)?.iter_mut().zip(octets).for_each(|(to, from)| *to = *from);
    let bits = u128::from_be_bytes(whole);
    let character = |place: u32| {
        let value = usize::try_from((bits >> (6 * place)) & 63).ok()?;
        BASE62.get(value).map(|byte| char::from(*byte))
    };
    (octets.len() == 12).then(|| (0..16).rev().map(character).collect())?
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests may panic")]

    use proptest::prelude::*;

    use super::*;

    const NOW: Timestamp = Timestamp::from_millis(1_785_196_800_000);

    fn paths() -> ReturnPaths {
        ReturnPaths::new([7; 32], "mail.acme.dev")
    }

    fn mailbox(text: &str) -> Mailbox {
        Mailbox::parse(text).unwrap()
    }

    #[test]
    fn a_bounce_address_names_its_message_and_recipient_in_any_case() {
        let id = MessageId::parse("msg_2Hk9QpVn4tLdA1B2").unwrap();
        let address = paths().bounce(&id, 7, "acme.dev").unwrap();
        assert!(address.local().len() <= 43 && address.local().starts_with("bounce+"), "{address}");
        for spelled in [address.to_string(), address.to_string().to_uppercase()] {
            let tag = BounceTag { message: id.clone(), recipient: Some(7) };
            assert_eq!(paths().read(&mailbox(&spelled), NOW), Some(ReturnPath::Bounce(tag)), "{spelled}");
        }
        // The MAC of an earlier version, over the message alone.
        let mut octets = id_octets(id.suffix()).unwrap();
        octets.extend(paths().bounce_proof(id.suffix(), None).unwrap());
        let earlier = mailbox(&format!("bounce+{}@acme.dev", BASE32HEX_NOPAD.encode(&octets)));
        let tag = BounceTag { message: id, recipient: None };
        assert_eq!(paths().read(&earlier, NOW), Some(ReturnPath::Bounce(tag)));
        let other = ReturnPaths::new([8; 32], "mail.acme.dev");
        assert_eq!(other.read(&address, NOW), None, "another server's");
    }

    #[test]
    fn a_changed_character_proves_nothing() {
        let id = MessageId::new(NOW);
        let address = paths().bounce(&id, 0, "acme.dev").unwrap().to_string();
        for at in "bounce+".len()..address.find('@').unwrap() {
            let mut changed = address.clone().into_bytes();
            let byte = changed.get_mut(at).unwrap();
            *byte = if *byte == b'0' { b'1' } else { b'0' };
            let changed = String::from_utf8(changed).unwrap();
            assert_eq!(paths().read(&mailbox(&changed), NOW), None, "{changed}");
        }
        for text in ["bounce+@a.test", "bounce+x@a.test", "bounce@a.test", "ada@a.test", "srs0=a@mail.acme.dev"] {
            assert_eq!(paths().read(&mailbox(text), NOW), None, "{text}");
        }
    }

    #[test]
    fn srs_gives_the_sender_back_as_long_as_mail_may_be_on_its_way() {
        let sender = mailbox("ada@example.com");
        let address = paths().srs(&sender, NOW).unwrap();
        assert!(address.to_string().starts_with("SRS0=") && address.to_string().ends_with("@mail.acme.dev"));
        let lower = mailbox(&address.to_string().to_lowercase());
        let later = |days: u64| NOW.plus(Duration::from_secs(days * 86_400));
        assert_eq!(paths().read(&lower, later(8)), Some(ReturnPath::Srs(sender.clone())));
        assert_eq!(paths().read(&lower, later(9)), None);
        let week = Duration::from_secs(7 * 86_400);
        let patient = ReturnPaths::new([7; 32], "fwd.acme.net").lasting(week, "mail.acme.dev");
        assert_eq!(patient.read(&lower, later(12)), Some(ReturnPath::Srs(sender.clone())), "at its former name");
        assert_eq!(patient.read(&lower, later(13)), None);
        assert!(patient.srs(&sender, NOW).unwrap().to_string().ends_with("@fwd.acme.net"));
        let elsewhere = mailbox(&address.to_string().replace("mail.acme.dev", "other.test"));
        assert_eq!(paths().read(&elsewhere, NOW), None);
    }

    #[test]
    fn a_chain_of_forwarders_stays_short() {
        let first = ReturnPaths::new([1; 32], "one.test").srs(&mailbox("ada@example.com"), NOW).unwrap();
        let second = paths().srs(&first, NOW).unwrap();
        assert!(second.local().starts_with("SRS1="), "{second}");
        assert_eq!(paths().read(&second, NOW), Some(ReturnPath::Srs(first.clone())));
        let later = |days: u64| NOW.plus(Duration::from_secs(days * 86_400));
        let lower = mailbox(&second.to_string().to_lowercase());
        assert!(paths().read(&lower, later(8)).is_some());
        assert_eq!(paths().read(&second, later(9)), None, "as long as SRS0");
        let third = ReturnPaths::new([3; 32], "three.test").srs(&second, NOW).unwrap();
        assert!(third.local().contains("=one.test=="), "{third}");
        assert_eq!(ReturnPaths::new([3; 32], "three.test").read(&third, NOW), Some(ReturnPath::Srs(first)));
        let long = mailbox(&format!("{}@{}.example", "l".repeat(50), "d".repeat(50)));
        assert_eq!(paths().srs(&long, NOW).unwrap().to_string(), "postmaster@mail.acme.dev");
    }

    #[test]
    fn neither_form_of_srs_is_read_as_the_other() {
        let first = ReturnPaths::new([1; 32], "one.test").srs(&mailbox("ada@example.com"), NOW).unwrap();
        let second = paths().srs(&first, NOW).unwrap().to_string();
        let (tag, rest) = second.strip_prefix(SRS1).unwrap().split_once('=').unwrap();
        let (proof, day) = tag.split_at(tag.len() - 2);
        let odd = paths().srs(&mailbox("=ada@example.com"), NOW).unwrap().to_string();
        let (odd_proof, odd_rest) = odd.strip_prefix(SRS0).unwrap().split_once('=').unwrap();
        let (odd_day, odd_rest) = odd_rest.split_once('=').unwrap();
        for forged in [format!("{SRS0}{proof}={day}={rest}"), format!("{SRS1}{odd_proof}{odd_day}={odd_rest}")] {
            assert_eq!(paths().read(&mailbox(&forged), NOW), None, "{forged}");
        }
        assert!(paths().read(&mailbox(&second), NOW).is_some() && paths().read(&mailbox(&odd), NOW).is_some());
    }

    proptest! {
        #[test]
        fn every_id_and_sender_comes_back(
            suffix in "[0-9A-Za-z]{16}", recipient in any::<u16>(), local in "[a-z0-9.+-]{1,12}"
        ) {
            let message = MessageId::parse(&format!("msg_{suffix}")).unwrap();
            let address = paths().bounce(&message, recipient, "acme.dev").unwrap();
            let tag = BounceTag { message, recipient: Some(recipient) };
            prop_assert_eq!(paths().read(&address, NOW), Some(ReturnPath::Bounce(tag)));
            if let Ok(sender) = Mailbox::parse(&format!("{local}@example.com")) {
                let address = paths().srs(&sender, NOW).unwrap();
                prop_assert_eq!(paths().read(&address, NOW), Some(ReturnPath::Srs(sender)));
            }
        }

        #[test]
        fn any_local_part_is_read_or_not(local in "(bounce\\+|SRS0=|SRS1=)[a-zA-Z0-9=+.]{0,40}") {
            if let Ok(address) = Mailbox::parse(&format!("{local}@mail.acme.dev")) {
                let _ = paths().read(&address, NOW);
            }
        }
    }
}
