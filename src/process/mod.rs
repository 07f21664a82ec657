//! The process and its machine: the data directory, listening sockets, limits of open files, signals.
//!
//! Uses the operating system and nothing of this crate. A new file of the data directory belongs in [`data_dir`], any
//! other system call in [`host`].

pub(crate) mod control_socket;
pub(crate) mod data_dir;
pub(crate) mod host;
