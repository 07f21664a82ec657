//! Accounts: signing up and in, sessions, keys, and the proof of an e-mail address (contract 2).
//!
//! The HTTP door checks the form of what it is given and how often it is asked; here is what it means.

pub(crate) mod google;

mod destinations;
mod keys;
mod policy;
mod strangers;
mod tickets;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::store::Connection;

use crate::clock::Timestamp;
use crate::config::Signup;
use crate::fair_semaphore::Requester;
use crate::id::{AccountRowId, random_base62};
use crate::jobs::{self, Flow, Jobs};
use crate::mail::address::Mailbox;
use crate::secrets::passwords::{HashError, Passwords};
use crate::secrets::session_tokens::Tokens;
use crate::secrets::{self, Secrets, token_hash};
use crate::store;
use crate::store::Db;
use crate::store::accounts::sessions;
use crate::store::accounts::sessions::NewSession;
use crate::store::accounts::verifications;
use crate::store::accounts::verifications::LINK_LIFETIME;
use crate::store::accounts::{self, Account, NewAccount};
use crate::store::accounts::{domains, keys as key_rows, notices};
use crate::store::webhooks::routes;
use policy::Policy;
pub(crate) use strangers::StrangerMail;
pub(crate) use tickets::Tickets;

/// How long both secrets sign after a rotation (contract 9.3).
pub(crate) const SECRET_ROTATION_OVERLAP: Duration = Duration::from_secs(86_400);

/// What the accounts are made of.
pub struct Accounts {
    /// The database.
    pub(crate) db: Db,
    /// Hears of mail that waits.
    pub(crate) jobs: Jobs,
    /// Seals keys and secrets.
    pub(crate) secrets: Arc<Secrets>,
    /// Hashes passwords.
    pub passwords: Passwords,
    /// Issues session tokens.
    pub(crate) tokens: Tokens,
    /// Sign-ins that the operator hands out.
    pub tickets: Tickets,
    /// How often proofs of addresses are mailed to one mailbox.
    pub(crate) strangers: Arc<StrangerMail>,
    /// Who may sign up.
    pub(crate) signup: Signup,
    /// Whether every account is verified from the start (dev mode).
    pub(crate) dev: bool,
    /// Where links in mails lead.
    pub(crate) public_url: String,
    /// How many sessions an account may have; 0: any number.
    pub(crate) most_sessions: u32,
}

/// Who signs in, for the list of sessions.
#[derive(Clone, Debug)]
pub(crate) struct ClientInfo {
    /// Its address.
    pub(crate) address: String,
    /// What it calls itself.
    pub(crate) user_agent: String,
    /// Whose turn it is at what takes long: all of an address together (contract 1.12).
    pub(crate) turn: String,
}

/// How somebody proves to run this machine (contract 2.2).
#[derive(Clone)]
pub(crate) struct Proof {
    /// The setup token that was given.
    pub(crate) token: Option<String>,
    /// Whether the request came over loopback.
    pub(crate) over_loopback: bool,
}

/// What Google says of somebody who proved it.
#[derive(Clone, Debug)]
pub(crate) struct GoogleUser {
    /// Google's own name for the person.
    pub(crate) subject: String,
    /// The verified, lower-cased address.
    pub(crate) email: String,
    /// A picture.
    pub(crate) picture: Option<String>,
}

/// A new session.
pub(crate) struct SignedIn {
    /// The token that names it.
    pub(crate) token: String,
    /// Whose it is.
    pub(crate) account: Account,
}

impl fmt::Debug for SignedIn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SignedIn").field("account", &self.account.public_id).finish_non_exhaustive()
    }
}

/// Why an account does not get what it asks for; nothing was changed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Refusal {
    /// Nobody may sign up.
    #[error("sign-up is closed")]
    SignupClosed,
    /// The first account proves itself.
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
    /// The present password is another.
    #[error("the current password is wrong")]
    WrongPassword,
    /// The password could not be hashed.
    #[error(transparent)]
    Hash(#[from] HashError),
    /// Storage failed.
    #[error(transparent)]
    Store(#[from] store::Error),
}

/// What became of a wish for a verification mail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verification {
    /// The address is proven already.
    Verified,
    /// A mail with a link waits to be sent.
    Sent,
}

