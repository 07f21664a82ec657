//! Matches recipients against routes (contract 4.1). Pure.
//!
//! All regexes of an account form one set, compiled within a budget: `directory` does that off the async threads, one
//! account at a time.

use std::collections::HashMap;
use std::sync::Arc;

use regex::{Regex, RegexBuilder, RegexSet, RegexSetBuilder};
use tokio::sync::Mutex;

use crate::id::AccountRowId;
use crate::mail::address::Mailbox;
use crate::store::jobs::Flow;
use crate::store::webhooks::routes::{Action, RouteRow};

/// Maximum length of a match, in characters.
const MAX_MATCH: usize = 512;
/// Memory limit of one compiled regex, and of its scratch space; matching is linear whatever the pattern.
const MAX_REGEX_BYTES: usize = 512 << 10;
/// Memory limits of all regexes of an account together: a set within the first counts as small.
const SMALL_SET_BYTES: usize = 128 << 10;
const MAX_SET_BYTES: usize = 2 << 20;
/// Memory accounted for a table: for each route, and for a set with the scratch space of a match.
const ROUTE_BYTES: usize = 1 << 10;
const SMALL_SET_HELD: usize = 512 << 10;
const LARGE_SET_HELD: usize = 8 << 20;

/// Reason why a match is invalid.
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
    /// Too large together with the account's other regexes.
    #[error("the regexes of this account are too large together")]
    Set,
}

/// A parsed match.
#[derive(Clone, Debug)]
pub enum Pattern {
    /// Exactly this address.
    Exact(String),
    /// A local part with one `*`, which stands for zero or more characters.
    Wildcard {
        /// Text before the `*`.
        prefix: String,
        /// Text after it, with `@` and the domain.
        suffix: String,
    },
    /// Any part of the address.
    Regex(Regex),
}

impl Pattern {
    /// Parses a match in the syntax of contract 4.1.
    ///
    /// # Errors
    /// The reason why it is invalid.
    pub fn parse(text: &str) -> Result<Self, BadMatch> {
        if text.chars().count() > MAX_MATCH {
            return Err(BadMatch::TooLong);
        }
        if let Some(body) = regex_body(text) {
            return RegexBuilder::new(body?)
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
            None => Ok(Self::Exact(
                Mailbox::parse_received(&lower).map_or(lower, |mailbox| mailbox.canonical_for_routes()),
            )),
            Some((_, after)) if after.contains('*') => Err(BadMatch::Form),
            Some((before, after)) => {
                let suffix = format!("{after}@{domain}");
                Ok(Self::Wildcard { prefix: before.to_owned(), suffix })
            }
        }
    }

    /// Returns the domain that it lies on; none for a regex.
    pub(crate) fn domain(&self) -> Option<&str> {
        let (Self::Exact(address) | Self::Wildcard { suffix: address, .. }) = self else { return None };
        address.rsplit_once('@').map(|(_, domain)| domain)
    }

    /// Returns an address that it matches, with its `*` replaced by `star`; none for a regex.
    pub(crate) fn example(&self, star: &str) -> Option<String> {
        match self {
            Self::Exact(address) => Some(address.clone()),
            Self::Wildcard { prefix, suffix } => Some(format!("{prefix}{star}{suffix}")),
            Self::Regex(_) => None,
        }
    }

    /// True if it matches a recipient, lower-cased as `local@domain`.
    pub fn matches(&self, address: &str) -> bool {
        match self {
            Self::Exact(exact) => exact == address,
            // The suffix contains the last @, which separates local part and domain; any other one is quoted.
            Self::Wildcard { prefix, suffix } => {
                address.strip_prefix(prefix.as_str()).is_some_and(|rest| rest.ends_with(suffix.as_str()))
            }
            Self::Regex(regex) => regex.is_match(address),
        }
    }
}

