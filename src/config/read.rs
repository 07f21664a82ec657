//! Reads TOML tables key by key and remembers what was asked for.
//!
//! A key is known because [`Section`] was asked for it, so there is no second list of keys to keep in step. What is
//! wrong becomes a [`Problem`] and the default is used instead, so that one run finds everything.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::ops::Range;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::problem::{Problem, nearest};

/// What a value reader makes of a TOML value: the typed value or what to tell the operator.
pub(super) type Reading<T> = Result<T, String>;

/// The text being read and everything found wrong with it.
pub(super) struct Document<'a> {
    text: &'a str,
    problems: RefCell<Vec<Problem>>,
    /// Every key asked for, with its section: `smtp.listen`.
    known: RefCell<Vec<String>>,
    /// Every key present, with the line it stands on.
    present: RefCell<BTreeMap<String, usize>>,
}

impl<'a> Document<'a> {
    pub(super) fn new(text: &'a str) -> Self {
        let empty = || RefCell::new(Vec::new());
        Self { text, problems: empty(), known: RefCell::default(), present: RefCell::default() }
    }

    /// The line a byte offset is on, counted from 1.
    pub(super) fn line(&self, span: &Range<usize>) -> usize {
        let before = self.text.as_bytes().iter().take(span.start);
        1 + before.filter(|byte| **byte == b'\n').count()
    }

    pub(super) fn problem(&self, key: impl Into<String>, line: Option<usize>, message: impl Into<String>) {
        self.problems.borrow_mut().push(Problem { key: key.into(), line, message: message.into() });
    }

    /// Whether the file has `key`, right or wrong.
    pub(super) fn has(&self, key: &str) -> bool {
        self.present.borrow().contains_key(key)
    }

    /// Adds a problem with a value that can only be judged beside others; `key`'s line is looked up.
    pub(super) fn problem_at(&self, key: &str, message: impl Into<String>) {
        let line = self.present.borrow().get(key).copied();
        self.problem(key, line, message);
    }

    /// All problems in the order of their lines, unknown keys included, and all keys that are known.
    pub(super) fn finish(self) -> (Vec<Problem>, Vec<String>) {
        let known = self.known.into_inner();
        let mut problems = self.problems.into_inner();
        for (key, line) in self.present.into_inner() {
            if !known.contains(&key) {
                let message = unknown(&key, &known);
                problems.push(Problem { key, line: Some(line), message });
            }
        }
        problems.sort_by_key(|problem| problem.line.unwrap_or(usize::MAX));
        (problems, known)
    }
}

fn unknown(key: &str, known: &[String]) -> String {
    let Some(guess) = nearest(key, known) else {
        return "there is no such setting; mailkite.toml.example lists them all".to_owned();
    };
    match guess.rsplit_once('.') {
        Some((section, _)) if key.rsplit_once('.').is_none_or(|(own, _)| own != section) => {
            format!("there is no such setting; did you mean `{guess}`, in the section [{section}]?")
        }
        _ => format!("there is no such setting; did you mean `{guess}`?"),
    }
}

/// One table of the document.
pub(super) struct Section<'d, 't> {
    document: &'d Document<'t>,
    /// With the sections around it, `auth.google`; empty for the top of the file.
    name: String,
    table: Option<&'d DeTable<'t>>,
}

impl<'d, 't> Section<'d, 't> {
    /// The keys above the first `[section]`.
    pub(super) fn top(document: &'d Document<'t>, table: &'d DeTable<'t>) -> Self {
        let top = Self { document, name: String::new(), table: Some(table) };
        top.note_present();
        top
    }

    /// The table `name` of this one; one that is absent reads as empty.
    pub(super) fn section(&self, name: &str) -> Self {
        let mut section = Self { document: self.document, name: self.path(name), table: None };
        if let Some(value) = self.look_up(name) {
            section.table = value.get_ref().as_table();
            if section.table.is_none() {
                let name = &section.name;
                let message = format!("this is a section; write [{name}] on a line of its own and its keys below");
                self.document.problem(name, Some(self.document.line(&value.span())), message);
            }
        }
        section.note_present();
        section
    }

    /// The names of everything in this table, for sections whose names the operator chooses.
    pub(super) fn names(&self) -> Vec<String> {
        self.table.into_iter().flat_map(DeTable::keys).map(|key| key.get_ref().to_string()).collect()
    }

    /// Adds a problem with this section as a whole.
    pub(super) fn problem(&self, message: impl Into<String>) {
        self.document.problem_at(&self.name, message);
    }

    /// The value of `key`, or `default` if it is absent or wrong.
    pub(super) fn value<T>(&self, key: &str, default: T, read: impl Fn(&DeValue<'_>) -> Reading<T>) -> T {
        self.optional(key, read).unwrap_or(default)
    }

    /// The value of `key`, if it is there and right.
    pub(super) fn optional<T>(&self, key: &str, read: impl Fn(&DeValue<'_>) -> Reading<T>) -> Option<T> {
        let value = self.look_up(key)?;
        self.note(key, value, read(value.get_ref()))
    }

    /// The value of `key`; its absence is a problem, told with `example`.
    pub(super) fn required<T>(
        &self,
        key: &str,
        example: &str,
        read: impl Fn(&DeValue<'_>) -> Reading<T>,
    ) -> Option<T> {
        if self.look_up(key).is_none() {
            self.document.problem(self.path(key), None, format!("is required and missing; write: {key} = {example}"));
        }
        self.optional(key, read)
    }

    /// The items of the array at `key`, or `default` if it is absent or anything in it is wrong.
    pub(super) fn list<T>(&self, key: &str, default: Vec<T>, read: impl Fn(&DeValue<'_>) -> Reading<T>) -> Vec<T> {
        let Some(value) = self.look_up(key) else { return default };
        let Some(items) = value.get_ref().as_array() else {
            let shown = super::value::shown(value.get_ref());
            let message = format!("must be a list in brackets, not {shown}; write: {key} = [{shown}]");
            return self.note(key, value, Err(message)).unwrap_or(default);
        };
        let read_all: Vec<_> = items.iter().map(|item| self.note(key, item, read(item.get_ref()))).collect();
        read_all.into_iter().collect::<Option<Vec<T>>>().unwrap_or(default)
    }

    fn note<T>(&self, key: &str, value: &Spanned<DeValue<'t>>, reading: Reading<T>) -> Option<T> {
        let line = self.document.line(&value.span());
        reading.map_err(|message| self.document.problem(self.path(key), Some(line), message)).ok()
    }

    fn look_up(&self, key: &str) -> Option<&'d Spanned<DeValue<'t>>> {
        let path = self.path(key);
        let mut known = self.document.known.borrow_mut();
        if !known.contains(&path) {
            known.push(path);
        }
        self.table?.get(key)
    }

    fn note_present(&self) {
        let keys = self.table.into_iter().flat_map(DeTable::keys);
        let lines = keys.map(|key| (self.path(key.get_ref()), self.document.line(&key.span())));
        self.document.present.borrow_mut().extend(lines);
    }

    fn path(&self, key: &str) -> String {
        if self.name.is_empty() { key.to_owned() } else { format!("{}.{key}", self.name) }
    }
}
