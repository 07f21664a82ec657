//! The dashboard as the server delivers it, and the endpoints that it alone uses.
//!
//! Its behaviour in a browser is tested by `tests/dashboard`.

mod assets;
mod endpoints;
