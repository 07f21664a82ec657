//! `mailkite export`: writes mail out, oldest first. Reads the database beside the server in short reads, so that its
//! WAL is never held, and streams mail data from its object.

use std::fs::OpenOptions;
use std::io::{BufWriter, Cursor, Read, Write};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::PathBuf;

use anyhow::{Context as _, bail};
use clap::Args;

use super::{Format, OutgoingMail, Sink, jsonl, maildir, mbox};
use crate::accounts::email_of;
use crate::cli::place::Place;
use crate::cli::text::size;
use crate::clock::Timestamp;
use crate::content::rebuild::rebuild;
use crate::content::{self, StoredContent};
use crate::http::ExportedDetail;
use crate::id::RowId;
use crate::store::accounts::roster;
use crate::store::accounts::{self, Account, domains};
use crate::store::blobs::objects::Objects;
use crate::store::messages::export::{Selection, page};
use crate::store::messages::mail_data::{self, StoredMailData};
use crate::store::messages::{self, Direction, MessageRow};
use crate::store::{self, Connection};

/// Messages listed at a time, and accounts.
const PAGE: u32 = 500;
/// Bodies of larger mail stand in `raw` alone.
const MAX_DETAIL: u64 = 1024 * 1024;

/// `mailkite export`
#[derive(Debug, Args)]
pub(crate) struct Options {
    #[command(flatten)]
    place: Place,
    /// A file that does not exist yet, a directory for maildir, or - for standard output
    dest: PathBuf,
    #[arg(long)]
    format: Format,
    /// Only mail of the account with this e-mail
    #[arg(long, value_name = "EMAIL")]
    account: Option<String>,
    /// Only mail of this domain
    #[arg(long)]
    domain: Option<String>,
    /// Only mail from this time on: 2026-07-28, or 2026-07-28T12:00:00Z
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    since: Option<Timestamp>,
    /// Only mail before this time
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    until: Option<Timestamp>,
    /// Only received or only sent mail
    #[arg(long)]
    direction: Option<Way>,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Way {
    In,
    Out,
}

/// Reads a date, which begins at midnight UTC, or a time with its zone.
fn parse_time(text: &str) -> Result<Timestamp, String> {
    let day = || text.parse::<jiff::civil::Date>().ok()?.to_zoned(jiff::tz::TimeZone::UTC).ok();
    let instant = text.parse::<jiff::Timestamp>().ok().or_else(|| day().map(|zoned| zoned.timestamp()));
    let instant = instant.ok_or("write a date such as 2026-07-28, or a time such as 2026-07-28T12:00:00Z")?;
    Ok(Timestamp::from_millis(instant.as_millisecond()))
}

#[derive(Default)]
struct Counts {
    exported: u64,
    octets: u64,
    rebuilt: u64,
    empty: u64,
    damaged: u64,
}

pub(crate) fn run(options: &Options) -> anyhow::Result<()> {
    let data_dir = options.place.data_dir()?;
    let reading = || format!("reading the database in {}", data_dir.display());
    let objects = Objects::open_read_only(&data_dir);
    let mut failed = None;
    let found = store::read_offline(&data_dir, |connection| {
        // Errors of the export itself pass through untouched.
        match export(connection, &objects, options) {
            Ok(counts) => Ok(Some(counts)),
            Err(error) => {
                failed = Some(error);
                Ok(None)
            }
        }
    });
    let counts =
        found.with_context(reading)?.with_context(|| format!("there is no database in {}", data_dir.display()))?;
    match (counts, failed) {
        (_, Some(error)) => Err(error),
        (Some(counts), None) => report(&counts),
        (None, None) => bail!("nothing was exported"),
    }
}

fn report(counts: &Counts) -> anyhow::Result<()> {
    let mut out = std::io::stderr();
    writeln!(out, "{} mails were exported ({}).", counts.exported, size(counts.octets))?;
    if counts.rebuilt > 0 {
        writeln!(
            out,
            "{} of them are older than seven days: their raw copies are gone, so they were made again of header \
             fields and text, without files.",
            counts.rebuilt
        )?;
    }
    if counts.empty > 0 {
        writeln!(out, "{} have no content any more and were left out.", counts.empty)?;
    }
    if counts.damaged > 0 {
        bail!("{} mails are damaged on disk and were left out; mailkite audit lists them", counts.damaged);
    }
    Ok(())
}

fn export(connection: &Connection, objects: &Objects, options: &Options) -> anyhow::Result<Counts> {
    let accounts = match &options.account {
        Some(email) => {
            let wanted = email_of(email).unwrap_or_else(|| email.clone());
            let found = accounts::find_by_email(connection, &wanted)?;
            vec![
                found
                    .with_context(|| format!("no account has the address {email}; to see all: mailkite user list"))?,
            ]
        }
        None => all_accounts(connection)?,
    };
    let selections = selections(connection, accounts, options)?;
    let mut sink = open_sink(options)?;
    let mut counts = Counts::default();
    for (account, selection) in selections {
        let mut after = Timestamp::from_millis(i64::MIN);
        loop {
            let rows = page(connection, &selection, after, PAGE)?;
            for (id, at) in &rows {
                after = *at;
                if let Some(row) = messages::find_by_row(connection, *id)? {
                    export_one(connection, objects, &row, &account, options.format, sink.as_mut(), &mut counts)?;
                }
            }
            if rows.len() < PAGE as usize {
                break;
            }
        }
    }
    sink.finish()?;
    Ok(counts)
}

fn all_accounts(connection: &Connection) -> anyhow::Result<Vec<Account>> {
    let (mut all, mut after) = (Vec::new(), RowId::new(0));
    loop {
        let page = roster::list(connection, after, PAGE)?;
        let Some(last) = page.last() else { return Ok(all) };
        after = last.account.id;
        all.extend(page.into_iter().map(|entry| entry.account));
    }
}

fn selections(
    connection: &Connection,
    accounts: Vec<Account>,
    options: &Options,
) -> anyhow::Result<Vec<(Account, Selection)>> {
    let mut chosen = Vec::new();
    for account in accounts {
        let domain = match &options.domain {
            Some(name) => match domains::find_by_name_or_id(connection, account.id, name, name)? {
                Some(domain) => Some(domain.id),
                None => continue,
            },
            None => None,
        };
        let direction = options.direction.map(|way| match way {
            Way::In => Direction::Inbound,
            Way::Out => Direction::Outbound,
        });
        let since = options.since.unwrap_or(Timestamp::from_millis(i64::MIN));
        let until = options.until.unwrap_or(Timestamp::from_millis(i64::MAX));
        chosen.push((account.clone(), Selection { account: account.id, domain, direction, since, until }));
    }
    match &options.domain {
        Some(name) if chosen.is_empty() => bail!("no account that was named has the domain {name}"),
        _ => Ok(chosen),
    }
}

fn open_sink(options: &Options) -> anyhow::Result<Box<dyn Sink>> {
    let is_stdout = options.dest.as_os_str() == "-";
    if options.format == Format::Maildir {
        if is_stdout {
            bail!("a maildir is a directory; name one instead of -");
        }
        return Ok(Box::new(maildir::Writer::create(&options.dest)?));
    }
    let out: Box<dyn Write> = if is_stdout {
        Box::new(BufWriter::new(std::io::stdout().lock()))
    } else {
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&options.dest);
        let file =
            file.with_context(|| format!("making {}; choose a name that is not in use", options.dest.display()))?;
        Box::new(Durable(BufWriter::new(file)))
    };
    Ok(match options.format {
        Format::Jsonl => Box::new(jsonl::Writer::new(out)),
        Format::Mbox | Format::Maildir => Box::new(mbox::Writer::new(out)),
    })
}

