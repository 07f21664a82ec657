//! Templates of accounts (contract 11).

use rusqlite::{Connection, OptionalExtension, Row, params};

use crate::clock::Timestamp;
use crate::id::{AccountRowId, TemplateId};
use crate::store::Result;

/// Content of a template.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct TemplateContent {
    pub(crate) name: String,
    /// Free-form category.
    pub(crate) category: Option<String>,
    pub(crate) subject: Option<String>,
    /// HTML body.
    pub(crate) html: Option<String>,
    /// Plain text body.
    pub(crate) text: Option<String>,
    /// Private to the editor that made it.
    pub(crate) json: Option<String>,
    /// Private to the editor that made it.
    pub(crate) theme: Option<String>,
}

impl TemplateContent {
    /// Returns the octets of its texts.
    pub(crate) fn len(&self) -> usize {
        let texts = [&self.html, &self.text, &self.json, &self.theme];
        texts.into_iter().flatten().map(String::len).sum()
    }
}

/// A template as stored.
#[derive(Clone, Debug)]
pub(crate) struct TemplateRow {
    pub(crate) public_id: TemplateId,
    pub(crate) content: TemplateContent,
    pub(crate) created_at: Timestamp,
    pub(crate) updated_at: Timestamp,
}

const COLUMNS: &str = "public_id, name, category, subject, html, text, json, theme, created_at, updated_at";

fn read(row: &Row<'_>) -> rusqlite::Result<TemplateRow> {
    Ok(TemplateRow {
        public_id: row.get("public_id")?,
        content: TemplateContent {
            name: row.get("name")?,
            category: row.get("category")?,
            subject: row.get("subject")?,
            html: row.get("html")?,
            text: row.get("text")?,
            json: row.get("json")?,
            theme: row.get("theme")?,
        },
        created_at: Timestamp::from_millis(row.get("created_at")?),
        updated_at: Timestamp::from_millis(row.get("updated_at")?),
    })
}

/// Stores a template.
pub(crate) fn insert(
    connection: &Connection,
    account: AccountRowId,
    content: TemplateContent,
    now: Timestamp,
) -> Result<TemplateRow> {
    let public_id = TemplateId::new(now);
    connection
        .prepare_cached(
            "INSERT INTO template (public_id, account_id, name, category, subject, html, text, json, theme, created_at,
                                   updated_at)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?10)",
        )?
        .execute(params![
            public_id,
            account,
            content.name,
            content.category,
            content.subject,
            content.html,
            content.text,
            content.json,
            content.theme,
            now.as_millis()
        ])?;
    Ok(TemplateRow { public_id, content, created_at: now, updated_at: now })
}

/// Replaces the content of a template of the account; returns none when there is no such template.
pub(crate) fn update(
    connection: &Connection,
    account: AccountRowId,
    id: &TemplateId,
    content: &TemplateContent,
    now: Timestamp,
) -> Result<Option<TemplateRow>> {
    connection
        .prepare_cached(
            "UPDATE template SET name = ?3, category = ?4, subject = ?5, html = ?6, text = ?7, json = ?8, theme = ?9,
                                 updated_at = ?10
             WHERE account_id = ?1 AND public_id = ?2",
        )?
        .execute(params![
            account,
            id,
            content.name,
            content.category,
            content.subject,
            content.html,
            content.text,
            content.json,
            content.theme,
            now.as_millis()
        ])?;
    find(connection, account, id)
}

/// Finds a template of the account.
pub(crate) fn find(connection: &Connection, account: AccountRowId, id: &TemplateId) -> Result<Option<TemplateRow>> {
    let statement = format!("SELECT {COLUMNS} FROM template WHERE account_id = ?1 AND public_id = ?2");
    Ok(connection.prepare_cached(&statement)?.query_row(params![account, id], read).optional()?)
}

/// Lists the templates of an account, newest first, without their content, which may be a mebibyte each.
pub(crate) fn list(connection: &Connection, account: AccountRowId) -> Result<Vec<TemplateRow>> {
    let rows = connection
        .prepare_cached(
            "SELECT public_id, name, category, subject, NULL AS html, NULL AS text, NULL AS json, NULL AS theme,
                    created_at, updated_at
             FROM template WHERE account_id = ?1 ORDER BY id DESC",
        )?
        .query_map([account], read)?
        .collect::<rusqlite::Result<_>>()?;
    Ok(rows)
}

/// Removes a template of the account; returns false if there was none.
pub(crate) fn delete(connection: &Connection, account: AccountRowId, id: &TemplateId) -> Result<bool> {
    let gone = connection
        .prepare_cached("DELETE FROM template WHERE account_id = ?1 AND public_id = ?2")?
        .execute(params![account, id])?;
    Ok(gone > 0)
}
