//! The database of a server under test: what it begins with, and a look at it from outside.

use std::path::Path;
use std::sync::Arc;

use mailkite::testing::bootstrap;
use mailkite::testing::clock::Timestamp;
use mailkite::testing::id::RowId;
use mailkite::testing::secrets::Secrets;
use mailkite::testing::store::accounts::domains::DomainRow;
use mailkite::testing::store::{self, Db};
use rusqlite::{Connection, OpenFlags};

/// Stands in for the owner's domain on a server without owner.
pub(super) fn unowned_domain(now: Timestamp) -> DomainRow {
    let name = "nobody.invalid".to_owned();
    DomainRow {
        id: RowId::new(0),
        public_id: mailkite::testing::id::DomainId::new(now),
        account_id: RowId::new(0),
        name,
        verified: false,
        flags: store::accounts::domains::Flags::default(),
        zero_retention: false,
        retention_days: None,
        tracking_webhook_url: None,
        webhook_events: None,
        created_at: now,
        checked_at: None,
        verified_at: None,
    }
}

/// Adds an owner, a pending domain and a verified one, which is returned.
pub(super) async fn seed(db: &Db, secrets: &Arc<Secrets>, now: Timestamp) -> DomainRow {
    let secrets = Arc::clone(secrets);
    let seeded = db.write(move |tx| {
        let (owner, _key) = bootstrap::owner(tx, &secrets, "owner@inbox.invalid", now)?;
        store::accounts::domains::insert(tx, owner.id, "pending.test", false, now)?;
        bootstrap::verified_domain(tx, owner.id, "inbox.test", now)
    });
    seeded.await.unwrap()
}

/// The database of a data directory that no server uses.
pub(crate) fn open_database(data_dir: &Path) -> Connection {
    let path = data_dir.join(store::FILE_NAME);
    Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_WRITE).unwrap()
}

/// Checks that a data directory is in order: integrity, and an object for every row that names one.
pub(crate) fn assert_sound(data_dir: &Path) {
    let connection = open_database(data_dir);
    let verdict: String = connection.query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
    assert_eq!(verdict, "ok");
    let mut statement = connection
        .prepare("SELECT file, size FROM mail_data WHERE file IS NOT NULL UNION ALL SELECT file, size FROM upload")
        .unwrap();
    let files = statement.query_map([], |row| Ok((row.get::<_, String>(0)?, row.get::<_, u64>(1)?))).unwrap();
    for (name, size) in files.map(Result::unwrap) {
        let found = std::fs::metadata(data_dir.join("objects").join(&name)).ok().map(|object| object.len());
        assert_eq!(found, Some(size), "the object {name}");
    }
}

/// Lists objects without a row, which a refused mail must not leave.
pub(crate) fn orphaned_objects(data_dir: &Path) -> Vec<String> {
    let connection = open_database(data_dir);
    let mut left = Vec::new();
    for folder in std::fs::read_dir(data_dir.join("objects")).unwrap().map(Result::unwrap) {
        let day = folder.file_name().into_string().unwrap();
        let named = "SELECT 1 FROM mail_data WHERE file = ?1 UNION ALL SELECT 1 FROM upload WHERE file = ?1";
        for file in std::fs::read_dir(folder.path()).unwrap().map(Result::unwrap) {
            let name = format!("{day}/{}", file.file_name().to_str().unwrap());
            let named = connection.prepare(named).unwrap().exists([&name]).unwrap();
            if !named {
                left.push(name);
            }
        }
    }
    left
}
