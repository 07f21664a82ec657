//! Feeds mutated input to the parsers that untrusted peers reach: SMTP commands, mail data, MIME to event, signed
//! links, reports that come back.
//!
//! A plain mutator without coverage: it starts from the golden mails and the dialogs and is steered by a dictionary. An
//! input that makes a target panic, or take too long, is written to `tests/fuzz/artifacts` and ends the run with an
//! error.

mod mutate;
mod sending;
mod targets;

use std::fs;
use std::panic;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use mutate::Mutator;
use targets::{TARGETS, Target};

/// One input may take this long; mail of a few KiB takes microseconds.
const SLOW: Duration = Duration::from_secs(2);

thread_local! {
    /// The target and input of this thread, for the report of a panic.
    static PRESENT: Mutex<(&'static str, Vec<u8>)> = const { Mutex::new(("", Vec::new())) };
}
static FOUND: AtomicBool = AtomicBool::new(false);

fn main() -> ExitCode {
    let (mut names, mut seconds, mut seed) = (Vec::new(), 60, 1);
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        match word.as_str() {
            "--seconds" => seconds = words.next().and_then(|word| word.parse().ok()).expect("--seconds N"),
            "--seed" => seed = words.next().and_then(|word| word.parse().ok()).expect("--seed N"),
            _ => names.push(word),
        }
    }
    let files: Vec<PathBuf> = names.iter().map(PathBuf::from).filter(|path| path.is_file()).collect();
    let chosen: Vec<&'static Target> =
        TARGETS.iter().filter(|target| names.is_empty() || names.iter().any(|name| name == target.name)).collect();
    assert!(!chosen.is_empty(), "targets are: {:?}", TARGETS.map(|target| target.name));
    // The parsers catch their own panics, so that no mail is lost; here none may pass unseen.
    panic::set_hook(Box::new(|report| report_input(&report.to_string())));
    let threads: Vec<_> = chosen
        .into_iter()
        .map(|target| {
            let files = files.clone();
            thread::spawn(move || {
                if files.is_empty() {
                    fuzz(target, Duration::from_secs(seconds), seed);
                } else {
                    files.iter().for_each(|file| attempt(target, fs::read(file).unwrap()));
                }
            })
        })
        .collect();
    let ended = threads.into_iter().map(thread::JoinHandle::join).filter(Result::is_err).count();
    if ended > 0 || FOUND.load(Ordering::SeqCst) { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

fn fuzz(target: &'static Target, time: Duration, seed: u64) {
    let mut mutator = Mutator::new(seed, (target.corpus)(), target.dictionary);
    let started = Instant::now();
    let mut inputs: u64 = 0;
    while started.elapsed() < time && !FOUND.load(Ordering::SeqCst) {
        attempt(target, mutator.next_input());
        inputs += 1;
    }
    println!("{:8} {inputs:>9} inputs in {:.0} s, seed {seed}", target.name, started.elapsed().as_secs_f64());
}

fn attempt(target: &'static Target, input: Vec<u8>) {
    PRESENT.with(|present| *present.lock().unwrap() = (target.name, input.clone()));
    let started = Instant::now();
    // The hook has reported a panic already.
    let _reported = panic::catch_unwind(|| (target.run)(&input));
    if started.elapsed() > SLOW {
        report_input(&format!("{} octets took {:?}", input.len(), started.elapsed()));
    }
}

/// Writes the input of this thread to a file and reports it.
fn report_input(report: &str) {
    FOUND.store(true, Ordering::SeqCst);
    let (name, input) = PRESENT.with(|present| present.lock().map(|present| present.clone()).unwrap_or_default());
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("artifacts");
    let path = folder.join(format!("{name}-{}", input.len()));
    let written = fs::create_dir_all(&folder).and_then(|()| fs::write(&path, &input));
    eprintln!("{name}: {report}\n  input: {} ({written:?})", path.display());
}
