//! `mailkite export` and `mailkite import`: mail of accounts as mbox, maildir or JSON Lines. `export` reads the
//! database beside the server, `import` has the server store mail; a file for each format knows both directions.

pub(super) mod export;
pub(super) mod import;
mod jsonl;
mod maildir;
mod mbox;

use std::io::Read;

use clap::ValueEnum;

use crate::inbound::import::ImportedMail;
use crate::store::messages::MessageRow;

/// The format of exported mail.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    /// One file (RFC 4155); lines that begin with From are quoted reversibly (mboxrd)
    Mbox,
    /// One file for each mail, in a directory
    Maildir,
    /// One JSON object a line: what the API tells of a message, and its octets in base64
    Jsonl,
}

/// The longest envelope address that is taken, in octets.
const MAX_ADDRESS: usize = 512;

/// A mail on its way out.
struct OutgoingMail<'a> {
    row: &'a MessageRow,
    octets: u64,
    data: &'a mut dyn Read,
    /// JSON of what the API tells of it; for JSON Lines alone.
    detail: Option<String>,
}

/// A mail found in a source.
enum Found {
    Mail(ImportedMail),
    /// Larger than a mail that can be stored.
    TooLarge,
    /// A line without octets.
    WithoutData,
}

/// Destination of exported mail.
trait Sink {
    fn write(&mut self, mail: OutgoingMail<'_>) -> anyhow::Result<()>;

    /// Makes everything durable.
    fn finish(&mut self) -> anyhow::Result<()>;
}

/// Mail to import, one after the other.
trait Source {
    fn next(&mut self) -> anyhow::Result<Option<Found>>;
}
