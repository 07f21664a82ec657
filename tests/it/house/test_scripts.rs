//! `tests/run` and `tests/bare` themselves: their messages about missing tools and skipped tests.
//! The scripts are copied; every tool that tests/prepare looks for is a stub, bash and coreutils are the machine's.

use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

struct Machine {
    dir: tempfile::TempDir,
}

struct Outcome {
    passed: bool,
    stdout: String,
    stderr: String,
    /// Calls of tools, except for `--version`.
    calls: Vec<String>,
}

impl Machine {
    /// Has every tool; its user is not root.
    fn new() -> Self {
        let machine = Self { dir: tempfile::tempdir().unwrap() };
        for folder in ["bin", "tests/dashboard", "tests/clients/python"] {
            fs::create_dir_all(machine.dir.path().join(folder)).unwrap();
        }
        machine.install("tests/clients/run", b"#!/bin/sh\necho 'clients ran'\n");
        for file in [
            "Cargo.toml",
            "tests/run",
            "tests/prepare",
            "tests/bare",
            "tests/clients/python/requirements.txt",
            "tests/litestream.txt",
        ] {
            machine.install(file, &fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join(file)).unwrap());
        }
        for (tool, version) in [
            ("rustc", concat!("rustc ", env!("CARGO_PKG_RUST_VERSION"), ".0 (59807616e 2026-04-14)")),
            ("cargo", concat!("cargo ", env!("CARGO_PKG_RUST_VERSION"), ".0 (f2d3ce0bd 2026-03-21)")),
            ("cc", "cc (Debian 12.2.0-14+deb12u1) 12.2.0"),
            ("curl", "curl 7.88.1 (x86_64-pc-linux-gnu) libcurl/7.88.1"),
            ("swaks", "swaks version 20201014.0"),
            ("strace", "strace -- version 6.1"),
            ("mount", "mount from util-linux 2.38.1"),
            ("prlimit", "prlimit from util-linux 2.38.1"),
            ("systemd-analyze", "systemd 252 (252.39-1~deb12u1)"),
            ("python3", "23.0.1"),
            ("nginx", "nginx version: nginx/1.22.1"),
            ("haproxy", "HAProxy version 2.6.12-1+deb12u4"),
            ("caddy", "2.6.2"),
            ("npm", "9.2.0"),
            ("node", "v20.20.2"),
            ("chromium", "Chromium 156.0.8078.108 built on Debian"),
            ("id", "1000"),
            ("apt-get", ""),
        ] {
            machine.tool(tool, version);
        }
        machine
    }

    /// Installs a stub of a tool with this version that records its calls.
    fn tool(&self, name: &str, version: &str) {
        self.script(name, &format!("echo '{version}'"));
    }

    fn script(&self, name: &str, body: &str) {
        let calls = self.dir.path().join("calls");
        let text = format!(
            "#!/bin/sh\ncase \"$*\" in *--version | -c*import* | -x* | -u) ;; *) echo \"$(basename \"$0\") $*\" \
             >>{} ;; esac\n{body}\n",
            calls.display()
        );
        self.install(&format!("bin/{name}"), text.as_bytes());
    }

    /// Another process writes it: a file that is open for writing anywhere, as in a child of another test that was just
    /// forked, cannot be executed.
    fn install(&self, path: &str, text: &[u8]) {
        let mut install = Command::new("install")
            .args(["-m", "755", "/dev/stdin"])
            .arg(self.dir.path().join(path))
            .stdin(Stdio::piped())
            .spawn()
            .unwrap();
        install.stdin.take().unwrap().write_all(text).unwrap();
        assert!(install.wait().unwrap().success());
    }

    /// Runs `tests/run`.
    fn run(&self, environment: &[(&str, &str)]) -> Outcome {
        self.run_script("tests/run", environment)
    }

    fn run_script(&self, script: &str, environment: &[(&str, &str)]) -> Outcome {
        let bin = self.dir.path().join("bin");
        let output = Command::new(self.dir.path().join(script))
            .env_clear()
            .env("PATH", format!("{}:/usr/bin:/bin", bin.display()))
            .envs(environment.iter().copied())
            .output()
            .unwrap();
        let calls = fs::read_to_string(self.dir.path().join("calls")).unwrap_or_default();
        Outcome {
            passed: output.status.success(),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
            calls: calls.lines().map(str::to_owned).collect(),
        }
    }
}

