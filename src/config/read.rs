//! Reads TOML tables key by key and records which keys were requested.
//!
//! A key is known because [`Section`] was asked for it, so there is no second list of keys to keep in step. An
//! invalid value becomes a [`Problem`] and the default is used instead, so that one run finds everything.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::ops::Range;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::problem::{Problem, nearest};
use super::value::{ReadResult, display};

/// The text being read and the problems found in it.
pub(super) struct Document<'a> {
    text: &'a str,
    problems: RefCell<Vec<Problem>>,
    /// Every requested key with its section: `smtp.listen`.
    known: RefCell<Vec<String>>,
    /// Every key in the file with its line.
    present: RefCell<BTreeMap<String, usize>>,
}

impl<'a> Document<'a> {
    pub(super) fn new(text: &'a str) -> Self {
        let empty = || RefCell::new(Vec::new());
        Self { text, problems: empty(), known: RefCell::default(), present: RefCell::default() }
    }

    /// Returns the line of a byte range, from 1.
    pub(super) fn line(&self, span: &Range<usize>) -> usize {
        let before = self.text.as_bytes().iter().take(span.start);
        1 + before.filter(|byte| **byte == b'\n').count()
    }

    pub(super) fn problem(&self, key: impl Into<String>, line: Option<usize>, message: impl Into<String>) {
        self.problems.borrow_mut().push(Problem { key: key.into(), line, message: message.into() });
    }

    /// Returns true if the file has `key`, valid or not.
    pub(super) fn has(&self, key: &str) -> bool {
        self.present.borrow().contains_key(key)
    }

    /// Adds a problem found by comparing values; looks up the line of `key`.
    pub(super) fn problem_at(&self, key: &str, message: impl Into<String>) {
        let line = self.present.borrow().get(key).copied();
        self.problem(key, line, message);
    }

    /// Returns all problems in the order of their lines, unknown keys included, and all known keys.
    pub(super) fn finish(self) -> (Vec<Problem>, Vec<String>) {
        let known = self.known.into_inner();
        let mut problems = self.problems.into_inner();
        for (key, line) in self.present.into_inner() {
            if !known.contains(&key) {
                let message = unknown_key_message(&key, &known);
                problems.push(Problem { key, line: Some(line), message });
            }
        }
        problems.sort_by_key(|problem| problem.line.unwrap_or(usize::MAX));
        (problems, known)
    }
}

fn unknown_key_message(key: &str, known: &[String]) -> String {
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
    /// The path of the section, `auth.google`; empty for the top of the file.
    name: String,
    table: Option<&'d DeTable<'t>>,
}

impl<'d, 't> Section<'d, 't> {
    /// Returns the keys above the first `[section]`.
    pub(super) fn top(document: &'d Document<'t>, table: &'d DeTable<'t>) -> Self {
        let top = Self { document, name: String::new(), table: Some(table) };
        top.record_present();
        top
    }

    /// Returns the table `name` of this one; an absent table reads as empty.
    pub(super) fn section(&self, name: &str) -> Self {
        let mut section = Self { document: self.document, name: self.path(name), table: None };
        if let Some(value) = self.request(name) {
            section.table = value.get_ref().as_table();
            if section.table.is_none() {
                let name = &section.name;
                let message = format!("this is a section; write [{name}] on a line of its own and its keys below");
                self.document.problem(name, Some(self.document.line(&value.span())), message);
            }
        }
        section.record_present();
        section
    }

    /// Returns the names of all entries, for sections whose names the operator chooses.
    pub(super) fn names(&self) -> Vec<String> {
        self.table.into_iter().flat_map(DeTable::keys).map(|key| key.get_ref().to_string()).collect()
    }

    /// Adds a problem with the section as a whole.
    pub(super) fn problem(&self, message: impl Into<String>) {
        self.document.problem_at(&self.name, message);
    }

    /// Returns the value of `key`, or `default` if it is absent or invalid.
    pub(super) fn value<T>(&self, key: &str, default: T, read: impl Fn(&DeValue<'_>) -> ReadResult<T>) -> T {
        self.optional(key, read).unwrap_or(default)
    }

    /// Returns the value of `key`, if it is present and valid.
    pub(super) fn optional<T>(&self, key: &str, read: impl Fn(&DeValue<'_>) -> ReadResult<T>) -> Option<T> {
        let value = self.request(key)?;
        self.record(key, value, read(value.get_ref()))
    }

    /// Returns the value of `key`; if it is absent, adds a problem that shows `example`.
    pub(super) fn required<T>(
        &self,
        key: &str,
        example: &str,
        read: impl Fn(&DeValue<'_>) -> ReadResult<T>,
    ) -> Option<T> {
        if self.request(key).is_none() {
            self.document.problem(self.path(key), None, format!("is required but missing; write: {key} = {example}"));
        }
        self.optional(key, read)
    }

    /// Returns the items of the array at `key`, or `default` if it is absent or any item is invalid.
    pub(super) fn list<T>(&self, key: &str, default: Vec<T>, read: impl Fn(&DeValue<'_>) -> ReadResult<T>) -> Vec<T> {
        let Some(value) = self.request(key) else { return default };
        let Some(items) = value.get_ref().as_array() else {
            let shown = display(value.get_ref());
            let message = format!("must be a list in brackets, not {shown}; write: {key} = [{shown}]");
            return self.record(key, value, Err(message)).unwrap_or(default);
        };
        let read_all: Vec<_> = items.iter().map(|item| self.record(key, item, read(item.get_ref()))).collect();
        read_all.into_iter().collect::<Option<Vec<T>>>().unwrap_or(default)
    }

    fn record<T>(&self, key: &str, value: &Spanned<DeValue<'t>>, reading: ReadResult<T>) -> Option<T> {
        let line = self.document.line(&value.span());
        reading.map_err(|message| self.document.problem(self.path(key), Some(line), message)).ok()
    }

    fn request(&self, key: &str) -> Option<&'d Spanned<DeValue<'t>>> {
        let path = self.path(key);
        let mut known = self.document.known.borrow_mut();
        if !known.contains(&path) {
            known.push(path);
        }
        self.table?.get(key)
    }

    fn record_present(&self) {
        let keys = self.table.into_iter().flat_map(DeTable::keys);
        let lines = keys.map(|key| (self.path(key.get_ref()), self.document.line(&key.span())));
        self.document.present.borrow_mut().extend(lines);
    }

    fn path(&self, key: &str) -> String {
        if self.name.is_empty() { key.to_owned() } else { format!("{}.{key}", self.name) }
    }
}
