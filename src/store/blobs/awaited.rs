//! Objects that a running transaction may come to name, and that the sweep leaves alone meanwhile.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};

/// Names of objects that a running transaction may name; the sweep skips them.
#[derive(Clone, Debug, Default)]
pub(crate) struct AwaitedNames(Arc<Mutex<HashSet<String>>>);

impl AwaitedNames {
    pub(crate) fn contains(&self, name: &str) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).contains(name)
    }

    /// Protects a name until the returned value is dropped.
    pub(crate) fn hold(&self, name: &str) -> Hold {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(name.to_owned());
        Hold { names: self.clone(), name: name.to_owned() }
    }
}

/// Protects a name from the sweep while it lives.
#[derive(Debug)]
pub(crate) struct Hold {
    names: AwaitedNames,
    name: String,
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.names.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.name);
    }
}