/// A route that can run.
#[derive(Debug)]
pub(crate) struct Route {
    /// The row as stored.
    pub(crate) row: Arc<RouteRow>,
    /// Flow of its jobs, if it is a webhook.
    pub(crate) flow: Option<Flow>,
}

/// Returns the text between the slashes of a match that begins with `/`; none for another match.
fn regex_body(text: &str) -> Option<Result<&str, BadMatch>> {
    let rest = text.strip_prefix('/')?;
    Some(rest.strip_suffix("/i").or_else(|| rest.strip_suffix('/')).ok_or(BadMatch::Form))
}

/// True if a match is one address.
pub(crate) fn is_exact(text: &str) -> bool {
    !is_regex(text) && !text.contains('*')
}

/// True if a match is a regex, in whatever form.
pub(crate) fn is_regex(text: &str) -> bool {
    text.starts_with('/')
}

/// The regexes of one account, compiled into one set. Compiling takes up to some hundred milliseconds: not on an async
/// thread.
#[derive(Debug)]
struct Regexes {
    bodies: Vec<String>,
    set: RegexSet,
    held: usize,
    /// Matches of one account run one after another, so that a slow set delays its own account only.
    turn: Mutex<()>,
}

impl Regexes {
    fn compile(bodies: &[String]) -> Result<Self, regex::Error> {
        let build = |most: usize| {
            let mut builder = RegexSetBuilder::new(bodies);
            builder.case_insensitive(true).size_limit(most).dfa_size_limit(most.min(1 << 20)).build()
        };
        let (set, held) = match build(SMALL_SET_BYTES) {
            Ok(set) => (set, SMALL_SET_HELD),
            Err(_) => (build(MAX_SET_BYTES)?, LARGE_SET_HELD),
        };
        Ok(Self { bodies: bodies.to_vec(), set, held, turn: Mutex::default() })
    }

    /// Compiles the oldest regexes that fit together, for rows that were stored under another budget.
    fn compile_fitting(bodies: &[String]) -> Option<Self> {
        if let Ok(all) = Self::compile(bodies) {
            return Some(all);
        }
        let (mut fitting, mut fits, mut too_many) = (None, 0, bodies.len());
        while too_many.saturating_sub(fits) > 1 {
            let half = fits.midpoint(too_many);
            match Self::compile(bodies.get(..half).unwrap_or_default()) {
                Ok(set) => (fitting, fits) = (Some(set), half),
                Err(_) => too_many = half,
            }
        }
        tracing::warn!(
            idle = bodies.len() - fits,
            "regexes of an account do not fit together; the youngest are idle"
        );
        fitting
    }
}

/// Checks that the regexes among these matches compile together. Slow: not on an async thread.
///
/// # Errors
/// [`BadMatch::Set`].
pub(crate) fn check_together<'m>(matches: impl Iterator<Item = &'m str>) -> Result<(), BadMatch> {
    let bodies: Vec<String> = matches.filter_map(|text| regex_body(text)?.ok().map(str::to_owned)).collect();
    Regexes::compile(&bodies).map(drop).map_err(|_| BadMatch::Set)
}

/// The active routes of one account, ready for matching.
#[derive(Debug, Default)]
pub(crate) struct RouteTable {
    /// See [`RouteTable::version`].
    version: u64,
    routes: Vec<Arc<Route>>,
    exact: HashMap<String, Vec<usize>>,
    wildcards: Vec<(usize, Pattern)>,
    regexes: Option<Arc<Regexes>>,
    /// Index of the route of each regex in the set.
    regex_routes: Vec<usize>,
}

