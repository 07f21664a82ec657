//! The process and its machine: the data directory, listening sockets, limits of open files, signals.
//!
//! Uses the operating system and of this crate only the form of metrics. A new file of the data directory belongs in
//! [`data_dir`], a figure of the process in [`usage`], any other system call in [`host`].

pub(crate) mod data_dir;
pub(crate) mod host;
pub(crate) mod usage;
