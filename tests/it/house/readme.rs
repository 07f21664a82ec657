//! The commands of the README work as pasted.

use mailkite::testing::clock::Clock;
use mailkite::testing::config::Signup;

use crate::support::receiver::{Receiver, Reply};
use crate::support::server::Server;

#[tokio::test(flavor = "multi_thread")]
async fn the_walk_through_the_api_works_as_pasted() {
    let server = Server::start_with(Clock::System, |config| {
        config.dev = true;
        config.auth.signup = Signup::Open;
    })
    .await;
    let mut receiver = Receiver::start(|_| Reply::status(200)).await;
    let readme = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/README.md")).unwrap();
    let (_, section) = readme.split_once("## The API").unwrap();
    let (_, walk) = section.split_once("```bash\n").unwrap();
    let (walk, _) = walk.split_once("```").unwrap();
    // Only the addresses are this test's own.
    let walk = walk
        .replace("http://127.0.0.1:8080", &format!("http://{}", server.http))
        .replace("smtp://127.0.0.1:2525", &format!("smtp://{}", server.smtp))
        .replace("http://localhost:3000/hook", &receiver.url());
    let run = tokio::process::Command::new("bash")
        .args([
            "-euo",
            "pipefail",
            "-c",
            &walk.replace("curl -s ", "curl -sS --fail-with-body --retry 3 --retry-all-errors --retry-delay 1 "),
        ])
        .output();
    let output = run.await.unwrap();
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{out}\n{err}");
    assert!(out.contains(r#""status":"verified""#), "{out}");
    assert!(out.contains(r#"{"ok":true,"status":200}"#), "{out}");
    assert!(out.contains(r#""attempt":2,"manual":true"#), "{out}");
    let first = receiver.next_request().await;
    let second = receiver.next_request().await;
    assert_eq!(first.body, second.body);
    server.stop().await;
}
