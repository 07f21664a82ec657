//! The `mailkite` binary.

fn main() {}
