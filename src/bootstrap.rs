//! Creates what mail needs to flow: the owner, its key, a domain, a domain's webhook. For `mailkite dev` and `bench`.
//!
//! Each function finds or creates its rows inside the caller's transaction.

use crate::store::Connection;

use crate::clock::Timestamp;
use crate::id::{AccountRowId, RouteId};
use crate::secrets::{self, Secrets};
use crate::store::accounts::domains;
use crate::store::accounts::domains::DomainRow;
use crate::store::accounts::keys;
use crate::store::accounts::{self, Account, NewAccount};
use crate::store::webhooks::routes;
use crate::store::webhooks::routes::AckMode;
use crate::store::webhooks::routes::{Action, NewRoute, SECRET_PURPOSE};
use crate::store::{Error, Result};

/// Finds or creates the account that owns the installation, and its API key.
///
/// # Errors
/// Storage failed, or this master key does not open the stored key.
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

/// Finds a domain of the account, or creates it as verified.
///
/// # Errors
/// Storage failed, or another account holds the name.
pub fn verified_domain(tx: &Connection, account: AccountRowId, name: &str, now: Timestamp) -> Result<DomainRow> {
    match domains::find_of_account(tx, account, name)? {
        Some(domain) => Ok(domain),
        None => domains::insert(tx, account, name, true, now),
    }
}

/// Sets the webhook of a domain to `url` and returns it with its signing secret; an existing one keeps its id and
/// secret.
///
/// # Errors
/// Storage failed, or this master key does not open the stored secret.
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
        ack_mode: Some(AckMode::Lenient),
        is_domain_webhook: true,
        secret_sealed: None,
    };
    webhook_route(tx, secrets, new, now)
}

/// Creates a webhook route with a new signing secret.
pub fn webhook_route(tx: &Connection, secrets: &Secrets, new: NewRoute, now: Timestamp) -> Result<(RouteId, String)> {
    let secret = secrets::new_webhook_secret();
    let sealed = secrets.seal(SECRET_PURPOSE, secret.as_bytes());
    let id = routes::insert(tx, &NewRoute { secret_sealed: Some(sealed), ..new }, now)?;
    Ok((id, secret))
}

fn unseal(secrets: &Secrets, purpose: &str, sealed: &[u8], what: &'static str) -> Result<String> {
    secrets.open_text(purpose, sealed).map_err(|_| Error::Corrupt(what))
}
