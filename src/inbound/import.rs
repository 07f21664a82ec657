//! Import of history: mail that was received elsewhere is stored as received, with its original time. No route runs,
//! no webhook is posted, nothing is verified, and who watches the account sees no new mail.

use std::sync::Arc;
use std::time::Duration;

use ring::digest::{SHA256, digest};
use serde::{Deserialize, Serialize};

use crate::clock::{Clock, Timestamp};
use crate::id::{AccountId, AccountRowId, DomainRowId, MessageId};
use crate::limits::Limits;
use crate::mail::address::Mailbox;
use crate::mail::mailbox_list::parse_list;
use crate::mail::{date, mime};
use crate::store::accounts::domains::{self, DomainRow};
use crate::store::accounts::limits::MESSAGE_BYTES;
use crate::store::accounts::{self};
use crate::store::blobs::objects::Objects;
use crate::store::blobs::uncommitted::UncommittedObject;
use crate::store::messages::imports::{self, Original};
use crate::store::messages::mail_data::{self, NewMailData};
use crate::store::messages::{NewMessage, attachments};
use crate::store::{self, Connection, Db, Error};

/// The largest mail that is imported, in octets.
pub(crate) const MAX_MAIL: usize = 64 * 1024 * 1024;
const DAY: Duration = Duration::from_secs(86_400);

/// Stores imported mail.
#[derive(Clone)]
pub(crate) struct Importer {
    pub(crate) db: Db,
    pub(crate) objects: Objects,
    pub(crate) limits: Arc<Limits>,
    pub(crate) clock: Clock,
    pub(crate) hostname: String,
    /// Retention of messages in days, unless their domain has its own.
    pub(crate) default_days: u32,
}

/// Account that mail is imported into.
#[derive(Clone)]
pub(crate) struct ImportTarget {
    account: AccountRowId,
    public_id: AccountId,
    email: String,
    domains: Vec<DomainRow>,
    /// Domain that all mail is for, by its place in `domains`.
    only: Option<DomainRowId>,
}

/// A mail to import; what is not given is taken from its header.
#[derive(Debug)]
pub(crate) struct ImportedMail {
    pub(crate) received_at: Option<Timestamp>,
    pub(crate) mail_from: Option<String>,
    /// The envelope recipient.
    pub(crate) recipient: Option<String>,
    pub(crate) data: Vec<u8>,
}

/// Outcome of the import of one mail.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum ImportOutcome {
    Stored,
    /// The account has it already.
    Duplicate,
    /// The retention would remove it at once.
    Expired,
    /// Its domain keeps nothing (contract 3.8).
    ZeroRetention,
    /// The account has reached its storage limit.
    AccountFull,
}

/// Reason why nothing can be imported.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ImportRefusal {
    #[error("no account has the address {0}; to see all accounts: mailkite user list")]
    UnknownAccount(String),
    #[error("the account has no domain {0}; add it in the dashboard first")]
    UnknownDomain(String),
    #[error("{0} has zero retention, so nothing is stored for it; change that in the dashboard first")]
    ZeroRetention(String),
    #[error(transparent)]
    Store(#[from] Error),
}

store::transaction_error!(ImportRefusal);

/// A mail that was read and is ready to be stored.
struct Prepared {
    fingerprint: [u8; 32],
    received_at: Timestamp,
    message: NewMessage,
    parts: Vec<mime::Part>,
    /// `None`: large, in its object.
    inline: Option<Vec<u8>>,
}

/// A step of the import of one mail.
enum Step {
    Done(ImportOutcome),
    Store(Box<Prepared>, NewMailData),
}

impl Importer {
    /// Finds the account and its domains.
    ///
    /// # Errors
    /// There is no such account or domain, or the domain keeps nothing.
    pub(crate) async fn target(&self, email: &str, domain: Option<&str>) -> Result<ImportTarget, ImportRefusal> {
        let (email, domain) = (email.to_owned(), domain.map(str::to_owned));
        let found = self.db.try_read(move |connection| {
            let wanted = crate::accounts::email_of(&email).unwrap_or_else(|| email.clone());
            let account = accounts::find_by_email(connection, &wanted)?;
            let account = account.ok_or(ImportRefusal::UnknownAccount(email))?;
            let only = match domain {
                Some(name) => {
                    let found = domains::find_by_name_or_id(connection, account.id, &name, &name)?;
                    Some(found.ok_or(ImportRefusal::UnknownDomain(name))?)
                }
                None => None,
            };
            if let Some(domain) = only.as_ref().filter(|domain| domain.zero_retention) {
                return Err(ImportRefusal::ZeroRetention(domain.name.clone()));
            }
            let domains = domains::list(connection, account.id, None)?;
            let only = only.map(|domain| domain.id);
            Ok(ImportTarget {
                account: account.id,
                public_id: account.public_id,
                email: account.email,
                domains,
                only,
            })
        });
        found.await
    }