#[test]
fn everything_that_is_missing_or_too_old_is_said_at_once_before_anything_runs() {
    let machine = Machine::new();
    machine.tool("rustc", "rustc 1.80.0 (051478957 2024-07-21)");
    machine.tool("curl", "curl 7.64.0 (x86_64-pc-linux-gnu)");
    machine.script("cc", "exit 1");
    machine.script("strace", "exit 127");
    machine.script("chromium", "exit 127");
    let outcome = machine.run(&[]);
    assert!(!outcome.passed);
    for sentence in [
        concat!("rustc 1.80.0 is too old, ", env!("CARGO_PKG_RUST_VERSION"), " or newer is needed"),
        "curl 7.64.0 is too old, 7.76 or newer is needed",
        "cc is missing or does not run; it compiles SQLite and links; Debian: apt-get install gcc libc6-dev",
        "strace is missing or does not run; ",
        "chromium is missing or does not run; ",
        "FAILED in \"what is needed\"",
    ] {
        assert_eq!(outcome.stderr.matches(sentence).count(), 1, "{sentence}:\n{}", outcome.stderr);
    }
    assert_eq!(outcome.calls, Vec::<String>::new(), "only root installs, and no test runs");
}

#[test]
fn what_apt_cannot_mend_is_said_before_it_runs() {
    let machine = Machine::new();
    machine.tool("id", "0");
    machine.script("strace", "exit 127");
    machine.tool("systemd-analyze", "systemd 249 (249.11-0ubuntu3.12)");
    let outcome = machine.run(&[("CHROMIUM", "/no/such/browser")]);
    assert!(!outcome.passed);
    for sentence in [
        "systemd-analyze 249 is too old, 250 or newer is needed",
        "/no/such/browser is missing or does not run; it shows the dashboard (CHROMIUM=… names another)\n",
        "strace is missing or does not run; ",
    ] {
        assert_eq!(outcome.stderr.matches(sentence).count(), 1, "{sentence}:\n{}", outcome.stderr);
    }
    assert_eq!(outcome.calls, Vec::<String>::new());
}

#[test]
fn root_on_debian_gets_what_is_missing_and_nothing_else() {
    let machine = Machine::new();
    machine.tool("id", "0");
    machine.script("strace", "exit 127");
    machine.script("swaks", "exit 127");
    let bin = machine.dir.path().join("bin");
    machine
        .script("apt-get", &format!("for tool in strace swaks; do echo 'echo 6.1' >{}/$tool; done", bin.display()));
    let outcome = machine.run(&[]);
    assert!(outcome.passed, "{}", outcome.stderr);
    let installed: Vec<_> = outcome.calls.iter().filter(|call| call.contains("apt-get install")).collect();
    assert_eq!(installed.len(), 1, "{installed:?}");
    assert!(installed[0].ends_with(" --no-install-recommends swaks strace"), "{installed:?}");
}

#[test]
fn what_cannot_be_installed_is_said() {
    let machine = Machine::new();
    machine.tool("id", "0");
    machine.script("strace", "exit 127");
    machine.script("apt-get", "echo 'no such mirror' >&2; exit 100");
    let outcome = machine.run(&[]);
    assert!(!outcome.passed);
    for sentence in ["no such mirror", "strace is missing or does not run; ", "FAILED in \"what is needed\""] {
        assert!(outcome.stderr.contains(sentence), "{sentence}:\n{}", outcome.stderr);
    }
}

#[test]
fn the_node_that_comes_with_the_packages_goes_before_an_old_one() {
    let machine = Machine::new();
    machine.tool("node", "v18.20.4");
    let outcome = machine.run(&[]);
    assert!(!outcome.passed);
    assert!(outcome.stderr.contains("Node.js 18.20.4 is too old, 20.11 or newer is needed"), "{}", outcome.stderr);
    assert!(outcome.calls.iter().all(|call| !call.starts_with("cargo")), "{:?}", outcome.calls);

    // As npm 9 does it.
    let bin = machine.dir.path().join("tests/dashboard/node_modules/.bin").display().to_string();
    let link = format!("mkdir -p {bin}; printf '#!/bin/sh\\necho v24.22.3\\n' >{bin}/node; chmod +x {bin}/node");
    machine.script("npm", &format!("case \"$*\" in *rebuild*) {link} ;; esac; echo 9.2.0"));
    let outcome = machine.run(&[]);
    assert!(outcome.passed, "{}", outcome.stderr);
    assert!(outcome.stdout.contains("Node.js 24.22.3"), "{}", outcome.stdout);
}

