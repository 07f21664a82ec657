//! Listening sockets that outlive the process: those that systemd passes, else our own, which it keeps for the next
//! start.
//!
//! A socket that stays open through a restart refuses nobody: connections wait in its queue until the new process
//! accepts them. systemd passes the sockets of `mailkite.socket` (socket activation), and what an earlier process gave
//! it to keep (the file descriptor store, `FileDescriptorStoreMax=`).

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Mutex, PoisonError};

use listenfd::ListenFd;
use rustix::io::Errno;
use sd_notify::NotifyState;
use tokio::net::{TcpListener, TcpSocket};

/// The accept queue. The usual 128 overflow in a flood, and a dropped client, honest or not, retries only after a
/// second.
const BACKLOG: u32 = 4096;
/// Begins the names of sockets that systemd keeps for us; the others are those of socket units.
const KEPT: &str = "mailkite-tcp-";

/// A listening socket that systemd passed.
#[derive(Debug)]
struct Passed {
    listener: std::net::TcpListener,
    address: SocketAddr,
    /// Its name in the store, or that of its socket unit.
    name: String,
}

/// Opens listening sockets, first of those that systemd passed.
#[derive(Debug, Default)]
pub struct Sockets {
    passed: Mutex<Vec<Passed>>,
    /// Duplicates of what was bound here, until systemd keeps them.
    bound: Mutex<Vec<(SocketAddr, OwnedFd)>>,
}

impl Sockets {
    /// Takes the sockets that systemd passed to this process, if any. Must be called once, before threads are started:
    /// it removes variables of the environment.
    pub(crate) fn from_systemd() -> Self {
        let names = std::env::var("LISTEN_FDNAMES").unwrap_or_default();
        let mut names = names.split(':').map(str::to_owned);
        let mut sockets = ListenFd::from_env();
        let mut passed = Vec::new();
        for index in 0..sockets.len() {
            let name = names.next().unwrap_or_default();
            match sockets.take_tcp_listener(index).and_then(|found| found.map(adopt).transpose()) {
                Ok(Some((listener, address))) => passed.push(Passed { listener, address, name }),
                Ok(None) => {}
                Err(error) => tracing::warn!(%error, name, "systemd passed something that is no TCP listener"),
            }
        }
        Self { passed: Mutex::new(passed), bound: Mutex::default() }
    }

    /// Listens on an address: on the socket that systemd passed for it, or on a new one. `[::]` on a host without IPv6
    /// becomes `0.0.0.0`. Needs the runtime.
    ///
    /// # Errors
    /// The address is in use or may not be bound.
    pub(crate) fn listen(&self, address: SocketAddr) -> std::io::Result<TcpListener> {
        if let Some(listener) = self.take(address) {
            return TcpListener::from_std(listener);
        }
        let listener = match listen_exactly(address) {
            Err(error) if address.is_ipv6() && address.ip().is_unspecified() && no_ipv6(&error) => {
                listen_exactly((Ipv4Addr::UNSPECIFIED, address.port()).into())
            }
            listening => listening,
        }?;
        if may_be_kept() {
            let duplicate = listener.as_fd().try_clone_to_owned()?;
            self.bound.lock().unwrap_or_else(PoisonError::into_inner).push((listener.local_addr()?, duplicate));
        }
        Ok(listener)
    }

    fn take(&self, address: SocketAddr) -> Option<std::net::TcpListener> {
        let mut passed = self.passed.lock().unwrap_or_else(PoisonError::into_inner);
        let index = passed.iter().position(|one| one.serves(address))?;
        Some(passed.swap_remove(index).listener)
    }