/// A file whose flush reaches the disk.
struct Durable(BufWriter<std::fs::File>);

impl Write for Durable {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.0.flush()?;
        self.0.get_ref().sync_all()
    }
}

fn export_one(
    connection: &Connection,
    objects: &Objects,
    row: &MessageRow,
    account: &Account,
    format: Format,
    sink: &mut dyn Sink,
    counts: &mut Counts,
) -> anyhow::Result<()> {
    let OpenedMail { octets, mut data, is_rebuilt } = match data_of(connection, objects, row) {
        Ok(Some(found)) => found,
        Ok(None) => {
            counts.empty += 1;
            return Ok(());
        }
        Err(store::Error::Damaged { .. } | store::Error::Corrupt(_)) => {
            // It may have been removed between its row and its object.
            if messages::find_by_row(connection, row.id)?.is_some_and(|now| now.mail_data_id == row.mail_data_id) {
                writeln!(std::io::stderr(), "{} is damaged on disk", row.public_id)?;
                counts.damaged += 1;
            } else {
                counts.empty += 1;
            }
            return Ok(());
        }
        Err(error) => return Err(error.into()),
    };
    let detail = match format {
        Format::Jsonl => {
            let source = if row.size <= MAX_DETAIL { content::load(connection, objects, row)? } else { None };
            let detail = ExportedDetail::load(connection, row, source.as_ref(), account.public_id.as_str())?;
            Some(serde_json::to_string(&detail)?)
        }
        Format::Mbox | Format::Maildir => None,
    };
    sink.write(OutgoingMail { row, octets, data: data.as_mut(), detail })?;
    counts.exported += 1;
    counts.octets += octets;
    counts.rebuilt += u64::from(is_rebuilt);
    Ok(())
}

/// The mail data of a message, ready to be read.
struct OpenedMail {
    octets: u64,
    data: Box<dyn Read>,
    /// True if it was made again of what is kept of it.
    is_rebuilt: bool,
}

impl OpenedMail {
    fn in_memory(bytes: Vec<u8>, is_rebuilt: bool) -> Self {
        Self { octets: bytes.len() as u64, data: Box::new(Cursor::new(bytes)), is_rebuilt }
    }
}

/// Opens the mail data of a message; `None` if its content is gone.
fn data_of(connection: &Connection, objects: &Objects, row: &MessageRow) -> store::Result<Option<OpenedMail>> {
    let Some(id) = row.mail_data_id else {
        let Some(StoredContent::Archived(json)) = content::load(connection, objects, row)? else { return Ok(None) };
        return Ok(Some(OpenedMail::in_memory(rebuild(&json)?, true)));
    };
    match mail_data::find(connection, id)? {
        Some(StoredMailData::Inline(bytes)) => Ok(Some(OpenedMail::in_memory(bytes, false))),
        Some(StoredMailData::File(object)) => {
            // Read once for its checksum, for what is written cannot be taken back.
            objects.check(&object)?;
            let data = Box::new(objects.open_object(&object)?);
            Ok(Some(OpenedMail { octets: object.size, data, is_rebuilt: false }))
        }
        None => Ok(None),
    }
}
