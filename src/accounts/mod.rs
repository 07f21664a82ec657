//! Accounts: sign-up and sign-in, sessions, keys, and the proof of an e-mail address (contract 2). Uses `store`,
//! `secrets`, `jobs` and, for Google, `net`; the HTTP API checks the form of requests and their rate, this folder
//! decides on their meaning. The sign-up policy belongs in `policy`, API keys, secrets and the setup token in `keys`,
//! forward destinations in `destinations`, limits on mail to strangers in `strangers`, Google's part in `google`,
//! one-time sign-ins in `tickets`, the proof of an address in `email_verification`, a forgotten password in
//! `password_reset`, changes by the operator in `operator` and `removal`, sessions and passwords here.

pub(crate) mod google;

mod destinations;
mod email_verification;
mod keys;
pub(crate) mod operator;
mod password_reset;
mod policy;
mod removal;
mod strangers;
mod tickets;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::clock::Timestamp;
use crate::config::Signup;
use crate::fair_semaphore::Requester;
use crate::id::AccountRowId;
use crate::jobs::{EnqueuedJob, Jobs};
use crate::mail::address::Mailbox;
use crate::secrets::passwords::{HashError, Passwords};
use crate::secrets::session_tokens::Tokens;
use crate::secrets::{self, Secrets, token_hash};
use crate::store::accounts::sessions;
use crate::store::accounts::sessions::NewSession;
use crate::store::accounts::verifications;
use crate::store::accounts::{self, Account, NewAccount};
use crate::store::accounts::{domains, keys as key_rows};
use crate::store::webhooks::routes;
use crate::store::{self, Connection, Db};
pub(crate) use email_verification::Verification;
use email_verification::queue_verification;
use password_reset::redeem_sign_in;
use policy::Policy;
pub(crate) use strangers::StrangerMail;
pub(crate) use tickets::Tickets;

/// Time during which both secrets sign after a rotation (contract 9.3).
pub(crate) const SECRET_ROTATION_OVERLAP: Duration = Duration::from_secs(86_400);

/// Signs accounts up and in and manages their credentials.
pub struct Accounts {
    pub(crate) db: Db,
    /// Notified of mail that is enqueued.
    pub(crate) jobs: Jobs,
    /// Seals keys and secrets.
    pub(crate) secrets: Arc<Secrets>,
    /// Hashes passwords.
    pub passwords: Passwords,
    /// Issues session tokens.
    pub(crate) tokens: Tokens,
    /// Sign-ins that the operator hands out.
    pub tickets: Tickets,
    /// Limits the proof mails sent to one mailbox.
    pub(crate) strangers: Arc<StrangerMail>,
    /// Policy for new accounts.
    pub(crate) signup: Signup,
    /// True if every account is verified from the start (dev mode).
    pub(crate) dev: bool,
    /// Base URL of links in mails.
    pub(crate) public_url: String,
    /// Maximum number of sessions per account; 0 is unlimited.
    pub(crate) most_sessions: u32,
}

/// The client that signs in, for the list of sessions.
#[derive(Clone, Debug)]
pub(crate) struct ClientInfo {
    /// Remote address.
    pub(crate) address: String,
    /// The `User-Agent` it sends.
    pub(crate) user_agent: String,
    /// Key under which slow work is queued fairly: one for all requests of an address (contract 1.12).
    pub(crate) turn: String,
}

/// Evidence that somebody runs this machine (contract 2.2).
#[derive(Clone)]
pub(crate) struct Proof {
    /// The setup token from the request.
    pub(crate) token: Option<String>,
    /// True if the request came over loopback.
    pub(crate) over_loopback: bool,
}

/// A person whose identity Google asserts.
#[derive(Clone, Debug)]
pub(crate) struct GoogleUser {
    /// Google's own id of the person.
    pub(crate) subject: String,
    /// The verified address in lower case.
    pub(crate) email: String,
    /// URL of a picture.
    pub(crate) picture: Option<String>,
}

/// A new session.
pub(crate) struct SignedIn {
    /// The token that names it.
    pub(crate) token: String,
    /// Its account.
    pub(crate) account: Account,
}

