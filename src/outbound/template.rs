//! Merge tags, and the templates that are built in (contract 11).
