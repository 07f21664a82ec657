//! Durability: crashes, full disks, failing system calls, damaged files, retention.
//!
//! Most tests run the real binary, kill it or take its disk away, and ask `mailkite audit` what is left.
//! A new system call that may fail goes to `fault_injection`, a new kind of damage to `damaged_objects` or `recovery`.

mod backup;
mod damaged_objects;
mod disk;
mod durability;
mod fault_injection;
mod full_disk;
mod litestream;
mod recovery;
mod refused_starts;
mod retention;
mod upgrades;
mod uploads;
