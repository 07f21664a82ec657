//! Files beside the database: mail data and uploads, including those that no committed row names yet.

mod awaited;
pub(crate) mod naming;
pub(crate) mod objects;
pub(crate) mod pending;
pub(crate) mod uncommitted;
