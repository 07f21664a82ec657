//! The form of `/metrics`: both formats, and what promtool says of them.

use std::collections::BTreeSet;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use mailkite::testing::clock::Clock;

use crate::support::machine::program;
use crate::support::metrics::{Figures, OPEN_METRICS, TOKEN};
use crate::support::server::Server;

async fn start() -> Server {
    Server::start_with(Clock::System, |config| config.metrics.token = Some(TOKEN.to_owned())).await
}

/// Runs promtool with this input; false where it is not installed.
fn promtool(arguments: &[&str], input: &str) -> bool {
    let Some(promtool) = program("promtool") else { return false };
    let mut running = Command::new(promtool)
        .args(arguments)
        .current_dir(Path::new(env!("CARGO_MANIFEST_DIR")))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    running.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let output = running.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(output.status.success(), "promtool {arguments:?}: {said}");
    true
}

#[tokio::test(flavor = "multi_thread")]
async fn promtool_finds_no_fault_in_the_metrics() {
    let server = start().await;
    assert_eq!(server.owner().await.get("/v1/me").await.status, 200);
    let text = Figures::of(&server).await.text;
    tokio::task::spawn_blocking(move || promtool(&["check", "metrics"], &text)).await.unwrap();
    server.stop().await;
}

#[test]
fn promtool_accepts_the_alerts_and_they_fire_when_they_should() {
    if promtool(&["check", "rules", "packaging/alerts.yml"], "") {
        promtool(&["test", "rules", "tests/fixtures/alerts_test.yml"], "");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_scraper_that_asks_for_it_gets_openmetrics() {
    let server = start().await;
    let client = server.anonymous().with(TOKEN);
    client.exchange("GET", "/metrics", &[], None).await;
    let answer = client.exchange("GET", "/metrics", &[("accept", OPEN_METRICS)], None).await;
    let media = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    assert_eq!((answer.status, answer.header("content-type")), (200, Some(media)));
    let text = String::from_utf8(answer.body).unwrap();
    assert!(text.ends_with("\n# EOF\n") && text.matches("# EOF").count() == 1, "{text}");
    assert!(
        text.contains("# TYPE mailkite_messages_accepted counter\nmailkite_messages_accepted_total 0\n"),
        "{text}"
    );
    let mut families: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")).collect();
    let all = families.len();
    families.sort_unstable();
    families.dedup_by_key(|family| family.split(' ').next());
    assert_eq!(families.len(), all, "a name stands for two families");
    // The older format has the same series.
    let names = |text: &str| {
        let samples = text.lines().filter(|line| !line.starts_with('#'));
        samples.filter_map(|line| line.split(['{', ' ']).next()).map(str::to_owned).collect::<BTreeSet<_>>()
    };
    let older = Figures::of(&server).await.text;
    assert_eq!(names(&text), names(&older));
    server.stop().await;
}
