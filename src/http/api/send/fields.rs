//! The fields of a message to send, checked in the order of contract 8.1.

use std::collections::HashSet;

use serde::Deserialize;
use serde_json::Value;
use utoipa::ToSchema;

use crate::clock::Timestamp;
pub(crate) use crate::http::body::text;
use crate::http::body::{Lenient, Members, Texts};
use crate::http::error::{ApiError, Code};
use crate::mail::mailbox_list::{MailboxListError, NamedMailbox, parse_list, parse_one};
use crate::mail::mime;
use crate::outbound::message::custom_headers;
use crate::outbound::message::template::MergeData;
use crate::outbound::submit::send_at;
use crate::outbound::submit::send_at::BadSchedule;

/// To, Cc and Bcc of one message (contract 1.9).
pub(crate) const MAX_RECIPIENTS: usize = 50;
const MAX_SUBJECT_CHARS: usize = 998;
const MAX_HEADERS: usize = 50;
const MAX_HEADER_NAME: usize = 100;
const MAX_HEADER_VALUE: usize = 4096;
const MAX_METADATA: usize = 20;
const MAX_METADATA_KEY: usize = 64;
const MAX_METADATA_TEXT: usize = 512;

/// Mailboxes: a string with one or more of them, or a list of such strings.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(untagged)]
pub(crate) enum Mailboxes {
    /// `a@b`, `Name <a@b>`, several separated by commas.
    One(String),
    /// A list of such strings.
    Many(Vec<String>),
}

/// A time: milliseconds or a string.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(untagged)]
pub(crate) enum SendTime {
    /// Milliseconds since the epoch; fractions are ignored.
    Millis(f64),
    /// ISO 8601, `now`, `tomorrow`, `in 2 hours`, or milliseconds as text.
    Text(String),
}

fn bad(code: Code, field: &'static str) -> ApiError {
    ApiError::at(code, field)
}

fn list_error(error: MailboxListError, field: &'static str) -> ApiError {
    let code = match error {
        MailboxListError::ControlCharacter => Code::BadHeader,
        MailboxListError::TooMany => Code::TooManyRecipients,
        MailboxListError::Malformed | MailboxListError::Several => Code::BadAddress,
    };
    ApiError::field(code, field, format!("{field}: {error}"))
}

/// Reads the mailbox of From.
pub(crate) fn sender(from: Lenient<String>) -> Result<NamedMailbox, ApiError> {
    let text = from.required(|| bad(Code::BadAddress, "from"))?;
    let from = parse_one(&text).map_err(|error| list_error(error, "from"))?;
    if from.mailbox.has_invisible_characters() {
        return Err(ApiError::field(Code::BadAddress, "from", "from: the address holds characters that nobody sees"));
    }
    if mime::sole_author(from.mailbox.to_string().as_bytes()).is_none() {
        return Err(ApiError::field(
            Code::BadAddress,
            "from",
            "from: not every mail program reads this as one address",
        ));
    }
    Ok(from)
}

/// One mailbox.
pub(crate) fn mailbox(text: &str, field: &'static str) -> Result<NamedMailbox, ApiError> {
    parse_one(text).map_err(|error| list_error(error, field))
}

/// Reads the mailboxes of an optional field.
pub(crate) fn mailboxes(given: Lenient<Mailboxes>, field: &'static str) -> Result<Vec<NamedMailbox>, ApiError> {
    let texts = match given.optional(|| bad(Code::BadAddress, field))? {
        None => return Ok(Vec::new()),
        Some(Mailboxes::One(text)) => vec![text],
        Some(Mailboxes::Many(texts)) => texts,
    };
    let mut all = Vec::new();
    for text in texts.iter().filter(|text| !text.trim().is_empty()) {
        all.extend(some_mailboxes(text).map_err(|error| list_error(error, field))?);
        if all.len() > MAX_RECIPIENTS {
            return Err(bad(Code::TooManyRecipients, field));
        }
    }
    Ok(all)
}

/// Parses a list, or else a single mailbox.
fn some_mailboxes(text: &str) -> Result<Vec<NamedMailbox>, MailboxListError> {
    parse_list(text).or_else(|error| match error {
        MailboxListError::Malformed => parse_one(text).map(|one| vec![one]),
        _ => Err(error),
    })
}

/// Reads To, Cc and Bcc; each recipient is kept once, case-insensitively, in the first field that names it.
pub(crate) fn recipients(
    to: Lenient<Mailboxes>,
    cc: Lenient<Mailboxes>,
    bcc: Lenient<Mailboxes>,
) -> Result<[Vec<NamedMailbox>; 3], ApiError> {
    let to = mailboxes(to, "to")?;
    if to.is_empty() {
        return Err(bad(Code::NoRecipients, "to"));
    }
    let (cc, bcc) = (mailboxes(cc, "cc")?, mailboxes(bcc, "bcc")?);
    if to.len() + cc.len() + bcc.len() > MAX_RECIPIENTS {
        return Err(bad(Code::TooManyRecipients, "to"));
    }
    let mut seen = HashSet::new();
    let mut once = |list: Vec<NamedMailbox>| -> Vec<_> {
        list.into_iter().filter(|one| seen.insert(one.mailbox.canonical())).collect()
    };
    Ok([once(to), once(cc), once(bcc)])
}

