//! `mailkite audit` on a data directory: nothing that was acknowledged may be lost.

use std::path::Path;
use std::process::Command;

/// Runs it; returns true when nothing is lost, and its output.
pub(crate) fn audit(data_dir: &Path, arguments: &[&str]) -> (bool, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_mailkite"))
        .arg("audit")
        .args(arguments)
        .arg("--data-dir")
        .arg(data_dir)
        .output()
        .unwrap();
    let text = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
    (output.status.success(), text)
}

/// Asserts that nothing is lost.
#[track_caller]
pub(crate) fn assert_audited(data_dir: &Path) {
    let (good, said) = audit(data_dir, &[]);
    assert!(good, "{said}");
}

/// Asserts that nothing is lost and that each id of a ledger has an end state; returns the output.
#[track_caller]
pub(crate) fn assert_ledger(data_dir: &Path, ledger: &str) -> String {
    let file = data_dir.with_extension("ledger");
    std::fs::write(&file, ledger).unwrap();
    let (good, said) = audit(data_dir, &["--ledger", file.to_str().unwrap()]);
    assert!(good, "{said}");
    said
}
