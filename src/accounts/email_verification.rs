//! The proof of an e-mail address: the mail with a link, and what opening the link does (contract 2).

use std::sync::Arc;

use super::{Accounts, StrangerMail};
use crate::clock::Timestamp;
use crate::id::random_base62;
use crate::jobs::{self, Flow};
use crate::mail::address::Mailbox;
use crate::secrets::token_hash;
use crate::store::accounts::verifications::LINK_LIFETIME;
use crate::store::accounts::{self, Account, notices, verifications};
use crate::store::{self, Connection};

/// Result of a request for a verification mail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verification {
    /// The address is proven already.
    Verified,
    /// A mail with a link is queued.
    Sent,
}

impl Accounts {
    /// Enqueues a mail with a link that proves the account's address. A mailbox that got many lately gets none, and the
    /// answer does not say so: it would disclose that others asked for the same mailbox.
    pub(crate) async fn send_verification(&self, account: Account, now: Timestamp) -> store::Result<Verification> {
        if account.email_verified {
            return Ok(Verification::Verified);
        }
        let (link, notice) = self.verification_mail();
        let strangers = Arc::clone(&self.strangers);
        let queued = self.db.write(move |tx| queue_verification(tx, &strangers, &account, &link, &notice, now));
        queued.await?.into_iter().for_each(|flow| self.jobs.wake(&flow, now));
        Ok(Verification::Sent)
    }

    /// Returns the account whose address the link with this token proves, if the token is valid.
    pub(crate) async fn find_by_link(&self, token: &str, now: Timestamp) -> store::Result<Option<Account>> {
        let hash = token_hash(token);
        let found = self.db.read(move |connection| match verifications::find_account(connection, &hash, now)? {
            Some(account) => accounts::find_by_row(connection, account),
            None => Ok(None),
        });
        found.await
    }

    /// Proves an address by the token of a link; false if the token is not valid.
    pub(crate) async fn verify_email(&self, token: &str, now: Timestamp) -> store::Result<bool> {
        let hash = token_hash(token);
        let proven = self.db.write(move |tx| match verifications::find_account(tx, &hash, now)? {
            Some(account) => accounts::set_email_verified(tx, account).map(|()| Some(account)),
            None => Ok(None),
        });
        // Mail is received for the account from now on.
        Ok(proven.await?.is_some())
    }

    /// Returns a new link's hash and the sealed text of the mail that carries it.
    pub(super) fn verification_mail(&self) -> ([u8; 32], Vec<u8>) {
        let token = random_base62(43);
        let text = format!(
            "Welcome to mailkite.\r\n\r\nPlease confirm within a day that this address is yours: open this link, and \
             press the\r\nbutton.\r\n\r\n{}/api/auth/verify?token={token}\r\n\r\nIf you did not sign up, do nothing: \
             somebody else knows the password of this\r\naccount.\r\n",
            self.public_url.trim_end_matches('/')
        );
        (token_hash(&token), self.secrets.seal(notices::PURPOSE, text.as_bytes()))
    }
}

/// Enqueues the mail, stores its link as valid and returns the flow to wake; `None` if the mailbox got as many as it
/// may.
pub(super) fn queue_verification(
    tx: &Connection,
    strangers: &StrangerMail,
    account: &Account,
    link: &[u8],
    notice: &[u8],
    now: Timestamp,
) -> store::Result<Option<Flow>> {
    let to = Mailbox::parse(&account.email).map_err(|_| store::Error::Corrupt("e-mail"))?;
    if !strangers.may_mail(&to, now) {
        return Ok(None);
    }
    verifications::insert(tx, link, account.id, now)?;
    let flow = jobs::mail_flow(to.domain().as_str(), account.id);
    let subject = "Confirm your e-mail address";
    notices::insert(tx, &flow, &account.email, subject, notice, now, now.plus(LINK_LIFETIME))?;
    strangers.count(&to, now);
    Ok(Some(flow))
}