    /// Gives what was bound to systemd, which keeps it open for the next process, and lets go of what it passed and
    /// no setting names.
    pub(crate) fn keep(&self) {
        let bound = std::mem::take(&mut *self.bound.lock().unwrap_or_else(PoisonError::into_inner));
        for (address, socket) in bound {
            let name = format!("{KEPT}{}", address.to_string().replace(':', "_"));
            let sent =
                sd_notify::notify_with_fds(&[NotifyState::FdStore, NotifyState::FdName(&name)], &[socket.as_fd()]);
            if let Err(error) = sent {
                tracing::warn!(%error, %address, "systemd could not keep a socket; a restart will close it");
            }
        }
        let unused = std::mem::take(&mut *self.passed.lock().unwrap_or_else(PoisonError::into_inner));
        for Passed { address, name, .. } in unused {
            if name.starts_with(KEPT) {
                // An earlier configuration's.
                drop(sd_notify::notify(&[NotifyState::FdStoreRemove, NotifyState::FdName(&name)]));
            } else {
                tracing::warn!(
                    %address,
                    unit = name,
                    "systemd listens on an address that no listen setting names: connections to it wait for ever; \
                     remove it from the socket unit, or add it to the configuration"
                );
            }
        }
    }
}

/// Returns true if a service manager may take sockets.
fn may_be_kept() -> bool {
    std::env::var_os("NOTIFY_SOCKET").is_some()
}

/// Sets what a passed socket needs and returns its address.
fn adopt(listener: std::net::TcpListener) -> std::io::Result<(std::net::TcpListener, SocketAddr)> {
    listener.set_nonblocking(true)?;
    let backlog = i32::try_from(BACKLOG).unwrap_or(i32::MAX);
    rustix::net::listen(&listener, backlog)?;
    let address = listener.local_addr()?;
    Ok((listener, address))
}

impl Passed {
    /// Returns true if it serves a configured address. One that an earlier process bound has to be exactly that, or
    /// what `[::]` becomes on a host without IPv6.
    fn serves(&self, wanted: SocketAddr) -> bool {
        let kept = self.name.starts_with(KEPT);
        is_same(self.address, wanted)
            && !(kept && self.address.is_ipv4() && wanted.is_ipv6() && has_ipv6())
            && !(kept && self.address.is_ipv6() && wanted.is_ipv4())
    }
}

fn has_ipv6() -> bool {
    TcpSocket::new_v6().is_ok_and(|socket| socket.bind((std::net::Ipv6Addr::UNSPECIFIED, 0).into()).is_ok())
}

/// Returns true if a passed socket serves a configured address: the same port, and the same or every interface.
fn is_same(passed: SocketAddr, wanted: SocketAddr) -> bool {
    let canonical = |address: SocketAddr| -> IpAddr { address.ip().to_canonical() };
    let every = |address: SocketAddr| canonical(address).is_unspecified();
    passed.port() == wanted.port() && (canonical(passed) == canonical(wanted) || (every(passed) && every(wanted)))
}

fn listen_exactly(address: SocketAddr) -> std::io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    // A restart must not wait for the previous process's connections to time out.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

fn no_ipv6(error: &std::io::Error) -> bool {
    Errno::from_io_error(error).is_some_and(|errno| matches!(errno, Errno::AFNOSUPPORT | Errno::ADDRNOTAVAIL))
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests may panic")]

    use std::time::Duration;

    use super::*;

    #[test]
    fn a_passed_socket_serves_its_own_address_or_every_one() {
        let same = |passed: &str, wanted: &str| is_same(passed.parse().unwrap(), wanted.parse().unwrap());
        assert!(same("[::]:25", "[::]:25"));
        assert!(same("[::]:25", "0.0.0.0:25"));
        assert!(same("192.0.2.1:25", "[::ffff:192.0.2.1]:25"));
        assert!(!same("192.0.2.1:25", "[::]:25"));
        assert!(!same("[::]:25", "127.0.0.1:25"));
        assert!(!same("[::]:25", "[::]:587"));
    }

    #[tokio::test]
    async fn three_hundred_connections_wait_to_be_accepted_and_none_is_dropped() {
        let longest = std::fs::read_to_string("/proc/sys/net/core/somaxconn").unwrap_or_default();
        if longest.trim().parse().is_ok_and(|longest: u32| longest < 400) {
            return;
        }
        let listener = Sockets::default().listen("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = listener.local_addr().unwrap();
        // The client retries the connect after a second when the queue was full.
        let connect = |_| std::net::TcpStream::connect_timeout(&address, Duration::from_millis(900)).unwrap();
        let waiting: Vec<_> = (0..300).map(connect).collect();
        assert_eq!(waiting.len(), 300);
    }
}
