//! Reads a dispatch for an attempt: mail data, recipients, and authentication results.

use std::sync::Arc;

use crate::id::DispatchRowId;
use crate::jobs::{self, Loaded};
use crate::store::Connection;
use bytes::Bytes;

use super::Dispatcher;
use crate::memory_budget::{Consumer, Reservation};
use crate::outbound::forward::{Forwarding, Gate};
use crate::outbound::message::ascii_form::AsciiForm;
use crate::outbound::message::dkim::DomainKeys;
use crate::store;
use crate::store::accounts::domains;
use crate::store::messages::mail_data;
use crate::store::messages::mail_data::StoredMailData;
use crate::store::sending::dispatches;
use crate::store::sending::dispatches::DispatchRow;
use crate::store::sending::recipients;
use crate::store::sending::recipients::RecipientRow;

/// A dispatch that is ready to be attempted.
pub(crate) struct Prepared {
    pub(crate) dispatch: DispatchRow,
    pub(crate) recipients: Vec<RecipientRow>,
    pub(crate) data: Bytes,
    /// True if its domain is received here.
    pub(crate) local: bool,
    /// The changes to forwarded mail before it leaves, with its authentication results.
    pub(crate) forwarding: Option<Forwarding>,
    /// The keys of the domain that received it, if that has any.
    pub(crate) keys: Option<Arc<DomainKeys>>,
    /// The forwarding gate that closed since it was stored.
    pub(crate) closed: Option<Gate>,
}

/// Result of looking up a dispatch.
pub(crate) enum Lookup {
    Ready(Box<Prepared>),
    /// Every recipient is settled, or the dispatch was removed.
    Ended,
    /// The mail data is missing or damaged.
    Lost(Box<(DispatchRow, Vec<RecipientRow>)>),
}

impl Prepared {
    /// Returns the generator of the form for hosts without SMTPUTF8; `None` for forwarded mail, local delivery, and
    /// mail without signing keys.
    pub(crate) fn ascii_form(&self) -> Option<AsciiForm> {
        let keys = self.keys.clone().filter(|_| self.forwarding.is_none() && !self.local);
        keys.map(AsciiForm::new)
    }
}

impl Dispatcher {
    /// Reads a dispatch, with large mail data within the memory budget.
    pub(crate) async fn prepare(self: &Arc<Self>, id: DispatchRowId) -> store::Result<(Lookup, Option<Reservation>)> {
        const SMALL: u64 = 64 * 1024;
        let this = Arc::clone(self);
        let look_up = move |connection: &Connection, largest| this.look_up(connection, id, largest);
        let mut large = None;
        let db = &self.outbound.parts.db;
        let reserve = |account, size| {
            let octets = usize::try_from(size).unwrap_or(usize::MAX);
            large = Some((account, octets));
            self.memory.reserve(Consumer::Sending, account, octets)
        };
        let found = jobs::load(db, SMALL, look_up.clone(), reserve).await?;
        let Some((account, octets)) = large else { return Ok(found) };
        if !matches!(&found.0, Lookup::Ready(prepared) if prepared.ascii_form().is_some()) {
            return Ok(found);
        }
        // A host may need the mail in another form as well. The held share is returned first, because attempts that
        // hold a share while waiting for more would deadlock.
        drop(found);
        let reserve = |_, _| self.memory.reserve(Consumer::Sending, account, octets.saturating_mul(2));
        jobs::load(db, SMALL, look_up, reserve).await
    }

    fn look_up(&self, connection: &Connection, id: DispatchRowId, largest: u64) -> store::Result<Loaded<Lookup>> {
        let ended = Ok(Loaded::Complete(Lookup::Ended));
        let Some(dispatch) = dispatches::find(connection, id)? else { return ended };
        let Some(raw) = dispatch.mail_data_id else { return ended };
        let mut recipients = recipients::list(connection, id)?;
        recipients.retain(RecipientRow::is_unsettled);
        if recipients.is_empty() {
            return ended;
        }
        match mail_data::size(connection, raw)? {
            Some(size) if size > largest => return Ok(Loaded::Large { account: dispatch.account_id, size }),
            Some(_) => {}
            None => return Ok(Loaded::Complete(Lookup::Lost(Box::new((dispatch, recipients))))),
        }
        let mail = match mail_data::find(connection, raw)? {
            Some(StoredMailData::Inline(bytes)) => bytes,
            Some(StoredMailData::File(object)) => match self.outbound.parts.objects.read_all(&object) {
                Err(store::Error::Damaged { .. }) => {
                    return Ok(Loaded::Complete(Lookup::Lost(Box::new((dispatch, recipients)))));
                }
                read => read?,
            },
            None => return Ok(Loaded::Complete(Lookup::Lost(Box::new((dispatch, recipients))))),
        };
        let local = self.is_local(connection, &dispatch)?;
        let forwarding = match &dispatch.forwarding {
            Some(json) => Some(Forwarding::parse(json)?),
            None if dispatch.prefix.is_empty() => None,
            None => Some(Forwarding::unknown(&self.outbound.parts.config.hostname)),
        };
        let keys = if forwarding.is_some() || !header_of(&mail).is_ascii() {
            self.outbound.parts.keys_of_name(connection, dispatch.account_id, &dispatch.sending_domain)?
        } else {
            None
        };
        let closed = self.outbound.parts.closed_gate(connection, &dispatch, &recipients)?;
        let data = mail.into();
        let prepared = Prepared { dispatch, recipients, data, local, forwarding, keys, closed };
        Ok(Loaded::Complete(Lookup::Ready(Box::new(prepared))))
    }

    /// Returns true if the domain of a dispatch is received here.
    pub(crate) fn is_local(&self, connection: &Connection, dispatch: &DispatchRow) -> store::Result<bool> {
        match &dispatch.domain {
            Some(domain) => Ok(domains::find_verified(connection, domain)?.is_some()),
            None => Ok(false),
        }
    }
}

/// Returns the header of mail data.
fn header_of(mail: &[u8]) -> &[u8] {
    let end = memchr::memmem::find(mail, b"\r\n\r\n").unwrap_or(mail.len());
    mail.get(..end).unwrap_or_default()
}
