//! The process and its machine: the data directory, listening sockets, limits of open files, signals.
//!
//! Uses the operating system, and of this crate the clock and the form of metrics. A new file of the data directory
//! belongs in [`data_dir`], a listening socket comes from [`sockets`], notices to systemd from [`service_manager`], a
//! figure of the process from [`usage`]; any other system call belongs in [`host`].

pub(crate) mod control_socket;
pub(crate) mod data_dir;
pub(crate) mod host;
pub(crate) mod last_backup;
pub(crate) mod service_manager;
pub(crate) mod sockets;
pub(crate) mod usage;
