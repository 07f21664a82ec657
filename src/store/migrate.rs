//! Brings a database to the present schema: a new one by `schema.sql`, an older one by steps.
//!
//! `user_version` counts the steps. A backup is made beside the database before the first step, each step is one
//! transaction, and a database from a newer version is refused: it must never be opened and "repaired".

use std::path::Path;
use std::time::Instant;

use rusqlite::{Connection, TransactionBehavior, params};

use super::{Error, Result};
use crate::mail::address::canonical;

/// The complete present schema.
pub(crate) const SCHEMA: &str = include_str!("../../schema.sql");
/// "mkit": marks the file as ours, so that another program's database is never mistaken for one.
const APPLICATION_ID: i32 = 0x6d6b_6974;

/// Upgrade from one version to the next: SQL, and code for anything that SQL cannot express.
struct Step {
    sql: &'static str,
    rows: fn(&Connection) -> Result<()>,
}

/// Step `n` upgrades version `n + 1` to `n + 2`; version 1 is the first released schema.
const STEPS: &[Step] = &[
    Step { sql: include_str!("steps/2.sql"), rows: |_| Ok(()) },
    Step { sql: include_str!("steps/3.sql"), rows: |_| Ok(()) },
    Step { sql: include_str!("steps/4.sql"), rows: |_| Ok(()) },
    Step { sql: include_str!("steps/5.sql"), rows: canonical_addresses },
    Step { sql: include_str!("steps/6.sql"), rows: |connection| check_edited_definitions(connection, 7) },
    Step { sql: include_str!("steps/7.sql"), rows: |connection| check_edited_definitions(connection, 8) },
];

/// Puts suppressed addresses and blocked senders into canonical form. Of two spellings of one address one stays.
fn canonical_addresses(connection: &Connection) -> Result<()> {
    for table in ["suppression", "blocked_sender"] {
        let mut statement = connection.prepare(&format!("SELECT account_id, email FROM {table}"))?;
        let mut rows = statement.query([])?;
        let mut others: Vec<(i64, String, String)> = Vec::new();
        while let Some(row) = rows.next()? {
            let email: String = row.get(1)?;
            let form = canonical(&email);
            if form != email {
                others.push((row.get(0)?, email, form));
            }
        }
        let mut change = connection
            .prepare(&format!("UPDATE OR IGNORE {table} SET email = ?3 WHERE account_id = ?1 AND email = ?2"))?;
        let mut remove = connection.prepare(&format!("DELETE FROM {table} WHERE account_id = ?1 AND email = ?2"))?;
        for (account, email, form) in others {
            if change.execute(params![account, email, form])? == 0 {
                remove.execute(params![account, email])?;
            }
        }
    }
    Ok(())
}

/// Checks that a step edited every definition: an edit that does not find the text it replaces changes nothing.
fn check_edited_definitions(connection: &Connection, wanted: i64) -> Result<()> {
    let edited: i64 = connection.query_row(
        "SELECT count(*) FROM sqlite_schema WHERE type = 'table' AND sql LIKE '%id INTEGER PRIMARY KEY AUTOINCREMENT%'",
        [],
        |row| row.get(0),
    )?;
    if edited == wanted { Ok(()) } else { Err(Error::Corrupt("sqlite_schema")) }
}

/// Returns the schema version that this program writes.
pub(crate) fn present_version() -> i32 {
    i32::try_from(STEPS.len()).unwrap_or(i32::MAX).saturating_add(1)
}

/// Returns the schema version of a database.
pub(crate) fn version(connection: &Connection) -> Result<i32> {
    Ok(connection.pragma_query_value(None, "user_version", |row| row.get(0))?)
}

/// Creates or upgrades the schema.
///
/// # Errors
/// The file is another program's database, is damaged, or was written by a newer version.
pub(crate) fn run(connection: &mut Connection, path: &Path) -> Result<()> {
    let version: i32 = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
    let objects: i64 = connection.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
    if version == 0 && objects == 0 {
        return create(connection);
    }
    check_openable(connection, path)?;
    if version < present_version() {
        upgrade(connection, path, version)?;
    }
    Ok(())
}

