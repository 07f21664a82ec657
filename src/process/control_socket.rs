//! The socket in the data directory by which commands on the host reach the server that has it open. Who may enter the
//! directory may use it; the peer's user is checked besides.

use std::fs;
use std::io::ErrorKind;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixStream as BlockingStream;
use std::path::{Path, PathBuf};

use tokio::net::{UnixListener, UnixStream};

const NAME: &str = "control.sock";

/// The listening socket, whose name is removed with it.
#[derive(Debug)]
pub(crate) struct ControlSocket {
    listener: UnixListener,
    path: PathBuf,
}

/// Opens the directory, by whose descriptor its socket has a short path: `sockaddr_un` has room for 107 octets.
fn short_path(data_dir: &Path) -> std::io::Result<(fs::File, PathBuf)> {
    let directory = fs::File::open(data_dir)?;
    let descriptors = Path::new("/proc/self/fd");
    let folder =
        if descriptors.exists() { descriptors.join(directory.as_raw_fd().to_string()) } else { data_dir.into() };
    Ok((directory, folder.join(NAME)))
}

impl ControlSocket {
    /// Listens in a data directory that this process has locked. Needs the runtime.
    ///
    /// # Errors
    /// The file system or the system's policy allows no such socket.
    pub(crate) fn listen(data_dir: &Path) -> std::io::Result<Self> {
        let path = data_dir.join(NAME);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let (_directory, short) = short_path(data_dir)?;
        let listener = UnixListener::bind(short)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600))?;
        Ok(Self { listener, path })
    }

    /// Accepts the next connection of this user or of root.
    ///
    /// # Errors
    /// The system's reason.
    pub(crate) async fn accept(&self) -> std::io::Result<UnixStream> {
        loop {
            let (stream, _) = self.listener.accept().await?;
            let user = stream.peer_cred()?.uid();
            if user == 0 || user == rustix::process::geteuid().as_raw() {
                return Ok(stream);
            }
        }
    }
}

impl Drop for ControlSocket {
    fn drop(&mut self) {
        // The next start removes it otherwise.
        drop(fs::remove_file(&self.path));
    }
}

/// Connects to the server that has a data directory open; `None` if none listens there.
///
/// # Errors
/// The directory or the socket may not be used.
pub(crate) fn connect(data_dir: &Path) -> std::io::Result<Option<BlockingStream>> {
    let (_directory, path) = short_path(data_dir)?;
    match BlockingStream::connect(path) {
        Ok(stream) => Ok(Some(stream)),
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::ConnectionRefused) => Ok(None),
        Err(error) => Err(error),
    }
}
