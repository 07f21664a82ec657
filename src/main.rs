//! The `mailkite` binary: parses the command line, runs the command, prints the error chain.

use std::process::ExitCode;

use clap::Parser;
use mailkite::Cli;

fn main() -> ExitCode {
    match Cli::parse().run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            for cause in error.chain().skip(1) {
                eprintln!("  because: {cause}");
            }
            Cli::exit_code(&error).into()
        }
    }
}
