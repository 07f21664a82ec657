//! Everything in the database that is sealed with the master key.

use rusqlite::{Connection, OptionalExtension as _};

use super::Result;
use super::accounts::{self, dkim_keys, keys, notices, verifications};
use super::webhooks::routes;

/// Purpose under which derived keys are sealed.
pub(crate) const FORMER_PURPOSE: &str = "former-key";

/// Table, column and purpose of everything that is sealed.
pub(super) const COLUMNS: &[(&str, &str, &str)] = &[
    ("former_key", "key_sealed", FORMER_PURPOSE),
    ("api_key", "key_sealed", keys::PURPOSE),
    ("account", "webhook_secret_sealed", accounts::WEBHOOK_SECRET_PURPOSE),
    ("account", "previous_webhook_secret_sealed", accounts::WEBHOOK_SECRET_PURPOSE),
    ("setup_token", "token_sealed", verifications::SETUP_PURPOSE),
    ("notice", "text_sealed", notices::PURPOSE),
    ("dkim_key", "private_sealed", dkim_keys::PURPOSE),
    ("route", "secret_sealed", routes::SECRET_PURPOSE),
    ("route", "previous_secret_sealed", routes::SECRET_PURPOSE),
];

/// A sealed value with its purpose.
pub(crate) type Sample = (&'static str, Vec<u8>);

/// Returns any sealed value, to see which master key opens it; `None` when nothing is sealed.
pub(crate) fn sample(connection: &Connection) -> Result<Option<Sample>> {
    for (table, column, purpose) in COLUMNS {
        // An earlier schema lacks some.
        if !connection.table_exists(None, *table)? {
            continue;
        }
        let sql = format!("SELECT {column} FROM {table} WHERE {column} IS NOT NULL LIMIT 1");
        if let Some(sealed) = connection.query_row(&sql, [], |row| row.get(0)).optional()? {
            return Ok(Some((purpose, sealed)));
        }
    }
    Ok(None)
}

/// Calls `each` with the purpose and the value of everything that is sealed.
pub(crate) fn for_each(connection: &Connection, mut each: impl FnMut(&str, &[u8])) -> Result<()> {
    for (table, column, purpose) in COLUMNS {
        if !connection.table_exists(None, *table)? {
            continue;
        }
        let sql = format!("SELECT {column} FROM {table} WHERE {column} IS NOT NULL");
        let mut statement = connection.prepare(&sql)?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            let sealed: Vec<u8> = row.get(0)?;
            each(purpose, &sealed);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::migrate::SCHEMA;

    #[test]
    fn every_sealed_column_of_the_schema_is_listed() {
        let mut table = "";
        let mut columns = Vec::new();
        for line in SCHEMA.lines() {
            if let Some(rest) = line.strip_prefix("CREATE TABLE ") {
                table = rest.split(' ').next().unwrap_or_default();
            }
            let column = line.trim_start().split(' ').next().unwrap_or_default();
            if column.ends_with("_sealed") && !line.starts_with("--") {
                columns.push((table, column));
            }
        }
        let mut listed: Vec<_> = COLUMNS.iter().map(|(table, column, _)| (*table, *column)).collect();
        listed.sort_unstable();
        columns.sort_unstable();
        assert_eq!(listed, columns);
    }
}