    /// Stores a batch in one transaction; returns the outcome of each mail, on disk. After the first mail that finds
    /// the account full none is stored.
    ///
    /// # Errors
    /// Storage failed; the import may be repeated.
    pub(crate) async fn store(
        &self,
        target: &ImportTarget,
        mails: Vec<ImportedMail>,
    ) -> store::Result<Vec<ImportOutcome>> {
        let now = self.clock.now();
        let (this, target) = (self.clone(), target.clone());
        let prepared = tokio::task::spawn_blocking(move || {
            let mut placed = Vec::new();
            let steps: store::Result<Vec<Step>> =
                mails.into_iter().map(|mail| this.prepare(&target, mail, &mut placed, now)).collect();
            Ok::<_, Error>((steps?, placed))
        });
        let (steps, placed) = prepared.await.unwrap_or(Err(Error::Stopped))?;
        let (limits, objects) = (Arc::clone(&self.limits), self.objects.clone());
        let written = self.db.write_naming(placed, move |tx| {
            let mut outcomes = Vec::with_capacity(steps.len());
            let mut unused = Vec::new();
            let mut full = false;
            for step in steps {
                let outcome = match step {
                    Step::Done(outcome) => outcome,
                    Step::Store(prepared, raw) => {
                        let outcome = if full {
                            ImportOutcome::AccountFull
                        } else {
                            store_one(tx, &limits, *prepared, &raw, now)?
                        };
                        full |= outcome == ImportOutcome::AccountFull;
                        if let (NewMailData::File(object), true) = (raw, outcome != ImportOutcome::Stored) {
                            unused.push(object.name);
                        }
                        outcome
                    }
                };
                outcomes.push(outcome);
            }
            Ok(((outcomes, unused), true))
        });
        let (outcomes, unused) = written.await?;
        self.db.remove_later(&objects, unused);
        Ok(outcomes)
    }

    /// Reads a mail, and places it in the object store if it is large. Blocks.
    fn prepare(
        &self,
        target: &ImportTarget,
        mail: ImportedMail,
        placed: &mut Vec<UncommittedObject>,
        now: Timestamp,
    ) -> store::Result<Step> {
        let read = self.read(target, mail, now);
        let days = match target.domains.iter().find(|domain| Some(domain.id) == read.message.domain_id) {
            Some(domain) if domain.zero_retention => return Ok(Step::Done(ImportOutcome::ZeroRetention)),
            Some(domain) => domain.retention_days.unwrap_or(self.default_days),
            None => self.default_days,
        };
        if read.received_at < now.minus(DAY.saturating_mul(days)) {
            return Ok(Step::Done(ImportOutcome::Expired));
        }
        let known = self.db.read_now(|connection| is_known(connection, &read))?;
        if known {
            return Ok(Step::Done(ImportOutcome::Duplicate));
        }
        let data = read.inline.as_deref().unwrap_or_default();
        if data.len() <= mail_data::INLINE_MAX && read.parts.is_empty() {
            let raw = NewMailData::inline(data);
            return Ok(Step::Store(Box::new(Prepared { inline: None, ..read }), raw));
        }
        let mut draft = self.objects.create()?;
        draft.append(data)?;
        let object = self.objects.commit(draft, &read.message.public_id, now)?;
        let raw = NewMailData::File(object.object().clone());
        placed.push(object);
        Ok(Step::Store(Box::new(Prepared { inline: None, ..read }), raw))
    }

    fn read(&self, target: &ImportTarget, mail: ImportedMail, now: Timestamp) -> Prepared {
        let data = mail.data;
        let parsed = mime::parse_without_bodies(&data);
        let dated = || mime::field_values(&data, "Date").first().and_then(|text| date::parse(text));
        let received_at = mail.received_at.or_else(dated).unwrap_or(now).min(now);
        let mail_from = mail.mail_from.unwrap_or_else(|| return_path(&data));
        let (recipient, domain_id) = target.recipient(mail.recipient.as_deref(), &data);
        let from_addr = parsed.sender_address(&mail_from, &self.hostname);
        let size = data.len() as u64;
        let message = NewMessage {
            public_id: MessageId::new(received_at),
            account_id: target.account,
            domain_id,
            route_id: None,
            from_name: mime::display_name(&parsed.header_from, &from_addr).map(str::to_owned),
            from_addr,
            mail_from,
            to_name: mime::display_name(&parsed.header_to, &recipient).map(str::to_owned),
            to_addr: recipient,
            thread_id: parsed.thread_id().map(str::to_owned),
            subject: parsed.subject,
            message_id_header: parsed.message_id,
            spf: None,
            dkim: None,
            dmarc: None,
            spam: None,
            trace: String::new(),
            truncated: parsed.truncated,
            attachment_count: parsed.attachments.len(),
            size,
            mail_data_id: crate::id::RowId::new(0),
        };
        let fingerprint = digest(&SHA256, &data).as_ref().first_chunk().copied().unwrap_or_default();
        Prepared { fingerprint, received_at, message, parts: parsed.attachments, inline: Some(data) }
    }
}