/// Checks that a database with a schema is one that [`run`] can upgrade to the present one.
///
/// # Errors
/// An explanation of what it is instead.
pub(crate) fn check_openable(connection: &Connection, path: &Path) -> Result<()> {
    let version: i32 = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
    let application: i32 = connection.pragma_query_value(None, "application_id", |row| row.get(0))?;
    // Reads the complete schema.
    connection.query_row("SELECT count(*) FROM sqlite_schema", [], |_| Ok(()))?;
    if application != APPLICATION_ID {
        return Err(Error::Refused(format!("{} is not a mailkite database", path.display())));
    }
    if version > present_version() {
        return Err(Error::Refused(format!(
            "{} was written by a newer mailkite (schema {version}, this one knows {}); install that version or restore \
             a backup",
            path.display(),
            present_version()
        )));
    }
    Ok(())
}

/// Turns SQLite's report of damage into an explanation with a way out; returns any other error unchanged.
pub(crate) fn damaged(error: Error, path: &Path) -> Error {
    if error.is_unreadable() { damage(path, &error.to_string()) } else { error }
}

/// Returns the error for a damaged database.
pub(super) fn damage(path: &Path, found: &str) -> Error {
    let path = path.display();
    Error::Refused(format!(
        "{path} is damaged ({found}); restore a backup, or save what can still be read: sqlite3 {path} .recover"
    ))
}

/// Checks that a database has exactly the schema of this program.
///
/// # Errors
/// An explanation of what it is instead.
pub(crate) fn check_present(connection: &Connection, path: &Path) -> Result<()> {
    let version: i32 = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
    let application: i32 = connection.pragma_query_value(None, "application_id", |row| row.get(0))?;
    if application != APPLICATION_ID || version != present_version() {
        return Err(Error::Refused(format!(
            "{} has schema {version}, this program writes {}; start the server of this version once",
            path.display(),
            present_version()
        )));
    }
    Ok(())
}

fn create(connection: &mut Connection) -> Result<()> {
    // Both must be set before the first page is written. A commit writes whole pages to the WAL, most of them for a
    // few octets at the end of a table or an index.
    connection.pragma_update(None, "page_size", 4096)?;
    connection.pragma_update(None, "auto_vacuum", "INCREMENTAL")?;
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    transaction.execute_batch(SCHEMA)?;
    transaction.pragma_update(None, "application_id", APPLICATION_ID)?;
    transaction.pragma_update(None, "user_version", present_version())?;
    transaction.commit()?;
    Ok(())
}

/// Octets a second that a copy of the database and the steps take on a slow disk.
const UPGRADE_RATE: u64 = 50 << 20;

/// Describes the upgrade that the next start makes; `None` if the schema is the present one.
///
/// # Errors
/// The database cannot be read.
pub(crate) fn pending_upgrade(connection: &Connection) -> Result<Option<String>> {
    let from: i32 = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
    if from == 0 || from >= present_version() {
        return Ok(None);
    }
    let page = |name| -> Result<u64> { Ok(connection.pragma_query_value(None, name, |row| row.get(0))?) };
    let octets = page("page_count")?.saturating_mul(page("page_size")?);
    let (mebibytes, seconds) = (octets.div_ceil(1 << 20), octets.div_ceil(UPGRADE_RATE));
    Ok(Some(format!(
        "schema {from} becomes {}, after a copy of {mebibytes} MiB beside it: about {seconds} s, in which nothing is served",
        present_version()
    )))
}

