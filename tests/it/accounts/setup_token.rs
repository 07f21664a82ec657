//! The first account of a server in production: by the setup token, which the log and the command line tell.

use std::process::Output;

use serde_json::json;
use tokio::process::Command;

use crate::support::api::Api;
use crate::support::serve_process::ServeProcess;

async fn setup_token(folder: &std::path::Path) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_mailkite"));
    command.args(["setup-token", "--config"]).arg(folder.join("mailkite.toml")).output().await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_token_of_the_log_and_of_the_command_line_makes_the_owner_and_is_spent() {
    let folder = tempfile::tempdir().unwrap();
    let mut served = ServeProcess::start(folder.path()).await;
    let logged =
        served.wait_for_log("this server has no owner yet").await["setup_token"].as_str().unwrap().to_owned();
    assert_eq!(logged.len(), 32);
    assert!(logged.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit()), "{logged}");
    let printed = setup_token(folder.path()).await;
    assert!(printed.status.success(), "{printed:?}");
    assert_eq!(String::from_utf8(printed.stdout).unwrap(), format!("{logged}\n"));
    for file in ["mailkite.db", "mailkite.db-wal"] {
        let bytes = std::fs::read(folder.path().join("data").join(file)).unwrap();
        assert!(!bytes.windows(logged.len()).any(|part| part == logged.as_bytes()), "{file} reveals it");
    }

    let api = Api::anonymous(served.http);
    let account = json!({"email": "ada@acme.dev", "password": "correct horse battery"});
    // Loopback is no proof here: a reverse proxy on this machine could be asking for anybody.
    api.post("/api/auth/signup", account.clone()).await.expect_error(403, "setup_token");
    let mut wrong = account.clone();
    wrong["setupToken"] = json!("00000000000000000000000000000000");
    api.post("/api/auth/signup", wrong).await.expect_error(403, "setup_token");
    let mut right = account;
    right["setupToken"] = json!(logged);
    let made = api.post("/api/auth/signup", right.clone()).await.expect(201);
    assert_eq!((&made["user"]["isAdmin"], &made["user"]["emailVerified"]), (&json!(true), &json!(true)));
    right["email"] = json!("eve@acme.dev");
    api.post("/api/auth/signup", right).await.expect_error(403, "signup_closed");

    let refused = setup_token(folder.path()).await;
    assert!(!refused.status.success() && refused.stdout.is_empty());
    assert!(String::from_utf8_lossy(&refused.stderr).contains("already has an owner"), "{refused:?}");
    served.child.kill().await.unwrap();
}

#[tokio::test]
async fn without_a_database_the_command_says_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    let config = "hostname = \"mx.acme.dev\"\npublic_url = \"https://mx.acme.dev\"\ndata_dir = \"data\"\n";
    std::fs::write(folder.path().join("mailkite.toml"), config).unwrap();
    let refused = setup_token(folder.path()).await;
    assert!(!refused.status.success());
    assert!(String::from_utf8_lossy(&refused.stderr).contains("start the server once"), "{refused:?}");
    assert!(!folder.path().join("data").exists(), "it makes nothing");
}
