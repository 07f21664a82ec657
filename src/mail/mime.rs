//! Mail data to fields.
