//! The DNS records that a domain needs (contract 3.3). Pure.

use crate::clock::Timestamp;
use crate::store::accounts::dkim_keys::Algorithm;
pub use crate::store::accounts::dns_checks::{Kind, Status};

/// Selector of a domain's first RSA key.
const SELECTOR_RSA: &str = "mailkite";
/// Selector of a domain's first Ed25519 key.
const SELECTOR_ED25519: &str = "mailkite-ed";
const MX_PRIORITY: u16 = 10;

/// All five records, in the order of the contract.
pub(crate) const ALL_KINDS: [Kind; 5] = [Kind::Mx, Kind::Spf, Kind::Dkim, Kind::Dmarc, Kind::DkimEd25519];

/// A record as the owner of the domain should publish it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Kind of the record.
    pub kind: Kind,
    /// `MX` or `TXT`.
    pub(crate) record_type: &'static str,
    /// Fully qualified, without final dot.
    pub name: String,
    /// Value to publish.
    pub value: String,
    /// Set for the MX record only.
    pub(crate) priority: Option<u16>,
    /// True if everything works without it.
    pub(crate) optional: bool,
}

/// A public key and the selector that it is published under.
#[derive(Clone, Copy, Debug)]
pub struct PublicKey<'w> {
    /// Left of `._domainkey`.
    pub selector: &'w str,
    /// In base64, as in `p=`.
    pub value: &'w str,
}

/// Values from which a domain's records are built.
#[derive(Clone, Debug)]
pub struct Wanted<'w> {
    /// Name of the domain.
    pub name: &'w str,
    /// Host name of the appliance.
    pub hostname: &'w str,
    /// Domain that the SPF record includes instead of naming the host.
    pub spf_include: Option<&'w str>,
    /// RSA key that signs.
    pub rsa: PublicKey<'w>,
    /// Ed25519 key that signs.
    pub ed25519: PublicKey<'w>,
}

/// Returns the selector of a domain's first key.
pub(crate) fn first_selector(algorithm: Algorithm) -> String {
    match algorithm {
        Algorithm::Rsa => SELECTOR_RSA.to_owned(),
        Algorithm::Ed25519 => SELECTOR_ED25519.to_owned(),
    }
}

/// Returns the selector of a key that replaces another from `now` on: with the date (RFC 6376 §3.1).
pub(crate) fn dated_selector(algorithm: Algorithm, now: Timestamp) -> String {
    let date: String = now.iso().chars().take(10).filter(char::is_ascii_digit).collect();
    format!("{}-{date}", first_selector(algorithm))
}

/// Returns the record that publishes a domain's key.
pub(crate) fn key_record(domain: &str, algorithm: Algorithm, key: PublicKey<'_>) -> Record {
    let (kind, word) = match algorithm {
        Algorithm::Rsa => (Kind::Dkim, "rsa"),
        Algorithm::Ed25519 => (Kind::DkimEd25519, "ed25519"),
    };
    Record {
        kind,
        record_type: "TXT",
        name: format!("{}._domainkey.{domain}", key.selector),
        value: format!("v=DKIM1; k={word}; p={}", key.value),
        priority: None,
        optional: kind == Kind::DkimEd25519,
    }
}

impl Wanted<'_> {
    /// Returns the mechanism that an SPF record has to contain.
    pub(crate) fn spf_mechanism(&self) -> String {
        match self.spf_include {
            Some(include) => format!("include:{include}"),
            None => format!("a:{}", self.hostname),
        }
    }

    /// Returns the five records, in order.
    pub fn records(&self) -> Vec<Record> {
        let domain = self.name;
        let txt = |kind, name: String, value: String| Record {
            kind,
            record_type: "TXT",
            name,
            value,
            priority: None,
            optional: false,
        };
        vec![
            Record {
                kind: Kind::Mx,
                record_type: "MX",
                name: domain.to_owned(),
                value: self.hostname.to_owned(),
                priority: Some(MX_PRIORITY),
                optional: false,
            },
            txt(Kind::Spf, domain.to_owned(), format!("v=spf1 {} ~all", self.spf_mechanism())),
            key_record(domain, Algorithm::Rsa, self.rsa),
            txt(Kind::Dmarc, format!("_dmarc.{domain}"), "v=DMARC1; p=none;".to_owned()),
            key_record(domain, Algorithm::Ed25519, self.ed25519),
        ]
    }
}
