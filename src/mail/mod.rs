//! The vocabulary of mail: addresses, envelopes, replies, header fields, MIME, trace fields. All of it is pure: no
//! I/O, no async, no module of the crate but `clock`. What we parse from received mail goes to `mime`, what we write
//! into headers to `header_value` and `trace`, SMTP replies to `reply`, delivery reports to `report`.

pub(crate) mod address;
pub(crate) mod date;
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
