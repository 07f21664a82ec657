//! Merge tags, and the built-in templates (contract 11). Pure.
//!
//! A tag is `{{ key }}`; its value is inserted literally and never expanded again. It is escaped in HTML, and in a
//! subject its control characters become blanks.

use std::collections::HashMap;

use serde_json::{Map, Value};

const MAX_KEY: usize = 64;

/// The values of tags, as text.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct MergeData(HashMap<String, String>);

/// A value other than a text, number, boolean or null.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}: a value must be text, a number, true, false or null")]
pub(crate) struct BadTemplateData(String);

impl MergeData {
    /// Reads values from a JSON object; null becomes an empty text.
    ///
    /// # Errors
    /// A value is an object or an array.
    pub(crate) fn from_json(object: &Map<String, Value>) -> Result<Self, BadTemplateData> {
        let mut data = HashMap::with_capacity(object.len());
        for (key, value) in object {
            let text = match value {
                Value::String(text) => text.clone(),
                Value::Number(number) => number.to_string(),
                Value::Bool(truth) => truth.to_string(),
                Value::Null => String::new(),
                Value::Array(_) | Value::Object(_) => return Err(BadTemplateData(key.clone())),
            };
            data.insert(key.clone(), text);
        }
        Ok(Self(data))
    }

    /// Returns these values, overridden by those of `over`.
    #[must_use]
    pub(crate) fn merged_with(&self, over: &Self) -> Self {
        let mut merged = self.0.clone();
        merged.extend(over.0.iter().map(|(key, value)| (key.clone(), value.clone())));
        Self(merged)
    }

    /// Returns the total size of its keys and values, in octets.
    pub(crate) fn size(&self) -> usize {
        self.0.iter().map(|(key, value)| key.len() + value.len()).sum()
    }

    fn get(&self, key: &str) -> &str {
        self.0.get(key).map_or("", String::as_str)
    }
}

/// Fills a plain text template: values are inserted unchanged.
pub(crate) fn fill_text(template: &str, data: &MergeData) -> String {
    fill(template, data, |value, out| out.push_str(value))
}

/// Fills an HTML template: values are escaped, so that they remain text in element content and in quoted attributes.
pub(crate) fn fill_html(template: &str, data: &MergeData) -> String {
    fill(template, data, |value, out| {
        for c in value.chars() {
            match c {
                '&' => out.push_str("&amp;"),
                '<' => out.push_str("&lt;"),
                '>' => out.push_str("&gt;"),
                '"' => out.push_str("&quot;"),
                '\'' => out.push_str("&#39;"),
                _ => out.push(c),
            }
        }
    })
}

/// Fills a subject template: control characters of values become blanks.
pub(crate) fn fill_subject(template: &str, data: &MergeData) -> String {
    fill(template, data, |value, out| out.extend(value.chars().map(|c| if c.is_control() { ' ' } else { c })))
}

fn fill(template: &str, data: &MergeData, put: impl Fn(&str, &mut String)) -> String {
    let mut out = String::with_capacity(template.len());
    walk(template, |piece| {
        match piece {
            Piece::Text(text) => out.push_str(text),
            Piece::Tag(key) => put(data.get(key), &mut out),
        }
        true
    });
    out
}

/// Returns an upper bound of a filled template's length, in octets, without filling it; `None` if it exceeds `most`.
/// Values may be large, and their tags many.
pub(crate) fn filled_length(template: &str, data: &MergeData, most: usize) -> Option<usize> {
    let mut length: usize = 0;
    walk(template, |piece| {
        length = length.saturating_add(match piece {
            Piece::Text(text) => text.len(),
            Piece::Tag(key) => escaped_length(data.get(key)),
        });
        length <= most
    });
    (length <= most).then_some(length)
}

/// Returns the length of a value in HTML, where it is never shorter than elsewhere.
fn escaped_length(value: &str) -> usize {
    let added = |byte| match byte {
        b'&' | b'\'' => 4,
        b'<' | b'>' => 3,
        b'"' => 5,
        _ => 0,
    };
    value.len().saturating_add(value.bytes().map(added).sum())
}