impl RouteTable {
    /// Builds the table from rows in their order of age; `flow` returns the flow of a webhook's jobs. A regex set that
    /// `previous` has is reused, since compiling takes too long for an async thread.
    pub(crate) fn new(
        rows: Vec<RouteRow>,
        flow: impl Fn(&str, AccountRowId) -> Flow,
        previous: Option<&Self>,
    ) -> Self {
        let mut table = Self::default();
        let mut bodies = Vec::new();
        for row in rows {
            let index = table.routes.len();
            let pattern = match regex_body(&row.match_pattern) {
                Some(body) => body.map(|body| {
                    bodies.push(body.to_owned());
                    table.regex_routes.push(index);
                }),
                None => Pattern::parse(&row.match_pattern).map(|pattern| match pattern {
                    Pattern::Exact(address) => table.exact.entry(address).or_default().push(index),
                    pattern => table.wildcards.push((index, pattern)),
                }),
            };
            if let Err(error) = pattern {
                tracing::warn!(route = %row.public_id, %error, "a stored match cannot be read; the route is idle");
                continue;
            }
            let webhook = row.action == Action::Webhook;
            let flow = row.destination.as_deref().filter(|_| webhook).map(|url| flow(url, row.account_id));
            table.routes.push(Arc::new(Route { row: Arc::new(row), flow }));
        }
        let known = previous.and_then(|previous| previous.regexes.clone()).filter(|known| known.bodies == bodies);
        table.regexes = match known {
            Some(known) => Some(known),
            None if bodies.is_empty() => None,
            None => Regexes::compile_fitting(&bodies).map(Arc::new),
        };
        table
    }

    /// True if rows contain a regex, so that building a table of them may take time.
    pub(crate) fn is_slow_to_make(rows: &[RouteRow]) -> bool {
        rows.iter().any(|row| is_regex(&row.match_pattern))
    }

    /// Marks the table as built from rows read when the account's routes had this version, or later.
    pub(crate) fn at_version(self, version: u64) -> Self {
        Self { version, ..self }
    }

    /// Returns the version of the account's routes that the table is at least as new as; 0 is none.
    pub(crate) const fn version(&self) -> u64 {
        self.version
    }

    /// Returns the memory accounted for it, in bytes.
    pub(crate) fn memory_size(&self) -> usize {
        let set = self.regexes.as_ref().map_or(0, |regexes| regexes.held);
        set.saturating_add(self.routes.len().saturating_add(1).saturating_mul(ROUTE_BYTES))
    }

    /// Returns the lock to hold while matching, if matching may take milliseconds.
    pub(crate) fn regex_lock(&self) -> Option<&Mutex<()>> {
        self.regexes.as_ref().map(|regexes| &regexes.turn)
    }

    /// Returns the routes that match a recipient, oldest first.
    pub(crate) fn matching(&self, address: &str) -> Vec<Arc<Route>> {
        let mut found: Vec<usize> = self.exact.get(address).cloned().unwrap_or_default();
        found.extend(self.wildcards.iter().filter(|(_, pattern)| pattern.matches(address)).map(|(index, _)| *index));
        if let Some(regexes) = &self.regexes {
            let matched = regexes.set.matches(address);
            found.extend(matched.iter().filter_map(|place| self.regex_routes.get(place)));
        }
        found.sort_unstable();
        found.iter().filter_map(|index| self.routes.get(*index)).cloned().collect()
    }
}

