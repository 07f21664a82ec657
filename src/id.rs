//! Typed public identifiers: `msg_2Hk9QpVn4tLdA1B2` (contract 1.3).
//!
//! After the prefix stand 16 base-62 digits: 35 bits of time in quarter seconds, then 60 random bits. Time comes
//! first so that an index over ids appends instead of scattering; the ids are no capability by themselves.

use std::fmt;

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
pub fn fill_random(bytes: &mut [u8]) {
    if SystemRandom::new().fill(bytes).is_err() {
        tracing::error!("the operating system's random source failed; stopping");
        std::process::abort();
    }
}

/// `length` characters of `[0-9A-Za-z]`, each drawn evenly from the random source.
pub fn random_base62(length: usize) -> String {
    random_digits(62, length)
}

/// `length` characters of `[0-9a-z]`, each drawn evenly from the random source.
pub fn random_base36(length: usize) -> String {
    random_digits(36, length).to_ascii_lowercase()
}

fn random_digits(base: u8, length: usize) -> String {
    // Bytes above the last whole multiple of the base would make the first digits likelier.
    let even = 255 - 255 % base;
    let mut out = String::with_capacity(length);
    let mut bytes = [0_u8; 64];
    while out.len() < length {
        fill_random(&mut bytes);
        let fresh = bytes.iter().filter(|byte| **byte < even).map(|byte| digit(usize::from(byte % base)));
        out.extend(fresh.take(length - out.len()));
    }
    out
}

fn digit(value: usize) -> char {
    DIGITS.get(value).map_or('0', |byte| char::from(*byte))
}

fn fresh_suffix(now: Timestamp) -> String {
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

macro_rules! ids {
    ($($(#[$doc:meta])* $name:ident = $prefix:literal;)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(String);

        impl $name {
            /// What every id of this kind begins with.
            pub const PREFIX: &'static str = $prefix;

            /// A new id whose sortable part is `now`.
            pub fn new(now: Timestamp) -> Self {
                Self(format!("{}{}", $prefix, fresh_suffix(now)))
            }

            /// The id as written, if it has this kind's form.
            pub fn parse(text: &str) -> Option<Self> {
                let suffix = text.strip_prefix($prefix)?;
                let fits = suffix.len() == LENGTH && suffix.bytes().all(|byte| byte.is_ascii_alphanumeric());
                fits.then(|| Self(text.to_owned()))
            }

            /// The whole id with its prefix.
            pub fn as_str(&self) -> &str {
                &self.0
            }

            /// The id without its prefix, as signed links and Message-IDs carry it.
            pub fn suffix(&self) -> &str {
                self.0.strip_prefix($prefix).unwrap_or(&self.0)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl rusqlite::ToSql for $name {
            fn to_sql(&self) -> rusqlite::Result<rusqlite::types::ToSqlOutput<'_>> {
                self.0.to_sql()
            }
        }

        impl rusqlite::types::FromSql for $name {
            fn column_result(value: rusqlite::types::ValueRef<'_>) -> rusqlite::types::FromSqlResult<Self> {
                value.as_str().map(|text| Self(text.to_owned()))
            }
        }
    )*};
}

ids! {
    /// An account.
    AccountId = "usr_";
    /// A domain of an account.
    DomainId = "dom_";
    /// A route.
    RouteId = "rte_";
    /// A message, inbound or outbound.
    MessageId = "msg_";
    /// A webhook delivery: one event to one endpoint.
    DeliveryId = "dlv_";
    /// One attempt of a delivery.
    AttemptId = "dla_";
    /// An event other than `email.received`.
    EventId = "evt_";
    /// A scoped key.
    KeyId = "key_";
    /// An uploaded attachment.
    UploadId = "upl_";
    /// A scheduled send.
    ScheduledId = "ssnd_";
    /// A template.
    TemplateId = "tpl_";
}

impl MessageId {
    /// An id that names nothing stored and never parses as one: `msg_test_…` (contract 3.6).
    pub fn of_test(now: Timestamp) -> Self {
        Self(format!("msg_test_{}", fresh_suffix(now)))
    }
}

impl DeliveryId {
    /// An id that names nothing stored and never parses as one: `dlv_test_…` (contract 3.6).
    pub fn of_test(now: Timestamp) -> Self {
        Self(format!("dlv_test_{}", fresh_suffix(now)))
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
