//! Submission: AUTH, recipients anywhere, and messages to send (contract 8.6).

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use tokio::io::{AsyncRead, AsyncWrite};

use super::log::Answer;
use super::{Accepted, Caller, End, Role, Session, Submission};
use crate::event_bus::mail_log::{self, Via};
use crate::mail::address::{ForwardPath, Mailbox, ReversePath};
use crate::mail::envelope::Envelope;
use crate::mail::mime::Irreparable;
use crate::mail::reply::Reply;
use crate::metrics::{Counter, MessageRefused, RateLimit, RecipientRefused};
use crate::outbound::submit::SubmitError;
use crate::outbound::submit::sender::{SenderError, Submitter};
use crate::outbound::submit::smtp_submission::{SmtpSubmission, SmtpSubmissionError};
use crate::rate_limit::address_key;
use crate::secrets::token_hash;
use crate::smtp_server::phase::Phase;
use crate::store;
use crate::store::accounts::keys;
use crate::store::accounts::keys::KeyHolder;
use crate::store::blobs::pending::MailData;

/// Failed logins in one session (contract 8.6).
const MAX_FAILED: usize = 3;
const LONGEST_RESPONSE: usize = 1024;

/// End of an AUTH exchange without a password.
enum AuthFailure {
    /// The command is refused; the session goes on.
    Refused(Reply),
    /// The session ended.
    Ended(End),
}

impl From<Reply> for AuthFailure {
    fn from(reply: Reply) -> Self {
        Self::Refused(reply)
    }
}

