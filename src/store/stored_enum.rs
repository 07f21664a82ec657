//! Enums that are stored as words: one declaration gives the variants, their words, and both conversions for SQL.
//!
//! An unknown word is an error ([`Error::Corrupt`](super::Error::Corrupt)), never a default: a newer version or a
//! damaged row must not be read as something else.

use rusqlite::types::FromSqlError;

/// A stored word that matches no variant; names the column.
#[derive(Debug, thiserror::Error)]
#[error("stored {0} is not a word of this version")]
pub(crate) struct UnknownWord(pub(crate) &'static str);

impl From<UnknownWord> for FromSqlError {
    fn from(unknown: UnknownWord) -> Self {
        Self::Other(Box::new(unknown))
    }
}

/// An enum that is stored as words.
pub(crate) trait Words {
    /// The words, in the order of the variants.
    const WORDS: &'static [&'static str];
}

/// Declares an enum whose variants are stored as words in the named column.
macro_rules! stored_enum {
    (
        $(#[$meta:meta])*
        $visible:vis enum $name:ident in $column:literal {
            $($(#[$doc:meta])* $variant:ident = $word:literal,)*
        }
    ) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        $visible enum $name {
            $($(#[$doc])* $variant,)*
        }

        impl $name {
            /// Returns the word that is stored and shown.
            $visible const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$variant => $word,)*
                }
            }

            /// Returns the variant of a word.
            $visible fn from_word(word: &str) -> Option<Self> {
                match word {
                    $($word => Some(Self::$variant),)*
                    _ => None,
                }
            }
        }

        impl crate::store::stored_enum::Words for $name {
            const WORDS: &'static [&'static str] = &[$($word,)*];
        }

        impl rusqlite::ToSql for $name {
            fn to_sql(&self) -> rusqlite::Result<rusqlite::types::ToSqlOutput<'_>> {
                Ok(self.as_str().into())
            }
        }

        impl rusqlite::types::FromSql for $name {
            fn column_result(value: rusqlite::types::ValueRef<'_>) -> rusqlite::types::FromSqlResult<Self> {
                Self::from_word(value.as_str()?).ok_or(crate::store::stored_enum::UnknownWord($column).into())
            }
        }
    };
}

pub(crate) use stored_enum;
