//! Typed public identifiers: `msg_2Hk9QpVn4tLdA1B2` (contract 1.3).
//!
//! After the prefix stand 16 base-62 digits: 35 bits of time in quarter seconds, then 60 random bits. Time comes
//! first so that an index over ids appends instead of scattering; the ids are no capability by themselves.

use std::fmt;
use std::marker::PhantomData;

use ring::rand::{SecureRandom, SystemRandom};
use serde::{Deserialize, Serialize};

use crate::clock::Timestamp;

const DIGITS: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
const LENGTH: usize = 16;
/// 2020-01-01T00:00:00Z; 35 bits of quarter seconds last until the year 2292.
const EPOCH_MILLIS: i64 = 1_577_836_800_000;

/// Fills `bytes` from the operating system's random source.
///
/// A machine without a working random source can make neither ids nor keys, so the process ends.
pub(crate) fn fill_random(bytes: &mut [u8]) {
    if SystemRandom::new().fill(bytes).is_err() {
        tracing::error!("the operating system's random source failed; stopping");
        std::process::abort();
    }
}

/// `length` characters of `[0-9A-Za-z]`, each drawn evenly from the random source.
pub(crate) fn random_base62(length: usize) -> String {
    random_digits(62, length)
}

/// `length` characters of `[0-9a-z]`, each drawn evenly from the random source.
pub(crate) fn random_base36(length: usize) -> String {
    random_digits(36, length).to_ascii_lowercase()
}

fn random_digits(base: u8, length: usize) -> String {
    // Bytes above the last whole multiple of the base would make the first digits likelier.
    let even = 255 - 255 % base;
    let mut out = String::with_capacity(length);
    let mut bytes = [0_u8; 64];
    while out.len() < length {
        fill_random(&mut bytes);
        let digits = bytes.iter().filter(|byte| **byte < even).map(|byte| digit(usize::from(byte % base)));
        out.extend(digits.take(length - out.len()));
    }
    out
}

fn digit(value: usize) -> char {
    DIGITS.get(value).map_or('0', |byte| char::from(*byte))
}

fn new_suffix(now: Timestamp) -> String {
    let quarters = u128::try_from((now.as_millis() - EPOCH_MILLIS) / 250).unwrap_or(0) & ((1 << 35) - 1);
    let mut random = [0_u8; 8];
    fill_random(&mut random);
    let mut value = (quarters << 60) | u128::from(u64::from_le_bytes(random) >> 4);
    let mut digits = [0_usize; LENGTH];
    for slot in digits.iter_mut().rev() {
        *slot = usize::try_from(value % 62).unwrap_or(0);
        value /= 62;
    }
    digits.into_iter().map(digit).collect()
}

/// A kind of thing that has ids.
pub trait Kind {
    /// Begins every public id of the kind.
    const PREFIX: &'static str;
}