/// A piece of a template.
enum Piece<'t> {
    /// Literal text.
    Text(&'t str),
    /// A tag with this key.
    Tag(&'t str),
}

/// Passes the pieces of a template to `each` until it returns false.
fn walk<'t>(template: &'t str, mut each: impl FnMut(Piece<'t>) -> bool) {
    let mut rest = template;
    while let Some((before, behind)) = rest.split_once("{{") {
        let more = match tag(behind) {
            Some((key, after)) => {
                rest = after;
                each(Piece::Text(before)) && each(Piece::Tag(key))
            }
            None => {
                // Not a tag; the second brace may begin one.
                let (text, behind) = rest.split_at_checked(before.len() + 1).unwrap_or((rest, ""));
                rest = behind;
                each(Piece::Text(text))
            }
        };
        if !more {
            return;
        }
    }
    each(Piece::Text(rest));
}

/// Returns the key of a tag after its opening braces, and the text after the tag.
fn tag(behind: &str) -> Option<(&str, &str)> {
    let inner = behind.trim_start_matches(' ');
    let length = inner.bytes().take_while(|byte| byte.is_ascii_alphanumeric() || b"_.-".contains(byte)).count();
    let (key, after) = inner.split_at_checked(length)?;
    let after = after.trim_start_matches(' ').strip_prefix("}}")?;
    (1..=MAX_KEY).contains(&length).then_some((key, after))
}

/// A template available to every account.
#[derive(Clone, Copy, Debug)]
pub(crate) struct BuiltIn {
    /// Id: `base_…`
    pub(crate) id: &'static str,
    pub(crate) name: &'static str,
    pub(crate) category: &'static str,
    pub(crate) subject: &'static str,
    pub(crate) html: &'static str,
    /// Plain text version of the same content.
    pub(crate) text: &'static str,
}

macro_rules! built_in {
    ($($id:literal $name:literal $category:literal $subject:literal;)*) => {
        /// The built-in templates.
        pub(crate) const BUILT_IN: &[BuiltIn] = &[$(BuiltIn {
            id: concat!("base_", $id),
            name: $name,
            category: $category,
            subject: $subject,
            html: include_str!(concat!("../../../assets/templates/", $id, ".html")),
            text: include_str!(concat!("../../../assets/templates/", $id, ".txt")),
        },)*];
    };
}

built_in! {
    "welcome" "Welcome" "onboarding" "Welcome to {{product}}, {{name}}";
    "verify_email" "Verify e-mail" "account" "Confirm your e-mail address for {{product}}";
    "password_reset" "Password reset" "account" "Reset your {{product}} password";
    "receipt" "Receipt" "billing" "Your receipt from {{product}}: {{total}}";
    "notification" "Notification" "updates" "{{title}}";
}

/// Finds a built-in template by its id.
pub(crate) fn find_built_in(id: &str) -> Option<&'static BuiltIn> {
    BUILT_IN.iter().find(|template| template.id == id)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests may panic")]

    use std::collections::BTreeSet;

    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    /// Returns the keys of the tags in a text, each once.
    fn keys(template: &str) -> BTreeSet<&str> {
        template.split("{{").skip(1).filter_map(tag).map(|(key, _)| key).collect()
    }

    fn data(value: &Value) -> MergeData {
        MergeData::from_json(value.as_object().unwrap()).unwrap()
    }

    #[test]
    fn tags_are_filled_where_they_stand() {
        let data =
            data(&json!({"name": "Ada <b> & \"co\" '", "n": 5, "x": 1.50, "t": true, "none": null, "a.b-c_d": "k",
            "nested": "{{n}}", "line": "a\r\nb"}));
        assert_eq!(fill_text("Hi {{name}}, {{ n }} {{  x}} {{t }}!", &data), "Hi Ada <b> & \"co\" ', 5 1.5 true!");
        assert_eq!(fill_html("<p>{{name}}</p>", &data), "<p>Ada &lt;b&gt; &amp; &quot;co&quot; &#39;</p>");
        assert_eq!(fill_subject("{{line}}", &data), "a  b");
        for template in ["<p>{{name}}</p>", "{{line}}{{{n}}}{{", "{{x}}{{ missing }}"] {
            assert_eq!(filled_length(template, &data, 99), Some(fill_html(template, &data).len()), "{template}");
        }
        assert_eq!(filled_length("{{n}}{{n}}", &data, 2), Some(2));
        assert_eq!(filled_length("{{n}}{{n}}", &data, 1), None);
        assert_eq!(fill_text("[{{none}}{{missing}}]", &data), "[]");
        assert_eq!(fill_text("{{a.b-c_d}} {{nested}}", &data), "k {{n}}");
        for verbatim in ["{{", "}}", "{{ }}", "{{}}", "{{a b}}", "{{n", "{ {n}}", "{{n} }", "{{ü}}", "{{\n}}"] {
            assert_eq!(fill_text(verbatim, &data), verbatim);
        }
        assert_eq!(fill_text("{{{n}}}", &data), "{5}");
        let long = format!("{{{{{}}}}}", "k".repeat(65));
        assert_eq!(fill_text(&long, &data), long);
    }

    #[test]
    fn values_are_scalars() {
        for bad in [json!({"a": []}), json!({"a": {}})] {
            assert!(MergeData::from_json(bad.as_object().unwrap()).is_err());
        }
        let merged = data(&json!({"a": "1", "b": "2"})).merged_with(&data(&json!({"b": "3"})));
        assert_eq!(fill_text("{{a}}{{b}}", &merged), "13");
    }

    #[test]
    fn built_in_templates_say_the_same_in_both_forms() {
        for template in BUILT_IN {
            let keys = keys(template.html);
            assert_eq!(keys, self::keys(template.text), "{}", template.id);
            assert!(!keys.is_empty() && template.html.len() < 16_000, "{}", template.id);
            assert!(template.html.lines().all(|line| line.len() < 400), "{}", template.id);
        }
        assert_eq!(find_built_in("base_welcome").unwrap().name, "Welcome");
        assert!(find_built_in("tpl_1").is_none());
    }

    proptest! {
        #[test]
        fn without_tags_a_text_stays_as_it_is(text in "[^{]{0,80}") {
            prop_assert_eq!(fill_html(&text, &MergeData::default()), text);
        }
    }
}