/// Returns the matching routes that run when at most `most` may, and the number of the others.
///
/// The oldest webhooks and forwards run. Routes that run nothing, `store` and `drop`, do not count.
pub(crate) fn running(mut matching: Vec<Arc<Route>>, most: Option<u64>) -> (Vec<Arc<Route>>, usize) {
    let all = matching.len();
    let mut left = most.unwrap_or(u64::MAX);
    matching.retain(|route| match route.row.action {
        Action::Webhook | Action::Forward if left == 0 => false,
        Action::Webhook | Action::Forward => {
            left = left.saturating_sub(1);
            true
        }
        Action::Store | Action::Drop => true,
    });
    let over = all - matching.len();
    (matching, over)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests may panic")]

    use crate::id::RowId;
    use proptest::prelude::*;

    use super::*;
    use crate::clock::Timestamp;
    use crate::id::RouteId;
    use crate::store::webhooks::routes::OnAuthFail;

    const NOW: Timestamp = Timestamp::from_millis(1_785_196_800_000);

    fn matches(pattern: &str, address: &str) -> bool {
        let alone = Pattern::parse(pattern).unwrap().matches(address);
        let table = RouteTable::new(vec![row(pattern, Action::Store)], |_, _| Flow::new("", RowId::new(0)), None);
        assert_eq!(table.matching(address).len(), usize::from(alone), "{pattern} matches alike in a table");
        alone
    }

    fn row(match_pattern: &str, action: Action) -> RouteRow {
        RouteRow {
            public_id: RouteId::new(NOW),
            account_id: RowId::new(1),
            domain_id: None,
            match_pattern: match_pattern.to_owned(),
            action,
            destination: None,
            ack_mode: None,
            on_auth_fail: OnAuthFail::Refuse,
            active: true,
            secret_sealed: None,
            previous_secret_sealed: None,
            previous_valid_until: None,
            is_domain_webhook: false,
            last_status: None,
            last_status_code: None,
            created_at: NOW,
            updated_at: NOW,
        }
    }

    #[test]
    fn the_oldest_routes_run_and_drop_is_never_one_too_many() {
        let actions = [Action::Webhook, Action::Store, Action::Forward, Action::Webhook, Action::Drop];
        let rows = actions.map(|action| row("*@acme.dev", action)).to_vec();
        let table = RouteTable::new(rows, |_, _| Flow::new("", RowId::new(0)), None);
        let run = |most| {
            let (routes, over) = running(table.matching("a@acme.dev"), most);
            (routes.iter().map(|route| route.row.action).collect::<Vec<_>>(), over)
        };
        assert_eq!(run(None), (actions.to_vec(), 0));
        assert_eq!(run(Some(3)), (actions.to_vec(), 0));
        assert_eq!(run(Some(1)), (vec![Action::Webhook, Action::Store, Action::Drop], 2));
    }

    #[test]
    fn regexes_share_one_budget_and_of_too_many_the_oldest_run() {
        let large: Vec<String> = (0..60).map(|n| format!("/x.{{1,{}}}y{n}$/", 60 + n)).collect();
        assert_eq!(check_together(large.iter().map(String::as_str)), Err(BadMatch::Set));
        assert_eq!(check_together(["/a/", "b@c.d", "/d{3}/i"].into_iter()), Ok(()));
        let mut rows = vec![row("/first/", Action::Store)];
        rows.extend(large.iter().map(|text| row(text, Action::Store)));
        rows.push(row("/last/", Action::Store));
        rows.push(row("last@acme.dev", Action::Store));
        let table = RouteTable::new(rows, |_, _| Flow::new("", RowId::new(0)), None);
        assert_eq!(table.matching("first@acme.dev").len(), 1);
        let last = table.matching("last@acme.dev");
        let last: Vec<&str> = last.iter().map(|route| route.row.match_pattern.as_str()).collect();
        assert_eq!(last, ["last@acme.dev"], "the youngest regex is idle, all else goes on");
    }

    #[test]
    fn a_set_is_compiled_again_only_when_a_regex_changed() {
        let new = |last: &str, previous: Option<&RouteTable>| {
            RouteTable::new(
                vec![row("/a/", Action::Store), row(last, Action::Store)],
                |_, _| Flow::new("", RowId::new(0)),
                previous,
            )
        };
        let (first, second) = (new("x@acme.dev", None), new("y@acme.dev", None));
        let same = |one: &RouteTable, other: &RouteTable| {
            one.regexes.as_ref().zip(other.regexes.as_ref()).map(|(one, other)| Arc::ptr_eq(one, other))
        };
        assert_eq!(same(&first, &second), Some(false));
        assert_eq!(same(&first, &new("y@acme.dev", Some(&first))), Some(true));
        assert_eq!(same(&first, &new("/b/", Some(&first))), Some(false));
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
