//! Decides which key record may verify a signature (RFC 6376 §3.6.1, §6.1.2). The library accepts any.

use mail_auth::common::crypto::Algorithm;

use super::tags::Tags;

/// Suitability of a TXT record at a key's name for one signature.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Key {
    /// No key.
    None,
    /// A key that must not be used for it: of another service, hash or type, revoked, or malformed.
    Unfit,
    /// A key for it.
    Fit,
}

impl Key {
    /// Classifies a record for a signature of this algorithm.
    pub(crate) fn of(text: &str, algorithm: Algorithm) -> Self {
        let tags = Tags::parse(text);
        let is_key = tags.get("v").is_none_or(|version| version == "DKIM1");
        let Some(data) = tags.get("p").filter(|_| is_key) else { return Self::None };
        let (kind, hash) = match algorithm {
            Algorithm::RsaSha1 => ("rsa", "sha1"),
            Algorithm::RsaSha256 => ("rsa", "sha256"),
            Algorithm::Ed25519Sha256 => ("ed25519", "sha256"),
        };
        // A list that is present and empty allows nothing.
        let allows = |name: &str, wanted: &[&str]| {
            let is_wanted = |word: &str| wanted.iter().any(|wanted| wanted.eq_ignore_ascii_case(word.trim()));
            tags.get(name).is_none_or(|list| list.split(':').any(is_wanted))
        };
        let is_of_kind = match tags.get("k") {
            None | Some("") => kind == "rsa",
            Some(given) => given.eq_ignore_ascii_case(kind),
        };
        let fits = is_of_kind && allows("h", &[hash]) && allows("s", &["*", "email"]);
        if fits && !data.is_empty() && !tags.has_repeated() { Self::Fit } else { Self::Unfit }
    }
}

#[cfg(test)]
mod tests {
    use super::{Algorithm, Key};

    #[test]
    fn a_key_is_for_the_services_hashes_and_types_that_it_names() {
        for (text, sha256, ed25519) in [
            ("p=AA", Key::Fit, Key::Unfit),
            ("v=DKIM1; k=rsa; p=AA", Key::Fit, Key::Unfit),
            (" v = DKIM1 ; K=x; k = RSA ; p = A A ;", Key::Fit, Key::Unfit),
            ("v=DKIM1; k=ed25519; p=AA", Key::Unfit, Key::Fit),
            ("v=DKIM1; k=; p=AA", Key::Fit, Key::Unfit),
            ("v=DKIM1; k=dsa; p=AA", Key::Unfit, Key::Unfit),
            ("v=DKIM1; s=email; p=AA", Key::Fit, Key::Unfit),
            ("v=DKIM1; s=other : Email; p=AA", Key::Fit, Key::Unfit),
            ("v=DKIM1; s=*; p=AA", Key::Fit, Key::Unfit),
            ("v=DKIM1; s=tlsrpt; p=AA", Key::Unfit, Key::Unfit),
            ("v=DKIM1; s=; p=AA", Key::Unfit, Key::Unfit),
            ("v=DKIM1; s=emails; p=AA", Key::Unfit, Key::Unfit),
            ("v=DKIM1; h=sha1:sha256; p=AA", Key::Fit, Key::Unfit),
            ("v=DKIM1; h=sha1; p=AA", Key::Unfit, Key::Unfit),
            ("v=DKIM1; h=sha512:x; p=AA", Key::Unfit, Key::Unfit),
            ("v=DKIM1; g=nobody; n=notes; t=y:s; p=AA", Key::Fit, Key::Unfit),
            ("v=DKIM1; p=", Key::Unfit, Key::Unfit),
            ("v=DKIM1; s=email; s=tlsrpt; p=AA", Key::Unfit, Key::Unfit),
            ("v=DKIM2; p=AA", Key::None, Key::None),
            ("v=dkim1; p=AA", Key::None, Key::None),
            ("v=DKIM1; k=rsa", Key::None, Key::None),
            ("v=spf1 -all", Key::None, Key::None),
            ("", Key::None, Key::None),
        ] {
            assert_eq!(Key::of(text, Algorithm::RsaSha256), sha256, "{text}");
            assert_eq!(Key::of(text, Algorithm::Ed25519Sha256), ed25519, "{text}");
        }
        assert_eq!(Key::of("v=DKIM1; h=sha256; p=AA", Algorithm::RsaSha1), Key::Unfit);
        assert_eq!(Key::of("v=DKIM1; h=sha1; p=AA", Algorithm::RsaSha1), Key::Fit);
    }
}
