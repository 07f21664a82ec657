//! Results of the last checks of a domain's DNS records.

use rusqlite::{Connection, params};
use serde::{Deserialize, Serialize};

use crate::clock::Timestamp;
use crate::id::DomainRowId;
use crate::store::Result;
use crate::store::stored_enum::stored_enum;

stored_enum! {
    /// One of the five records of a domain (contract 3.3).
    #[derive(PartialOrd, Ord)]
    pub enum Kind in "DNS record" {
        /// Names the host that receives the domain's mail.
        Mx = "mx",
        /// Authorizes the hosts that may send it.
        Spf = "spf",
        /// Publishes the RSA key that signs it.
        Dkim = "dkim",
        /// Tells receivers how to treat forgeries.
        Dmarc = "dmarc",
        /// Publishes the Ed25519 key that signs it as well.
        DkimEd25519 = "dkim_ed25519",
    }
}

impl Kind {
    /// Returns true for the record of a DKIM key.
    pub(crate) const fn is_key(self) -> bool {
        matches!(self, Self::Dkim | Self::DkimEd25519)
    }
}

stored_enum! {
    /// Result of looking a record up.
    #[derive(Default, Serialize, Deserialize, utoipa::ToSchema)]
    #[serde(rename_all = "lowercase")]
    pub enum Status in "DNS status" {
        /// Published as it should be.
        Ok = "ok",
        /// No record of the kind exists.
        Missing = "missing",
        /// Another value is published.
        Mismatch = "mismatch",
        /// Not looked up yet, or DNS gave no answer.
        #[default]
        Unchecked = "unchecked",
    }
}

/// The state of one record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct DnsCheck {
    pub(crate) record: Kind,
    pub(crate) status: Status,
    /// Values in the DNS.
    pub(crate) found: Vec<String>,
    /// Failed checks in a row.
    pub(crate) failures: u32,
    /// Time of the first of those failures.
    pub(crate) first_failed_at: Option<Timestamp>,
}

/// Lists the states of a domain's records, as far as they were ever checked.
pub(crate) fn list(connection: &Connection, domain: DomainRowId) -> Result<Vec<DnsCheck>> {
    let rows = connection
        .prepare_cached(
            "SELECT record, status, found, failures, first_failed_at FROM dns_check WHERE domain_id = ?1",
        )?
        .query_map([domain], |row| {
            Ok(DnsCheck {
                record: row.get(0)?,
                status: row.get(1)?,
                found: serde_json::from_str(row.get_ref(2)?.as_str()?).unwrap_or_default(),
                failures: row.get(3)?,
                first_failed_at: row.get::<_, Option<i64>>(4)?.map(Timestamp::from_millis),
            })
        })?
        .collect::<rusqlite::Result<_>>()?;
    Ok(rows)
}

/// Stores the state of one record.
pub(crate) fn put(connection: &Connection, domain: DomainRowId, check: &DnsCheck) -> Result<()> {
    connection
        .prepare_cached(
            "INSERT OR REPLACE INTO dns_check (domain_id, record, status, found, failures, first_failed_at)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
        )?
        .execute(params![
            domain,
            check.record,
            check.status,
            serde_json::to_string(&check.found).unwrap_or_default(),
            check.failures,
            check.first_failed_at.map(Timestamp::as_millis)
        ])?;
    Ok(())
}

/// Returns true if the last check of a record found it correct.
pub(crate) fn is_ok(connection: &Connection, domain: DomainRowId, record: Kind) -> Result<bool> {
    let found = connection
        .prepare_cached("SELECT 1 FROM dns_check WHERE domain_id = ?1 AND record = ?2 AND status = 'ok'")?
        .exists(params![domain, record])?;
    Ok(found)
}
