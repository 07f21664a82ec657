//! A TOML text as flat keys with lines, and typed reading that gathers every problem instead of stopping at one.

use std::collections::BTreeMap;
use std::str::FromStr;
use std::time::Duration;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// One thing that is wrong with a configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The dotted key, or empty when the text is no TOML.
    pub key: String,
    /// The line it stands on, from 1; `None` for what is missing.
    pub line: Option<usize>,
    /// What is wrong and what to do.
    pub message: String,
}

impl std::fmt::Display for Problem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if let Some(line) = self.line {
            write!(f, "line {line}: ")?;
        }
        if !self.key.is_empty() {
            write!(f, "{}: ", self.key)?;
        }
        f.write_str(&self.message)
    }
}

/// A plain value as it stands in the text.
#[derive(Clone, Debug)]
enum Value {
    Text(String),
    Number(String),
    Flag(bool),
    List(Vec<String>),
    /// Anything that no key takes.
    Other,
}

/// The keys of one text.
pub struct Reader {
    values: BTreeMap<String, (Value, usize)>,
    /// What was found wrong so far.
    pub problems: Vec<Problem>,
}

impl Reader {
    /// Reads a text; keys outside `known` are problems.
    pub fn new(text: &str, known: &[&str]) -> Self {
        let mut reader = Self { values: BTreeMap::new(), problems: Vec::new() };
        match DeTable::parse(text) {
            Ok(table) => reader.flatten(text, "", table.get_ref(), known),
            Err(error) => {
                let line = error.span().map(|span| line_of(text, span.start));
                let message = format!("this is no TOML: {}", error.message());
                reader.problems.push(Problem { key: String::new(), line, message });
            }
        }
        reader
    }

    fn flatten(&mut self, text: &str, above: &str, table: &DeTable<'_>, known: &[&str]) {
        for (name, value) in table {
            let line = line_of(text, name.span().start);
            let separator = if above.is_empty() { "" } else { "." };
            let key = format!("{above}{separator}{}", name.get_ref());
            let section = format!("{key}.");
            match value.get_ref() {
                DeValue::Table(inner) if known.iter().any(|known| known.starts_with(&section)) => {
                    self.flatten(text, &key, inner, known);
                }
                _ if !known.contains(&key.as_str()) => {
                    let hint = nearest(&key, known).map_or(String::new(), |near| format!("; did you mean {near}?"));
                    self.problems.push(Problem { key, line: Some(line), message: format!("unknown key{hint}") });
                }
                plain => drop(self.values.insert(key, (Value::of(plain), line))),
            }
        }
    }

    /// Notes a problem of a key.
    pub fn problem(&mut self, key: &str, message: impl Into<String>) {
        let line = self.values.get(key).map(|(_, line)| *line);
        self.problems.push(Problem { key: key.to_owned(), line, message: message.into() });
    }

    fn take<T>(&mut self, key: &str, wanted: &str, convert: impl FnOnce(&Value) -> Option<T>) -> Option<T> {
        let (value, _) = self.values.get(key)?;
        let converted = convert(value);
        if converted.is_none() {
            self.problem(key, format!("expected {wanted}"));
        }
        converted
    }

    /// A text, if the key is there.
    pub fn text(&mut self, key: &str) -> Option<String> {
        self.take(key, "a text in quotes", |value| match value {
            Value::Text(text) => Some(text.clone()),
            _ => None,
        })
    }

    /// A text that must parse.
    pub fn parsed<T: FromStr>(&mut self, key: &str, wanted: &str) -> Option<T> {
        self.take(key, wanted, |value| match value {
            Value::Text(text) => text.parse().ok(),
            _ => None,
        })
    }

    /// `true` or `false`, put into `into`.
    pub fn flag(&mut self, key: &str, into: &mut bool) {
        let found = self.take(key, "true or false", |value| match value {
            Value::Flag(flag) => Some(*flag),
            _ => None,
        });
        *into = found.unwrap_or(*into);
    }

