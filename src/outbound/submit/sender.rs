//! Permission to send from a domain, and the keys that sign for it (contract 8.1, the gates).

use std::sync::Arc;

use moka::sync::Cache;

use super::SubmitError;
use crate::clock::Timestamp;
use crate::domain::keys::{KeyError, PURPOSE};
use crate::domain::name::with_parents;
use crate::domain::{DomainError, is_lost};
use crate::id::{AccountRowId, DomainId, DomainRowId};
use crate::mail::address::Domain;
use crate::mail::mailbox_list::NamedMailbox;
use crate::outbound::Outbound;
use crate::outbound::message::compose::{self, ComposeError};
use crate::outbound::message::dkim::{DomainKeys, PrivateKey};
use crate::store::accounts::Account;
use crate::store::accounts::domains;
use crate::store::accounts::domains::DomainRow;
use crate::store::accounts::{dkim_keys, dns_checks};
use crate::store::{self, Connection};

/// Limit of domains with cached keys.
const MAX_CACHED: u64 = 1_000;

/// Parsed keys of domains, cached because parsing one takes as long as a signature.
pub(crate) struct KeyCache {
    /// By domain, selector of the RSA key, and whether Ed25519 signs too.
    keys: Cache<(DomainId, String, bool), Arc<DomainKeys>>,
}

impl Default for KeyCache {
    fn default() -> Self {
        Self { keys: Cache::new(MAX_CACHED) }
    }
}

/// The account that submits a message.
#[derive(Clone, Debug)]
pub(crate) struct Submitter {
    pub(crate) account: Account,
    /// The domain that its credential is limited to.
    pub(crate) scope: Option<DomainRowId>,
}

/// An account and the domain that it may send from.
#[derive(Clone)]
pub(crate) struct Sender {
    pub(crate) account: AccountRowId,
    /// The From domain.
    pub(crate) domain: DomainRow,
    /// The keys that sign for it.
    pub(crate) keys: Arc<DomainKeys>,
}

/// The reason an account may not send from a domain.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SenderError {
    /// 403 `email_not_verified`.
    #[error("the e-mail address of the account is not verified")]
    EmailNotVerified,
    /// 404 `domain_not_owned`.
    #[error("the account has no such domain")]
    DomainNotOwned,
    /// 403 `key_scope`.
    #[error("the key is limited to another domain")]
    KeyScope,
    /// 403 `from_domain`.
    #[error("the domain is not verified for sending")]
    FromDomain,
    /// The domain has no keys yet; they are generated at its first send.
    #[error("the domain has no keys yet")]
    NoKeys(DomainRowId),
    /// A storage error, or keys that cannot be read.
    #[error(transparent)]
    Store(#[from] store::Error),
}

/// The reason a Sender field is refused: 400 `bad_header`.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SenderFieldError {
    /// Not exactly one mailbox.
    #[error(transparent)]
    Malformed(#[from] ComposeError),
    /// The account may not send from its domain.
    #[error("its domain is none that you may send from")]
    Domain,
}

impl Outbound {
    /// Checks the gates of contract 8.1 in order.
    ///
    /// # Errors
    /// The first closed gate.
    pub(crate) async fn sender(
        &self,
        submitter: &Submitter,
        from: &Domain,
        now: Timestamp,
    ) -> Result<Sender, SenderError> {
        match self.ask_sender(submitter.clone(), from).await {
            Err(SenderError::NoKeys(domain)) => {
                let made = self.parts.domains.ensure_keys(domain, now).await;
                made.map_err(|error| match error {
                    DomainError::Store(error) => error,
                    DomainError::Keys(KeyError::Busy(_)) => store::Error::Busy,
                    error => {
                        tracing::error!(%error, "the keys of a domain could not be made");
                        store::Error::Corrupt("DKIM key")
                    }
                })?;
                self.ask_sender(submitter.clone(), from).await
            }
            asked => asked,
        }
    }

    async fn ask_sender(
        &self,
        Submitter { account, scope }: Submitter,
        from: &Domain,
    ) -> Result<Sender, SenderError> {
        let name = from.as_str().to_owned();
        let parts = Arc::clone(&self.parts);
        let asked = self.parts.db.read(move |connection| {
            let found = parts.find_sender(connection, &account, scope, &name);
            match found {
                Err(SenderError::Store(error)) => Err(error),
                other => Ok(other),
            }
        });
        asked.await?
    }

