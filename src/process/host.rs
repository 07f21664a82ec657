//! Operating system services: listening sockets, resource limits to raise, signals to survive.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};

use rustix::io::Errno;
use rustix::process::{Resource, getrlimit, setrlimit};
use tokio::net::{TcpListener, TcpSocket};

/// The accept queue. The usual 128 overflow in a flood, and a dropped client, honest or not, retries only after a
/// second.
const BACKLOG: u32 = 4096;

/// File descriptors outside the shares below; half of all where few may be open.
const RESERVED_FILES: u64 = 256;

/// Binds an address and listens; `[::]` on a host without IPv6 becomes `0.0.0.0`. Needs the runtime.
///
/// # Errors
/// The address is in use or may not be bound.
pub(crate) fn listen(address: SocketAddr) -> std::io::Result<TcpListener> {
    match listen_exactly(address) {
        Err(error) if address.is_ipv6() && address.ip().is_unspecified() && no_ipv6(&error) => {
            listen_exactly((Ipv4Addr::UNSPECIFIED, address.port()).into())
        }
        listening => listening,
    }
}

fn listen_exactly(address: SocketAddr) -> std::io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    // A restart must not wait for the previous process's connections to time out.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// Checks that an address belongs to this machine, so that connections may come from it.
///
/// # Errors
/// The system's reason why it does not.
pub(crate) fn has_address(ip: IpAddr) -> std::io::Result<()> {
    UdpSocket::bind((ip, 0)).map(drop)
}

fn no_ipv6(error: &std::io::Error) -> bool {
    Errno::from_io_error(error).is_some_and(|errno| matches!(errno, Errno::AFNOSUPPORT | Errno::ADDRNOTAVAIL))
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

    use std::time::Duration;

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

    #[tokio::test]
    async fn three_hundred_connections_wait_to_be_accepted_and_none_is_dropped() {
        let longest = std::fs::read_to_string("/proc/sys/net/core/somaxconn").unwrap_or_default();
        if longest.trim().parse().is_ok_and(|longest: u32| longest < 400) {
            return;
        }
        let listener = listen("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = listener.local_addr().unwrap();
        // The client retries the connect after a second when the queue was full.
        let connect = |_| std::net::TcpStream::connect_timeout(&address, Duration::from_millis(900)).unwrap();
        let waiting: Vec<_> = (0..300).map(connect).collect();
        assert_eq!(waiting.len(), 300);
    }
}
