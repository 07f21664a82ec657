//! `mailkite import`: has mail of an mbox, a maildir or JSON Lines stored as received by an account. What the account
//! has already is recognised, so an import that was broken off is run again.

use std::collections::HashMap;
use std::fs::File;
use std::io::{BufRead, BufReader, IsTerminal as _, Write as _};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use clap::Args;

use super::{Format, Found, Source, jsonl, maildir, mbox};
use crate::app::control::{Control, MAX_BATCH, MAX_BATCH_OCTETS};
use crate::cli::place::Place;
use crate::inbound::import::{ImportOutcome, ImportedMail};

const PROGRESS_EVERY: Duration = Duration::from_secs(1);

/// `mailkite import`
#[derive(Debug, Args)]
pub(crate) struct Options {
    #[command(flatten)]
    place: Place,
    /// A file, a maildir, or - for standard input
    src: PathBuf,
    #[arg(long)]
    format: Format,
    /// The account that the mail is stored for, by its e-mail
    #[arg(long, value_name = "EMAIL")]
    account: String,
    /// The domain of the account that all of it is for; by default the one that each mail names
    #[arg(long)]
    domain: Option<String>,
}

#[derive(Default)]
struct Counts {
    outcomes: HashMap<ImportOutcome, u64>,
    too_large: u64,
    without_data: u64,
}

impl Counts {
    fn of(&self, outcome: ImportOutcome) -> u64 {
        self.outcomes.get(&outcome).copied().unwrap_or(0)
    }

    fn is_full(&self) -> bool {
        self.of(ImportOutcome::AccountFull) > 0
    }
}

pub(crate) fn run(options: &Options) -> anyhow::Result<()> {
    let mut source = open_source(options)?;
    let mut control = Control::open(&options.place.data_dir()?, &options.place.config()?)?;
    let mut counts = Counts::default();
    let imported = match control.begin_import(options.account.clone(), options.domain.clone()) {
        Ok(()) => {
            let imported = import(&mut control, source.as_mut(), &mut counts);
            report(&counts).and(imported)
        }
        refused => refused,
    };
    control.close();
    imported?;
    if counts.is_full() {
        bail!(
            "the account has reached its storage limit; raise storage_bytes under [limits] or remove mail, then run \
             this again, which goes on where it stopped"
        );
    }
    Ok(())
}

fn import(control: &mut Control, source: &mut dyn Source, counts: &mut Counts) -> anyhow::Result<()> {
    let mut batch: Vec<ImportedMail> = Vec::new();
    let mut octets = 0;
    let mut progress = Progress::new();
    while let Some(found) = source.next()? {
        let mail = match found {
            Found::Mail(mail) => mail,
            Found::TooLarge => {
                counts.too_large += 1;
                continue;
            }
            Found::WithoutData => {
                counts.without_data += 1;
                continue;
            }
        };
        if !batch.is_empty() && (batch.len() == MAX_BATCH || octets + mail.data.len() > MAX_BATCH_OCTETS) {
            store(control, std::mem::take(&mut batch), counts)?;
            octets = 0;
            progress.show(counts);
            if counts.is_full() {
                return Ok(());
            }
        }
        octets += mail.data.len();
        batch.push(mail);
    }
    if batch.is_empty() { Ok(()) } else { store(control, batch, counts) }
}

fn store(control: &mut Control, batch: Vec<ImportedMail>, counts: &mut Counts) -> anyhow::Result<()> {
    for outcome in control.import(batch)? {
        *counts.outcomes.entry(outcome).or_default() += 1;
    }
    Ok(())
}

/// A line on the terminal that counts.
struct Progress {
    shown: Instant,
    is_wanted: bool,
}

impl Progress {
    fn new() -> Self {
        Self { shown: Instant::now(), is_wanted: std::io::stderr().is_terminal() }
    }

    fn show(&mut self, counts: &Counts) {
        if self.is_wanted && self.shown.elapsed() >= PROGRESS_EVERY {
            self.shown = Instant::now();
            let stored = counts.of(ImportOutcome::Stored);
            let known = counts.of(ImportOutcome::Duplicate);
            eprint!("\r{stored} stored, {known} known … ");
        }
    }
}

fn open_source(options: &Options) -> anyhow::Result<Box<dyn Source>> {
    let is_stdin = options.src.as_os_str() == "-";
    if options.format == Format::Maildir {
        if is_stdin {
            bail!("a maildir is a directory; name it instead of -");
        }
        return Ok(Box::new(maildir::Reader::open(&options.src)?));
    }
    let from: Box<dyn BufRead> = if is_stdin {
        Box::new(BufReader::new(std::io::stdin()))
    } else {
        let file = File::open(&options.src).with_context(|| format!("opening {}", options.src.display()))?;
        if file.metadata()?.is_dir() {
            bail!("{} is a directory; is it a maildir? Then use --format maildir", options.src.display());
        }
        Box::new(BufReader::new(file))
    };
    Ok(match options.format {
        Format::Jsonl => Box::new(jsonl::Reader::new(from)),
        Format::Mbox | Format::Maildir => Box::new(mbox::Reader::new(from)),
    })
}

fn report(counts: &Counts) -> anyhow::Result<()> {
    let mut out = std::io::stderr();
    if std::io::stderr().is_terminal() {
        write!(out, "\r")?;
    }
    let stored = counts.of(ImportOutcome::Stored);
    writeln!(out, "{stored} mails were stored, {} the account had already.", counts.of(ImportOutcome::Duplicate))?;
    let left_out = [
        (
            counts.of(ImportOutcome::Expired),
            "are older than the retention, which would remove them at once; raise retention_days of the domain or \
             under [storage] first",
        ),
        (counts.of(ImportOutcome::ZeroRetention), "are for a domain with zero retention"),
        (counts.too_large, "are larger than 64 MiB"),
        (counts.without_data, "come without their octets (raw is null)"),
    ];
    for (count, why) in left_out.into_iter().filter(|(count, _)| *count > 0) {
        writeln!(out, "{count} were left out: they {why}.")?;
    }
    Ok(())
}
