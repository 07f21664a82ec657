//! Everything in the database that is sealed with the master key: proves that a key belongs to a database.

use rusqlite::Connection;

use super::Result;

/// Kinds of sealed values; each kind is sealed for a purpose of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sealed {
    /// Keys of the API.
    ApiKeys,
    /// Private keys that sign outgoing mail.
    DkimKeys,
    /// Secrets of routes, which sign webhooks.
    RouteSecrets,
    /// Secrets of accounts, which sign tracking webhooks.
    AccountSecrets,
    /// Keys derived from former master keys.
    FormerKeys,
    /// Texts of queued mail of the appliance itself.
    Notices,
    /// The token of the first sign-up.
    SetupToken,
}

impl Sealed {
    pub(crate) const ALL: [Self; 7] = [
        Self::ApiKeys,
        Self::DkimKeys,
        Self::RouteSecrets,
        Self::AccountSecrets,
        Self::FormerKeys,
        Self::Notices,
        Self::SetupToken,
    ];

    /// Lists all values of this kind.
    pub(crate) fn list(self, connection: &Connection) -> Result<Vec<Vec<u8>>> {
        let statement = match self {
            Self::ApiKeys => "SELECT key_sealed FROM api_key",
            Self::DkimKeys => "SELECT private_sealed FROM dkim_key WHERE private_sealed IS NOT NULL",
            Self::FormerKeys => "SELECT key_sealed FROM former_key",
            Self::RouteSecrets => {
                "SELECT secret_sealed FROM route WHERE secret_sealed IS NOT NULL
                 UNION ALL SELECT previous_secret_sealed FROM route WHERE previous_secret_sealed IS NOT NULL"
            }
            Self::AccountSecrets => {
                "SELECT webhook_secret_sealed FROM account WHERE webhook_secret_sealed IS NOT NULL
                 UNION ALL SELECT previous_webhook_secret_sealed FROM account
                 WHERE previous_webhook_secret_sealed IS NOT NULL"
            }
            Self::Notices => "SELECT text_sealed FROM notice",
            Self::SetupToken => "SELECT token_sealed FROM setup_token",
        };
        // Schemas before 7 have no such table.
        if self == Self::FormerKeys && !connection.table_exists(None, "former_key")? {
            return Ok(Vec::new());
        }
        let mut statement = connection.prepare(statement)?;
        let rows = statement.query_map([], |row| row.get(0))?;
        Ok(rows.collect::<rusqlite::Result<_>>()?)
    }
}
