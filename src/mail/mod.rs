//! The vocabulary of mail, pure: addresses, envelopes, replies, MIME, trace fields.

pub(crate) mod address;
pub(crate) mod envelope;
pub(crate) mod header_value;
pub(crate) mod invisible;
pub(crate) mod line;
pub(crate) mod mailbox_list;
pub(crate) mod message_id;
pub(crate) mod mime;
pub(crate) mod reply;
pub(crate) mod report;
pub(crate) mod signed_part;
pub(crate) mod status_code;
pub(crate) mod trace;
pub(crate) mod uri;
pub(crate) mod verification;
