//! Things that must exist before mail can flow: the owner, its key, a domain, a domain's webhook.
//!
//! Each function finds what is there or makes it, inside the caller's transaction. Call
//! [`crate::store::Db::directory_changed`] after the commit.

use crate::store::Connection;

use crate::clock::Timestamp;
use crate::id::{AccountRowId, RouteId};
use crate::secrets::{self, Secrets};
use crate::store::accounts::domains;
use crate::store::accounts::domains::DomainRow;
use crate::store::accounts::keys;
use crate::store::accounts::{self, Account, NewAccount};
use crate::store::webhooks::routes;
use crate::store::webhooks::routes::{Action, NewRoute, SECRET_PURPOSE};
use crate::store::{Error, Result};

/// The account that owns the installation and its API key.
///
/// # Errors
/// Storage trouble, or a stored key that this master key does not open.
pub fn owner(tx: &Connection, secrets: &Secrets, email: &str, now: Timestamp) -> Result<(Account, String)> {
    let account = match accounts::find_owner(tx)? {
        Some(account) => account,
        None => {
            let new =
                NewAccount { email: email.to_owned(), is_admin: true, email_verified: true, ..NewAccount::default() };
            accounts::insert(tx, new, now)?
        }
    };
    if let Some(sealed) = keys::find_sealed(tx, account.id)? {
        return Ok((account, unseal(secrets, keys::PURPOSE, &sealed, "API key")?));
    }
    let key = secrets::new_api_key();
    let sealed = secrets.seal(keys::PURPOSE, key.as_bytes());
    keys::insert(tx, account.id, &secrets::token_hash(&key), &sealed, now)?;
    Ok((account, key))
}

/// A domain of the account, verified from the start if it is new.
///
/// # Errors
/// Storage trouble, or another account holds the name.
pub fn verified_domain(tx: &Connection, account: AccountRowId, name: &str, now: Timestamp) -> Result<DomainRow> {
    match domains::find_of_account(tx, account, name)? {
        Some(domain) => Ok(domain),
        None => domains::insert(tx, account, name, true, now),
    }
}

/// The webhook of a domain, set to `url`, and its signing secret; its id and secret stay when it exists.
///
/// # Errors
/// Storage trouble, or a stored secret that this master key does not open.
pub fn domain_webhook(
    tx: &Connection,
    secrets: &Secrets,
    domain: &DomainRow,
    url: &str,
    now: Timestamp,
) -> Result<(RouteId, String)> {
    if let Some(route) = routes::find_domain_webhook(tx, domain.id)? {
        routes::set_destination(tx, &route.public_id, url, now)?;
        let sealed = route.secret_sealed.ok_or(Error::Corrupt("signing secret"))?;
        return Ok((route.public_id, unseal(secrets, SECRET_PURPOSE, &sealed, "signing secret")?));
    }
    let new = NewRoute {
        account_id: domain.account_id,
        domain_id: Some(domain.id),
        match_pattern: format!("*@{}", domain.name),
        action: Action::Webhook,
        destination: Some(url.to_owned()),
        ack_mode: Some("lenient".to_owned()),
        is_domain_webhook: true,
        secret_sealed: None,
    };
    webhook_route(tx, secrets, new, now)
}

/// A new webhook route with a new signing secret.
///
/// # Errors
/// Storage trouble.
pub fn webhook_route(tx: &Connection, secrets: &Secrets, new: NewRoute, now: Timestamp) -> Result<(RouteId, String)> {
    let secret = secrets::new_webhook_secret();
    let sealed = secrets.seal(SECRET_PURPOSE, secret.as_bytes());
    let id = routes::insert(tx, &NewRoute { secret_sealed: Some(sealed), ..new }, now)?;
    Ok((id, secret))
}

fn unseal(secrets: &Secrets, purpose: &str, sealed: &[u8], what: &'static str) -> Result<String> {
    secrets.open_text(purpose, sealed).map_err(|_| Error::Corrupt(what))
}
