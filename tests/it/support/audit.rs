//! `mailkite audit` on a data directory: is everything there that was promised?

use std::path::Path;
use std::process::Command;

/// Runs it: whether nothing is lost, and what it said.
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

/// Nothing is lost.
#[track_caller]
pub(crate) fn assert_audited(data_dir: &Path) {
    let (good, said) = audit(data_dir, &[]);
    assert!(good, "{said}");
}

/// Nothing is lost, and each id of a ledger has an end state; what was said of them.
#[track_caller]
pub(crate) fn assert_ledger(data_dir: &Path, ledger: &str) -> String {
    let file = data_dir.with_extension("ledger");
    std::fs::write(&file, ledger).unwrap();
    let (good, said) = audit(data_dir, &["--ledger", file.to_str().unwrap()]);
    assert!(good, "{said}");
    said
}
