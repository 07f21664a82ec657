//! A command's end: the running server over its socket, or the data directory opened by the command itself.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context as _, bail};
use tokio::runtime::Runtime;

use super::Operations;
use super::protocol::{MAX_LINE, MailHead, Reply, Request};
use crate::accounts::{Accounts, Tickets};
use crate::app::master_key;
use crate::clock::Clock;
use crate::config::Config;
use crate::domain::Domains;
use crate::domain::check::{self, Checker};
use crate::domain::keys::KeyMaker;
use crate::inbound::import::{ImportOutcome, ImportTarget, ImportedMail, Importer};
use crate::jobs::Jobs;
use crate::limits::Limits;
use crate::net::dns::Resolver;
use crate::process::control_socket::connect;
use crate::process::data_dir::{DataDir, DataDirError};
use crate::secrets::Secrets;
use crate::secrets::passwords::Passwords;
use crate::secrets::session_tokens::Tokens;
use crate::store::blobs::objects::Objects;
use crate::store::{self, Db, sealed};

/// The way to whoever may change a data directory.
pub(crate) enum Control {
    /// The running server.
    Server(BufReader<UnixStream>),
    /// This process; no server runs.
    Here(Box<Here>),
}

/// A data directory that this process has opened.
pub(crate) struct Here {
    runtime: Runtime,
    operations: Operations,
    target: Option<ImportTarget>,
    db: Db,
    _held: DataDir,
}

impl Control {
    /// Reaches the server of a data directory, or opens it.
    ///
    /// # Errors
    /// A sentence with the way out.
    pub(crate) fn open(data_dir: &Path, config: &Config) -> anyhow::Result<Self> {
        let none =
            || format!("there is no database in {}; start the server once: mailkite serve", data_dir.display());
        if !data_dir.join(store::FILE_NAME).exists() {
            bail!(none());
        }
        let found = connect(data_dir).with_context(|| {
            format!("reaching the server of {}; run this as root or as the server's user", data_dir.display())
        })?;
        if let Some(stream) = found {
            return Ok(Self::Server(BufReader::new(stream)));
        }
        let held = DataDir::open(data_dir).map_err(|error| match error {
            DataDirError::Locked(_) => anyhow::anyhow!(
                "a mailkite process uses {} and takes no commands; restart it, or stop it first",
                data_dir.display()
            ),
            error => error.into(),
        })?;
        Here::open(held, data_dir, config).map(|here| Self::Here(Box::new(here)))
    }

    /// Has a request carried out.
    ///
    /// # Errors
    /// It is refused, or the server went away.
    pub(crate) fn ask(&mut self, request: Request) -> anyhow::Result<Reply> {
        let reply = match self {
            Self::Server(stream) => ask(stream, &request, &[])?,
            Self::Here(here) => here.runtime.block_on(here.operations.run(request)),
        };
        accepted(reply)
    }

    /// Begins an import.
    ///
    /// # Errors
    /// It is refused, or the server went away.
    pub(crate) fn begin_import(&mut self, account: String, domain: Option<String>) -> anyhow::Result<()> {
        match self {
            Self::Server(stream) => accepted(ask(stream, &Request::Import { account, domain }, &[])?).map(drop),
            Self::Here(here) => {
                let found = here.runtime.block_on(here.operations.begin_import(&account, domain.as_deref()));
                here.target = Some(found.map_err(anyhow::Error::msg)?);
                Ok(())
            }
        }
    }

    /// Stores a batch of mails; returns the outcome of each.
    ///
    /// # Errors
    /// Nothing of the batch is stored, or the server went away.
    pub(crate) fn import(&mut self, mails: Vec<ImportedMail>) -> anyhow::Result<Vec<ImportOutcome>> {
        let reply = match self {
            Self::Server(stream) => {
                let head = |mail: &ImportedMail| MailHead {
                    received_at: mail.received_at,
                    mail_from: mail.mail_from.clone(),
                    recipient: mail.recipient.clone(),
                    octets: mail.data.len(),
                };
                ask(stream, &Request::Mails(mails.iter().map(head).collect()), &mails)?
            }
            Self::Here(here) => {
                let target = here.target.as_ref().context("no import was begun")?;
                here.runtime.block_on(here.operations.import(target, mails))
            }
        };
        match accepted(reply)? {
            Reply::Stored(outcomes) => Ok(outcomes),
            _ => bail!("the server answered something else"),
        }
    }

    /// Ends what was opened.
    pub(crate) fn close(self) {
        if let Self::Here(here) = self {
            let Here { runtime, operations, db, .. } = *here;
            // What is not moved into the file now, the next start reads from the WAL.
            drop(runtime.block_on(db.checkpoint()));
            drop(operations);
            runtime.block_on(db.close());
        }
    }
}

fn accepted(reply: Reply) -> anyhow::Result<Reply> {
    match reply {
        Reply::Refused(sentence) => bail!(sentence),
        reply => Ok(reply),
    }
}

fn ask(stream: &mut BufReader<UnixStream>, request: &Request, mails: &[ImportedMail]) -> anyhow::Result<Reply> {
    let gone = "the server stopped; what it stored stays, so run this again";
    let mut line = serde_json::to_vec(request)?;
    line.push(b'\n');
    if line.len() as u64 > MAX_LINE {
        bail!("the addresses of these mails are too long to be handed over");
    }
    let mut socket = stream.get_ref();
    socket.write_all(&line).context(gone)?;
    for mail in mails {
        socket.write_all(&mail.data).context(gone)?;
    }
    let mut answer = Vec::new();
    stream.by_ref().take(MAX_LINE).read_until(b'\n', &mut answer).context(gone)?;
    if answer.is_empty() {
        bail!(gone);
    }
    serde_json::from_slice(&answer).context("the running server is of another version; restart it")
}

impl Here {
    fn open(held: DataDir, data_dir: &Path, config: &Config) -> anyhow::Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        held.check_database(&data_dir.join(store::FILE_NAME))?;
        master_key::settle(data_dir)?;
        let secrets = Arc::new(Secrets::read(data_dir)?);
        let db = Db::open(data_dir).with_context(|| format!("opening the database in {}", data_dir.display()))?;
        secrets.check_fits(data_dir, runtime.block_on(db.read(sealed::sample))?)?;
        let objects = Objects::open(data_dir)?;
        let accounts = Accounts {
            db: db.clone(),
            jobs: Jobs::default(),
            passwords: Passwords::default(),
            tokens: Tokens::new(&secrets.session_key()),
            secrets,
            tickets: Tickets::default(),
            strangers: Arc::default(),
            signup: config.auth.signup,
            dev: config.dev,
            public_url: config.public_url.clone(),
            most_sessions: config.limits.sessions,
        };
        let limits = Arc::new(Limits::new(config.limits.clone()));
        let domains = Domains {
            db: db.clone(),
            secrets: Arc::clone(&accounts.secrets),
            config: Arc::new(config.clone()),
            checker: Checker::new(Resolver::uncached(&config.dns.servers)?, check::BUDGET),
            keys: KeyMaker::default(),
            limits: Arc::clone(&limits),
        };
        let importer = Importer {
            db: db.clone(),
            objects: objects.clone(),
            limits,
            clock: Clock::System,
            hostname: config.hostname.clone(),
            default_days: config.storage.retention_days,
        };
        let (accounts, domains) = (Arc::new(accounts), Arc::new(domains));
        let operations = Operations { accounts, domains, objects, importer, clock: Clock::System };
        Ok(Self { runtime, operations, target: None, db, _held: held })
    }
}