impl Accounts {
    /// Makes an account and signs it in; the first one with proof owns the installation.
    ///
    /// # Errors
    /// The policy or an existing account is against it, or storage failed.
    pub(crate) async fn sign_up(
        &self,
        email: String,
        password: String,
        proof: Proof,
        client: ClientInfo,
        now: Timestamp,
    ) -> Result<SignedIn, Refusal> {
        // Looked at before the password is hashed, and again in the transaction that counts.
        let (asked, early) = (email.clone(), self.policy(proof.clone()));
        self.db
            .read(move |connection| {
                Ok(early.owner_if_permitted(connection)?.and_then(|_| {
                    accounts::find_by_email(connection, &asked)
                        .map(|found| if found.is_some() { Err(Refusal::AccountExists) } else { Ok(()) })
                        .unwrap_or_else(|error| Err(error.into()))
                }))
            })
            .await??;
        let hash = self.passwords.hash(password, client.turn.as_str()).await?;
        let new = NewAccount { email, password_hash: Some(hash), ..NewAccount::default() };
        self.create(new, proof, client, now).await
    }

    /// Signs somebody in by e-mail and password. Unknown account, account without a password and wrong password
    /// take the same work and give the same answer.
    ///
    /// # Errors
    /// [`Refusal::BadLogin`], or storage failed.
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
            // A password that was changed meanwhile opens nothing: its change has ended what it had opened.
            let current = accounts::find_password_hash(tx, id)? == hash;
            if current {
                sessions::insert(tx, &session, most, now)?;
            }
            Ok(current)
        });
        if opened.await? { Ok(SignedIn { token, account }) } else { Err(Refusal::BadLogin) }
    }

    /// Signs in whoever holds a ticket that is not spent; it is then.
    ///
    /// # Errors
    /// [`Refusal::BadLogin`], or storage failed.
    pub(crate) async fn log_in_with_ticket(
        &self,
        ticket: &str,
        client: ClientInfo,
        now: Timestamp,
    ) -> Result<SignedIn, Refusal> {
        let account = self.tickets.redeem(ticket).ok_or(Refusal::BadLogin)?;
        self.open_session(account, client, now).await
    }

    /// Signs somebody in whom Google vouches for, by subject, then by address; else makes an account.
    ///
    /// Whoever signed up with the address and never proved it may be somebody else, who waits for its owner to come. So
    /// nothing that was set up then opens or leaves the account any more: sessions, password and keys end, routes
    /// pause, and domains have their first settings again.
    ///
    /// # Errors
    /// The policy is against a new account, or storage failed.
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
                return Ok(Some((account, false)));
            }
            let Some(account) = accounts::find_by_email(tx, &known.email)? else { return Ok(None) };
            let unproven = !account.email_verified;
            if unproven {
                disown(tx, account.id, &secret, now)?;
            }
            accounts::set_google(tx, account.id, &known.subject, known.picture.as_deref())?;
            let avatar_url = known.picture.or(account.avatar_url);
            Ok(Some((Account { avatar_url, email_verified: true, ..account }, unproven)))
        });
        match found.await? {
            Some((account, disowned)) => {
                if disowned {
                    self.db.domain_changed(account.id);
                }
                self.open_session(account, client, now).await
            }
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

    /// Whether an account has a password; who signs in with Google alone has none.
    pub(crate) async fn has_password(&self, account: AccountRowId) -> store::Result<bool> {
        Ok(self.db.read(move |connection| accounts::find_password_hash(connection, account)).await?.is_some())
    }

    /// Changes a password; every earlier session ends, and a new one begins.
    ///
    /// # Errors
    /// The account has a password and `current` is not it, or storage failed.
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
            // Somebody else may have changed it meanwhile, with a password that is now an earlier one.
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
        let (dev, strangers) = (self.dev, Arc::clone(&self.strangers));
        let created = self.db.write(move |tx| {
            let owner = match policy.owner_if_permitted(tx)? {
                Ok(owner) => owner,
                Err(refusal) => return Ok(Err(refusal)),
            };
            if accounts::find_by_email(tx, &new.email)?.is_some() {
                return Ok(Err(Refusal::AccountExists));
            }
            let new = NewAccount { is_admin: owner, email_verified: owner || dev || new.email_verified, ..new };
            let account = accounts::insert(tx, new, now)?;
            if owner {
                verifications::delete_setup_token(tx)?;
            }
            key_rows::insert(tx, account.id, &token_hash(&key), &sealed_key, now)?;
            accounts::set_webhook_secret(tx, account.id, &secret, None)?;
            let flow = match account.email_verified {
                true => None,
                false => queue_verification(tx, &strangers, &account, &link, &notice, now)?,
            };
            Ok(Ok((account, flow)))
        });
        let (account, flow) = created.await??;
        flow.into_iter().for_each(|flow| self.jobs.wake(&flow, now));
        self.open_session(account, client, now).await
    }

    fn new_session(&self, account: &Account, client: ClientInfo, now: Timestamp) -> (String, NewSession) {
        let (token, claims) = self.tokens.issue(&account.public_id, now);
        let session = NewSession {
            jti: claims.jti,
            account: account.id,
            client_address: client.address,
            user_agent: client.user_agent,
            expires_at: Timestamp::from_millis(claims.exp.saturating_mul(1000)),
        };
        (token, session)
    }

    async fn open_session(&self, account: Account, client: ClientInfo, now: Timestamp) -> Result<SignedIn, Refusal> {
        let (token, session) = self.new_session(&account, client, now);
        let most = self.most_sessions;
        self.db.write_removal(move |tx| sessions::insert(tx, &session, most, now)).await?;
        Ok(SignedIn { token, account })
    }

    /// Whose live session a token names, and by what.
    pub(crate) async fn find_session(&self, token: &str, now: Timestamp) -> store::Result<Option<(Account, String)>> {
        let Some(claims) = self.tokens.read(token, now) else { return Ok(None) };
        let jti = claims.jti.clone();
        let found = self.db.read(move |connection| sessions::find_account(connection, &jti, now)).await?;
        Ok(found.filter(|account| account.public_id == claims.sub).map(|account| (account, claims.jti)))
    }

    /// Puts a mail with a link that proves the account's address into the line. To a mailbox that got many lately none
    /// goes, which is not told: it would say that others asked for the same mailbox.
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

    /// The account whose address the link with this token proves, if it is one.
    pub(crate) async fn find_by_link(&self, token: &str, now: Timestamp) -> store::Result<Option<Account>> {
        let hash = token_hash(token);
        let found = self.db.read(move |connection| match verifications::find_account(connection, &hash, now)? {
            Some(account) => accounts::find_by_row(connection, account),
            None => Ok(None),
        });
        found.await
    }

    /// Proves an address by the token of a link; whether it was one.
    pub(crate) async fn verify_email(&self, token: &str, now: Timestamp) -> store::Result<bool> {
        let hash = token_hash(token);
        let proven = self.db.write(move |tx| match verifications::find_account(tx, &hash, now)? {
            Some(account) => accounts::set_email_verified(tx, account).map(|()| Some(account)),
            None => Ok(None),
        });
        let proven = proven.await?;
        // Now mail is received for it.
        proven.inspect(|account| self.db.domain_changed(*account));
        Ok(proven.is_some())
    }

    /// A new link's hash and the sealed text of the mail that carries it.
    fn verification_mail(&self) -> ([u8; 32], Vec<u8>) {
        let token = random_base62(43);
        let text = format!(
            "Welcome to mailkite.\r\n\r\nPlease confirm within a day that this address is yours: open this link, and \
             press the\r\nbutton.\r\n\r\n{}/api/auth/verify?token={token}\r\n\r\nIf you did not sign up, do nothing: \
             somebody else knows the password of this\r\naccount.\r\n",
            self.public_url.trim_end_matches('/')
        );
        (token_hash(&token), self.secrets.seal(notices::PURPOSE, text.as_bytes()))
    }

    fn policy(&self, proof: Proof) -> Policy {
        Policy { signup: self.signup, proof, secrets: Arc::clone(&self.secrets) }
    }
}

/// Takes an account whose address nobody had proven from whoever signed up with it; its address is proven now.
fn disown(tx: &Connection, account: AccountRowId, webhook_secret: &[u8], now: Timestamp) -> store::Result<()> {
    sessions::delete_of_account(tx, account)?;
    key_rows::delete_of_account(tx, account)?;
    accounts::delete_password(tx, account)?;
    accounts::set_webhook_secret(tx, account, webhook_secret, None)?;
    routes::pause_all(tx, account, now)?;
    domains::reset_settings(tx, account)?;
    accounts::set_email_verified(tx, account)
}

/// Puts the mail into the line, and its link among the valid ones; returns the flow to wake. None: the mailbox got as
/// many as it may.
fn queue_verification(
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
