//! `mailkite domain`: domains of this server, changed on its host. The server may be running; it makes the change then.

use std::io::Write as _;

use anyhow::bail;
use clap::{Args, Subcommand};

use super::place::Place;
use crate::app::control::{Control, Reply, Request};

/// `mailkite domain`
#[derive(Debug, Args)]
pub(crate) struct Options {
    #[command(flatten)]
    place: Place,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Make new DKIM keys for a domain, which sign once their record is found
    RotateDkim {
        /// The domain's name
        domain: String,
    },
}

pub(crate) fn run(options: &Options) -> anyhow::Result<()> {
    let Command::RotateDkim { domain } = &options.command;
    let mut control = Control::open(&options.place.data_dir()?, &options.place.config()?)?;
    let reply = control.ask(Request::RotateDkim { domain: domain.clone() });
    control.close();
    let Reply::DkimRecords(records) = reply? else { bail!("the server answered something else") };
    let (new, present): (Vec<_>, Vec<_>) = records.into_iter().partition(|record| record.is_new);
    let mut out = std::io::stdout().lock();
    writeln!(out, "Publish these TXT records:\n")?;
    for record in new {
        writeln!(out, "  {}\n    {}\n", record.name, record.value)?;
    }
    writeln!(
        out,
        "The new keys sign once the server has found the RSA one (k=rsa); it looks every day, and at once with"
    )?;
    writeln!(out, "Check now on the domain's page. Keep these until that page says that they may be removed:\n")?;
    for record in present {
        writeln!(out, "  {}", record.name)?;
    }
    Ok(())
}
