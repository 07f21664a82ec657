//! Mail made again of what is kept of a message once its raw copy is gone: header fields, text and HTML. Files are
//! gone, and so are signatures.

use mail_builder::MessageBuilder;
use mail_builder::headers::raw::Raw;
use serde_json::{Map, Value};

use super::{ArchivedContent, read_archive};
use crate::store::{self, Error};

/// Fields that described the parts of the original.
const OF_PARTS: &[&str] = &["mime-version", "dkim-signature"];

/// Composes mail of an archived message.
///
/// # Errors
/// [`Error::Corrupt`] if the archived parts cannot be read.
pub(crate) fn rebuild(json: &[u8]) -> store::Result<Vec<u8>> {
    let ArchivedContent { readable, headers } = read_archive(json)?;
    let fields: Map<String, Value> = serde_json::from_str(&headers).map_err(|_| Error::Corrupt("message body"))?;
    let mut mail = MessageBuilder::new();
    for (name, value) in &fields {
        if name.starts_with("content-") || OF_PARTS.contains(&name.as_str()) {
            continue;
        }
        // Repeated fields stand in one value, a line each.
        for line in value.as_str().unwrap_or_default().split('\n') {
            mail = mail.header(title_case(name), Raw::new(line.to_owned()));
        }
    }
    if let Some(html) = readable.html {
        mail = mail.html_body(html);
    }
    if let Some(text) = readable.text {
        mail = mail.text_body(text);
    }
    mail.write_to_vec().map_err(|error| Error::io("composing a message", error))
}

/// Spells a field name as mail programs do: `Message-Id`.
fn title_case(name: &str) -> String {
    let mut is_first = true;
    let spell = |c: char| {
        let spelled = if is_first { c.to_ascii_uppercase() } else { c };
        is_first = c == '-';
        spelled
    };
    name.chars().map(spell).collect()
}
