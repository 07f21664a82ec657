//! Tag lists of TXT records (RFC 6376 §3.2): those of keys, and of DMARC, which has the same.

/// The tags of a record.
pub(crate) struct Tags<'t>(Vec<(&'t str, &'t str)>);

impl<'t> Tags<'t> {
    /// Reads what stands between the semicolons; what is no tag is left out.
    pub(crate) fn parse(text: &'t str) -> Self {
        let tags = text.split(';').filter_map(|tag| tag.split_once('='));
        Self(tags.map(|(name, value)| (name.trim(), value.trim())).collect())
    }

    /// The value of a tag; a name that stands twice has its first value.
    pub(crate) fn get(&self, name: &str) -> Option<&'t str> {
        self.0.iter().find(|(known, _)| *known == name).map(|(_, value)| *value)
    }

    /// Whether the list begins with this tag.
    pub(crate) fn begins_with(&self, name: &str, value: &str) -> bool {
        self.0.first() == Some(&(name, value))
    }

    /// Whether a name stands twice, so that the list says nothing (RFC 6376 §3.2).
    pub(crate) fn has_repeated(&self) -> bool {
        let mut names: Vec<&str> = self.0.iter().map(|(name, _)| *name).collect();
        names.sort_unstable();
        names.array_windows().any(|[one, next]| one == next)
    }
}
