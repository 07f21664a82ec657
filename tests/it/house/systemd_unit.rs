//! The systemd unit, checked by `systemd-analyze`.

use std::path::Path;
use std::process::{Command, Output};

use crate::support::machine::skip;

fn unit() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("packaging/mailkite.service")
}

/// Runs `systemd-analyze`; `None` where it is not installed.
fn analyze(arguments: &[&str]) -> Option<Output> {
    match Command::new("systemd-analyze").args(arguments).env("SYSTEMD_PAGER", "").output() {
        Ok(output) => Some(output),
        Err(error) => {
            skip(&format!("systemd-analyze: {error}"));
            None
        }
    }
}

#[test]
fn the_socket_unit_is_one_that_systemd_accepts() {
    let folder = tempfile::tempdir().unwrap();
    let packaged = unit().with_extension("socket");
    let service = folder.path().join("mailkite.service");
    std::fs::write(&service, "[Service]\nExecStart=/bin/true\n").unwrap();
    let path = folder.path().join("mailkite.socket");
    std::fs::copy(&packaged, &path).unwrap();
    let Some(output) = analyze(&["verify", path.to_str().unwrap()]) else { return };
    let said = said(&output);
    assert!(output.status.success() && !said.contains("mailkite.socket"), "{said}");
    let text = std::fs::read_to_string(&packaged).unwrap();
    let ports: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("ListenStream=")).collect();
    let defaults = mailkite::testing::config::Config::default();
    let submission = defaults.submission;
    let listened = defaults.smtp.listen.iter().chain(&submission.listen).chain(&submission.listen_tls);
    assert_eq!(ports, listened.map(|address| address.port().to_string()).collect::<Vec<_>>());
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&[&output.stdout[..], &output.stderr[..]].concat()).into_owned()
}

#[test]
fn the_unit_exposes_next_to_nothing() {
    let Some(output) = analyze(&["security", "--offline=true", unit().to_str().unwrap()]) else { return };
    let said = said(&output);
    let level = said.split("Overall exposure level for mailkite.service: ").nth(1).and_then(|rest| rest.get(..3));
    let level: f32 = level.and_then(|level| level.parse().ok()).unwrap_or_else(|| panic!("no level in {said}"));
    assert!(level <= 2.0, "{said}");
}

#[test]
fn the_unit_is_one_that_systemd_accepts() {
    let folder = tempfile::tempdir().unwrap();
    let text = std::fs::read_to_string(unit()).unwrap();
    let installed = "/usr/local/bin/mailkite ";
    assert!(text.contains(installed));
    let here = text.replace(installed, concat!(env!("CARGO_BIN_EXE_mailkite"), " "));
    let path = folder.path().join("mailkite.service");
    std::fs::write(&path, here).unwrap();
    let Some(output) = analyze(&["verify", path.to_str().unwrap()]) else { return };
    let said = said(&output);
    assert!(output.status.success() && !said.contains("mailkite.service"), "{said}");
}