/// Reads an optional name or id; blanks count as absent.
pub(crate) fn name(given: Lenient<String>, field: &'static str) -> Result<Option<String>, ApiError> {
    Ok(text(given, field)?.map(|text| text.trim().to_owned()).filter(|text| !text.is_empty()))
}

/// Checks the type of a flag without effect.
pub(crate) fn check_flag(given: Lenient<bool>, field: &'static str) -> Result<(), ApiError> {
    given.optional(|| ApiError::field(Code::BadRequest, field, format!("{field} must be true or false"))).map(|_| ())
}

/// Checks a subject.
pub(crate) fn check_subject(subject: Option<&str>) -> Result<(), ApiError> {
    let Some(subject) = subject else { return Ok(()) };
    if subject.chars().any(char::is_control) {
        return Err(ApiError::field(Code::BadHeader, "subject", "subject must not hold control characters"));
    }
    if subject.chars().count() > MAX_SUBJECT_CHARS {
        return Err(ApiError::field(Code::BadRequest, "subject", "a subject has at most 998 characters"));
    }
    Ok(())
}

fn bad_header(message: String) -> ApiError {
    ApiError::field(Code::BadHeader, "headers", message)
}

/// Refuses too many custom header fields (contract 1.9).
pub(crate) fn check_header_count(headers: usize) -> Result<(), ApiError> {
    if headers <= MAX_HEADERS {
        return Ok(());
    }
    Err(bad_header(format!("a message has at most {MAX_HEADERS} headers of your own")))
}

/// Converts a header's value: a string, number or bool, or a list of one. Null and an empty string count as absent.
fn header_text(value: Value) -> Result<Option<String>, Value> {
    match value {
        Value::Null => Ok(None),
        Value::String(text) => Ok(Some(text).filter(|text| !text.is_empty())),
        Value::Number(number) => Ok(Some(number.to_string())),
        Value::Bool(flag) => Ok(Some(flag.to_string())),
        Value::Array(mut list) if list.len() <= 1 => match list.pop() {
            Some(inner @ (Value::Array(_) | Value::Object(_))) => Err(inner),
            inner => inner.map_or(Ok(None), header_text),
        },
        other => Err(other),
    }
}

/// Reads custom header fields; fields that describe the MIME structure are dropped.
pub(crate) fn headers(given: Lenient<Texts>) -> Result<Vec<(String, String)>, ApiError> {
    let object = given.optional(|| bad_header("headers must be an object of strings".to_owned()))?;
    let object = object.unwrap_or_default().0;
    check_header_count(object.len())?;
    let mut headers = Vec::with_capacity(object.len());
    for (name, value) in object {
        let text = header_text(value).map_err(|_| bad_header(format!("{name}: the value must be a string")))?;
        let Some(value) = text else { continue };
        if name.chars().count() > MAX_HEADER_NAME || value.chars().count() > MAX_HEADER_VALUE {
            let message =
                format!("a header's name has at most {MAX_HEADER_NAME} characters, its value {MAX_HEADER_VALUE}");
            return Err(bad_header(message));
        }
        let written =
            custom_headers::written(&name, &value).map_err(|refused| bad_header(format!("{name}: {refused}")))?;
        let Some(value) = written else { continue };
        if headers.iter().any(|(known, _): &(String, String)| known.eq_ignore_ascii_case(&name)) {
            return Err(bad_header(format!("{name}: this header is given twice")));
        }
        headers.push((name, value));
    }
    Ok(headers)
}

/// Reads the values of merge tags.
pub(crate) fn template_data(given: Lenient<Texts>) -> Result<Option<MergeData>, ApiError> {
    let Some(Texts(object)) = given.optional(|| bad(Code::BadTemplateData, "templateData"))? else {
        return Ok(None);
    };
    MergeData::from_json(&object)
        .map(Some)
        .map_err(|error| ApiError::field(Code::BadTemplateData, "templateData", error.to_string()))
}

/// Reads the time to send; `None` is now.
pub(crate) fn scheduled_at(given: Lenient<SendTime>, now: Timestamp) -> Result<Option<Timestamp>, ApiError> {
    let at = match given.optional(|| bad(Code::BadSchedule, "scheduledAt"))? {
        None => return Ok(None),
        Some(SendTime::Millis(millis)) => send_at::from_millis(millis, now),
        Some(SendTime::Text(text)) if text.trim().is_empty() => return Ok(None),
        Some(SendTime::Text(text)) => send_at::from_text(&text, now),
    };
    at.map_err(|error: BadSchedule| ApiError::field(Code::BadSchedule, "scheduledAt", error.to_string()))
}

/// Reads metadata, as JSON.
pub(crate) fn metadata(given: Lenient<Members>) -> Result<Option<String>, ApiError> {
    let Some(Members(object)) = given.optional(|| bad(Code::BadMetadata, "metadata"))? else { return Ok(None) };
    let fits = |(key, value): (&String, &Value)| {
        let scalar = match value {
            Value::String(text) => text.chars().count() <= MAX_METADATA_TEXT,
            Value::Number(_) | Value::Bool(_) | Value::Null => true,
            Value::Array(_) | Value::Object(_) => false,
        };
        scalar && (1..=MAX_METADATA_KEY).contains(&key.chars().count())
    };
    if object.len() > MAX_METADATA || !object.iter().all(fits) {
        return Err(bad(Code::BadMetadata, "metadata"));
    }
    Ok(Some(Value::Object(object).to_string()))
}
