//! Files beside the database: mail data and uploads, including those that no committed row names yet.

pub(crate) mod objects;
pub(crate) mod uncommitted;
