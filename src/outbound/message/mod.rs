//! Mail data of sent messages: composed, rendered, signed and sealed. Pure; nothing here is stored or sent.
//!
//! Uses only `mail`. A field that callers may set goes into [`custom_headers`], one that the server writes into
//! [`compose`].

pub(crate) mod arc;
pub(crate) mod ascii_form;
pub(crate) mod compose;
pub(crate) mod custom_headers;
pub(crate) mod dkim;
pub(crate) mod template;
