//! What `mailkite audit` asks: does everything that the rows promise exist, and has everything that waits its job?
//!
//! Each question is a statement of its own, so that a long audit holds no snapshot beside a running server.

use rusqlite::{Connection, params};

use super::objects::Object;
use super::{Result, raws, uploads};

/// Which rows name objects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Table {
    /// Mail data.
    Mail,
    /// Files of clients.
    Uploads,
}

/// Up to `limit` objects that rows of a table name, by row id after `after`.
///
/// # Errors
/// Storage trouble.
pub fn list_objects(connection: &Connection, table: Table, after: i64, limit: u32) -> Result<Vec<(i64, Object)>> {
    let statement = match table {
        Table::Mail => {
            "SELECT id, file, size, checksum FROM raw WHERE file IS NOT NULL AND id > ?1 ORDER BY id LIMIT ?2"
        }
        Table::Uploads => "SELECT id, file, size, checksum FROM upload WHERE id > ?1 ORDER BY id LIMIT ?2",
    };
    let rows = connection
        .prepare_cached(statement)?
        .query_map(params![after, limit], |row| {
            Ok((row.get(0)?, Object { name: row.get(1)?, size: row.get(2)?, checksum: row.get(3)? }))
        })?
        .collect::<rusqlite::Result<_>>()?;
    Ok(rows)
}

/// Whether any row names this object.
///
/// # Errors
/// Storage trouble.
pub fn names_object(connection: &Connection, name: &str) -> Result<bool> {
    Ok(raws::names_file(connection, name)? || uploads::names_file(connection, name)?)
}

/// The public ids of what lives in an object: messages, or an upload.
///
/// # Errors
/// Storage trouble.
pub fn owners(connection: &Connection, table: Table, row: i64) -> Result<Vec<String>> {
    let statement = match table {
        Table::Mail => "SELECT public_id FROM message WHERE raw_id = ?1 ORDER BY id",
        Table::Uploads => "SELECT public_id FROM upload WHERE id = ?1",
    };
    let mut statement = connection.prepare_cached(statement)?;
    let rows = statement.query_map([row], |row| row.get(0))?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

/// What SQLite finds wrong with the file; nothing when it is sound.
///
/// # Errors
/// Storage trouble.
pub fn quick_check(connection: &Connection) -> Result<Vec<String>> {
    let mut statement = connection.prepare("PRAGMA quick_check(20)")?;
    let rows: Vec<String> = statement.query_map([], |row| row.get(0))?.collect::<rusqlite::Result<_>>()?;
    Ok(rows.into_iter().filter(|line| line != "ok").collect())
}

/// Rows that promise what is not there, each kind in words, with up to `limit` of their names.
///
/// # Errors
/// Storage trouble.
pub fn strays(connection: &Connection, limit: u32) -> Result<Vec<(&'static str, Vec<String>)>> {
    const QUESTIONS: &[(&str, &str)] = &[
        (
            "message without its mail data",
            "SELECT public_id FROM message
             WHERE raw_id IS NOT NULL AND NOT EXISTS (SELECT 1 FROM raw WHERE raw.id = message.raw_id) LIMIT ?1",
        ),
        (
            "outbound delivery without its mail data",
            "SELECT 'number ' || id FROM dispatch
             WHERE raw_id IS NOT NULL AND NOT EXISTS (SELECT 1 FROM raw WHERE raw.id = dispatch.raw_id) LIMIT ?1",
        ),
        (
            "pending delivery that nothing will attempt",
            "SELECT public_id FROM delivery
             WHERE status = 'pending'
               AND NOT EXISTS (SELECT 1 FROM job WHERE job.subject_id = delivery.id AND job.kind = 'webhook')
             LIMIT ?1",
        ),
        (
            "waiting recipient that nothing will attempt",
            "SELECT DISTINCT 'number ' || dispatch_id FROM recipient
             WHERE status IN ('queued', 'deferred')
               AND NOT EXISTS (SELECT 1 FROM job WHERE job.subject_id = dispatch_id AND job.kind = 'dispatch')
             LIMIT ?1",
        ),
        (
            "scheduled message that nothing will send",
            "SELECT public_id FROM message
             WHERE direction = 'outbound' AND status = 'scheduled'
               AND NOT EXISTS (SELECT 1 FROM job WHERE job.subject_id = message.id AND job.kind = 'release')
             LIMIT ?1",
        ),
    ];
    let mut found = Vec::new();
    for (what, question) in QUESTIONS {
        let names: Vec<String> =
            connection.prepare(question)?.query_map([limit], |row| row.get(0))?.collect::<rusqlite::Result<_>>()?;
        if !names.is_empty() {
            found.push((*what, names));
        }
    }
    Ok(found)
}