    /// Returns the mailbox of a Sender field, if the account may send from it: mail clients show it next to the author.
    ///
    /// # Errors
    /// The value is not one mailbox, or the account may not send from its domain.
    pub(super) async fn sender_field(
        &self,
        submitter: &Submitter,
        value: &str,
        now: Timestamp,
    ) -> Result<NamedMailbox, SubmitError> {
        let one = compose::sender_field(value).map_err(SenderFieldError::Malformed)?;
        match self.sender(submitter, one.mailbox.domain(), now).await {
            Ok(_) => Ok(one),
            Err(error @ (SenderError::NoKeys(_) | SenderError::Store(_))) => Err(error.into()),
            Err(_) => Err(SenderFieldError::Domain.into()),
        }
    }
}

impl crate::outbound::Dependencies {
    /// Does the same as [`Outbound::sender`] on a connection; `scope` is the domain that the credential is limited to.
    pub(crate) fn find_sender(
        &self,
        connection: &Connection,
        account: &Account,
        scope: Option<DomainRowId>,
        name: &str,
    ) -> Result<Sender, SenderError> {
        if !account.email_verified && !self.config.dev {
            return Err(SenderError::EmailNotVerified);
        }
        let found = domains::find_of_account(connection, account.id, name)?;
        let domain = found.ok_or(SenderError::DomainNotOwned)?;
        if scope.is_some_and(|only| only != domain.id) {
            return Err(SenderError::KeyScope);
        }
        if !domain.flags.spf || !domain.flags.dkim || is_lost(connection, &domain)? {
            return Err(SenderError::FromDomain);
        }
        let keys = self.keys_of(connection, &domain)?.ok_or(SenderError::NoKeys(domain.id))?;
        Ok(Sender { account: account.id, domain, keys })
    }

    /// Returns the keys of an account's domain, by its name.
    pub(crate) fn keys_of_name(
        &self,
        connection: &Connection,
        account: AccountRowId,
        name: &str,
    ) -> store::Result<Option<Arc<DomainKeys>>> {
        match domains::find_of_account(connection, account, name)? {
            Some(domain) => self.keys_of(connection, &domain),
            None => Ok(None),
        }
    }

    /// Signs the appliance's own mail, if its host name belongs to a domain that is verified here.
    pub(crate) fn host_signature(&self, connection: &Connection, mail: &[u8]) -> store::Result<Option<String>> {
        for name in with_parents(&self.config.hostname) {
            let domain = domains::find_by_name(connection, &name)?;
            let Some(domain) = domain.filter(|domain| domain.verified && domain.flags.dkim) else { continue };
            if let Some(Ok(signature)) = self.keys_of(connection, &domain)?.map(|keys| keys.sign(mail)) {
                return Ok(Some(signature));
            }
        }
        Ok(None)
    }

    /// Returns the keys of a domain, if it has any; Ed25519 signs while its record is found in DNS (contract 8.5).
    pub(crate) fn keys_of(
        &self,
        connection: &Connection,
        domain: &DomainRow,
    ) -> store::Result<Option<Arc<DomainKeys>>> {
        let Some(selector) = dkim_keys::find_signing_selector(connection, domain.id)? else { return Ok(None) };
        let both = dns_checks::is_ok(connection, domain.id, dns_checks::Kind::DkimEd25519)?;
        let cache_key = (domain.public_id.clone(), selector, both);
        if let Some(keys) = self.keys.keys.get(&cache_key) {
            return Ok(Some(keys));
        }
        let private = |algorithm| {
            let Some((selector, sealed)) = dkim_keys::find_signing(connection, domain.id, algorithm)? else {
                return Ok(None);
            };
            let opened = self.secrets.open_sealed(PURPOSE, &sealed);
            opened.map(|pkcs8| Some((selector, pkcs8))).map_err(|_| store::Error::Corrupt("DKIM key"))
        };
        let Some(rsa) = private(dkim_keys::Algorithm::Rsa)? else { return Ok(None) };
        let ed25519 = if both { private(dkim_keys::Algorithm::Ed25519)? } else { None };
        let ed25519 = ed25519.as_ref().map(|(selector, pkcs8)| PrivateKey { selector, pkcs8 });
        let rsa = PrivateKey { selector: &rsa.0, pkcs8: &rsa.1 };
        let keys = DomainKeys::new(&domain.name, rsa, ed25519).map_err(|_| store::Error::Corrupt("DKIM key"))?;
        let keys = Arc::new(keys);
        self.keys.keys.insert(cache_key, Arc::clone(&keys));
        Ok(Some(keys))
    }
}
