//! The rules of the source tree, the README, the packaging and the test scripts themselves.
//!
//! These tests read files of the project; a new rule goes to `rules`.

mod circles;
mod readme;
mod rules;
mod systemd_unit;
mod test_scripts;
mod words;
