//! The DNS records that a domain needs (contract 3.3). Pure.

use serde::{Deserialize, Serialize};

/// Selector of the RSA key.
pub(crate) const SELECTOR_RSA: &str = "mailkite";
/// Selector of the Ed25519 key.
pub(crate) const SELECTOR_ED25519: &str = "mailkite-ed";
const MX_PRIORITY: u16 = 10;

/// One of the five records.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// Names the host that receives the domain's mail.
    Mx,
    /// Authorizes the hosts that may send it.
    Spf,
    /// Publishes the RSA key that signs it.
    Dkim,
    /// Tells receivers how to treat forgeries.
    Dmarc,
    /// Publishes the Ed25519 key that signs it as well.
    DkimEd25519,
}

impl Kind {
    /// All five, in the order of the contract.
    pub(crate) const ALL: [Self; 5] = [Self::Mx, Self::Spf, Self::Dkim, Self::Dmarc, Self::DkimEd25519];

    /// Returns the word that the store keeps.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Mx => "mx",
            Self::Spf => "spf",
            Self::Dkim => "dkim",
            Self::Dmarc => "dmarc",
            Self::DkimEd25519 => "dkim_ed25519",
        }
    }
}

/// Result of looking a record up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// Published as it should be.
    Ok,
    /// No record of the kind exists.
    Missing,
    /// Another value is published.
    Mismatch,
    /// Not looked up yet, or DNS gave no answer.
    #[default]
    Unchecked,
}

impl Status {
    /// Returns the word of the contract.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Missing => "missing",
            Self::Mismatch => "mismatch",
            Self::Unchecked => "unchecked",
        }
    }

    /// Returns the status that a word names.
    pub(crate) fn from_word(word: &str) -> Self {
        match word {
            "ok" => Self::Ok,
            "missing" => Self::Missing,
            "mismatch" => Self::Mismatch,
            _ => Self::Unchecked,
        }
    }
}

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

/// Values from which a domain's records are built.
#[derive(Clone, Debug)]
pub struct Wanted<'w> {
    /// Name of the domain.
    pub name: &'w str,
    /// Host name of the appliance.
    pub hostname: &'w str,
    /// Domain that the SPF record includes instead of naming the host.
    pub spf_include: Option<&'w str>,
    /// RSA public key in base64.
    pub rsa: &'w str,
    /// Ed25519 public key in base64.
    pub ed25519: &'w str,
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
            optional: kind == Kind::DkimEd25519,
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
            txt(Kind::Dkim, format!("{SELECTOR_RSA}._domainkey.{domain}"), format!("v=DKIM1; k=rsa; p={}", self.rsa)),
            txt(Kind::Dmarc, format!("_dmarc.{domain}"), "v=DMARC1; p=none;".to_owned()),
            txt(
                Kind::DkimEd25519,
                format!("{SELECTOR_ED25519}._domainkey.{domain}"),
                format!("v=DKIM1; k=ed25519; p={}", self.ed25519),
            ),
        ]
    }
}
