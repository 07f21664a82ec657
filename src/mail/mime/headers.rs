//! The whole header, as contract 5.4 defines it.

use std::cell::OnceCell;

use serde_json::{Map, Value};

use super::Limits;
use super::body::charset_of_texts;
use super::header::Fields;
use super::trace_fields::authserv_id;
use super::walk::walk;
use super::words;

const RESULTS: &str = "authentication-results";

/// Lower-case field names with their decoded values; repeated fields are joined with a line feed, in order of first
/// appearance.
#[derive(Debug, Default)]
pub struct Headers(Map<String, Value>);

impl Headers {
    /// Parses the header of `raw`, within the default limits.
    pub fn read(raw: &[u8]) -> Self {
        let limits = Limits::default();
        let mut fields = Fields::new(raw, 0, &limits);
        let mut headers = Self::default();
        let charset = OnceCell::new();
        while let Some(field) = fields.next(|_| false) {
            let charset = || *charset.get_or_init(|| charset_of_texts(raw, &walk(raw, &limits, |_| {}).leaves));
            let name = String::from_utf8_lossy(field.name).to_ascii_lowercase();
            headers.push(name, &words::decode_text(&words::to_utf_8(field.value, charset)));
        }
        headers
    }

    /// Parses the output of [`Headers::to_json`].
    pub(crate) fn parse(json: &str) -> Option<Self> {
        serde_json::from_str(json).ok().map(Self)
    }

    /// Serializes to a JSON object.
    pub fn to_json(&self) -> String {
        // Serializing strings to memory cannot fail; if it did, an empty object would still be JSON.
        serde_json::to_string(&self.0).unwrap_or_else(|_| "{}".to_owned())
    }

    /// Returns these fields after the trace fields that we prepend to the message. Existing authentication results in
    /// our name are left out: nobody else may write those (RFC 8601 §5).
    pub(crate) fn after_trace(self, trace: &str) -> Self {
        let mut all = Self::read(trace.as_bytes());
        let ours = all.values(RESULTS).find_map(authserv_id);
        for (name, value) in self.0 {
            let forged = |value: &str| name == RESULTS && ours.is_some() && authserv_id(value) == ours;
            // A single value contains no line feed.
            let values = value.as_str().unwrap_or_default().split('\n').filter(|value| !forged(value));
            values.for_each(|value| all.push(name.clone(), value));
        }
        all
    }

    fn values(&self, name: &str) -> impl Iterator<Item = &str> {
        self.0.get(name).and_then(Value::as_str).unwrap_or_default().split('\n')
    }

    fn push(&mut self, name: String, value: &str) {
        match self.0.get_mut(&name) {
            Some(Value::String(values)) => {
                values.push('\n');
                values.push_str(value);
            }
            _ => drop(self.0.insert(name, Value::from(value))),
        }
    }
}
