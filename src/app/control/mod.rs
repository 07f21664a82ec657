//! Changes by commands on the host, such as `mailkite user`: made by the server that runs, over the socket in the data
//! directory, or else by the command itself, which locks the directory as a server does. Either way one writer alone
//! changes the database, with its fsyncs and its caches. `protocol` is what goes over the socket, `server` the end in
//! the server, `client` the end in a command.

mod client;
mod protocol;
mod server;

use std::sync::Arc;

use crate::accounts::Accounts;
use crate::accounts::operator::{Opened, OperatorRefusal, WayIn};
use crate::clock::Clock;
use crate::domain::{Domains, Seen};
use crate::inbound::import::{ImportTarget, ImportedMail, Importer};
use crate::store;
use crate::store::accounts::dkim_keys::KeyState;
use crate::store::blobs::objects::Objects;
pub(crate) use client::Control;
pub(crate) use protocol::{DkimRecord, MAX_BATCH, MAX_BATCH_OCTETS, Reply, Request};
pub(super) use server::serve;

/// Carries out what commands ask for.
pub(crate) struct Operations {
    pub(super) accounts: Arc<Accounts>,
    pub(super) domains: Arc<Domains>,
    pub(super) objects: Objects,
    pub(super) importer: Importer,
    pub(super) clock: Clock,
}

impl Operations {
    /// Carries out a request and logs it; a refusal is a reply as well.
    pub(super) async fn run(&self, request: Request) -> Reply {
        self.attempt(request).await.unwrap_or_else(|refusal| Reply::Refused(refusal.to_string()))
    }

    async fn attempt(&self, request: Request) -> Result<Reply, OperatorRefusal> {
        let now = self.clock.now();
        match request {
            Request::Add { email, admin, password } => {
                let opened = self.accounts.add_by_operator(&email, admin, way(password), now).await?;
                let account = &opened.account.public_id;
                tracing::info!(%account, admin, "an account was added on the host");
                Ok(opened_reply(opened))
            }
            Request::ResetPassword { email, password } => {
                let opened = self.accounts.reset_by_operator(&email, way(password), now).await?;
                let account = &opened.account.public_id;
                tracing::info!(%account, "a password was reset on the host; its sessions ended");
                Ok(opened_reply(opened))
            }
            Request::SignInLink { email } => {
                let opened = self.accounts.sign_in_link(&email, now).await?;
                tracing::info!(account = %opened.account.public_id, "a sign-in link was made on the host");
                Ok(opened_reply(opened))
            }
            Request::SetAdmin { email, admin } => {
                let (account, changed) = self.accounts.set_admin(&email, admin).await?;
                if changed {
                    let account = &account.public_id;
                    tracing::info!(%account, admin, "the rights of an account were changed on the host");
                }
                Ok(Reply::Admin { email: account.email, changed })
            }
            Request::Holdings { email } => {
                let (account, held) = self.accounts.removable(&email).await?;
                Ok(Reply::Holdings { email: account.email, domains: held.domains, messages: held.messages })
            }
            Request::Remove { email } => {
                let (account, held) = self.accounts.remove(&email, &self.objects, now).await?;
                let (domains, messages) = (held.domains, held.messages);
                tracing::info!(account = %account.public_id, domains, messages, "an account was removed on the host");
                Ok(Reply::Holdings { email: account.email, domains, messages })
            }
            Request::RotateDkim { domain } => Ok(self.rotate_dkim(&domain).await),
            Request::Import { .. } | Request::Mails(_) => Ok(Reply::Refused("an import is not begun so".to_owned())),
        }
    }

    async fn rotate_dkim(&self, name: &str) -> Reply {
        let domain = match self.domains.find_for_operator(name).await {
            Ok(Some(domain)) => domain,
            Ok(None) => return Reply::Refused(format!("there is no domain {name} here; add it in the dashboard")),
            Err(error) => return Reply::Refused(format!("the domain could not be read: {error}")),
        };
        if let Err(error) = self.domains.rotate(&domain, self.clock.now()).await {
            return Reply::Refused(format!("the keys of {name} were not rotated: {error}"));
        }
        tracing::info!(domain = %domain.name, "its DKIM keys are rotated on the host");
        let record = |seen: Seen| DkimRecord {
            is_new: seen.rotation.is_some_and(|rotation| rotation.state == KeyState::Next),
            name: seen.record.name,
            value: seen.record.value,
        };
        match self.domains.records_of(domain).await {
            Ok(records) => {
                let keys = records.into_iter().filter(|seen| seen.record.kind.is_key());
                Reply::DkimRecords(keys.map(record).collect())
            }
            Err(error) => Reply::Refused(format!("the records could not be read: {error}")),
        }
    }

    /// Finds the account to import into.
    pub(super) async fn begin_import(&self, account: &str, domain: Option<&str>) -> Result<ImportTarget, String> {
        let target = self.importer.target(account, domain).await.map_err(|refusal| refusal.to_string())?;
        tracing::info!(account = %target.public_id(), "an import was begun on the host");
        Ok(target)
    }

    /// Stores a batch of an import.
    pub(super) async fn import(&self, target: &ImportTarget, mails: Vec<ImportedMail>) -> Reply {
        match self.importer.store(target, mails).await {
            Ok(outcomes) => Reply::Stored(outcomes),
            Err(error) => Reply::Refused(import_failure(&error)),
        }
    }
}

fn import_failure(error: &store::Error) -> String {
    if error.is_full() {
        "the disk is full; make room and run the import again, which goes on where it stopped".to_owned()
    } else {
        format!("storing mail failed: {error}")
    }
}

fn way(password: Option<String>) -> WayIn {
    password.map_or(WayIn::SignInLink, WayIn::Password)
}

fn opened_reply(opened: Opened) -> Reply {
    Reply::Opened { email: opened.account.email, link: opened.link }
}
