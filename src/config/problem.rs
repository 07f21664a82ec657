//! Problems of a configuration, as sentences for the operator.

use std::fmt;

use strsim::levenshtein;

/// One problem of the configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The setting with its section, `smtp.listen`; empty for a syntax error.
    pub(crate) key: String,
    /// The line in the file, from 1; `None` for a missing key.
    pub(crate) line: Option<usize>,
    /// States the error and the remedy; follows the key in the output.
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

/// Formats problems as a table: line, key, message.
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

/// Returns the known key most like `key`, if one is likely meant: the same name in another section, or a name few
/// edits away.
pub(super) fn nearest<'k>(key: &str, known: &'k [String]) -> Option<&'k str> {
    let name = |path: &str| path.rsplit('.').next().unwrap_or_default().to_owned();
    let moved = known.iter().filter(|other| name(other) == name(key));
    let near = known.iter().filter(|other| levenshtein(key, other) <= 1 + key.len() / 5);
    let misplaced = known.iter().filter(|other| levenshtein(&name(key), &name(other)) <= name(key).len() / 5);
    let closest = |a: &&String, b: &&String| levenshtein(key, a).cmp(&levenshtein(key, b));
    let guess = moved.min_by(closest).or_else(|| near.min_by(closest)).or_else(|| misplaced.min_by(closest));
    guess.map(String::as_str)
}

#[cfg(test)]
mod tests {
    use super::*;

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
