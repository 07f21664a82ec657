//! The vocabulary of mail, pure: addresses, envelopes, replies, MIME, trace fields.

pub mod address;
pub mod envelope;
pub mod header_value;
pub mod invisible;
pub mod line;
pub mod mailbox_list;
pub mod message_id;
pub mod mime;
pub mod reply;
pub mod report;
pub mod signed_part;
pub mod trace;
pub mod uri;
pub mod verification;