/// Returns true if the account has the mail.
fn is_known(connection: &Connection, mail: &Prepared) -> store::Result<bool> {
    let account = mail.message.account_id;
    let original = Original {
        message_id_header: mail.message.message_id_header.as_deref(),
        size: mail.message.size,
        received_at: mail.received_at,
    };
    Ok(imports::is_imported(connection, account, &mail.fingerprint)?
        || imports::find_original(connection, account, original)?.is_some())
}

fn store_one(
    tx: &Connection,
    limits: &Limits,
    mail: Prepared,
    raw: &NewMailData,
    now: Timestamp,
) -> store::Result<ImportOutcome> {
    // Again, for the same mail may stand twice in one batch.
    if is_known(tx, &mail)? {
        return Ok(ImportOutcome::Duplicate);
    }
    match limits.admit_bytes(tx, mail.message.account_id, mail.message.size.saturating_add(MESSAGE_BYTES)) {
        Err(Error::Limit { .. }) => return Ok(ImportOutcome::AccountFull),
        admitted => admitted?,
    }
    let message = NewMessage { mail_data_id: mail_data::insert(tx, raw, now)?, ..mail.message };
    let row = imports::insert(tx, &message, &mail.fingerprint, mail.received_at)?;
    attachments::insert_all(tx, row, &mail.parts)?;
    Ok(ImportOutcome::Stored)
}

impl ImportTarget {
    pub(crate) const fn public_id(&self) -> &AccountId {
        &self.public_id
    }

    /// Returns the envelope recipient and its domain: the given one, else the first that the header names at a domain
    /// of the account, else the account's own address.
    fn recipient(&self, given: Option<&str>, data: &[u8]) -> (String, Option<DomainRowId>) {
        let named =
            |mailbox: &Mailbox| self.domain_of(mailbox).filter(|domain| self.only.is_none_or(|id| id == *domain));
        if let Some(mailbox) = given.and_then(|given| Mailbox::parse(given).ok()) {
            let domain = self.only.or_else(|| self.domain_of(&mailbox));
            return (mailbox.to_string(), domain);
        }
        let found = header_recipients(data).into_iter().find_map(|mailbox| Some((named(&mailbox)?, mailbox)));
        if let Some((domain, mailbox)) = found {
            return (mailbox.to_string(), Some(domain));
        }
        match self.domains.iter().find(|domain| Some(domain.id) == self.only) {
            Some(domain) => (format!("postmaster@{}", domain.name), Some(domain.id)),
            None => (self.email.clone(), None),
        }
    }

    fn domain_of(&self, mailbox: &Mailbox) -> Option<DomainRowId> {
        self.domains.iter().find(|domain| domain.name == mailbox.domain().as_str()).map(|domain| domain.id)
    }
}

/// Returns the mailboxes that a mail was probably delivered to, the most certain first.
fn header_recipients(data: &[u8]) -> Vec<Mailbox> {
    let mut found = Vec::new();
    for value in mime::field_values(data, "Received") {
        // RFC 5321 §4.4: the For clause.
        let clause = value.split(" for <").nth(1).and_then(|rest| rest.split('>').next());
        found.extend(clause.and_then(|address| Mailbox::parse(address).ok()));
    }
    for name in ["Delivered-To", "X-Original-To", "Envelope-To", "To", "Cc"] {
        for value in mime::field_values(data, name) {
            let listed = parse_list(&value).unwrap_or_default();
            found.extend(listed.into_iter().map(|named| named.mailbox));
        }
    }
    found
}

/// Returns the address of Return-Path (RFC 5321 §4.4), or nothing.
fn return_path(data: &[u8]) -> String {
    let values = mime::field_values(data, "Return-Path");
    let path = values.first().map(|value| value.trim().trim_start_matches('<').trim_end_matches('>'));
    path.and_then(|path| Mailbox::parse(path).ok()).map(|mailbox| mailbox.to_string()).unwrap_or_default()
}
