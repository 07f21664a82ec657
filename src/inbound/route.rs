//! Which routes a recipient reaches (contract 4.1). Pure.

use std::collections::HashMap;
use std::sync::Arc;

use regex::{Regex, RegexBuilder};

use crate::store::routes::{Action, RouteRow};

/// The longest match.
const MAX_MATCH: usize = 512;
/// What a compiled regex and its scratch space may take; matching is linear whatever the pattern.
const MAX_REGEX_BYTES: usize = 1 << 20;

/// Why a match is none.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadMatch {
    /// Neither an address, nor a pattern, nor a regex.
    #[error("expected an address, a pattern with one * in the local part, or /regex/")]
    Form,
    /// Longer than 512 characters.
    #[error("a match has at most {MAX_MATCH} characters")]
    TooLong,
    /// A regex that does not compile or is too large.
    #[error("the regex does not compile: {0}")]
    Regex(String),
}

/// A parsed match.
#[derive(Clone, Debug)]
pub enum Pattern {
    /// Exactly this address.
    Exact(String),
    /// A local part with one `*`, which stands for zero or more characters.
    Wildcard {
        /// What stands before the `*`.
        prefix: String,
        /// What stands behind it, with `@` and the domain.
        suffix: String,
    },
    /// Any part of the address.
    Regex(Regex),
}

impl Pattern {
    /// Parses a match as contract 4.1 writes it.
    ///
    /// # Errors
    /// It is none; the error says why.
    pub fn parse(text: &str) -> Result<Self, BadMatch> {
        if text.chars().count() > MAX_MATCH {
            return Err(BadMatch::TooLong);
        }
        if let Some(rest) = text.strip_prefix('/') {
            let body = rest.strip_suffix("/i").or_else(|| rest.strip_suffix('/')).ok_or(BadMatch::Form)?;
            return RegexBuilder::new(body)
                .case_insensitive(true)
                .size_limit(MAX_REGEX_BYTES)
                .dfa_size_limit(MAX_REGEX_BYTES)
                .build()
                .map(Self::Regex)
                .map_err(|error| BadMatch::Regex(error.to_string()));
        }
        let lower = text.to_lowercase();
        let (local, domain) = lower.rsplit_once('@').ok_or(BadMatch::Form)?;
        let fits = !local.is_empty() && !domain.is_empty() && !domain.contains('*');
        if !fits || lower.chars().any(|c| c.is_control() || c == ' ') {
            return Err(BadMatch::Form);
        }
        match local.split_once('*') {
            None => Ok(Self::Exact(lower)),
            Some((_, after)) if after.contains('*') => Err(BadMatch::Form),
            Some((before, after)) => {
                let suffix = format!("{after}@{domain}");
                Ok(Self::Wildcard { prefix: before.to_owned(), suffix })
            }
        }
    }

    /// The domain that it lies on; none for a regex.
    pub fn domain(&self) -> Option<&str> {
        let (Self::Exact(address) | Self::Wildcard { suffix: address, .. }) = self else { return None };
        address.rsplit_once('@').map(|(_, domain)| domain)
    }

    /// An address that it matches: its `*` replaced by `star`; none for a regex.
    pub fn example(&self, star: &str) -> Option<String> {
        match self {
            Self::Exact(address) => Some(address.clone()),
            Self::Wildcard { prefix, suffix } => Some(format!("{prefix}{star}{suffix}")),
            Self::Regex(_) => None,
        }
    }

    /// Whether a recipient, lower-cased as `local@domain`, is matched.
    pub fn matches(&self, address: &str) -> bool {
        match self {
            Self::Exact(exact) => exact == address,
            // The suffix has the last @, which is the one between local part and domain; another is quoted.
            Self::Wildcard { prefix, suffix } => {
                address.strip_prefix(prefix.as_str()).is_some_and(|rest| rest.ends_with(suffix.as_str()))
            }
            Self::Regex(regex) => regex.is_match(address),
        }
    }
}

/// A route that can run.
#[derive(Debug)]
pub struct Route {
    /// As stored.
    pub row: Arc<RouteRow>,
    /// Its lane, if it is a webhook.
    pub lane: Option<String>,
}

/// The active routes of one account, ready to be matched.
#[derive(Debug, Default)]
pub struct RouteTable {
    /// See [`RouteTable::version`].
    version: u64,
    routes: Vec<Arc<Route>>,
    exact: HashMap<String, Vec<usize>>,
    patterns: Vec<(usize, Pattern)>,
}

