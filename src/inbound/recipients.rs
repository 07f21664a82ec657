//! Resolves recipients at RCPT (contract 5.1).

use std::sync::Arc;

use super::Inbound;
use super::directory::Entry;
use super::route::{self, Route};
use crate::config::UnknownRecipients;
use crate::id::{AccountRowId, DomainRowId};
use crate::limits::Kind;
use crate::mail::address::{Domain, ForwardPath, Mailbox};
use crate::outbound::return_path::ReturnPath;
use crate::store::webhooks::routes::Action;

/// A recipient that mail is accepted for.
#[derive(Clone, Debug)]
pub(crate) enum Recipient {
    /// Mail to it is stored for an account.
    Account(AccountRecipient),
    /// One of our own bounce or SRS addresses: mail to it is read as a report, not stored.
    ReturnPath(ReturnPathRecipient),
}

/// A bounce or SRS address that mail came to.
#[derive(Clone, Debug)]
pub(crate) struct ReturnPathRecipient {
    pub(super) mailbox: Mailbox,
    pub(super) path: ReturnPath,
}

/// A recipient whose mail is stored for an account.
#[derive(Clone, Debug)]
pub(crate) struct AccountRecipient {
    pub(super) mailbox: Mailbox,
    pub(super) account: AccountRowId,
    pub(super) domain: Option<DomainRowId>,
    /// The routes that run for it.
    pub(super) routes: Vec<Arc<Route>>,
    /// Version of the account's route table that they come from.
    pub(super) routes_version: u64,
    /// Number of further routes that match but do not run (contract 4.1).
    pub(super) idle_routes: usize,
}

impl AccountRecipient {
    /// Creates a recipient whose mail reaches no route.
    pub(super) const fn without_routes(mailbox: Mailbox, account: AccountRowId, domain: Option<DomainRowId>) -> Self {
        Self { mailbox, account, domain, routes: Vec::new(), routes_version: 0, idle_routes: 0 }
    }

    /// Returns how many deliveries and dispatches a mail to it makes.
    pub(super) fn runs(&self) -> usize {
        let runs = |route: &&Arc<Route>| matches!(route.row.action, Action::Webhook | Action::Forward);
        self.routes.iter().filter(runs).count()
    }
}

impl Recipient {
    /// Returns how many deliveries and dispatches a mail to it makes.
    pub(crate) fn runs(&self) -> usize {
        match self {
            Self::Account(recipient) => recipient.runs(),
            Self::ReturnPath(_) => 0,
        }
    }

    /// Returns its address; the bare `postmaster` gets the host's name as domain.
    pub(crate) const fn mailbox(&self) -> &Mailbox {
        match self {
            Self::Account(recipient) => &recipient.mailbox,
            Self::ReturnPath(recipient) => &recipient.mailbox,
        }
    }
}

/// Reason why mail for a recipient is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RecipientRefusal {
    /// Not one of our domains.
    RelayRefused,
    /// Our domain, but no route matches and the operator wants such mail refused.
    Unknown,
    /// Our domain, not verified yet.
    DomainPending,
    /// Its account has reached its storage limit.
    AccountFull,
    /// The disk is full at the moment.
    StorageFull,
    /// The directory cannot be read at the moment.
    Unavailable,
}