impl From<End> for AuthFailure {
    fn from(end: End) -> Self {
        Self::Ended(end)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Session<S> {
    /// Executes AUTH (RFC 4954): PLAIN (RFC 4616) or LOGIN, with a key as password and any user name.
    pub(super) async fn auth(&mut self, mechanism: &str, initial: Option<String>) -> Result<(), End> {
        if matches!(self.shared.role, Role::Mx) {
            return self.refuse(&Reply::NOT_IMPLEMENTED);
        }
        if self.peer.tls.is_none() {
            return self.refuse(&Reply::TLS_REQUIRED);
        }
        if !matches!(self.phase, Phase::Greeted) || self.caller.is_some() {
            return self.refuse(&Reply::BAD_SEQUENCE);
        }
        let password = match mechanism {
            "PLAIN" => self.plain(initial).await,
            "LOGIN" => self.login(initial).await,
            _ => return self.refuse(&Reply::UNKNOWN_MECHANISM),
        };
        match password {
            Ok(password) => self.sign_in(&password).await,
            Err(AuthFailure::Refused(reply)) => self.refuse(&reply),
            Err(AuthFailure::Ended(end)) => Err(end),
        }
    }

    async fn plain(&mut self, initial: Option<String>) -> Result<String, AuthFailure> {
        let response = match initial {
            Some(response) => decode(&response)?,
            None => self.challenge(&Reply::AUTH_PLAIN).await?,
        };
        // authorization identity, NUL, user, NUL, password
        Ok(response.splitn(3, '\0').nth(2).map(str::to_owned).ok_or(Reply::BAD_SYNTAX)?)
    }

    async fn login(&mut self, initial: Option<String>) -> Result<String, AuthFailure> {
        // Any user name is accepted, if it can be read.
        match initial {
            Some(response) => decode(&response)?,
            None => self.challenge(&Reply::AUTH_USERNAME).await?,
        };
        self.challenge(&Reply::AUTH_PASSWORD).await
    }

    /// Sends a challenge and reads the response.
    async fn challenge(&mut self, challenge: &Reply) -> Result<String, AuthFailure> {
        self.reply(challenge);
        let line = self.read_line().await?;
        match std::str::from_utf8(&line) {
            Ok("*") => Err(Reply::AUTH_CANCELED.into()),
            Ok(text) => Ok(decode(text)?),
            Err(_) => Err(Reply::BAD_SYNTAX.into()),
        }
    }

    /// Checks before MAIL that the key is still valid; it may have been revoked, or its account changed, since AUTH.
    pub(super) async fn check_caller(&mut self) -> Result<(), Reply> {
        let Role::Submission(role) = &self.shared.role else { return Err(Reply::NOT_IMPLEMENTED) };
        if self.peer.tls.is_none() {
            return Err(Reply::TLS_REQUIRED);
        }
        let Some(Caller { key, .. }) = self.caller else { return Err(Reply::AUTH_REQUIRED) };
        let holder = find_holder(role, key).await?;
        self.caller = holder.map(|holder| Caller { key, account: holder.account, scope: holder.domain });
        if self.caller.is_some() { Ok(()) } else { Err(Reply::AUTH_REQUIRED) }
    }

    async fn sign_in(&mut self, password: &str) -> Result<(), End> {
        let Role::Submission(role) = &self.shared.role else { return self.refuse(&Reply::NOT_IMPLEMENTED) };
        let (hash, now) = (token_hash(password), role.clock.now());
        let holder = match find_holder(role, hash).await {
            Ok(holder) => holder,
            Err(reply) => {
                self.reply(&reply);
                return Ok(());
            }
        };
        let Some(holder) = holder else {
            let address = address_key(self.peer.address);
            let is_guessing = role.failures.check(&address, now).is_err();
            role.failures.count(&address, now);
            self.shared.metrics.credentials_failed.add(self.shared.role.service());
            let reply = if is_guessing { Reply::TOO_MANY_GUESSES } else { Reply::BAD_CREDENTIALS };
            self.log_bad_credentials(&reply);
            if is_guessing {
                self.shared.metrics.rate_limited.add(RateLimit::Auth);
                return self.close_with(&reply);
            }
            self.failed_logins += 1;
            self.reply(&reply);
            return if self.failed_logins >= MAX_FAILED { Err(End::Closed) } else { Ok(()) };
        };
        let (db, key) = (role.db.clone(), holder.key);
        tokio::spawn(async move {
            if let Err(error) = db.write_nosync(move |tx| keys::note_use(tx, key, now)).await {
                tracing::debug!(%error, "the use of a key was not noted");
            }
        });
        self.caller = Some(Caller { key: hash, account: holder.account, scope: holder.domain });
        self.reply(&Reply::AUTHENTICATED);
        Ok(())
    }

    /// Executes RCPT: any domain by name, no address literals.
    pub(super) fn submitted_recipient(&mut self, path: ForwardPath) -> Result<(), End> {
        match path {
            ForwardPath::Mailbox(mailbox) if !mailbox.domain().as_str().starts_with('[') => {
                let recipient = Accepted::Submitted(mailbox);
                let reply = self.phase.add_recipient(recipient.clone(), self.shared.limits);
                self.count_recipient(&reply);
                if reply != Reply::RECIPIENT_OK {
                    self.log_refused_recipient(recipient.mailbox(), &reply);
                }
                self.reply(&reply);
                Ok(())
            }
            ForwardPath::Mailbox(_) | ForwardPath::Postmaster => {
                let service = self.shared.role.service();
                self.shared.metrics.recipients_refused.add(service, RecipientRefused::NoDomain);
                self.log_refused_recipient(path, &Reply::NO_DOMAIN);
                self.refuse(&Reply::NO_DOMAIN)
            }
        }
    }

    /// Counts a message that was not submitted.
    pub(super) fn count_unsubmitted(&self, reply: &Reply) {
        if reply.code == 250 {
            return;
        }
        let reasons = [
            (Reply::MAILBOX_FULL, MessageRefused::AccountFull),
            (Reply::STORAGE_FULL, MessageRefused::StorageFull),
            (Reply::ALL_SUPPRESSED, MessageRefused::Suppressed),
            (Reply::ACCOUNT_UNVERIFIED, MessageRefused::Sender),
            (Reply::FROM_REFUSED, MessageRefused::Sender),
            (Reply::BAD_FROM, MessageRefused::Sender),
            (Reply::BAD_MESSAGE, MessageRefused::BadMessage),
            (Reply::SEALED_LINE, MessageRefused::BadMessage),
            (Reply::LONG_LINE, MessageRefused::BadMessage),
        ];
        let found = reasons.iter().find(|(refusal, _)| refusal == reply);
        self.count_refused(found.map_or(MessageRefused::Storage, |(_, reason)| *reason));
    }

    /// Submits a message at the end of data and returns the answer.
    pub(super) async fn submit(&mut self, caller: Caller, envelope: Envelope<Accepted>, data: MailData) -> Answer {
        let Role::Submission(role) = &self.shared.role else { return Reply::STORAGE_FAILURE.into() };
        let reverse_path = match &envelope.reverse_path {
            ReversePath::Mailbox(mailbox) => Some(mailbox.clone()),
            _ => None,
        };
        let recipients: Vec<Mailbox> = envelope
            .map(|recipient| match recipient {
                Accepted::Submitted(mailbox) => Some(mailbox),
                Accepted::Received(_) => None,
            })
            .recipients;
        let permit = self.shared.inbound.acquire_parse_permit(Some(caller.account.id), data.len());
        let _permit = match permit.await {
            Ok(permit) => permit,
            Err(error) => return Answer::fault(Reply::STORAGE_FAILURE, error),
        };
        let read = tokio::task::spawn_blocking(move || match data {
            MailData::Memory(bytes) => Ok(bytes),
            MailData::Spooled(mut draft) => draft.read_all(),
        });
        let bytes = match read.await {
            Ok(Ok(bytes)) => bytes,
            Ok(Err(error)) => return storage_failure(&error),
            Err(error) => return Answer::fault(Reply::STORAGE_FAILURE, error),
        };
        let submitter = Submitter { account: caller.account, scope: caller.scope };
        let submission = SmtpSubmission { submitter, reverse_path, recipients, data: bytes };
        match role.outbound.submit_smtp(submission, role.clock.now()).await {
            Ok(submitted) => {
                self.shared.metrics.add(Counter::MessagesSubmitted);
                Answer::accepted(submitted.id.as_str(), submitted.id.to_string())
            }
            Err(SmtpSubmissionError::From) => Reply::BAD_FROM.into(),
            Err(SmtpSubmissionError::Message) => Reply::BAD_MESSAGE.into(),
            Err(SmtpSubmissionError::Irreparable(Irreparable::Protected)) => Reply::SEALED_LINE.into(),
            Err(SmtpSubmissionError::Irreparable(Irreparable::Line)) => Reply::LONG_LINE.into(),
            Err(SmtpSubmissionError::Submit(error)) => error_answer(error),
        }
    }

    fn log_bad_credentials(&self, reply: &Reply) {
        let reply = reply.to_string();
        mail_log::authentication_failed(Via::Submission, self.peer.address, "bad_credentials", &reply);
    }
}

/// Returns the answer to a message that cannot be sent.
fn error_answer(error: SubmitError) -> Answer {
    match error {
        SubmitError::Suppressed => Reply::ALL_SUPPRESSED.into(),
        SubmitError::Sender(SenderError::EmailNotVerified) => Reply::ACCOUNT_UNVERIFIED.into(),
        SubmitError::Sender(SenderError::Store(error)) | SubmitError::Store(error) => storage_failure(&error),
        SubmitError::Sender(
            SenderError::DomainNotOwned | SenderError::KeyScope | SenderError::FromDomain | SenderError::NoKeys(_),
        )
        | SubmitError::SenderField(_) => Reply::FROM_REFUSED.into(),
        SubmitError::Compose(_) | SubmitError::Sign(_) | SubmitError::Interrupted => {
            Answer::fault(Reply::STORAGE_FAILURE, error)
        }
    }
}

/// Returns the holder of the key with this hash.
async fn find_holder(role: &Submission, hash: [u8; 32]) -> Result<Option<KeyHolder>, Reply> {
    let found = role.db.read(move |connection| keys::find_by_hash(connection, &hash)).await;
    found.map_err(|error| {
        tracing::warn!(%error, "a key could not be looked up");
        Reply::STORAGE_FAILURE
    })
}

fn storage_failure(error: &store::Error) -> Answer {
    match error {
        store::Error::Limit { .. } => Reply::MAILBOX_FULL.into(),
        _ if error.is_full() => Answer::fault(Reply::STORAGE_FULL, error),
        _ => Answer::fault(Reply::STORAGE_FAILURE, error),
    }
}

/// Decodes the text of a response.
fn decode(response: &str) -> Result<String, Reply> {
    // RFC 4954 §4: "=" is an empty response.
    if response == "=" {
        return Ok(String::new());
    }
    let octets = if response.len() <= LONGEST_RESPONSE { BASE64.decode(response).ok() } else { None };
    octets.and_then(|octets| String::from_utf8(octets).ok()).ok_or(Reply::BAD_SYNTAX)
}