impl RouteTable {
    /// Builds the table from rows in their order of age; `lane` names a webhook's lane by its URL.
    pub fn new(rows: Vec<RouteRow>, lane: impl Fn(&str) -> String) -> Self {
        let mut table = Self::default();
        for row in rows {
            let index = table.routes.len();
            match Pattern::parse(&row.match_pattern) {
                Ok(Pattern::Exact(address)) => table.exact.entry(address).or_default().push(index),
                Ok(pattern) => table.patterns.push((index, pattern)),
                Err(error) => {
                    tracing::warn!(route = %row.public_id, %error, "a stored match cannot be read; the route is idle");
                    continue;
                }
            }
            let webhook = row.action == Action::Webhook;
            let lane = row.destination.as_deref().filter(|_| webhook).map(&lane);
            table.routes.push(Arc::new(Route { row: Arc::new(row), lane }));
        }
        table
    }

    /// The same, of rows that were read since the directory had this version.
    pub fn as_of(self, version: u64) -> Self {
        Self { version, ..self }
    }

    /// The version of the directory that it is as new as; 0 is none.
    pub const fn version(&self) -> u64 {
        self.version
    }

    /// The routes that a recipient reaches, oldest first.
    pub fn matching(&self, address: &str) -> Vec<Arc<Route>> {
        let mut found: Vec<usize> = self.exact.get(address).cloned().unwrap_or_default();
        found.extend(self.patterns.iter().filter(|(_, pattern)| pattern.matches(address)).map(|(index, _)| *index));
        found.sort_unstable();
        found.iter().filter_map(|index| self.routes.get(*index)).cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests may panic")]

    use proptest::prelude::*;

    use super::*;

    fn matches(pattern: &str, address: &str) -> bool {
        Pattern::parse(pattern).unwrap().matches(address)
    }

    #[test]
    fn the_forms_of_contract_4_1_match_what_it_says() {
        assert!(matches("support@acme.dev", "support@acme.dev"));
        assert!(!matches("support@acme.dev", "support+x@acme.dev"));
        assert!(matches("Support@Acme.dev", "support@acme.dev"));
        assert!(matches("*@acme.dev", "anything@acme.dev"));
        assert!(!matches("*@acme.dev", "anything@sub.acme.dev"));
        assert!(!matches("*@acme.dev", "x@evil-acme.dev"));
        assert!(matches("*@acme.dev", "\"a@b\"@acme.dev"));
        assert!(!matches("*@acme.dev", "\"x@acme.dev\"@evil.example"));
        assert!(matches("ticket+*@acme.dev", "ticket+42@acme.dev"));
        assert!(matches("ticket+*@acme.dev", "ticket+@acme.dev"));
        assert!(!matches("ticket+*@acme.dev", "ticket@acme.dev"));
        assert!(matches("sales-*@acme.dev", "sales-@acme.dev"));
        assert!(matches("*-bot@acme.dev", "a-bot@acme.dev"));
        assert!(matches("/^(sales|info)@/", "info@acme.dev"));
        assert!(matches("/INFO/i", "info@acme.dev"));
        assert!(matches("/INFO/", "info@acme.dev"));
    }

    #[test]
    fn what_is_no_match_is_refused() {
        for bad in ["", "acme.dev", "@acme.dev", "a@", "**@acme.dev", "a@*.dev", "/open", "/(/", "a b@acme.dev"] {
            assert!(Pattern::parse(bad).is_err(), "{bad}");
        }
        assert_eq!(Pattern::parse(&format!("{}@a.dev", "x".repeat(600))).unwrap_err(), BadMatch::TooLong);
        assert!(matches!(Pattern::parse("/((a{1000}){1000}){1000}/"), Err(BadMatch::Regex(_))));
    }

    proptest! {
        #[test]
        fn a_wildcard_matches_just_what_lies_between_its_ends(
            before in "[a-z]{0,5}", star in "[a-z+.-]{0,9}", after in "[a-z]{0,5}",
        ) {
            let pattern = format!("{before}*{after}@acme.dev");
            let address = format!("{before}{star}{after}@acme.dev");
            prop_assert!(matches(&pattern, &address));
            let shorter = format!("{before}{after}@acme.devx");
            prop_assert!(!matches(&pattern, &shorter));
        }
    }
}
