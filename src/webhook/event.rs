//! The JSON of an event (contract 9.6).
