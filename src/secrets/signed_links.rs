//! HMAC-signed attachment links: `<public_url>/att/:mid/:idx?exp=…&sig=…` (contract 7.1).
//!
//! Pure: makes and verifies links; the HTTP handler looks up the object. Links made with the key of a former master key
//! stay valid until they expire.

use std::time::Duration;

use ring::hmac;

use super::FormerKey;
use crate::clock::Timestamp;
use crate::id::{MessageId, UploadId};
use data_encoding::HEXLOWER;

/// Lifetime of the links to attachments of received mail (contract 7.1).
const ATTACHMENT: Duration = Duration::from_secs(604_800);
/// Lifetime of the longest links, to uploads (contract 7.2).
const LONGEST: Duration = Duration::from_secs(365 * 86_400);

/// Makes and verifies the signed links of one installation.
#[derive(Clone, Debug)]
pub struct Links {
    public_url: String,
    key: hmac::Key,
    /// Keys that were replaced, with the time of that, the latest first.
    former: Vec<(hmac::Key, Timestamp)>,
}

/// The target of a valid link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LinkTarget {
    /// An attachment of a message, by its zero-based index.
    Attachment(MessageId, u32),
    /// An uploaded file.
    Upload(UploadId),
}

/// The reasons to refuse a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LinkError {
    /// The signature is missing, malformed or not ours: 403 `bad_signature`.
    #[error("the signature of this link is not valid")]
    BadSignature,
    /// The link is genuine, but its time has passed: 410 `link_expired`.
    #[error("this link has expired")]
    Expired,
}

impl Links {
    /// Links below `public_url`, signed with `key`; `former` keys, the latest first, sign what they signed before.
    pub fn new(public_url: &str, key: [u8; 32], former: &[FormerKey]) -> Self {
        let hmac_key = |bytes: [u8; 32]| hmac::Key::new(hmac::HMAC_SHA256, &bytes);
        Self {
            public_url: public_url.trim_end_matches('/').to_owned(),
            key: hmac_key(key),
            former: former.iter().map(|former| (hmac_key(former.key), former.replaced_at)).collect(),
        }
    }

    /// Returns the prefix of every link, without trailing slash.
    pub(crate) fn public_url(&self) -> &str {
        &self.public_url
    }

    /// Returns the link to file `idx` of `mid` (a message id's suffix, or a whole upload id), valid until `exp_secs`
    /// in Unix seconds.
    pub fn url(&self, mid: &str, idx: u32, exp_secs: i64) -> String {
        let mid = mid.strip_prefix(MessageId::PREFIX).unwrap_or(mid);
        let sig =
            HEXLOWER.encode(hmac::sign(self.key_of(exp_secs), signed_text(mid, idx, exp_secs).as_bytes()).as_ref());
        format!("{}/att/{mid}/{idx}?exp={exp_secs}&sig={sig}", self.public_url)
    }

    /// Returns the key for links that end then: those to mail received under a former key keep their text, which
    /// payloads of later attempts repeat.
    fn key_of(&self, exp_secs: i64) -> &hmac::Key {
        let made = |replaced_at: &Timestamp| exp_secs <= replaced_at.plus(ATTACHMENT).as_secs();
        self.former.iter().rfind(|(_, replaced_at)| made(replaced_at)).map_or(&self.key, |(key, _)| key)
    }

    /// Verifies a link by its parts as they appear in the request; `mid` may have the prefix `msg_`.
    ///
    /// Every part has one spelling (decimal without leading zeros, lower-case hex), so that no second form of a link
    /// is ever valid. The comparison takes constant time.
    pub fn verify(
        &self,
        mid: &str,
        idx: &str,
        exp: &str,
        sig: &str,
        now: Timestamp,
    ) -> Result<LinkTarget, LinkError> {
        let mid = mid.strip_prefix(MessageId::PREFIX).unwrap_or(mid);
        let parts = (target(mid, idx), decimal::<i64>(exp), HEXLOWER.decode(sig.as_bytes()).ok());
        let (Some((target, idx)), Some(exp_secs), Some(tag)) = parts else {
            return Err(LinkError::BadSignature);
        };
        let text = signed_text(mid, idx, exp_secs);
        let genuine = |key| hmac::verify(key, text.as_bytes(), &tag).is_ok();
        let made = |replaced_at: &Timestamp| exp_secs <= replaced_at.plus(LONGEST).as_secs();
        let mut former = self.former.iter().filter(|(_, replaced_at)| made(replaced_at));
        if !genuine(&self.key) && !former.any(|(key, _)| genuine(key)) {
            return Err(LinkError::BadSignature);
        }
        if now.as_millis() > exp_secs.saturating_mul(1000) {
            return Err(LinkError::Expired);
        }
        Ok(target)
    }
}

/// Returns the signed text. `mid` has a fixed alphabet and the others are digits, so no two links share a text.
fn signed_text(mid: &str, idx: u32, exp_secs: i64) -> String {
    format!("att/{mid}/{idx}\n{exp_secs}")
}

fn target(mid: &str, idx: &str) -> Option<(LinkTarget, u32)> {
    let idx = decimal::<u32>(idx)?;
    let target = match UploadId::parse(mid) {
        Some(upload) => (idx == 0).then_some(LinkTarget::Upload(upload))?,
        None => LinkTarget::Attachment(MessageId::parse(&format!("{}{mid}", MessageId::PREFIX))?, idx),
    };
    Some((target, idx))
}

