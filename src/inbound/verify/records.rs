//! TXT records prepared for the library, which looks here before it asks DNS.

use std::borrow::Borrow;
use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use hickory_resolver::proto::op::ResponseCode;
use mail_auth::common::parse::TxtRecordParser as _;
use mail_auth::common::verify::{DomainKey, VerifySignature};
use mail_auth::dmarc::{Dmarc, Psd};
use mail_auth::{Error, ResolverCache, Txt};

use super::keys::Key;
use super::policy;
use crate::net::dns::{DnsError, Resolver};

/// RFC 9989 §4.10: for a name with more labels the tree walk continues with seven.
const MOST_LABELS: usize = 7;

/// Records found for one message, by name.
#[derive(Default)]
pub(crate) struct Records(Mutex<HashMap<Box<str>, Txt>>);

impl Records {
    /// Looks up the key of a signature; false if there are only keys that must not verify it. Of several records under
    /// one name the first that fits the first signature is used (RFC 6376 §6.1.2 leaves the choice).
    pub(crate) async fn find_key(&self, resolver: &Resolver, signature: &impl VerifySignature) -> bool {
        let name = signature.domain_key().to_lowercase();
        let texts = match resolver.texts(&name).await {
            Ok(texts) => texts,
            Err(error) => {
                self.note_failure(name, error);
                return true;
            }
        };
        let is = |wanted: Key| move |text: &&String| Key::of(text, signature.algorithm()) == wanted;
        let (fitting, unfit) = (texts.iter().find(is(Key::Fit)), texts.iter().any(|text| is(Key::Unfit)(&text)));
        match fitting {
            Some(text) => self.note(name, DomainKey::parse(text.as_bytes()).into()),
            None if unfit => {}
            None => self.note(name, Txt::Error(Error::Dns(mail_auth::DnsError::InvalidRecordType))),
        }
        fitting.is_some() || !unfit
    }

    /// Looks up the policies on the tree walk from a domain to its top level (RFC 9989 §4.10).
    pub(crate) async fn find_policies(&self, resolver: &Resolver, domain: &str) {
        let mut name = domain;
        if !name.contains('.') {
            return;
        }
        loop {
            let key = format!("_dmarc.{name}.");
            if self.get(key.as_str()).is_none() {
                match resolver.texts(&key).await {
                    Ok(texts) => {
                        let record = policy::one_record(&texts).map(|record| Dmarc::parse(record.as_bytes()));
                        let none = Err(Error::Dns(mail_auth::DnsError::InvalidRecordType));
                        self.note(key.clone(), record.unwrap_or(none).into());
                    }
                    Err(error) => self.note_failure(key.clone(), error),
                }
            }
            let stops = match self.get(key.as_str()) {
                Some(Txt::Dmarc(record)) => matches!(record.psd, Psd::Yes | Psd::No),
                _ => false,
            };
            let mut rest = name.split_once('.').map(|(_, rest)| rest);
            while let Some(long) = rest.filter(|rest| rest.split('.').count() > MOST_LABELS) {
                rest = long.split_once('.').map(|(_, rest)| rest);
            }
            match rest {
                Some(rest) if !stops => name = rest,
                Some(_) | None => return,
            }
        }
    }

    /// Stores a record; the first one stored for a name stands.
    fn note(&self, name: String, found: Txt) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).entry(name.into_boxed_str()).or_insert(found);
    }

    /// Stores that there is no record, or no answer. Something that is not a name is left to the library.
    fn note_failure(&self, name: String, error: DnsError) {
        let failure = match error {
            DnsError::NoSuchName(_) => mail_auth::DnsError::RecordNotFound(ResponseCode::NXDomain),
            DnsError::NoAddress(_) => mail_auth::DnsError::RecordNotFound(ResponseCode::NoError),
            DnsError::NoAnswer { reason, .. } | DnsError::Setup(reason) => mail_auth::DnsError::Resolver(reason),
            DnsError::BadName(_) => return,
        };
        self.note(name, Txt::Error(Error::Dns(failure)));
    }
}

impl ResolverCache<Box<str>, Txt> for Records {
    fn get<Q>(&self, name: &Q) -> Option<Txt>
    where
        Box<str>: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(name).cloned()
    }

    fn remove<Q>(&self, name: &Q) -> Option<Txt>
    where
        Box<str>: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(name)
    }

    fn insert(&self, name: Box<str>, found: Txt, _: Instant) {
        self.note(name.into_string(), found);
    }
}
