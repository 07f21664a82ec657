//! Bounds the DNS queries of one policy check: a stranger writes the policy, and each of its terms costs queries (RFC
//! 7208 §4.6.4 allows ten terms, each of which may name ten hosts).

use std::borrow::Borrow;
use std::collections::HashMap;
use std::hash::Hash;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use mail_auth::spf::verify::SpfParameters;
use mail_auth::{DnsError, Error, MX, MessageAuthenticator, RecordSet, ResolverCache, SpfOutput, SpfResult, Txt};

/// The answers of one check, each queried once, and the queries left.
pub(crate) struct Budget {
    left: AtomicUsize,
    refused: AtomicUsize,
    texts: Answers<Box<str>, Txt>,
    hosts: Answers<Box<str>, RecordSet<MX>>,
    v4: Answers<Box<str>, RecordSet<Ipv4Addr>>,
    v6: Answers<Box<str>, RecordSet<Ipv6Addr>>,
    names: Answers<IpAddr, RecordSet<Box<str>>>,
}

type Answers<K, V> = Mutex<HashMap<K, V>>;

impl Budget {
    /// Allows this many queries.
    pub(crate) fn new(questions: usize) -> Self {
        Self {
            left: AtomicUsize::new(questions),
            refused: AtomicUsize::new(0),
            texts: Mutex::default(),
            hosts: Mutex::default(),
            v4: Mutex::default(),
            v6: Mutex::default(),
            names: Mutex::default(),
        }
    }

    /// Runs RFC 7208's check within the budget; beyond it the result is permerror, as it is beyond the limits of the
    /// RFC.
    pub(crate) async fn verify_spf(
        &self,
        authenticator: &MessageAuthenticator,
        sender: SpfParameters<'_>,
    ) -> SpfOutput {
        let parameters = mail_auth::Parameters::new(sender)
            .with_txt_cache(self)
            .with_mx_cache(self)
            .with_ptr_cache(self)
            .with_ipv4_cache(self)
            .with_ipv6_cache(self);
        let output = authenticator.verify_spf(parameters).await;
        let exceeded = self.refused.load(Ordering::Relaxed) > 0;
        if exceeded { output.with_result(SpfResult::PermError) } else { output }
    }

    /// Returns the cached answer, or `nothing` when no query is left; `None` allows one query.
    fn answer<K, Q, V>(&self, known: &Answers<K, V>, key: &Q, nothing: impl FnOnce() -> V) -> Option<V>
    where
        K: Borrow<Q> + Hash + Eq,
        Q: Hash + Eq + ?Sized,
        V: Clone,
    {
        let known = known.lock().unwrap_or_else(PoisonError::into_inner).get(key).cloned();
        if known.is_some() {
            return known;
        }
        let one_less = |left: usize| left.checked_sub(1);
        if self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_less).is_ok() {
            return None;
        }
        self.refused.fetch_add(1, Ordering::Relaxed);
        Some(nothing())
    }
}

macro_rules! answers {
    ($($field:ident: $key:ty => $value:ty, $nothing:expr;)*) => {
        $(impl ResolverCache<$key, $value> for Budget {
            fn get<Q>(&self, name: &Q) -> Option<$value>
            where
                $key: Borrow<Q>,
                Q: Hash + Eq + ?Sized,
            {
                self.answer(&self.$field, name, || $nothing)
            }

            fn remove<Q>(&self, name: &Q) -> Option<$value>
            where
                $key: Borrow<Q>,
                Q: Hash + Eq + ?Sized,
            {
                self.$field.lock().unwrap_or_else(PoisonError::into_inner).remove(name)
            }

            fn insert(&self, key: $key, value: $value, _: Instant) {
                self.$field.lock().unwrap_or_else(PoisonError::into_inner).insert(key, value);
            }
        })*
    };
}

fn none<T>() -> RecordSet<T> {
    RecordSet { rrset: Arc::from([]), dnssec_status: mail_auth::DnssecStatus::default() }
}

answers! {
    texts: Box<str> => Txt, Txt::Error(Error::Dns(DnsError::InvalidRecordType));
    hosts: Box<str> => RecordSet<MX>, none();
    v4: Box<str> => RecordSet<Ipv4Addr>, none();
    v6: Box<str> => RecordSet<Ipv6Addr>, none();
    names: IpAddr => RecordSet<Box<str>>, none();
}
