//! The systemd units, checked by `systemd-analyze`.

use std::path::Path;
use std::process::{Command, Output};

use crate::support::machine::skip;

const SERVICES: [&str; 2] = ["mailkite.service", "mailkite-backup.service"];
const TIMER: &str = "mailkite-backup.timer";

fn unit(name: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("packaging").join(name)
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
    let packaged = unit("mailkite.service").with_extension("socket");
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
    for name in SERVICES {
        let Some(output) = analyze(&["security", "--offline=true", unit(name).to_str().unwrap()]) else { return };
        let said = said(&output);
        let level = said.split(&format!("Overall exposure level for {name}: ")).nth(1).and_then(|rest| rest.get(..3));
        let level: f32 = level.and_then(|level| level.parse().ok()).unwrap_or_else(|| panic!("no level in {said}"));
        assert!(level <= 2.0, "{said}");
    }
}

#[test]
fn the_unit_is_one_that_systemd_accepts() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::copy(unit(TIMER), folder.path().join(TIMER)).unwrap();
    for name in SERVICES {
        let text = std::fs::read_to_string(unit(name)).unwrap();
        let installed = "/usr/local/bin/mailkite ";
        assert!(text.contains(installed));
        let here = text.replace(installed, concat!(env!("CARGO_BIN_EXE_mailkite"), " "));
        std::fs::write(folder.path().join(name), here).unwrap();
    }
    for name in SERVICES.into_iter().chain([TIMER]) {
        let Some(output) = analyze(&["verify", folder.path().join(name).to_str().unwrap()]) else { return };
        let said = said(&output);
        assert!(output.status.success() && !said.contains("mailkite"), "{name}: {said}");
    }
}

#[test]
fn the_command_of_the_backup_unit_is_one_that_the_program_takes() {
    let text = std::fs::read_to_string(unit("mailkite-backup.service")).unwrap();
    let command = text.lines().find_map(|line| line.strip_prefix("ExecStart=/usr/local/bin/mailkite ")).unwrap();
    let missing = "/etc/mailkite/mailkite.toml";
    let output = Command::new(env!("CARGO_BIN_EXE_mailkite"))
        .args(command.replace(missing, "/nonexistent/mailkite.toml").split(' '))
        .output()
        .unwrap();
    let said = said(&output);
    assert!(said.contains("/nonexistent/mailkite.toml") && !said.contains("Usage"), "{said}");
}
