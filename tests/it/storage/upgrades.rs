//! Databases of earlier versions: `check` says what the next start will do, and `serve` does it.

use std::fs;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::Path;
use std::process::Command;

use rusqlite::Connection;
use rustix::process::Signal;

use crate::support::api::Api;
use crate::support::serve_process::{ServeProcess, configure};

/// "mkit", as `src/store/migrate.rs` marks its databases.
const APPLICATION_ID: i32 = 0x6d6b_6974;

/// The schemas of earlier versions, oldest first.
fn earlier_schemas() -> Vec<(i32, String)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/schemas");
    let mut found: Vec<(i32, String)> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| {
            let path = entry.unwrap().path();
            let name = path.file_stem().unwrap().to_str().unwrap();
            (name.strip_prefix("schema-").unwrap().parse().unwrap(), fs::read_to_string(&path).unwrap())
        })
        .collect();
    found.sort();
    found
}

/// A data directory as the version with this schema left it.
fn left_by(folder: &Path, version: i32, schema: &str) {
    let data = folder.join("data");
    fs::DirBuilder::new().mode(0o700).create(&data).unwrap();
    let key = fs::File::options().create_new(true).write(true).mode(0o600).open(data.join("master.key")).unwrap();
    std::io::Write::write_all(&mut &key, &[7; 32]).unwrap();
    let connection = Connection::open(data.join("mailkite.db")).unwrap();
    connection.execute_batch(schema).unwrap();
    connection.pragma_update(None, "application_id", APPLICATION_ID).unwrap();
    connection.pragma_update(None, "user_version", version).unwrap();
    connection
        .execute("INSERT INTO account (id, public_id, email, created_at) VALUES (1, 'usr_1', 'ada@acme.test', 5)", [])
        .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_of_every_earlier_schema_is_upgraded_after_check_said_so() {
    let schemas = earlier_schemas();
    assert!(schemas.len() >= 5, "{}", schemas.len());
    for (version, schema) in schemas {
        let folder = tempfile::tempdir().unwrap();
        left_by(folder.path(), version, &schema);
        let config = configure(folder.path(), "");
        let check = || Command::new(env!("CARGO_BIN_EXE_mailkite")).args(["check", "--config"]).arg(&config).output();
        let said = String::from_utf8(check().unwrap().stdout).unwrap();
        assert!(said.contains(&format!("the next start upgrades it: schema {version} becomes ")), "{said}");
        let mut served = ServeProcess::start(folder.path()).await;
        assert_eq!(Api::anonymous(served.http).get("/api/ready").await.status, 200, "schema {version}");
        served.signal(Signal::TERM);
        served.wait_for_log("stopped").await;
        assert!(served.into_child().wait().await.unwrap().success());
        let said = String::from_utf8(check().unwrap().stdout).unwrap();
        assert!(!said.contains("the next start upgrades it"), "{said}");
        let database = Connection::open(folder.path().join("data/mailkite.db")).unwrap();
        let email: String = database.query_row("SELECT email FROM account", [], |row| row.get(0)).unwrap();
        assert_eq!(email, "ada@acme.test", "schema {version}");
    }
}
