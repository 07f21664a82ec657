//! Operating system services: resource limits to raise, signals to survive, addresses of this machine.

use std::net::{IpAddr, UdpSocket};

use rustix::process::{Resource, getrlimit, setrlimit};

/// File descriptors outside the shares below; half of all where few may be open.
const RESERVED_FILES: u64 = 256;

/// Checks that an address belongs to this machine, so that connections may come from it.
///
/// # Errors
/// The system's reason why it does not.
pub(crate) fn has_address(ip: IpAddr) -> std::io::Result<()> {
    UdpSocket::bind((ip, 0)).map(drop)
}

/// Raises the soft limit of open files to the hard one; thousands of sessions and attempts each hold a descriptor.
pub fn raise_file_limit() {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    if let Err(error) = setrlimit(Resource::Nofile, limit) {
        tracing::warn!(%error, "the limit of open files was not raised");
    }
}

/// Catches signals that would end the process needlessly: with SIGXFSZ caught, a write beyond `RLIMIT_FSIZE` is an
/// error (a full disk to the caller), and SIGUSR1 and SIGUSR2 have a meaning in other servers but none here.
///
/// # Errors
/// A signal cannot be caught.
pub(crate) fn survive_signals() -> std::io::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    /// `SIGXFSZ` on every Linux architecture in Rust's tier 1.
    const SIGXFSZ: i32 = 25;
    // Signals stay caught once registered.
    [SignalKind::from_raw(SIGXFSZ), SignalKind::user_defined1(), SignalKind::user_defined2()]
        .into_iter()
        .try_for_each(|kind| signal(kind).map(drop))
}

/// Returns the limit of open files.
pub fn file_limit() -> u64 {
    getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX)
}

/// Users of file descriptors by the thousand. Their shares leave a sixteenth and a reserve to storage and outgoing
/// connections, and a flood of one does not take the others' share.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FileUse {
    /// Sessions of the listeners that receive mail from anybody.
    Mail,
    /// Sessions of one of the two submission listeners.
    Submission,
    /// Spool files of mail data being received.
    SpoolFiles,
    /// Connections of an HTTP listener.
    Http,
}

impl FileUse {
    /// Returns the number of files it may have open, at least one.
    pub(crate) fn limit(self) -> usize {
        self.share_of(file_limit())
    }

    fn share_of(self, limit: u64) -> usize {
        let sixteenths = match self {
            Self::Mail => 9,
            Self::Submission => 1,
            Self::SpoolFiles | Self::Http => 2,
        };
        let shared = limit - RESERVED_FILES.min(limit / 2);
        usize::try_from((shared / 16).saturating_mul(sixteenths)).unwrap_or(usize::MAX).max(1)
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests may panic")]

    use super::*;

    #[test]
    fn ten_thousand_sessions_fit_where_twenty_thousand_files_do_and_some_where_few_do() {
        assert_eq!(FileUse::Mail.share_of(20_000), 11_106);
        assert_eq!(FileUse::Mail.share_of(64), 18);
        assert_eq!(FileUse::Mail.share_of(0), 1);
        for limit in [64, 1024, 65_536] {
            let [mail, submission, drafts, http] =
                [FileUse::Mail, FileUse::Submission, FileUse::SpoolFiles, FileUse::Http]
                    .map(|one| one.share_of(limit));
            assert!(mail + 2 * submission + drafts + http < usize::try_from(limit).unwrap());
        }
    }
}
