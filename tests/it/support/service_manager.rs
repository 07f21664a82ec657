//! The part of systemd that `mailkite serve` talks to: notices, kept sockets, sockets passed at the start.

use std::collections::BTreeMap;
use std::io::IoSliceMut;
use std::mem::MaybeUninit;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use rustix::io::{FdFlags, fcntl_dupfd_cloexec, fcntl_setfd};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags};
use rustix::process::{Pid, Signal, kill_process};
use tokio::io::Interest;
use tokio::net::UnixDatagram;
use tokio::process::{Child, Command};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::time::timeout;

/// Limit for anything the process does.
const DEADLINE: Duration = Duration::from_secs(60);

/// Plays systemd for one service.
pub(crate) struct ServiceManager {
    path: PathBuf,
    /// Sockets that the service gave it to keep, and those of socket units, by name.
    pub sockets: BTreeMap<String, OwnedFd>,
    /// The lines of the notices so far, of which the first were waited for.
    said: Vec<String>,
    notices: UnboundedReceiver<Notice>,
}

/// The lines of a notice, and the descriptors that came with it.
type Notice = (Vec<String>, Vec<OwnedFd>);

impl ServiceManager {
    /// Listens for notices in a folder.
    pub(crate) fn new(folder: &Path) -> Self {
        let path = folder.join("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        let (read, notices) = unbounded_channel();
        tokio::spawn(async move {
            while let Ok(notice) = socket.async_io(Interest::READABLE, || receive(&socket)).await {
                drop(read.send(notice));
            }
        });
        Self { path, sockets: BTreeMap::new(), said: Vec::new(), notices }
    }

    /// Opens a socket as a socket unit does; returns its address.
    pub(crate) fn open(&mut self, unit: &str) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        self.sockets.insert(unit.to_owned(), listener.into());
        address
    }

    /// Starts `mailkite serve` with the sockets, as systemd does: from descriptor 3 on.
    pub(crate) fn start(&self, config: &Path, log: &Path) -> Child {
        let names: Vec<&str> = self.sockets.keys().map(String::as_str).collect();
        // Descriptors far above those that the shell moves them to.
        let passed: Vec<OwnedFd> =
            self.sockets.values().map(|socket| fcntl_dupfd_cloexec(socket, 100).unwrap()).collect();
        let moves: Vec<String> = (3..).zip(&passed).map(|(to, from)| format!("{to}<&{}", from.as_raw_fd())).collect();
        for socket in &passed {
            fcntl_setfd(socket.as_fd(), FdFlags::empty()).unwrap();
        }
        let moves = if moves.is_empty() { String::new() } else { format!("exec {}; ", moves.join(" ")) };
        let count = passed.len();
        let script = format!("{moves}LISTEN_PID=$$ LISTEN_FDS={count} exec \"$0\" serve --config \"$1\"");
        let log = std::fs::File::options().create(true).append(true).open(log).unwrap();
        Command::new("bash")
            .args(["-c", &script, env!("CARGO_BIN_EXE_mailkite")])
            .arg(config)
            .env_remove("RUST_LOG")
            .env("NOTIFY_SOCKET", &self.path)
            .env("WATCHDOG_USEC", "300000")
            .env("LISTEN_FDNAMES", names.join(":"))
            .stdin(Stdio::null())
            .stderr(log)
            .kill_on_drop(true)
            .spawn()
            .unwrap()
    }

    /// Waits for the next notice with this line; keeps the sockets that came until then.
    pub(crate) async fn wait_for(&mut self, line: &str) {
        let found = async {
            loop {
                let (lines, sockets) = self.notices.recv().await.unwrap();
                let name = lines.iter().find_map(|line| line.strip_prefix("FDNAME="));
                for socket in sockets {
                    self.sockets.insert(name.unwrap().to_owned(), socket);
                }
                if lines.iter().any(|line| line == "FDSTOREREMOVE=1") {
                    self.sockets.remove(name.unwrap());
                }
                let found = lines.iter().any(|said| said == line);
                self.said.extend(lines);
                if found {
                    return;
                }
            }
        };
        let waited = timeout(DEADLINE, found).await;
        assert!(waited.is_ok(), "never said {line:?}, but {:?}", self.said);
    }

    /// Begins an orderly stop.
    pub(crate) fn begin_stop(child: &Child) {
        let id = i32::try_from(child.id().unwrap()).unwrap();
        kill_process(Pid::from_raw(id).unwrap(), Signal::TERM).unwrap();
    }
}

/// The next notice, and the descriptors that come with it.
fn receive(notices: &UnixDatagram) -> std::io::Result<Notice> {
    let mut text = [0; 4096];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(4))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let received =
        rustix::net::recvmsg(notices, &mut [IoSliceMut::new(&mut text)], &mut control, RecvFlags::CMSG_CLOEXEC)?;
    let mut sockets = Vec::new();
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(rights) = message {
            sockets.extend(rights);
        }
    }
    let text = String::from_utf8_lossy(&text[..received.bytes]);
    Ok((text.lines().map(str::to_owned).collect(), sockets))
}
