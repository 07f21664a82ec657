//! The machine that the tests run on: skips tests for which it lacks something, and reads the memory of processes.

use std::fs::OpenOptions;
use std::io::Write;
use std::net::{IpAddr, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::Command;

/// Reports that the running test is skipped and why: on standard error, past the harness, which hides the output of
/// tests that pass; and in the file that `tests/run` lists at its end.
pub(crate) fn skip(reason: &str) {
    let thread = std::thread::current();
    let line = format!("{}: {reason}\n", thread.name().unwrap_or("a test"));
    std::io::stderr().write_all(format!("skipped {line}").as_bytes()).unwrap();
    if let Some(file) = std::env::var_os("MAILKITE_TESTS_SKIPPED") {
        let mut file = OpenOptions::new().append(true).open(file).unwrap();
        file.write_all(line.as_bytes()).unwrap();
    }
}

/// An address of this machine that is not loopback; without one the test is skipped. No packet is sent to find it.
pub(crate) fn own_address() -> Option<IpAddr> {
    let address = UdpSocket::bind("0.0.0.0:0").and_then(|socket| {
        socket.connect("192.0.2.1:9")?;
        socket.local_addr()
    });
    let found = address.ok().map(|address| address.ip()).filter(|ip| !ip.is_loopback() && !ip.is_unspecified());
    if found.is_none() {
        skip("this machine has no address but loopback");
    }
    found
}

/// Path of a program, which may lie outside of a user's PATH or be a tool of the tests; without it the test is skipped.
pub(crate) fn program(name: &str) -> Option<PathBuf> {
    let tools = concat!(env!("CARGO_MANIFEST_DIR"), "/target/tools/bin");
    let path = std::env::var("PATH").unwrap_or_default() + ":/usr/sbin:" + tools;
    let found = path.split(':').map(|folder| Path::new(folder).join(name)).find(|program| program.is_file());
    if found.is_none() {
        skip(&format!("{name} is not installed"));
    }
    found
}

/// Compiles a library of `tests/fixtures` into `folder`, to be preloaded; without a C compiler the test is skipped.
pub(crate) fn preload(source: &str, folder: &Path) -> Option<String> {
    let library = folder.join(source).with_extension("so");
    let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(source);
    let made =
        Command::new("cc").args(["-O2", "-shared", "-fPIC", "-o"]).arg(&library).arg(&from).arg("-ldl").output();
    match made {
        Ok(output) if output.status.success() => return Some(library.to_str().unwrap().to_owned()),
        Ok(output) => panic!("{}", String::from_utf8_lossy(&output.stderr)),
        Err(error) => skip(&format!("a library to preload: cc: {error}")),
    }
    None
}

/// A figure of `/proc/PID/status` in KiB, as `VmHWM`.
pub(crate) fn memory_kib(process: u32, name: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
    line.trim_start_matches(':').trim().trim_end_matches(" kB").parse().unwrap()
}

/// Starts the peak of resident memory anew. A kernel that cannot do that counts from the start, which is no less.
pub(crate) fn reset_peak_memory(process: u32) {
    drop(std::fs::write(format!("/proc/{process}/clear_refs"), "5"));
}

/// Copies a folder with its files and permissions; sockets are left out.
pub(crate) fn copy_folder(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    std::fs::set_permissions(to, std::fs::metadata(from).unwrap().permissions()).unwrap();
    for entry in std::fs::read_dir(from).unwrap().map(Result::unwrap) {
        let (kind, target) = (entry.file_type().unwrap(), to.join(entry.file_name()));
        if kind.is_dir() {
            copy_folder(&entry.path(), &target);
        } else if kind.is_file() {
            std::fs::copy(entry.path(), &target).unwrap();
        }
    }
}