macro_rules! kinds {
    (
        public { $($(#[$doc:meta])* $kind:ident $id:ident $row:ident = $prefix:literal;)* }
        internal { $($(#[$internal_doc:meta])* $internal_kind:ident $internal_row:ident;)* }
    ) => {
        /// The kinds, as type arguments of ids.
        pub(crate) mod kind {
            $($(#[$internal_doc])*
            #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
            pub enum $internal_kind {})*

            $(
            $(#[$doc])*
            #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
            pub enum $kind {}

            impl super::Kind for $kind {
                const PREFIX: &'static str = $prefix;
            }
        )*}

        $($(#[$doc])* pub type $id = PublicId<kind::$kind>;)*
        $($(#[$doc])* pub type $row = RowId<kind::$kind>;)*
        $($(#[$internal_doc])* pub type $internal_row = RowId<kind::$internal_kind>;)*
    };
}

kinds! {
public {
    /// An account.
    Account AccountId AccountRowId = "usr_";
    /// A domain of an account.
    Domain DomainId DomainRowId = "dom_";
    /// A route.
    Route RouteId RouteRowId = "rte_";
    /// A message, inbound or outbound.
    Message MessageId MessageRowId = "msg_";
    /// A webhook delivery: one event to one endpoint.
    Delivery DeliveryId DeliveryRowId = "dlv_";
    /// One attempt of a delivery.
    Attempt AttemptId AttemptRowId = "dla_";
    /// An event other than `email.received`.
    Event EventId EventRowId = "evt_";
    /// A scoped key.
    Key KeyId KeyRowId = "key_";
    /// An uploaded attachment.
    Upload UploadId UploadRowId = "upl_";
    /// A scheduled send.
    ScheduledSend ScheduledId ScheduledSendRowId = "ssnd_";
    /// A template.
    Template TemplateId TemplateRowId = "tpl_";
}
internal {
    /// A dispatch: one message to one destination.
    Dispatch DispatchRowId;
    /// A job, whatever its kind.
    Job JobRowId;
    /// The row that a job is about; the kind of the job says in which table.
    JobSubject JobSubjectId;
    /// Mail data, shared by the messages of one SMTP transaction.
    MailData MailDataRowId;
    /// Mail of this server's own.
    Notice NoticeRowId;
    /// A delivery that nothing else is stored of.
    ZeroRetentionDelivery ZeroRetentionRowId;
}
}

/// The public id of a thing of kind `K`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent, bound = "")]
pub struct PublicId<K>(String, PhantomData<K>);

impl<K: Kind> PublicId<K> {
    /// Begins every id of this kind.
    pub const PREFIX: &'static str = K::PREFIX;

    /// Makes a new id whose sortable part is `now`.
    pub fn new(now: Timestamp) -> Self {
        Self::with_suffix(&new_suffix(now))
    }

    /// Reads an id, if it has this kind's form.
    pub fn parse(text: &str) -> Option<Self> {
        let suffix = text.strip_prefix(K::PREFIX)?;
        let fits = suffix.len() == LENGTH && suffix.bytes().all(|byte| byte.is_ascii_alphanumeric());
        fits.then(|| Self(text.to_owned(), PhantomData))
    }

    /// Returns the id without its prefix, as signed links and Message-IDs carry it.
    pub fn suffix(&self) -> &str {
        self.0.strip_prefix(K::PREFIX).unwrap_or(&self.0)
    }

    /// Makes an id that names nothing stored and never parses as one: `msg_test_…` (contract 3.6).
    pub(crate) fn of_test(now: Timestamp) -> Self {
        Self::with_suffix(&format!("test_{}", new_suffix(now)))
    }

    fn with_suffix(suffix: &str) -> Self {
        Self(format!("{}{suffix}", K::PREFIX), PhantomData)
    }
}

impl<K> PublicId<K> {
    /// Takes an id as it is stored, whatever its form.
    pub(crate) const fn from_stored(text: String) -> Self {
        Self(text, PhantomData)
    }

    /// Returns the whole id with its prefix.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl<K> fmt::Display for PublicId<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The row id of a thing of kind `K`: tables and jobs refer to it, clients never see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RowId<K>(i64, PhantomData<K>);

impl<K> RowId<K> {
    /// Wraps the number of a row.
    pub const fn new(number: i64) -> Self {
        Self(number, PhantomData)
    }

    /// Returns the number of the row.
    pub const fn get(self) -> i64 {
        self.0
    }
}

impl<K: Copy> RowId<K> {
    /// Returns the row as the subject of a job.
    pub(crate) const fn as_subject(self) -> JobSubjectId {
        RowId::new(self.0)
    }
}

impl JobSubjectId {
    /// Returns the row that the job is about, of the kind that the job's kind says.
    pub(crate) const fn of_kind<K>(self) -> RowId<K> {
        RowId::new(self.0)
    }
}

impl<K> fmt::Display for RowId<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_sort_by_time_and_parse_back() {
        let early = MessageId::new(Timestamp::from_millis(1_785_196_800_000));
        let late = MessageId::new(Timestamp::from_millis(1_785_196_801_000));
        assert!(early < late);
        assert_eq!(early.as_str().len(), 20);
        assert_eq!(MessageId::parse(early.as_str()), Some(early));
    }

    #[test]
    fn another_kind_or_length_is_no_id() {
        assert_eq!(MessageId::parse("dlv_2Hk9QpVn4tLdA1B2"), None);
        assert_eq!(MessageId::parse("msg_2Hk9QpVn4tLdA1B"), None);
        assert_eq!(MessageId::parse("msg_2Hk9QpVn4tLdA1B-"), None);
    }
}