    /// A whole number within a range, put into `into`.
    pub fn number<T>(&mut self, key: &str, range: std::ops::RangeInclusive<T>, into: &mut T)
    where
        T: FromStr + PartialOrd + Copy + std::fmt::Display,
    {
        let wanted = format!("a whole number from {} to {}", range.start(), range.end());
        let found = self.take(key, &wanted, |value| match value {
            Value::Number(digits) => digits.parse().ok().filter(|number| range.contains(number)),
            _ => None,
        });
        *into = found.unwrap_or(*into);
    }

    /// A list of texts that must all parse, put into `into`.
    pub fn list<T: FromStr>(&mut self, key: &str, wanted: &str, into: &mut Vec<T>) {
        let wanted = format!("a list of {wanted}");
        let found = self.take(key, &wanted, |value| match value {
            Value::List(items) => items.iter().map(|item| item.parse().ok()).collect(),
            _ => None,
        });
        if let Some(list) = found {
            *into = list;
        }
    }

    /// One of several words, put into `into`.
    pub fn word<T: Copy>(&mut self, key: &str, words: &[(&str, T)], into: &mut T) {
        let list: Vec<String> = words.iter().map(|(word, _)| format!("\"{word}\"")).collect();
        let found = self.take(key, &format!("one of {}", list.join(", ")), |value| match value {
            Value::Text(text) => words.iter().find(|(word, _)| word == text).map(|(_, meaning)| *meaning),
            _ => None,
        });
        *into = found.unwrap_or(*into);
    }
}

impl Value {
    fn of(value: &DeValue<'_>) -> Self {
        match value {
            DeValue::String(text) => Self::Text(text.to_string()),
            DeValue::Integer(number) if number.radix() == 10 => Self::Number(number.as_str().replace('_', "")),
            DeValue::Boolean(flag) => Self::Flag(*flag),
            DeValue::Array(items) => {
                let texts = items.iter().map(|item| match Spanned::get_ref(item) {
                    DeValue::String(text) => Some(text.to_string()),
                    _ => None,
                });
                texts.collect::<Option<Vec<String>>>().map_or(Self::Other, Self::List)
            }
            _ => Self::Other,
        }
    }
}

fn line_of(text: &str, offset: usize) -> usize {
    text.bytes().take(offset).filter(|byte| *byte == b'\n').count() + 1
}

/// The known key that a mistyped one is closest to, if one is close.
fn nearest<'k>(key: &str, known: &[&'k str]) -> Option<&'k str> {
    let far = key.len() / 3 + 2;
    let sections = known.iter().filter_map(|candidate| candidate.split_once('.').map(|(section, _)| section));
    let scored = known.iter().copied().chain(sections).map(|candidate| (distance(key, candidate), candidate));
    // The right key in the wrong section is close too.
    let last = key.rsplit('.').next().unwrap_or(key);
    let moved = known.iter().find(|candidate| candidate.rsplit('.').next() == Some(last));
    scored.filter(|(score, _)| *score <= far).min().map(|(_, near)| near).or(moved.copied())
}

/// Levenshtein's distance.
fn distance(left: &str, right: &str) -> usize {
    let mut row: Vec<usize> = (0..=right.len()).collect();
    for (i, a) in left.bytes().enumerate() {
        let mut diagonal = i;
        let mut before = i + 1;
        let mut next = vec![before];
        for (b, above) in right.bytes().zip(row.iter().skip(1)) {
            let cost = (diagonal + usize::from(a != b)).min(above + 1).min(before + 1);
            diagonal = *above;
            before = cost;
            next.push(cost);
        }
        row = next;
    }
    row.last().copied().unwrap_or(0)
}

/// A wait: digits and one of `s`, `m`, `h`, `d`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wait(pub Duration);

impl FromStr for Wait {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let unit = text.chars().last().ok_or(())?;
        let digits = text.strip_suffix(unit).ok_or(())?;
        let count: u32 = digits.parse().map_err(|_| ())?;
        let secs = match unit {
            's' => 1,
            'm' => 60,
            'h' => 3600,
            'd' => 86_400,
            _ => return Err(()),
        };
        Ok(Self(Duration::from_secs(u64::from(count) * secs)))
    }
}
