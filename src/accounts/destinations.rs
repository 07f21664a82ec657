//! Proves that an address wants the mail that an account would forward to it (contract 4.6).

use std::sync::Arc;

use super::Accounts;
use crate::clock::Timestamp;
use crate::id::random_base62;
use crate::jobs::{EnqueuedJob, JobSubject, mail_flow};
use crate::mail::address::Mailbox;
use crate::secrets::token_hash;
use crate::store;
use crate::store::accounts::Account;
use crate::store::accounts::notices;
use crate::store::sending::destinations;
use crate::store::sending::destinations::{Answer, LINK_LIFETIME};

impl Accounts {
    /// Enqueues a mail that asks an address whether it wants the mail that `account` would forward to it, unless the
    /// address is proven or was asked too often; `source` is the mail's description of the forwarded mail.
    pub(crate) async fn ask_destination(
        &self,
        account: Account,
        address: Mailbox,
        source: &str,
        now: Timestamp,
    ) -> store::Result<()> {
        if self.dev || !account.email_verified {
            return Ok(());
        }
        let token = random_base62(43);
        let (hash, text) = (token_hash(&token), self.question(&account, source, &token));
        let (strangers, jobs) = (Arc::clone(&self.strangers), self.jobs.clone());
        let asked = self.db.write(move |tx| {
            if destinations::is_confirmed(tx, account.id, &address)?
                || !strangers.may_mail(&address, now)
                || !destinations::ask(tx, account.id, &address, &hash, now)?
            {
                return Ok(None);
            }
            let flow = mail_flow(address.domain().as_str(), account.id);
            let subject = "Do you want this mail to be forwarded to you?";
            let notice = notices::insert(tx, &address.to_string(), subject, &text, now, now.plus(LINK_LIFETIME))?;
            strangers.count(&address, now);
            jobs.enqueue(tx, &flow, JobSubject::Notice(notice), now).map(Some)
        });
        asked.await?.into_iter().for_each(EnqueuedJob::notify_committed);
        Ok(())
    }

    /// True while the token of a link is valid.
    pub(crate) async fn is_destination_token(&self, token: &str, now: Timestamp) -> store::Result<bool> {
        let hash = token_hash(token);
        self.db.read(move |connection| destinations::is_valid(connection, &hash, now)).await
    }

    /// Records the answer of an address, identified by the token of its link; false if the token is not valid.
    pub(crate) async fn answer_destination(
        &self,
        token: &str,
        answer: Answer,
        now: Timestamp,
    ) -> store::Result<bool> {
        let hash = token_hash(token);
        self.db.write(move |tx| destinations::answer(tx, &hash, answer, now)).await
    }

    /// Composes and seals the text of the mail. The account controls nothing in it but its domain and its own, proven
    /// address, whose local part is left out if it could be read as text.
    fn question(&self, account: &Account, source: &str, token: &str) -> Vec<u8> {
        let email = Mailbox::parse(&account.email);
        let email = email.map_or_else(|_| "Somebody".to_owned(), |mailbox| mailbox.display_for_third_party());
        let base = self.public_url.trim_end_matches('/');
        let text = format!(
            "{email} wants to forward mail that comes in for {source} to this address.\r\n\r\n\
             If you want that mail, open this link within seven days and confirm:\r\n\r\n\
             {base}/api/forwards/confirm?token={token}\r\n\r\n\
             If you do not, do nothing, and none is forwarded. To be asked no more:\r\n\r\n\
             {base}/api/forwards/decline?token={token}\r\n"
        );
        self.secrets.seal(notices::PURPOSE, text.as_bytes())
    }
}
