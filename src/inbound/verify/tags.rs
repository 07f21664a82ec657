//! Tag lists of TXT records (RFC 6376 §3.2): those of keys, and of DMARC, which uses the same syntax.

/// The tags of a record.
pub(crate) struct Tags<'t>(Vec<(&'t str, &'t str)>);

impl<'t> Tags<'t> {
    /// Parses the list between the semicolons; text that is no tag is skipped.
    pub(crate) fn parse(text: &'t str) -> Self {
        let tags = text.split(';').filter_map(|tag| tag.split_once('='));
        Self(tags.map(|(name, value)| (name.trim(), value.trim())).collect())
    }

    /// Returns the value of a tag; the first value of a repeated name.
    pub(crate) fn get(&self, name: &str) -> Option<&'t str> {
        self.0.iter().find(|(known, _)| *known == name).map(|(_, value)| *value)
    }

    /// True if the list begins with this tag.
    pub(crate) fn begins_with(&self, name: &str, value: &str) -> bool {
        self.0.first() == Some(&(name, value))
    }

    /// True if a name is repeated, which makes the list invalid (RFC 6376 §3.2).
    pub(crate) fn has_repeated(&self) -> bool {
        let mut names: Vec<&str> = self.0.iter().map(|(name, _)| *name).collect();
        names.sort_unstable();
        names.array_windows().any(|[one, next]| one == next)
    }
}
