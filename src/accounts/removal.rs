//! Removal of an account by the operator, in bounded transactions, so that mail of others never waits for it.
//!
//! The first one closes the account: from then on nobody signs in and no mail is received for it. A removal that was
//! interrupted is continued by running it again.

use super::Accounts;
use super::operator::OperatorRefusal;
use crate::clock::Timestamp;
use crate::id::AccountRowId;
use crate::store;
use crate::store::accounts::roster::{self, Holdings};
use crate::store::accounts::{self, Account};
use crate::store::blobs::objects::Objects;
use crate::store::jobs::{self, JobSubject};
use crate::store::messages::removals::{self, Reason};
use crate::store::messages::{self, mail_data, uploads};
use crate::store::sending::dispatches;

/// Rows per transaction.
const STEP: u32 = 100;

impl Accounts {
    /// Finds an account that may be removed, and counts what goes with it.
    ///
    /// # Errors
    /// It is unknown, or an administrator.
    pub(crate) async fn removable(&self, email: &str) -> Result<(Account, Holdings), OperatorRefusal> {
        let account = self.find_account(email).await?;
        if account.is_admin {
            return Err(OperatorRefusal::Admin(account.email));
        }
        let id = account.id;
        Ok((account, self.db.read(move |connection| roster::holdings(connection, id)).await?))
    }

    /// Removes an account with all that belongs to it.
    ///
    /// # Errors
    /// It is unknown or an administrator, or storage failed midway.
    pub(crate) async fn remove(
        &self,
        email: &str,
        objects: &Objects,
        now: Timestamp,
    ) -> Result<(Account, Holdings), OperatorRefusal> {
        let (account, holdings) = self.removable(email).await?;
        let id = account.id;
        let closed = self.db.try_write_removal(move |tx| match accounts::find_by_row(tx, id)? {
            Some(account) if account.is_admin => Err(OperatorRefusal::Admin(account.email)),
            _ => Ok(roster::close(tx, id)?),
        });
        closed.await?;
        self.remove_messages(id, objects, now).await?;
        self.remove_in_transit(id, objects).await?;
        self.remove_uploads(id, objects, now).await?;
        while self.db.write_removal(move |tx| roster::delete_deliveries(tx, id, STEP)).await? == STEP as usize {}
        self.db.write_removal(move |tx| roster::delete(tx, id)).await?;
        Ok((account, holdings))
    }

    async fn remove_messages(&self, account: AccountRowId, objects: &Objects, now: Timestamp) -> store::Result<()> {
        loop {
            let removed = self.db.write_removal(move |tx| {
                let rows = roster::list_messages(tx, account, STEP)?;
                let mut files = Vec::new();
                for (message, mail_data) in &rows {
                    roster::delete_jobs_of_message(tx, *message)?;
                    crate::store::webhooks::deliveries::delete_by_message(tx, *message)?;
                    dispatches::delete_by_message(tx, *message)?;
                    jobs::delete_by_subject(tx, JobSubject::ScheduledSend(*message))?;
                    removals::note_message(tx, *message, Reason::Api, now)?;
                    messages::delete(tx, *message)?;
                    if let Some(mail_data) = mail_data {
                        files.extend(mail_data::release(tx, *mail_data)?);
                    }
                }
                Ok((rows.len(), files))
            });
            let (count, files) = removed.await?;
            remove_files(objects, files).await;
            if count < STEP as usize {
                return Ok(());
            }
        }
    }

    async fn remove_in_transit(&self, account: AccountRowId, objects: &Objects) -> store::Result<()> {
        loop {
            let found = self.db.read(move |connection| roster::list_in_transit(connection, account, STEP)).await?;
            if found.is_empty() {
                return Ok(());
            }
            let files = self.db.write_removal(move |tx| roster::delete_in_transit(tx, &found)).await?;
            remove_files(objects, files).await;
        }
    }

    async fn remove_uploads(&self, account: AccountRowId, objects: &Objects, now: Timestamp) -> store::Result<()> {
        loop {
            let removed = self.db.write_removal(move |tx| {
                let rows = roster::list_uploads(tx, account, STEP)?;
                for (upload, _) in &rows {
                    removals::note_upload(tx, *upload, Reason::Api, now)?;
                    uploads::delete(tx, *upload)?;
                }
                Ok(rows.into_iter().map(|(_, file)| file).collect::<Vec<_>>())
            });
            let files = removed.await?;
            let count = files.len();
            remove_files(objects, files).await;
            if count < STEP as usize {
                return Ok(());
            }
        }
    }
}

/// Removes the objects of removed rows; the sweep removes what this cannot.
async fn remove_files(objects: &Objects, names: Vec<String>) {
    let objects = objects.clone();
    let removed = tokio::task::spawn_blocking(move || names.iter().try_for_each(|name| objects.remove(name))).await;
    if let Ok(Err(error)) = removed {
        tracing::warn!(%error, "an object of a removed account was not removed; the sweep will");
    }
}