#[test]
fn packages_of_python_are_installed_when_their_list_changes() {
    let machine = Machine::new();
    let installed = |outcome: &Outcome| outcome.calls.iter().filter(|call| call.contains("pip install")).count();
    let outcome = machine.run(&[]);
    assert!(outcome.passed && outcome.stdout.contains("clients ran"), "{}{}", outcome.stdout, outcome.stderr);
    assert_eq!(installed(&outcome), 2, "generators and litestream");
    assert_eq!(installed(&machine.run(&[])), 2, "calls of both runs");
    machine.install("tests/clients/python/requirements.txt", b"another==1.0\n");
    assert_eq!(installed(&machine.run(&[])), 3);
}

#[test]
fn a_skipped_test_is_listed_at_the_end_and_fails_in_ci() {
    let machine = Machine::new();
    machine.script(
        "cargo",
        concat!(
            "case $1 in test) echo 'disk::fills: only root can' >>\"$MAILKITE_TESTS_SKIPPED\" ;; esac; echo ",
            env!("CARGO_PKG_RUST_VERSION")
        ),
    );
    let outcome = machine.run(&[]);
    assert!(outcome.passed, "{}", outcome.stderr);
    assert_eq!(outcome.stdout.matches("\ndisk::fills: only root can\n").count(), 1, "{}", outcome.stdout);
    let outcome = machine.run(&[("CI", "true")]);
    assert!(!outcome.passed);
    assert!(outcome.stdout.contains("\ndisk::fills: only root can\n"), "{}", outcome.stdout);
    assert!(outcome.stderr.contains("FAILED in \"tests that this machine skipped\""), "{}", outcome.stderr);
}

#[test]
fn dependencies_are_compared_with_the_list_of_known_faults_where_it_can_be_fetched() {
    for (fetched, compared) in [("true", 1), ("false", 0)] {
        let machine = Machine::new();
        let rust = env!("CARGO_PKG_RUST_VERSION");
        machine.script("cargo", &format!("case \"$*\" in *'fetch db') {fetched} ;; *) echo {rust} ;; esac"));
        let outcome = machine.run(&[("CI", "true")]);
        assert!(outcome.passed, "{}", outcome.stderr);
        let ran = |checks: &str| outcome.calls.iter().filter(|call| call.ends_with(checks)).count();
        assert_eq!(
            (ran("check licenses bans sources"), ran("check advisories")),
            (1, compared),
            "{:?}",
            outcome.calls
        );
        assert_eq!(outcome.stdout.contains("cannot be fetched here"), compared == 0, "{}", outcome.stdout);
    }
}

#[test]
fn bare_says_what_it_cannot_do_before_it_makes_anything() {
    let machine = Machine::new();
    let scratch = tempfile::tempdir().unwrap();
    let environment = [("TMPDIR", scratch.path().to_str().unwrap())];
    for (user, rust, sentence) in [
        ("1000", "echo /home/ada/.rustup/toolchains/stable", "tests/bare must run as root: it makes a chroot\n"),
        ("0", "echo /usr", "tests/bare needs a rustup toolchain in PATH: https://rustup.rs\n"),
        ("0", "exit 127", "tests/bare needs a rustup toolchain in PATH: https://rustup.rs\n"),
    ] {
        machine.tool("id", user);
        machine.script("rustc", rust);
        let outcome = machine.run_script("tests/bare", &environment);
        assert!(!outcome.passed);
        assert_eq!(outcome.stderr, sentence);
    }
    assert_eq!(fs::read_dir(scratch.path()).unwrap().count(), 0);
}

#[test]
fn a_test_that_is_skipped_says_so_though_it_passes() {
    let name = "house::systemd_unit::the_unit_exposes_next_to_nothing";
    let listed = tempfile::NamedTempFile::new().unwrap();
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", name])
        .env("PATH", "/nonexistent")
        .env("MAILKITE_TESTS_SKIPPED", listed.path())
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    let line = format!("{name}: systemd-analyze: No such file or directory (os error 2)\n");
    assert!(String::from_utf8_lossy(&output.stderr).contains(&format!("skipped {line}")), "{output:?}");
    assert_eq!(fs::read_to_string(listed.path()).unwrap(), line);
}
