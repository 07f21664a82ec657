//! What is wrong with a configuration, in words for the operator.

use std::fmt;

/// One thing that is wrong with the configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The setting with its section: `smtp.listen`; empty for text that is no TOML.
    pub(crate) key: String,
    /// The line it stands on, counted from 1; `None` for what is missing.
    pub(crate) line: Option<usize>,
    /// What is wrong and what to do, to be read after the key.
    pub(crate) message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(line) = self.line {
            write!(f, "line {line}: ")?;
        }
        if !self.key.is_empty() {
            write!(f, "{}: ", self.key)?;
        }
        f.write_str(&self.message)
    }
}

/// The problems below each other: line, key, message in columns.
pub(crate) fn table(problems: &[Problem]) -> String {
    let place = |problem: &Problem| problem.line.map_or_else(String::new, |line| format!("line {line}"));
    let places = problems.iter().map(|problem| place(problem).len()).max().unwrap_or(0);
    let keys = problems.iter().map(|problem| problem.key.len()).max().unwrap_or(0);
    let rows = problems.iter().map(|problem| {
        let row = format!("  {:places$}  {:keys$}  {}", place(problem), problem.key, problem.message);
        row.trim_end().to_owned()
    });
    rows.collect::<Vec<_>>().join("\n")
}

/// The known key most like `key`, if one is like enough to be what was meant: the same name in another section,
/// or few letters apart.
pub(super) fn nearest<'k>(key: &str, known: &'k [String]) -> Option<&'k str> {
    let name = |path: &str| path.rsplit('.').next().unwrap_or_default().to_owned();
    let moved = known.iter().filter(|other| name(other) == name(key));
    let near = known.iter().filter(|other| distance(key, other) <= 1 + key.len() / 5);
    let misplaced = known.iter().filter(|other| distance(&name(key), &name(other)) <= name(key).len() / 5);
    let closest = |a: &&String, b: &&String| distance(key, a).cmp(&distance(key, b));
    let guess = moved.min_by(closest).or_else(|| near.min_by(closest)).or_else(|| misplaced.min_by(closest));
    guess.map(String::as_str)
}

/// Levenshtein's distance: how many letters to add, drop or replace.
fn distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.chars().count()).collect();
    for (i, left) in a.chars().enumerate() {
        let mut diagonal = i;
        let mut before = i + 1;
        for (right, cell) in b.chars().zip(row.iter_mut().skip(1)) {
            let replaced = diagonal + usize::from(left != right);
            diagonal = *cell;
            before = replaced.min(before + 1).min(*cell + 1);
            *cell = before;
        }
        if let Some(first) = row.first_mut() {
            *first = i + 1;
        }
    }
    row.last().copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distance_counts_single_letter_edits() {
        assert_eq!(distance("", "abc"), 3);
        assert_eq!(distance("kitten", "sitting"), 3);
        assert_eq!(distance("listen", "listen"), 0);
        assert_eq!(distance("listn", "listen"), 1);
    }

    #[test]
    fn the_nearest_key_may_be_in_another_section() {
        let known = ["smtp.listen", "smtp.max_recipients", "http.listen", "public_url"].map(str::to_owned);
        assert_eq!(nearest("smtp.listn", &known), Some("smtp.listen"));
        assert_eq!(nearest("http.listn", &known), Some("http.listen"));
        assert_eq!(nearest("http.max_recipients", &known), Some("smtp.max_recipients"));
        assert_eq!(nearest("smtp.max_recipient", &known), Some("smtp.max_recipients"));
        assert_eq!(nearest("public-url", &known), Some("public_url"));
        assert_eq!(nearest("weather", &known), None);
    }

    #[test]
    fn problems_stand_in_columns() {
        let problem = |key: &str, line, message: &str| Problem { key: key.into(), line, message: message.into() };
        let shown = table(&[problem("smtp.listen", Some(12), "is odd"), problem("hostname", None, "is missing")]);
        assert_eq!(shown, "  line 12  smtp.listen  is odd\n           hostname     is missing");
    }
}
