//! Usage of the machine by this process, under the names that all Prometheus clients give it. `/proc/self` is enough:
//! the unit hides the rest of `/proc`.

use std::fmt;

use procfs::process::{LimitValue, Process};

use crate::metrics::{Expose, Exposition};

/// Usage of the machine at one time.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Usage {
    cpu_seconds: f64,
    resident_bytes: u64,
    virtual_bytes: u64,
    threads: i64,
    open_files: usize,
    /// None: no limit.
    max_open_files: Option<u64>,
}

impl Usage {
    /// Reads the usage of this process. Blocks.
    ///
    /// # Errors
    /// `/proc` is not mounted, or not readable.
    pub(crate) fn read() -> procfs::ProcResult<Self> {
        let process = Process::myself()?;
        let stat = process.stat()?;
        // Ticks fit in the 53 bits of a float for millennia.
        let cpu_seconds = stat.utime.saturating_add(stat.stime) as f64 / procfs::ticks_per_second().max(1) as f64;
        let max_open_files = match process.limits()?.max_open_files.soft_limit {
            LimitValue::Value(limit) => Some(limit),
            LimitValue::Unlimited => None,
        };
        Ok(Self {
            cpu_seconds,
            resident_bytes: stat.rss.saturating_mul(procfs::page_size()),
            virtual_bytes: stat.vsize,
            threads: stat.num_threads,
            open_files: process.fd_count()?,
            max_open_files,
        })
    }
}

impl Expose for Usage {
    fn expose(&self, exposition: &mut Exposition<'_>) -> fmt::Result {
        let Self { cpu_seconds, resident_bytes, virtual_bytes, threads, open_files, max_open_files } = *self;
        let help = "CPU time used, of user and system.";
        exposition.counter_of_seconds("process_cpu_seconds_total", help, cpu_seconds)?;
        exposition.gauge("process_resident_memory_bytes", "Memory in RAM.", resident_bytes)?;
        exposition.gauge("process_virtual_memory_bytes", "Address space.", virtual_bytes)?;
        exposition.gauge("process_threads", "Threads.", threads)?;
        exposition.gauge("process_open_fds", "Open file descriptors.", open_files)?;
        let max = max_open_files.map_or(f64::INFINITY, |limit| limit as f64);
        exposition.gauge("process_max_fds", "Maximum number of open file descriptors.", max)
    }
}