impl Inbound {
    /// Resolves a recipient.
    ///
    /// # Errors
    /// The refusal that RCPT is answered with.
    pub(crate) async fn resolve(&self, to: &ForwardPath) -> Result<Recipient, RecipientRefusal> {
        if self.is_full() {
            return Err(RecipientRefusal::StorageFull);
        }
        let mailbox = match to {
            ForwardPath::Mailbox(mailbox) => mailbox.clone(),
            ForwardPath::Postmaster => {
                // RFC 5321 §4.5.1: reserved, and to be accepted without a domain.
                Mailbox::parse(&format!("postmaster@{}", self.shared.config.hostname))
                    .map_err(|_| RecipientRefusal::Unavailable)?
            }
        };
        let path = self.shared.outbound.return_paths().read(&mailbox, self.shared.clock.now());
        // A tag reads the same at every domain; it is our address only at our own.
        if let Some(path) = path
            && self.is_own(mailbox.domain().as_str()).await?
        {
            return Ok(Recipient::ReturnPath(ReturnPathRecipient { mailbox, path }));
        }
        let entry = self.entry(&mailbox).await?;
        if !entry.verified {
            return Err(RecipientRefusal::DomainPending);
        }
        self.check_room(entry.account).await?;
        let plain = AccountRecipient::without_routes(mailbox.clone(), entry.account, entry.domain);
        // No route reaches an address that lies on no domain of the account (contract 4.1).
        if entry.domain.is_none() {
            return Ok(Recipient::Account(plain));
        }
        let matching = self.shared.directory.matching(entry.account, &mailbox.canonical_for_routes()).await;
        let (matching, routes_version) = matching.map_err(unavailable)?;
        let refuse_unknown = self.shared.config.smtp.unknown_recipients == UnknownRecipients::Reject;
        // RFC 5321 §4.5.1: a domain that takes mail has a postmaster.
        if refuse_unknown && reserved_local(&mailbox) != Some("postmaster") && matching.is_empty() {
            return Err(RecipientRefusal::Unknown);
        }
        let (routes, idle_routes) = route::running(matching, self.shared.limits.most(Kind::FanOut));
        Ok(Recipient::Account(AccountRecipient { routes, routes_version, idle_routes, ..plain }))
    }

    /// Checks that the account has room for a mail, before its data is transferred in vain.
    async fn check_room(&self, account: AccountRowId) -> Result<(), RecipientRefusal> {
        if self.shared.limits.recently_had_room(account) {
            return Ok(());
        }
        let limits = Arc::clone(&self.shared.limits);
        match self.shared.db.read(move |connection| limits.admit_mail(connection, account)).await {
            Ok(()) => Ok(()),
            Err(crate::store::Error::Limit { .. }) => Err(RecipientRefusal::AccountFull),
            Err(error) => Err(unavailable(error)),
        }
    }

    /// True if a domain belongs to an account here, or is the host's own name.
    async fn is_own(&self, domain: &str) -> Result<bool, RecipientRefusal> {
        Ok(self.is_hostname(domain) || self.shared.directory.find(domain).await.map_err(unavailable)?.is_some())
    }

    /// True if a name is the host's own, or that of the envelope senders of forwarded mail.
    fn is_hostname(&self, domain: &str) -> bool {
        let config = &self.shared.config;
        let names = [config.hostname.as_str(), config.forward_domain()];
        names.into_iter().any(|name| Domain::parse(name).is_ok_and(|host| host.as_str() == domain))
    }

    async fn entry(&self, mailbox: &Mailbox) -> Result<Entry, RecipientRefusal> {
        let name = mailbox.domain().as_str();
        if let Some(entry) = self.shared.directory.find(name).await.map_err(unavailable)? {
            return Ok(entry);
        }
        if self.is_hostname(name) && reserved_local(mailbox).is_some() {
            // Until there is an owner to store it for, the sender is asked to retry.
            return self.shared.directory.owner().await.map_err(unavailable)?.ok_or(RecipientRefusal::Unavailable);
        }
        Err(RecipientRefusal::RelayRefused)
    }
}

/// Returns the local part that every host has to accept (RFC 5321 §4.5.1, RFC 2142), in whatever form it was written.
fn reserved_local(mailbox: &Mailbox) -> Option<&'static str> {
    let canonical = mailbox.canonical();
    ["postmaster", "abuse"].into_iter().find(|local| {
        canonical.strip_prefix(local).and_then(|rest| rest.strip_prefix('@')) == Some(mailbox.domain().as_str())
    })
}

fn unavailable(error: crate::store::Error) -> RecipientRefusal {
    tracing::warn!(%error, "the directory could not be read");
    RecipientRefusal::Unavailable
}
