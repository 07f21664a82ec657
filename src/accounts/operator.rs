//! Changes of accounts by the operator of the host, who proves nothing else: whoever may use the data directory may
//! change everything in it.

use std::time::Duration;

use super::{Accounts, email_of, verifications};
use crate::clock::Timestamp;
use crate::id::random_base62;
use crate::secrets::passwords::{self, HashError, Weak};
use crate::secrets::{self, token_hash};
use crate::store::accounts::links::{self, LinkPurpose};
use crate::store::accounts::{self, Account, NewAccount, keys, roster, sessions};
use crate::store::{self, Connection};

/// Validity of a sign-in link.
pub(crate) const SIGN_IN_LIFETIME: Duration = Duration::from_secs(15 * 60);
/// Key under which the operator's password hashes are queued.
const TURN: &str = "operator";

/// Reason why a change by the operator is refused; nothing was changed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OperatorRefusal {
    #[error("{0:?} is not an e-mail address that an account may have")]
    BadAddress(String),
    #[error("no account has the address {0}; to see all accounts: mailkite user list")]
    UnknownAccount(String),
    #[error("{0} has an account; to give it a new password: mailkite user reset-password {0}")]
    AccountExists(String),
    #[error("{0} is the only administrator; make another one first: mailkite user set-admin EMAIL true")]
    LastAdmin(String),
    #[error("{0} administers this server; take that away first: mailkite user set-admin {0} false")]
    Admin(String),
    #[error(transparent)]
    Weak(#[from] Weak),
    #[error(transparent)]
    Hash(#[from] HashError),
    #[error(transparent)]
    Store(#[from] store::Error),
}

store::transaction_error!(OperatorRefusal);

/// The way in that the operator gives to an account.
pub(crate) enum WayIn {
    Password(String),
    /// A link that signs in once, and no password until the account sets one.
    SignInLink,
}

/// An account, with the sign-in link that was asked for.
#[derive(Debug)]
pub(crate) struct Opened {
    pub(crate) account: Account,
    pub(crate) link: Option<String>,
}

impl Accounts {
    /// Adds an account with a verified address.
    ///
    /// # Errors
    /// The address is bad or has an account, or the password is weak.
    pub(crate) async fn add_by_operator(
        &self,
        email: &str,
        is_admin: bool,
        way: WayIn,
        now: Timestamp,
    ) -> Result<Opened, OperatorRefusal> {
        let email = email_of(email).ok_or_else(|| OperatorRefusal::BadAddress(email.to_owned()))?;
        let (hash, link) = self.prepare(way, &email).await?;
        let key = secrets::new_api_key();
        let sealed_key = self.secrets.seal(keys::PURPOSE, key.as_bytes());
        let secret = self.secrets.seal(accounts::WEBHOOK_SECRET_PURPOSE, secrets::new_webhook_secret().as_bytes());
        let link_hash = link.as_deref().map(token_hash);
        let added = self.db.try_write(move |tx| {
            if accounts::find_by_email(tx, &email)?.is_some() {
                return Err(OperatorRefusal::AccountExists(email));
            }
            let new =
                NewAccount { email, is_admin, email_verified: true, password_hash: hash, ..NewAccount::default() };
            let account = accounts::insert(tx, new, now)?;
            if is_admin {
                verifications::delete_setup_token(tx)?;
            }
            keys::insert(tx, account.id, &token_hash(&key), &sealed_key, now)?;
            accounts::set_webhook_secret(tx, account.id, &secret, None)?;
            insert_link(tx, &account, link_hash, now)?;
            Ok(account)
        });
        Ok(Opened { account: added.await?, link: link.map(|token| self.sign_in_url(&token)) })
    }

    /// Replaces the password of an account, or removes it for a sign-in link; every session and link ends.
    ///
    /// # Errors
    /// The account is unknown, or the password is weak.
    pub(crate) async fn reset_by_operator(
        &self,
        email: &str,
        way: WayIn,
        now: Timestamp,
    ) -> Result<Opened, OperatorRefusal> {
        let account = self.find_account(email).await?;
        let (hash, link) = self.prepare(way, &account.email).await?;
        let (id, link_hash) = (account.id, link.as_deref().map(token_hash));
        let reset = self.db.try_write_removal(move |tx| {
            let account = accounts::find_by_row(tx, id)?.ok_or(OperatorRefusal::UnknownAccount(account.email))?;
            match hash {
                Some(hash) => accounts::set_password_hash(tx, id, &hash)?,
                None => accounts::delete_password(tx, id)?,
            }
            sessions::delete_of_account(tx, id)?;
            links::delete_of_account(tx, id)?;
            insert_link(tx, &account, link_hash, now)?;
            Ok::<_, OperatorRefusal>(account)
        });
        Ok(Opened { account: reset.await?, link: link.map(|token| self.sign_in_url(&token)) })
    }

    /// Makes a link that signs in once.
    ///
    /// # Errors
    /// The account is unknown.
    pub(crate) async fn sign_in_link(&self, email: &str, now: Timestamp) -> Result<Opened, OperatorRefusal> {
        let account = self.find_account(email).await?;
        let token = random_base62(43);
        let hash = token_hash(&token);
        let made = self.db.try_write_removal(move |tx| {
            let account =
                accounts::find_by_row(tx, account.id)?.ok_or(OperatorRefusal::UnknownAccount(account.email))?;
            insert_link(tx, &account, Some(hash), now)?;
            Ok::<_, OperatorRefusal>(account)
        });
        Ok(Opened { account: made.await?, link: Some(self.sign_in_url(&token)) })
    }

    /// Makes an account an administrator, or no longer; returns false if it was so already.
    ///
    /// # Errors
    /// The account is unknown or the last administrator.
    pub(crate) async fn set_admin(&self, email: &str, is_admin: bool) -> Result<(Account, bool), OperatorRefusal> {
        let account = self.find_account(email).await?;
        let set = self.db.try_write_removal(move |tx| {
            let found = accounts::find_by_row(tx, account.id)?;
            let account = found.ok_or(OperatorRefusal::UnknownAccount(account.email))?;
            if account.is_admin == is_admin {
                return Ok((account, false));
            }
            if !is_admin && roster::count_admins(tx)? == 1 {
                return Err(OperatorRefusal::LastAdmin(account.email));
            }
            roster::set_admin(tx, account.id, is_admin)?;
            if is_admin {
                verifications::delete_setup_token(tx)?;
            }
            Ok((Account { is_admin, ..account }, true))
        });
        set.await
    }

    /// Finds an account by an address in any spelling.
    ///
    /// # Errors
    /// There is none.
    pub(crate) async fn find_account(&self, email: &str) -> Result<Account, OperatorRefusal> {
        let given = email.to_owned();
        let email = email_of(email).ok_or_else(|| OperatorRefusal::UnknownAccount(given.clone()))?;
        let found = self.db.read(move |connection| accounts::find_by_email(connection, &email)).await?;
        found.ok_or(OperatorRefusal::UnknownAccount(given))
    }

    /// Returns the hash of the password, or the token of a link.
    async fn prepare(&self, way: WayIn, email: &str) -> Result<(Option<String>, Option<String>), OperatorRefusal> {
        match way {
            WayIn::Password(password) => {
                passwords::check(&password, email)?;
                Ok((Some(self.passwords.hash(password, TURN).await?), None))
            }
            WayIn::SignInLink => Ok((None, Some(random_base62(43)))),
        }
    }

    /// The token is in the fragment, which browsers do not send.
    fn sign_in_url(&self, token: &str) -> String {
        format!("{}/#/ticket/{token}", self.public_url.trim_end_matches('/'))
    }
}

fn insert_link(tx: &Connection, account: &Account, hash: Option<[u8; 32]>, now: Timestamp) -> store::Result<()> {
    match hash {
        Some(hash) => links::insert(tx, &hash, account.id, LinkPurpose::SignIn, now.plus(SIGN_IN_LIFETIME)),
        None => Ok(()),
    }
}