fn upgrade(connection: &mut Connection, path: &Path, from: i32) -> Result<()> {
    if let Some(upgrade) = pending_upgrade(connection)? {
        tracing::info!("upgrading the database: {upgrade}");
    }
    let began = Instant::now();
    let backup = path.with_extension(format!("before-schema-{}.db", present_version()));
    if !backup.exists() {
        let partial = backup.with_extension("partial");
        connection.backup(rusqlite::MAIN_DB, &partial, None)?;
        std::fs::rename(&partial, &backup).map_err(|error| Error::io("renaming the backup", error))?;
        tracing::info!(backup = %backup.display(), "backed the database up before upgrading its schema");
    }
    // A table that is replaced by its next form is dropped, which would also delete the rows that refer to it.
    let enforced: bool = connection.pragma_query_value(None, "foreign_keys", |row| row.get(0))?;
    connection.pragma_update(None, "foreign_keys", false)?;
    let done = usize::try_from(from).unwrap_or(1).saturating_sub(1);
    for (index, step) in STEPS.iter().enumerate().skip(done) {
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        transaction.execute_batch(step.sql)?;
        (step.rows)(&transaction)?;
        if transaction.prepare("PRAGMA foreign_key_check")?.exists([])? {
            return Err(Error::Refused(format!("upgrading {} would part rows that belong together", path.display())));
        }
        transaction.pragma_update(
            None,
            "user_version",
            i32::try_from(index).unwrap_or(i32::MAX).saturating_add(2),
        )?;
        transaction.commit()?;
    }
    connection.pragma_update(None, "foreign_keys", enforced)?;
    tracing::info!(duration_ms = began.elapsed().as_millis(), "the database is upgraded");
    Ok(())
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests may panic")]

    use std::collections::BTreeMap;

    use super::*;

    /// Every schema that was ever released, oldest first; the step after it leads to the next.
    const EARLIER: &[&str] = &[
        include_str!("../../tests/fixtures/schemas/schema-1.sql"),
        include_str!("../../tests/fixtures/schemas/schema-2.sql"),
        include_str!("../../tests/fixtures/schemas/schema-3.sql"),
        include_str!("../../tests/fixtures/schemas/schema-4.sql"),
        include_str!("../../tests/fixtures/schemas/schema-5.sql"),
        include_str!("../../tests/fixtures/schemas/schema-6.sql"),
    ];

    /// Returns every definition of a schema, without comments, spacing and quotes, its columns and constraints in one
    /// order: a column that was added later is at another position than in a new table.
    fn shape(connection: &Connection) -> BTreeMap<String, Vec<String>> {
        let mut statement = connection.prepare("SELECT name, sql FROM sqlite_schema WHERE sql IS NOT NULL").unwrap();
        let rows = statement.query_map([], |row| Ok((row.get(0)?, definitions(&row.get::<_, String>(1)?)))).unwrap();
        rows.collect::<rusqlite::Result<_>>().unwrap()
    }

    fn definitions(sql: &str) -> Vec<String> {
        let lines = sql.lines().map(|line| line.split("--").next().unwrap_or(line));
        let text = lines.flat_map(str::split_whitespace).collect::<Vec<_>>().join(" ").replace('"', "");
        let mut depth = 0;
        let at_top = |c: char| {
            depth += i32::from(c == '(') - i32::from(c == ')');
            (matches!(c, ',' | '(') && depth == 1) || (c == ')' && depth == 0)
        };
        let mut parts: Vec<String> = text.split(at_top).map(|part| part.trim().to_owned()).collect();
        parts.sort();
        parts
    }

    fn database(schema: &str, version: i32, path: &Path) -> Connection {
        let connection = Connection::open(path).unwrap();
        connection.execute_batch(schema).unwrap();
        connection.pragma_update(None, "application_id", APPLICATION_ID).unwrap();
        connection.pragma_update(None, "user_version", version).unwrap();
        connection
    }

    #[test]
    fn an_upgraded_database_is_what_a_fresh_one_is() {
        assert_eq!(EARLIER.len(), STEPS.len(), "keep the schema that each step starts from");
        let dir = tempfile::tempdir().unwrap();
        let mut fresh = Connection::open(dir.path().join("fresh.db")).unwrap();
        run(&mut fresh, Path::new("fresh.db")).unwrap();
        for (version, schema) in (1..).zip(EARLIER) {
            let path = dir.path().join(format!("{version}.db"));
            let mut old = database(schema, version, &path);
            run(&mut old, &path).unwrap();
            let (upgraded, wanted) = (shape(&old), shape(&fresh));
            assert!(upgraded.keys().eq(wanted.keys()), "{:?}\n{:?}", upgraded.keys(), wanted.keys());
            for (name, definition) in wanted {
                assert_eq!(upgraded[&name], definition, "{name}, from schema {version}");
            }
            let check: String = old.query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
            assert_eq!(check, "ok", "from schema {version}");
            let backup = path.with_extension(format!("before-schema-{}.db", present_version()));
            let kept = Connection::open(backup).unwrap();
            let kept: i32 = kept.pragma_query_value(None, "user_version", |row| row.get(0)).unwrap();
            assert_eq!(kept, version, "the backup is the database as it was");
        }
    }

    #[test]
    fn rows_survive_the_upgrade() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("old.db");
        let mut old = database(EARLIER[0], 1, &path);
        old.execute_batch(
            "INSERT INTO account (id, public_id, email, created_at) VALUES (1, 'usr_1', 'a@b.c', 5);
             INSERT INTO domain (public_id, account_id, name, status, created_at)
               VALUES ('dom_1', 1, 'b.c', 'verified', 6);
             INSERT INTO message (id, public_id, account_id, direction, status, mail_from, from_addr, to_addr, trace, size,
                                  received_at)
               VALUES (3, 'msg_1', 1, 'inbound', 'received', '', 'a@b.c', 'd@b.c', '', 8, 9);
             INSERT INTO attachment (message_id, idx, size, part_offset, part_length, encoding)
               VALUES (3, 0, 1, 2, 3, 'base64');
             INSERT INTO job (lane, kind, subject_id, run_at, failures) VALUES ('l', 'webhook', 9, 7, 2);",
        )
        .unwrap();
        old.pragma_update(None, "foreign_keys", true).unwrap();
        run(&mut old, &path).unwrap();
        let one = |sql: &str| -> i64 { old.query_row(sql, [], |row| row.get(0)).unwrap() };
        assert_eq!(one("SELECT verified_at FROM domain"), 6);
        assert_eq!(one("SELECT subject_id FROM job WHERE failures = 2"), 9);
        assert_eq!(one("SELECT size FROM message WHERE id = 3"), 8);
        assert_eq!(
            one("SELECT floor - removed FROM message_bytes WHERE account_id = 1"),
            2048,
            "its raw copy is gone"
        );
        assert_eq!(one("SELECT part_length FROM attachment WHERE message_id = 3"), 3);
        assert_eq!(one("SELECT foreign_keys FROM pragma_foreign_keys"), 1);
        assert_eq!(one("SELECT count(*) FROM pragma_integrity_check WHERE integrity_check = 'ok'"), 1);
    }

    #[test]
    fn row_ids_are_not_reused_after_the_upgrade() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("old.db");
        let mut old = database(EARLIER[4], 5, &path);
        old.execute_batch(
            "INSERT INTO account (id, public_id, email, created_at) VALUES (1, 'usr_1', 'a@b.c', 5);
             INSERT INTO domain (id, public_id, account_id, name, status, created_at)
               VALUES (2, 'dom_2', 1, 'b.c', 'verified', 6);
             INSERT INTO message (id, public_id, account_id, domain_id, direction, status, mail_from, from_addr, to_addr,
                                  trace, size, raw_id, received_at)
               VALUES (3, 'msg_1', 1, 7, 'inbound', 'received', '', 'a@b.c', 'd@b.c', '', 8, 1, 9);
             INSERT INTO passing (id, account_id, route_id, event, raw_id, created_at) VALUES (4, 1, 'rte_1', '{}', 1, 1);
             INSERT INTO job (id, lane, kind, subject_id, run_at) VALUES
               (5, 'l', 'passing', 4, 7), (6, 'l', 'release', 3, 7), (8, 'l', 'webhook', 1, 7);",
        )
        .unwrap();
        run(&mut old, &path).unwrap();
        let texts = |sql: &str| -> Vec<String> {
            let mut statement = old.prepare(sql).unwrap();
            statement.query_map([], |row| row.get(0)).unwrap().collect::<rusqlite::Result<_>>().unwrap()
        };
        assert_eq!(
            texts("SELECT name || ' ' || seq FROM sqlite_sequence ORDER BY name"),
            ["account 1", "domain 7", "job 8", "message 3", "zero_retention_delivery 4"],
            "a message of a removed domain keeps that one's id"
        );
        assert_eq!(texts("SELECT kind FROM job ORDER BY id"), ["zero_retention", "scheduled_send", "webhook"]);
        for table in ["message_mail_data", "zero_retention_delivery_mail_data", "outbound_detail_scheduled"] {
            let found =
                texts(&format!("SELECT tbl_name FROM sqlite_schema WHERE type = 'index' AND name = '{table}'"));
            assert_eq!(found.len(), 1, "{table}");
        }
        old.execute_batch("DELETE FROM job; DELETE FROM message").unwrap();
        // Another connection reads the edited definitions from the file.
        let other = Connection::open(&path).unwrap();
        other
            .execute_batch(
                "INSERT INTO job (lane, kind, subject_id, run_at) VALUES ('l', 'scheduled_send', 3, 7);
                 INSERT INTO message (public_id, account_id, direction, status, mail_from, from_addr, to_addr, trace, size,
                                      received_at)
                   VALUES ('msg_2', 1, 'inbound', 'received', '', 'a@b.c', 'd@b.c', '', 8, 9);",
            )
            .unwrap();
        assert_eq!(texts("SELECT (SELECT id FROM job) || ' ' || (SELECT id FROM message)"), ["9 4"]);
        assert!(
            other
                .execute("INSERT INTO job (lane, kind, subject_id, run_at) VALUES ('l', 'release', 3, 7)", [])
                .is_err()
        );
        assert_eq!(texts("PRAGMA integrity_check"), ["ok"]);
        assert_eq!(texts("SELECT count(*) || '' FROM pragma_foreign_key_check"), ["0"]);
    }

    #[test]
    fn stored_addresses_become_canonical() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("old.db");
        let mut old = database(EARLIER[3], 4, &path);
        old.execute_batch(
            r#"INSERT INTO account (id, public_id, email, created_at) VALUES (1, 'usr_1', 'a@b.c', 5);
               INSERT INTO suppression (account_id, email, reason, created_at)
                 VALUES (1, '"ada"@x.test', 'manual', 1), (1, 'ada@x.test', 'bounce', 2),
                        (1, '"b\ob"@x.test', 'manual', 3), (1, '"a b"@x.test', 'manual', 4);
               INSERT INTO blocked_sender (account_id, email, created_at) VALUES (1, 'x@bücher.test', 1);"#,
        )
        .unwrap();
        run(&mut old, &path).unwrap();
        let text = |sql: &str| -> String { old.query_row(sql, [], |row| row.get(0)).unwrap() };
        assert_eq!(
            text("SELECT group_concat(email || ' ' || reason, ', ' ORDER BY email) FROM suppression"),
            "\"a b\"@x.test manual, ada@x.test bounce, bob@x.test manual"
        );
        assert_eq!(text("SELECT group_concat(rows) FROM account_rows WHERE table_name = 'suppression'"), "3");
        assert_eq!(text("SELECT email FROM blocked_sender"), "x@xn--bcher-kva.test");
    }
}