impl fmt::Debug for SignedIn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SignedIn").field("account", &self.account.public_id).finish_non_exhaustive()
    }
}

/// Reason why a request of an account is refused; nothing was changed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Refusal {
    /// Sign-up is closed.
    #[error("sign-up is closed")]
    SignupClosed,
    /// The first account needs the setup token.
    #[error("the setup token is missing or wrong")]
    SetupToken,
    /// The address has an account.
    #[error("the address has an account")]
    AccountExists,
    /// Unknown account or wrong password.
    #[error("invalid email or password")]
    BadLogin,
    /// The account has a password, and it was not given.
    #[error("the current password is required")]
    PasswordMissing,
    /// The given password is not the present one.
    #[error("the current password is wrong")]
    WrongPassword,
    /// The link is unknown, used or too old.
    #[error("the link is not valid")]
    BadLink,
    /// The password could not be hashed.
    #[error(transparent)]
    Hash(#[from] HashError),
    /// Storage failed.
    #[error(transparent)]
    Store(#[from] store::Error),
}

store::transaction_error!(Refusal);

impl Accounts {
    /// Creates an account and signs it in; the first one with proof owns the installation.
    ///
    /// # Errors
    /// The policy or an existing account prevents it.
    pub(crate) async fn sign_up(
        &self,
        email: String,
        password: String,
        proof: Proof,
        client: ClientInfo,
        now: Timestamp,
    ) -> Result<SignedIn, Refusal> {
        // Checked before the password is hashed, and again in the transaction that decides.
        let (asked, early) = (email.clone(), self.policy(proof.clone()));
        self.db
            .try_read(move |connection| {
                early.owner_if_permitted(connection)?;
                match accounts::find_by_email(connection, &asked)? {
                    Some(_) => Err(Refusal::AccountExists),
                    None => Ok(()),
                }
            })
            .await?;
        let hash = self.passwords.hash(password, client.turn.as_str()).await?;
        let new = NewAccount { email, password_hash: Some(hash), ..NewAccount::default() };
        self.create(new, proof, client, now).await
    }

    /// Signs in by e-mail and password. An unknown account, an account without a password and a wrong password cost the
    /// same work and get the same answer.
    ///
    /// # Errors
    /// [`Refusal::BadLogin`].
    pub(crate) async fn log_in(
        &self,
        email: String,
        password: String,
        client: ClientInfo,
        now: Timestamp,
    ) -> Result<SignedIn, Refusal> {
        let address = client.address.clone();
        let found = self.db.read(move |connection| {
            let Some(account) = accounts::find_by_email(connection, &email)? else { return Ok(None) };
            let hash = accounts::find_password_hash(connection, account.id)?;
            let known = sessions::is_known(connection, account.id, &address, now)?;
            Ok(Some((account, hash, known)))
        });
        let (account, hash, known) =
            found.await?.map_or((None, None, false), |(account, hash, known)| (Some(account), hash, known));
        let genuine = self.passwords.verify(password, hash.clone(), Requester { name: &client.turn, known }).await?;
        let Some(account) = account.filter(|_| genuine) else { return Err(Refusal::BadLogin) };
        let (token, session) = self.new_session(&account, client, now);
        let (id, most) = (account.id, self.most_sessions);
        let opened = self.db.write_removal(move |tx| {
            // A password that was changed meanwhile opens nothing: its change has ended the sessions it had opened.
            let current = accounts::find_password_hash(tx, id)? == hash;
            if current {
                sessions::insert(tx, &session, most, now)?;
            }
            Ok(current)
        });
        if opened.await? { Ok(SignedIn { token, account }) } else { Err(Refusal::BadLogin) }
    }

    /// Signs in the holder of an unspent ticket or sign-in link and spends it.
    ///
    /// # Errors
    /// [`Refusal::BadLogin`].
    pub(crate) async fn log_in_with_ticket(
        &self,
        ticket: &str,
        client: ClientInfo,
        now: Timestamp,
    ) -> Result<SignedIn, Refusal> {
        if let Some(account) = self.tickets.redeem(ticket) {
            return self.open_session(account, client, now).await;
        }
        let (hash, most, tokens) = (token_hash(ticket), self.most_sessions, self.tokens.clone());
        let opened = self.db.try_write_removal(move |tx| {
            let account = redeem_sign_in(tx, &hash, now)?.ok_or(Refusal::BadLogin)?;
            let (token, session) = new_session(&tokens, &account, client, now);
            sessions::insert(tx, &session, most, now)?;
            Ok(SignedIn { token, account })
        });
        opened.await
    }

    /// Signs in a person whom Google identifies, by subject, then by address; else creates an account.
    ///
    /// An account that signed up with the address and never proved it may belong to somebody else, who waits for the
    /// owner of the address to come. So nothing set up until then opens the account or sends from it any more:
    /// sessions, password and keys end, routes pause, and domains get their initial settings again.
    ///
    /// # Errors
    /// The policy prevents a new account.
    pub(crate) async fn sign_in_with_google(
        &self,
        user: GoogleUser,
        proof: Proof,
        client: ClientInfo,
        now: Timestamp,
    ) -> Result<SignedIn, Refusal> {
        let known = user.clone();
        let secret = self.secrets.seal(accounts::WEBHOOK_SECRET_PURPOSE, secrets::new_webhook_secret().as_bytes());
        let found = self.db.write(move |tx| {
            if let Some(account) = accounts::find_by_google_subject(tx, &known.subject)? {
                return Ok(Some(account));
            }
            let Some(account) = accounts::find_by_email(tx, &known.email)? else { return Ok(None) };
            if !account.email_verified {
                disown(tx, account.id, &secret, now)?;
            }
            accounts::set_google(tx, account.id, &known.subject, known.picture.as_deref())?;
            let avatar_url = known.picture.or(account.avatar_url);
            Ok(Some(Account { avatar_url, email_verified: true, ..account }))
        });
        match found.await? {
            Some(account) => self.open_session(account, client, now).await,
            None => {
                let new = NewAccount {
                    email: user.email,
                    email_verified: true,
                    google_subject: Some(user.subject),
                    avatar_url: user.picture,
                    ..NewAccount::default()
                };
                self.create(new, proof, client, now).await
            }
        }
    }

    /// True if an account has a password; one that signs in with Google alone has none.
    pub(crate) async fn has_password(&self, account: AccountRowId) -> store::Result<bool> {
        Ok(self.db.read(move |connection| accounts::find_password_hash(connection, account)).await?.is_some())
    }

    /// Changes a password; every earlier session ends, and a new one begins.
    ///
    /// # Errors
    /// The account has a password and `current` is not it.
    pub(crate) async fn change_password(
        &self,
        account: Account,
        current: Option<String>,
        new: String,
        client: ClientInfo,
        now: Timestamp,
    ) -> Result<SignedIn, Refusal> {
        let id = account.id;
        let stored = self.db.read(move |connection| accounts::find_password_hash(connection, id)).await?;
        if let Some(stored) = &stored {
            let current = current.ok_or(Refusal::PasswordMissing)?;
            let asker = Requester { name: &client.turn, known: true };
            if !self.passwords.verify(current, Some(stored.clone()), asker).await? {
                return Err(Refusal::WrongPassword);
            }
        }
        let hash = self.passwords.hash(new, Requester { name: &client.turn, known: true }).await?;
        let (token, session) = self.new_session(&account, client, now);
        let most = self.most_sessions;
        let written = self.db.write(move |tx| {
            // A concurrent request may have changed the password, which makes `current` an earlier one.
            if accounts::find_password_hash(tx, id)? != stored {
                return Ok(false);
            }
            accounts::set_password_hash(tx, id, &hash)?;
            sessions::delete_of_account(tx, id)?;
            sessions::insert(tx, &session, most, now)?;
            Ok(true)
        });
        if written.await? { Ok(SignedIn { token, account }) } else { Err(Refusal::WrongPassword) }
    }

    async fn create(
        &self,
        new: NewAccount,
        proof: Proof,
        client: ClientInfo,
        now: Timestamp,
    ) -> Result<SignedIn, Refusal> {
        let policy = self.policy(proof);
        let key = secrets::new_api_key();
        let sealed_key = self.secrets.seal(key_rows::PURPOSE, key.as_bytes());
        let secret = self.secrets.seal(accounts::WEBHOOK_SECRET_PURPOSE, secrets::new_webhook_secret().as_bytes());
        let (link, notice) = self.verification_mail();
        let (dev, strangers, jobs) = (self.dev, Arc::clone(&self.strangers), self.jobs.clone());
        let created = self.db.try_write(move |tx| {
            let owner = policy.owner_if_permitted(tx)?;
            if accounts::find_by_email(tx, &new.email)?.is_some() {
                return Err(Refusal::AccountExists);
            }
            let new = NewAccount { is_admin: owner, email_verified: owner || dev || new.email_verified, ..new };
            let account = accounts::insert(tx, new, now)?;
            if owner {
                verifications::delete_setup_token(tx)?;
            }
            key_rows::insert(tx, account.id, &token_hash(&key), &sealed_key, now)?;
            accounts::set_webhook_secret(tx, account.id, &secret, None)?;
            let mail = match account.email_verified {
                true => None,
                false => queue_verification(tx, &jobs, &strangers, &account, &link, &notice, now)?,
            };
            Ok((account, mail))
        });
        let (account, mail) = created.await?;
        mail.into_iter().for_each(EnqueuedJob::notify_committed);
        self.open_session(account, client, now).await
    }

    fn new_session(&self, account: &Account, client: ClientInfo, now: Timestamp) -> (String, NewSession) {
        new_session(&self.tokens, account, client, now)
    }

    async fn open_session(&self, account: Account, client: ClientInfo, now: Timestamp) -> Result<SignedIn, Refusal> {
        let (token, session) = self.new_session(&account, client, now);
        let most = self.most_sessions;
        self.db.write_removal(move |tx| sessions::insert(tx, &session, most, now)).await?;
        Ok(SignedIn { token, account })
    }

    /// Returns the account of the live session that a token names, and the id of that session.
    pub(crate) async fn find_session(&self, token: &str, now: Timestamp) -> store::Result<Option<(Account, String)>> {
        let Some(claims) = self.tokens.read(token, now) else { return Ok(None) };
        let jti = claims.jti.clone();
        let found = self.db.read(move |connection| sessions::find_account(connection, &jti, now)).await?;
        Ok(found.filter(|account| account.public_id == claims.sub).map(|account| (account, claims.jti)))
    }

    fn policy(&self, proof: Proof) -> Policy {
        Policy { signup: self.signup, proof, secrets: Arc::clone(&self.secrets) }
    }
}

fn new_session(tokens: &Tokens, account: &Account, client: ClientInfo, now: Timestamp) -> (String, NewSession) {
    let (token, claims) = tokens.issue(&account.public_id, now);
    let session = NewSession {
        jti: claims.jti,
        account: account.id,
        client_address: client.address,
        user_agent: client.user_agent,
        expires_at: Timestamp::from_millis(claims.exp.saturating_mul(1000)),
    };
    (token, session)
}

/// Returns an address as accounts have it; `None` if no account may have it (contract 2.2).
pub(crate) fn email_of(given: &str) -> Option<String> {
    const MAX_EMAIL: usize = 254;
    let mailbox = Mailbox::parse(given.trim()).ok()?;
    let email = mailbox.canonical();
    let is_plain = email.len() <= MAX_EMAIL && !email.contains("@[") && !mailbox.has_invisible_characters();
    is_plain.then_some(email)
}

/// Takes an account whose address was not proven from the person who signed up with it; the address is proven now.
fn disown(tx: &Connection, account: AccountRowId, webhook_secret: &[u8], now: Timestamp) -> store::Result<()> {
    sessions::delete_of_account(tx, account)?;
    key_rows::delete_of_account(tx, account)?;
    accounts::delete_password(tx, account)?;
    accounts::set_webhook_secret(tx, account, webhook_secret, None)?;
    routes::pause_all(tx, account, now)?;
    domains::reset_settings(tx, account)?;
    accounts::set_email_verified(tx, account)
}
