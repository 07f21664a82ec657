//! API keys and webhook secrets of accounts, and the setup token of the installation.

use super::{Accounts, SECRET_ROTATION_OVERLAP};
use crate::clock::Timestamp;
use crate::id::AccountRowId;
use crate::secrets::{self, token_hash};
use crate::store;
use crate::store::accounts;
use crate::store::accounts::keys;
use crate::store::accounts::verifications;
use crate::store::accounts::verifications::SETUP_PURPOSE;

impl Accounts {
    /// Returns the account's API key, generating it if there is none.
    ///
    /// # Errors
    /// The master key does not open the stored key.
    pub(crate) async fn api_key(&self, account: AccountRowId, now: Timestamp) -> store::Result<String> {
        let sealed = match self.db.read(move |connection| keys::find_sealed(connection, account)).await? {
            Some(sealed) => sealed,
            None => {
                let key = secrets::new_api_key();
                let (hash, sealed) = (token_hash(&key), self.secrets.seal(keys::PURPOSE, key.as_bytes()));
                // A concurrent request gets the same key.
                let made = self.db.write(move |tx| match keys::find_sealed(tx, account)? {
                    Some(sealed) => Ok(sealed),
                    None => keys::insert(tx, account, &hash, &sealed, now).map(|_| sealed),
                });
                made.await?
            }
        };
        self.secrets.open_text(keys::PURPOSE, &sealed).map_err(|_| store::Error::Corrupt("API key"))
    }

    /// Replaces the account's API key; the old one is invalid at once.
    pub(crate) async fn rotate_api_key(&self, account: AccountRowId, now: Timestamp) -> store::Result<String> {
        let key = secrets::new_api_key();
        let (hash, sealed) = (token_hash(&key), self.secrets.seal(keys::PURPOSE, key.as_bytes()));
        self.db
            .write(move |tx| {
                keys::delete_own(tx, account)?;
                keys::insert(tx, account, &hash, &sealed, now)
            })
            .await?;
        Ok(key)
    }

    /// Returns the secret that signs the account's tracking webhooks, generating it if there is none.
    ///
    /// # Errors
    /// The master key does not open the stored secret.
    pub(crate) async fn webhook_secret(&self, account: AccountRowId) -> store::Result<String> {
        let secret = secrets::new_webhook_secret();
        let sealed = self.secrets.seal(accounts::WEBHOOK_SECRET_PURPOSE, secret.as_bytes());
        let stored = self.db.read(move |connection| accounts::find_webhook_secret(connection, account)).await?.sealed;
        let sealed = match stored {
            Some(sealed) => sealed,
            None => {
                let made = self.db.write(move |tx| match accounts::find_webhook_secret(tx, account)?.sealed {
                    Some(sealed) => Ok(sealed),
                    None => {
                        accounts::set_webhook_secret(tx, account, &sealed, None)?;
                        Ok(sealed)
                    }
                });
                made.await?
            }
        };
        let opened = self.secrets.open_text(accounts::WEBHOOK_SECRET_PURPOSE, &sealed);
        opened.map_err(|_| store::Error::Corrupt("webhook secret"))
    }

    /// Replaces that secret; until the returned time both sign.
    pub(crate) async fn rotate_webhook_secret(
        &self,
        account: AccountRowId,
        now: Timestamp,
    ) -> store::Result<(String, Timestamp)> {
        let (secret, until) = (secrets::new_webhook_secret(), now.plus(SECRET_ROTATION_OVERLAP));
        let sealed = self.secrets.seal(accounts::WEBHOOK_SECRET_PURPOSE, secret.as_bytes());
        self.db.write(move |tx| accounts::set_webhook_secret(tx, account, &sealed, Some(until))).await?;
        Ok((secret, until))
    }

    /// Returns the setup token, generating it if the installation has no owner yet; `None` once it has.
    ///
    /// # Errors
    /// The master key does not open the stored token.
    pub async fn setup_token(&self) -> store::Result<Option<String>> {
        // Nothing is written if there is an owner or a token already: a full disk must not prevent a start.
        let known = self.db.read(|connection| {
            if accounts::find_owner(connection)?.is_some() {
                return Ok(Some(None));
            }
            Ok(verifications::find_setup_token(connection)?.map(Some))
        });
        let stored = match known.await? {
            Some(stored) => stored,
            None => {
                let token = secrets::new_setup_token();
                let sealed = self.secrets.seal(SETUP_PURPOSE, token.as_bytes());
                let made =
                    self.db.write(move |tx| verifications::insert_setup_token(tx, &sealed).map(|()| sealed)).await?;
                Some(made)
            }
        };
        let open = |sealed: Vec<u8>| {
            let opened = self.secrets.open_text(SETUP_PURPOSE, &sealed);
            opened.map_err(|_| store::Error::Corrupt("setup token"))
        };
        stored.map(open).transpose()
    }
}
