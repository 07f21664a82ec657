//! The command line: `check`, `dev`, `bench`, `serve`, `queue`, `user`, `rotate-key`, `export` and `import`,
//! through the real binary.
//!
//! A test runs a command as an operator would and reads its output and exit code.

mod check;
mod dev;
mod moving;
mod queue;
mod restart;
mod rotate_key;
mod user;