/// Parses a decimal number in its one spelling: digits only, no leading zero.
fn decimal<T: std::str::FromStr>(text: &str) -> Option<T> {
    let one_spelling = text == "0" || !text.starts_with('0');
    (one_spelling && text.bytes().all(|byte| byte.is_ascii_digit())).then(|| text.parse().ok())?
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, clippy::string_slice, reason = "tests may panic")]
    use super::*;

    const MID: &str = "2Hk9QpVn4tLdA1B2";
    const EXP: i64 = 1_785_801_600;
    const SIG: &str = "055316c7da4a95ddceeb0a367a4dadba21dc4b703e2ce17bdc90292fa1163344";
    const NOW: Timestamp = Timestamp::from_millis(1_785_196_800_000);

    fn key(first: u8) -> [u8; 32] {
        std::array::from_fn(|at| first.wrapping_add(at as u8))
    }

    fn links() -> Links {
        Links::new("https://mail.acme.dev/", key(0), &[])
    }

    #[test]
    fn the_vector_of_the_contract_is_emitted_and_accepted() {
        assert_eq!(
            links().url(MID, 0, EXP),
            format!("https://mail.acme.dev/att/2Hk9QpVn4tLdA1B2/0?exp=1785801600&sig={SIG}")
        );
        let message = MessageId::parse("msg_2Hk9QpVn4tLdA1B2").unwrap();
        let target = Ok(LinkTarget::Attachment(message, 0));
        assert_eq!(links().verify(MID, "0", "1785801600", SIG, NOW), target);
        assert_eq!(links().verify("msg_2Hk9QpVn4tLdA1B2", "0", "1785801600", SIG, NOW), target);
    }

    #[test]
    fn an_upload_keeps_its_whole_id_and_has_index_zero_only() {
        let upload = "upl_5TgB6yHn7UjM8iKo";
        let sig = |url: String| url.rsplit_once("sig=").unwrap().1.to_owned();
        let good = sig(links().url(upload, 0, EXP));
        let target = LinkTarget::Upload(UploadId::parse(upload).unwrap());
        assert_eq!(links().verify(upload, "0", "1785801600", &good, NOW), Ok(target));
        let other = sig(links().url(upload, 1, EXP));
        assert_eq!(links().verify(upload, "1", "1785801600", &other, NOW), Err(LinkError::BadSignature));
    }

    #[test]
    fn any_changed_character_and_any_second_spelling_is_refused() {
        for at in 0..SIG.len() {
            let flipped = if &SIG[at..=at] == "0" { "1" } else { "0" };
            let sig = format!("{}{flipped}{}", &SIG[..at], &SIG[at + 1..]);
            assert_eq!(links().verify(MID, "0", "1785801600", &sig, NOW), Err(LinkError::BadSignature));
        }
        let upper = SIG.to_uppercase();
        let short = &SIG[..62];
        let cases = [
            ("2Hk9QpVn4tLdA1B3", "0", "1785801600", SIG),
            ("2hk9QpVn4tLdA1B2", "0", "1785801600", SIG),
            ("msg_msg_2Hk9QpVn4tLdA1B2", "0", "1785801600", SIG),
            ("", "0", "1785801600", SIG),
            (MID, "1", "1785801600", SIG),
            (MID, "00", "1785801600", SIG),
            (MID, "+0", "1785801600", SIG),
            (MID, "", "1785801600", SIG),
            (MID, "99999999999", "1785801600", SIG),
            (MID, "0", "1785801601", SIG),
            (MID, "0", "01785801600", SIG),
            (MID, "0", "+1785801600", SIG),
            (MID, "0", "99999999999999999999", SIG),
            (MID, "0", "", SIG),
            (MID, "0", "1785801600", ""),
            (MID, "0", "1785801600", short),
            (MID, "0", "1785801600", upper.as_str()),
        ];
        for (mid, idx, exp, sig) in cases {
            let refused = links().verify(mid, idx, exp, sig, NOW);
            assert_eq!(refused, Err(LinkError::BadSignature), "{mid} {idx} {exp} {sig}");
        }
    }

    #[test]
    fn a_genuine_link_expires_after_its_second_and_a_forged_one_is_forged_first() {
        let at = |millis| links().verify(MID, "0", "1785801600", SIG, Timestamp::from_millis(millis));
        assert!(at(EXP * 1000).is_ok());
        assert_eq!(at(EXP * 1000 + 1), Err(LinkError::Expired));
        let late = Timestamp::from_millis(i64::MAX);
        assert_eq!(links().verify(MID, "1", "1785801600", SIG, late), Err(LinkError::BadSignature));
    }

    #[test]
    fn links_of_a_former_key_stay_valid_and_the_same_and_others_are_not_made_with_it() {
        let rotated = |key_now, at: i64| {
            let former = FormerKey { key: key(0), replaced_at: Timestamp::from_millis(at) };
            Links::new("https://mail.acme.dev", key(key_now), &[former])
        };
        let links_now = rotated(7, NOW.as_millis());
        assert!(links_now.verify(MID, "0", "1785801600", SIG, NOW).is_ok());
        let week = i64::try_from(ATTACHMENT.as_secs()).unwrap();
        let (before, after) = (NOW.as_secs() + week, NOW.as_secs() + week + 1);
        assert_eq!(links_now.url(MID, 0, before), links().url(MID, 0, before), "of mail received before");
        assert_ne!(links_now.url(MID, 0, after), links().url(MID, 0, after));
        let sig = |links: &Links, exp| links.url(MID, 0, exp).rsplit_once("sig=").unwrap().1.to_owned();
        let late = NOW.as_secs() + i64::try_from(LONGEST.as_secs()).unwrap() + 1;
        let forged = sig(&links(), late);
        assert_eq!(links_now.verify(MID, "0", &late.to_string(), &forged, NOW), Err(LinkError::BadSignature));
        let none = Links::new("https://mail.acme.dev", key(7), &[]);
        assert_eq!(none.verify(MID, "0", "1785801600", SIG, NOW), Err(LinkError::BadSignature));
    }
}
