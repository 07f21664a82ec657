//! The process and its machine: the data directory, listening sockets, limits of open files, signals.
//!
//! Uses the operating system and nothing of this crate. A new file of the data directory goes into [`data_dir`], anything
//! asked of the kernel into [`host`].

pub(crate) mod data_dir;
pub(crate) mod host;
