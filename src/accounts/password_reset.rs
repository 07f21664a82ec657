//! A forgotten password: the mail with a link, and what the link does (contract 2.6).

use std::sync::Arc;
use std::time::Duration;

use super::{Accounts, Refusal, disown};
use crate::clock::Timestamp;
use crate::id::random_base62;
use crate::jobs::{EnqueuedJob, JobSubject, mail_flow};
use crate::mail::address::Mailbox;
use crate::secrets::{self, token_hash};
use crate::store::accounts::links::{self, LinkPurpose};
use crate::store::accounts::{self, Account, domains, notices, sessions};
use crate::store::{self, Connection};

/// Validity of a link that sets a password.
const LINK_LIFETIME: Duration = Duration::from_secs(3600);
/// The news of a changed password is pointless later.
const NEWS_LIFETIME: Duration = Duration::from_secs(3 * 86_400);

impl Accounts {
    /// Enqueues a mail with a link that sets a new password, if the address has an account and its mailbox did not get
    /// many lately. Nothing of that is disclosed.
    pub(crate) async fn mail_password_link(&self, email: String, now: Timestamp) -> store::Result<()> {
        let token = random_base62(43);
        let hash = token_hash(&token);
        let text = format!(
            "Somebody asked for a new password for your account on {url}.\r\n\r\nIf it was you, open this link within \
             an hour and choose one:\r\n\r\n{url}/#/reset-password/{token}\r\n\r\nIf it was not, do nothing: your \
             password stays as it is.\r\n",
            url = self.public_url.trim_end_matches('/')
        );
        let notice = self.secrets.seal(notices::PURPOSE, text.as_bytes());
        let (strangers, jobs, dev) = (Arc::clone(&self.strangers), self.jobs.clone(), self.dev);
        let queued = self.db.write(move |tx| {
            let Some(account) = accounts::find_by_email(tx, &email)? else { return Ok(None) };
            let to = mailbox(&account)?;
            // Its mail is stored here, where API keys and webhooks read it: they would get a session (contract 1.5).
            if !dev && domains::find_verified(tx, to.domain().as_str())?.is_some() {
                tracing::info!(
                    account = %account.public_id,
                    "no link for a new password was mailed to an address at a domain received here; on the host: \
                     mailkite user sign-in-link"
                );
                return Ok(None);
            }
            if !strangers.may_mail(&to, now) {
                return Ok(None);
            }
            links::insert(tx, &hash, account.id, LinkPurpose::PasswordReset, now.plus(LINK_LIFETIME))?;
            let subject = "Choose a new password";
            let notice = notices::insert(tx, &account.email, subject, &notice, now, now.plus(LINK_LIFETIME))?;
            strangers.count(&to, now);
            jobs.enqueue(tx, &mail_flow(to.domain().as_str(), account.id), JobSubject::Notice(notice), now).map(Some)
        });
        queued.await?.into_iter().for_each(EnqueuedJob::notify_committed);
        Ok(())
    }

    /// Finds the account whose password a valid link sets.
    pub(crate) async fn find_by_password_link(&self, token: &str, now: Timestamp) -> store::Result<Option<Account>> {
        let hash = token_hash(token);
        let found = self.db.read(move |connection| {
            match links::find_account(connection, &hash, LinkPurpose::PasswordReset, now)? {
                Some(account) => accounts::find_by_row(connection, account),
                None => Ok(None),
            }
        });
        found.await
    }

    /// Sets the password by a link, which it spends; every session and link of the account ends, and its address is
    /// verified.
    ///
    /// An account whose address nobody had verified may have been made by somebody else: nothing that was set up until
    /// then opens it any more, as after the first sign-in with Google.
    ///
    /// # Errors
    /// [`Refusal::BadLink`].
    pub(crate) async fn reset_password(
        &self,
        token: &str,
        password: String,
        turn: &str,
        now: Timestamp,
    ) -> Result<(), Refusal> {
        let hash = self.passwords.hash(password, turn).await?;
        let token = token_hash(token);
        let secret = self.secrets.seal(accounts::WEBHOOK_SECRET_PURPOSE, secrets::new_webhook_secret().as_bytes());
        let url = self.public_url.trim_end_matches('/');
        let text = format!(
            "The password of your account on {url} was changed by a link that was mailed to\r\nthis address, and every \
             session has ended.\r\n\r\nIf it was not you, whoever it was can read your mail. Choose a new password \
             there\r\nfirst, then here: {url}/\r\n"
        );
        let notice = self.secrets.seal(notices::PURPOSE, text.as_bytes());
        let jobs = self.jobs.clone();
        let changed = self.db.try_write(move |tx| {
            let id = links::redeem(tx, &token, LinkPurpose::PasswordReset, now)?.ok_or(Refusal::BadLink)?;
            let account = accounts::find_by_row(tx, id)?.ok_or(Refusal::BadLink)?;
            if !account.email_verified {
                disown(tx, id, &secret, now)?;
            }
            accounts::set_password_hash(tx, id, &hash)?;
            sessions::delete_of_account(tx, id)?;
            links::delete_of_account(tx, id)?;
            let to = mailbox(&account)?;
            let subject = "Your password was changed";
            let notice = notices::insert(tx, &account.email, subject, &notice, now, now.plus(NEWS_LIFETIME))?;
            let flow = mail_flow(to.domain().as_str(), id);
            Ok::<_, Refusal>(jobs.enqueue(tx, &flow, JobSubject::Notice(notice), now)?)
        });
        changed.await?.notify_committed();
        Ok(())
    }
}

fn mailbox(account: &Account) -> store::Result<Mailbox> {
    Mailbox::parse(&account.email).map_err(|_| store::Error::Corrupt("e-mail"))
}

/// Opens a session by a sign-in link, which it spends; returns its account.
pub(super) fn redeem_sign_in(tx: &Connection, hash: &[u8; 32], now: Timestamp) -> store::Result<Option<Account>> {
    match links::redeem(tx, hash, LinkPurpose::SignIn, now)? {
        Some(account) => accounts::find_by_row(tx, account),
        None => Ok(None),
    }
}
