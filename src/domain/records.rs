//! The DNS records that a domain needs (contract 3.3). Pure.

use serde::{Deserialize, Serialize};

/// The selector of the RSA key.
pub(crate) const SELECTOR_RSA: &str = "mailkite";
/// The selector of the Ed25519 key.
pub(crate) const SELECTOR_ED25519: &str = "mailkite-ed";
const MX_PRIORITY: u16 = 10;

/// Which of the five records.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// Who receives the domain's mail.
    Mx,
    /// Who may send it.
    Spf,
    /// The RSA key that signs it.
    Dkim,
    /// What receivers do with forgeries.
    Dmarc,
    /// The Ed25519 key that signs it too.
    DkimEd25519,
}

impl Kind {
    /// All five, in the order of the contract.
    pub(crate) const ALL: [Self; 5] = [Self::Mx, Self::Spf, Self::Dkim, Self::Dmarc, Self::DkimEd25519];

    /// The word that the store keeps.
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

/// What a look at a record found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// As it should be.
    Ok,
    /// Nothing of the kind is there.
    Missing,
    /// Something else is there.
    Mismatch,
    /// Not looked at yet, or DNS gave no answer.
    #[default]
    Unchecked,
}

impl Status {
    /// The word of the contract.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Missing => "missing",
            Self::Mismatch => "mismatch",
            Self::Unchecked => "unchecked",
        }
    }

    /// The status that a word names.
    pub(crate) fn from_word(word: &str) -> Self {
        match word {
            "ok" => Self::Ok,
            "missing" => Self::Missing,
            "mismatch" => Self::Mismatch,
            _ => Self::Unchecked,
        }
    }
}

/// A record as its owner should publish it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Which one.
    pub kind: Kind,
    /// `MX` or `TXT`.
    pub(crate) record_type: &'static str,
    /// Fully qualified, without final dot.
    pub name: String,
    /// What it says.
    pub value: String,
    /// Of the MX alone.
    pub(crate) priority: Option<u16>,
    /// Whether everything works without it.
    pub(crate) optional: bool,
}

/// What a domain's records are made of.
#[derive(Clone, Debug)]
pub struct Wanted<'w> {
    /// The domain.
    pub name: &'w str,
    /// The appliance's host name.
    pub hostname: &'w str,
    /// The domain that the SPF record includes instead of naming the host.
    pub spf_include: Option<&'w str>,
    /// Base64 of the RSA key.
    pub rsa: &'w str,
    /// Base64 of the Ed25519 key.
    pub ed25519: &'w str,
}

impl Wanted<'_> {
    /// The mechanism that an SPF record has to contain.
    pub(crate) fn spf_mechanism(&self) -> String {
        match self.spf_include {
            Some(include) => format!("include:{include}"),
            None => format!("a:{}", self.hostname),
        }
    }

    /// The five records, in order.
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
