//! `mailkite check`: is this configuration right, and is its data directory fit?

use std::io::Write;
use std::path::Path;

use anyhow::bail;

use crate::config::{Config, table};
use crate::datadir::DataDir;
use crate::{secrets, tls};

/// Less free room than this is worth a word.
const LOW_SPACE_BYTES: u64 = 1 << 30;

/// Prints every problem; an error if there is one.
pub fn run(path: &Path) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    let config = match Config::load(path) {
        Ok(config) => config,
        Err(problems) => {
            writeln!(out, "{}\n", table(&problems))?;
            bail!("{} {} in {}", problems.len(), plural(problems.len()), path.display());
        }
    };
    writeln!(out, "✓ {} is a valid configuration for {}", path.display(), config.hostname)?;
    let problems = inspect(&config, &mut out)?;
    if problems > 0 {
        bail!("{problems} {} with what the configuration names", plural(problems));
    }
    Ok(())
}

/// Looks at what the configuration names, without changing anything; returns how many problems there are.
fn inspect(config: &Config, out: &mut impl Write) -> std::io::Result<usize> {
    let mut problems = 0;
    let mut tell = |out: &mut dyn Write, outcome: Result<String, String>| match outcome {
        Ok(good) => writeln!(out, "✓ {good}"),
        Err(bad) => {
            problems += 1;
            writeln!(out, "✗ {bad}")
        }
    };
    let dir = &config.data_dir;
    if dir.exists() {
        let fit = DataDir::inspect(dir).map(|()| format!("{} is fit as data directory", dir.display()));
        tell(out, fit.map_err(|error| error.to_string()))?;
        let key = dir.join(secrets::FILE_NAME);
        if key.exists() {
            let fit = secrets::check_mode(&key).map(|()| format!("{} is readable by its owner alone", key.display()));
            tell(out, fit.map_err(|error| error.to_string()))?;
        }
        if let Ok(free) = DataDir::free_bytes(dir)
            && free < LOW_SPACE_BYTES
        {
            writeln!(out, "! only {} MiB are free in {}", free / (1 << 20), dir.display())?;
        }
    } else {
        let parent = dir.ancestors().find(|ancestor| ancestor.is_dir()).unwrap_or(Path::new("/"));
        let writable = rustix::fs::access(parent, rustix::fs::Access::WRITE_OK).is_ok();
        let outcome = if writable {
            Ok(format!("{} does not exist yet and will be made at the first start", dir.display()))
        } else {
            Err(format!(
                "{} does not exist and {} is not writable; make it yourself",
                dir.display(),
                parent.display()
            ))
        };
        tell(out, outcome)?;
    }
    match (&config.tls.cert_file, &config.tls.key_file) {
        (Some(cert), Some(key)) => {
            let fit = tls::load(cert, key).map(|_| format!("{} and its key fit together", cert.display()));
            tell(out, fit.map_err(|error| error.to_string()))?;
        }
        _ => writeln!(out, "! no tls.cert_file: STARTTLS will use a self-signed certificate")?,
    }
    if let Some(file) = &config.tls.ca_file {
        let fit = tls::client_config(Some(file)).map(|_| format!("{} holds root certificates", file.display()));
        tell(out, fit.map_err(|error| error.to_string()))?;
    }
    Ok(problems)
}

const fn plural(count: usize) -> &'static str {
    if count == 1 { "problem" } else { "problems" }
}
