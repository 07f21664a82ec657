//! The DNS records that a domain needs (contract 3.3). Pure.

pub use crate::store::accounts::dns_checks::{Kind, Status};

/// Selector of the RSA key.
pub(crate) const SELECTOR_RSA: &str = "mailkite";
/// Selector of the Ed25519 key.
pub(crate) const SELECTOR_ED25519: &str = "mailkite-ed";
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
