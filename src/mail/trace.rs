//! Trace header fields.
