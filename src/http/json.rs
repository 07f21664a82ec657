//! JSON deserialized into the types of an endpoint, never into a tree: unknown fields are skipped, and a document that
//! would be large in memory is refused before anything is built from it (contract 1.6, 1.9).

use std::collections::HashSet;
use std::fmt;

use serde::Deserialize;
use serde::de::value::MapDeserializer;
use serde::de::{DeserializeOwned, Deserializer, Error as _, MapAccess, Visitor};
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use super::error::{ApiError, Code};

const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";
/// Nesting limit of a document (contract 1.6).
const MAX_DEPTH: usize = 64;
/// Limit of values and names in a document (contract 1.9).
const MAX_VALUES: usize = 100_000;
/// Memory that one of them may take in addition to its text, in octets.
const VALUE_COST: usize = 200;

/// A field whose type error is reported in field order (contract 1.7), possibly with a narrower code. Null and an empty
/// string count as absent (contract 1.1).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum Lenient<T> {
    /// Not given, null, or an empty string.
    #[default]
    Absent,
    /// Of the right type.
    Given(T),
    /// Of another type.
    Wrong,
}

impl<'de, T: DeserializeOwned> Deserialize<'de> for Lenient<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = <&RawValue>::deserialize(deserializer)?.get();
        // Clients send an empty string for a form field that was not filled in.
        if matches!(text, "null" | "\"\"") {
            return Ok(Self::Absent);
        }
        Ok(serde_json::from_str(text).map_or(Self::Wrong, Self::Given))
    }
}

/// A string that counts even if empty: an empty password is wrong, not absent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct AllowEmpty(pub(crate) Lenient<String>);

impl<'de> Deserialize<'de> for AllowEmpty {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = <&RawValue>::deserialize(deserializer)?;
        if text.get() == "\"\"" {
            return Ok(Self(Lenient::Given(String::new())));
        }
        Lenient::deserialize(text).map(Self).map_err(D::Error::custom)
    }
}

/// An object with any members. An empty list is accepted too: PHP encodes an empty object as one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Members(pub(crate) Map<String, Value>);

impl<'de> Deserialize<'de> for Members {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match Value::deserialize(deserializer)? {
            Value::Object(members) => Ok(Self(members)),
            Value::Array(list) if list.is_empty() => Ok(Self::default()),
            _ => Err(D::Error::custom("expected an object")),
        }
    }
}

/// As [`Members`], with values that are used as text: a number keeps its spelling, since it may have more digits than a
/// float can hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Texts(pub(crate) Map<String, Value>);

impl<'de> Deserialize<'de> for Texts {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let given = <&RawValue>::deserialize(deserializer)?;
        if !given.get().starts_with('{') {
            return Members::deserialize(given).map(|Members(none)| Self(none)).map_err(D::Error::custom);
        }
        let Shallow(fields) = Shallow::deserialize(given).map_err(D::Error::custom)?;
        let fields = fields.into_iter().map(|(name, value)| Ok((name, as_written(value, true)?)));
        fields.collect::<serde_json::Result<_>>().map(Self).map_err(D::Error::custom)
    }
}

/// Reads a value with its number as text; in a list, those of its items.
fn as_written(value: &RawValue, is_outer: bool) -> serde_json::Result<Value> {
    match value.get().as_bytes().first() {
        Some(b'-' | b'0'..=b'9') => Ok(Value::String(value.get().to_owned())),
        Some(b'[') if is_outer => {
            let list: Vec<&RawValue> = serde_json::from_str(value.get())?;
            list.into_iter().map(|inner| as_written(inner, false)).collect()
        }
        _ => serde_json::from_str(value.get()),
    }
}

impl<T> Lenient<T> {
    /// Returns the value.
    ///
    /// # Errors
    /// `error` if it is absent or wrong.
    pub(crate) fn required(self, error: impl FnOnce() -> ApiError) -> Result<T, ApiError> {
        match self {
            Self::Given(value) => Ok(value),
            Self::Absent | Self::Wrong => Err(error()),
        }
    }

    /// Returns the value, if given.
    ///
    /// # Errors
    /// `error` if it has another type.
    pub(crate) fn optional(self, error: impl FnOnce() -> ApiError) -> Result<Option<T>, ApiError> {
        match self {
            Self::Given(value) => Ok(Some(value)),
            Self::Absent => Ok(None),
            Self::Wrong => Err(error()),
        }
    }
}

/// The text of a well-formed JSON object.
#[derive(Debug)]
pub(crate) struct Object {
    text: String,
    values: usize,
}

impl Object {
    /// Parses a body; an empty one is `{}`.
    ///
    /// # Errors
    /// 400 `bad_json`.
    pub(crate) fn parse(mut bytes: Vec<u8>) -> Result<Self, ApiError> {
        let no_json = |why: &dyn fmt::Display| ApiError::new(Code::BadJson, format!("the body is no JSON: {why}"));
        // RFC 8259 §8.1: a byte order mark may be ignored.
        if bytes.starts_with(BYTE_ORDER_MARK) {
            bytes.drain(..BYTE_ORDER_MARK.len());
        }
        if bytes.iter().all(u8::is_ascii_whitespace) {
            return Ok(Self { text: "{}".to_owned(), values: 0 });
        }
        let values = measure(&mut bytes)?;
        let text = String::from_utf8(bytes).map_err(|error| no_json(&error))?;
        let value: &RawValue = serde_json::from_str(&text).map_err(|error| no_json(&error))?;
        if !value.get().starts_with('{') {
            return Err(Code::BadJson.into());
        }
        Ok(Self { text, values })
    }

    /// Returns an upper bound of the memory that its fields take, in octets.
    pub(crate) const fn cost(&self) -> usize {
        self.text.len().saturating_add(self.values.saturating_mul(VALUE_COST))
    }

    /// Deserializes its fields; unknown ones are ignored, null counts as absent, and of duplicates the last counts.
    ///
    /// # Errors
    /// 400 `bad_request` naming the field of a wrong type.
    pub(crate) fn fields<T: DeserializeOwned>(&self) -> Result<T, ApiError> {
        let fields = self.shallow()?;
        let fields = MapDeserializer::new(fields.iter().map(|(name, value)| (name.as_str(), *value)));
        serde_path_to_error::deserialize::<_, T>(fields).map_err(|error| {
            let field = error.path().iter().next().map(ToString::to_string).unwrap_or_default();
            let error: serde_json::Error = error.into_inner();
            let why = error.to_string();
            // The position within the value is of no use to the client.
            let why = why.rsplit_once(" at line ").map_or(why.as_str(), |(why, _)| why);
            let message = format!("{field}: {why}");
            ApiError::field(Code::BadRequest, field, message)
        })
    }

    /// Returns true if there is a field of this name, null or not.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.shallow().is_ok_and(|fields| fields.iter().any(|(known, _)| known == name))
    }

    fn shallow(&self) -> Result<Vec<(String, &RawValue)>, ApiError> {
        let Shallow(mut fields) =
            serde_json::from_str(&self.text).map_err(|error| ApiError::new(Code::BadJson, error.to_string()))?;
        let mut seen = HashSet::with_capacity(fields.len());
        let last: Vec<bool> = fields.iter().rev().map(|(name, _)| seen.insert(name.clone())).collect();
        let mut last = last.into_iter().rev();
        fields.retain(|_| last.next().unwrap_or(true));
        Ok(fields)
    }
}

/// The fields of an object, with unparsed values.
struct Shallow<'a>(Vec<(String, &'a RawValue)>);

impl<'de> Deserialize<'de> for Shallow<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Fields;
        impl<'de> Visitor<'de> for Fields {
            type Value = Shallow<'de>;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut fields = Vec::new();
                while let Some(field) = map.next_entry()? {
                    fields.push(field);
                }
                Ok(Shallow(fields))
            }
        }
        deserializer.deserialize_map(Fields)
    }
}

/// Counts the values and names of a document before anything is built from it. An unpaired surrogate (RFC 8259 §8.2)
/// is replaced with U+FFFD.
fn measure(text: &mut [u8]) -> Result<usize, ApiError> {
    let refused = |why: String| Err(ApiError::new(Code::BadJson, why));
    let (mut depth, mut values) = (0_usize, 0_usize);
    let mut at = 0;
    while let Some(byte) = text.get(at) {
        at += 1;
        match byte {
            b'"' => at = end_of_string(text, at),
            b'{' | b'[' => {
                (depth, values) = (depth + 1, values + 1);
                if depth > MAX_DEPTH {
                    return refused("the body is nested too deep".to_owned());
                }
            }
            b'}' | b']' => depth = depth.saturating_sub(1),
            b',' | b':' => values += 1,
            _ => {}
        }
    }
    if values > MAX_VALUES {
        return refused(format!("the body has more than {MAX_VALUES} values"));
    }
    Ok(values)
}

/// Returns the end of a string whose opening quotation mark was read; the parser reports malformed escapes.
fn end_of_string(text: &mut [u8], mut at: usize) -> usize {
    /// Returns the code unit of a `\u` escape at `at`, if there is one.
    fn unit(text: &[u8], at: usize) -> Option<u16> {
        let digits = text.get(at..)?.strip_prefix(b"\\u")?.get(..4)?;
        u16::from_str_radix(str::from_utf8(digits).ok()?, 16).ok()
    }
    loop {
        let found = text.get(at..).and_then(|rest| memchr::memchr2(b'"', b'\\', rest));
        let Some(found) = found.map(|found| at + found) else { return text.len() };
        if text.get(found) == Some(&b'"') {
            return found + 1;
        }
        at = match unit(text, found) {
            Some(0xD800..=0xDBFF) if matches!(unit(text, found + 6), Some(0xDC00..=0xDFFF)) => found + 12,
            Some(0xD800..=0xDFFF) => {
                if let Some(digits) = text.get_mut(found + 2..found + 6) {
                    digits.copy_from_slice(b"fffd");
                }
                found + 6
            }
            Some(_) => found + 6,
            None => found + 2,
        };
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests may panic")]

    use super::*;

    #[derive(Debug, Deserialize, PartialEq)]
    struct Fields {
        name: Option<String>,
        #[serde(default)]
        url: Lenient<String>,
        #[serde(default)]
        list: Lenient<Vec<Fields>>,
    }

    fn fields_of(text: &str) -> Result<Fields, ApiError> {
        Object::parse(text.as_bytes().to_vec())?.fields()
    }

    #[test]
    fn an_empty_body_and_null_are_absent_fields() {
        let absent = Fields { name: None, url: Lenient::Absent, list: Lenient::Absent };
        for text in ["", "  \r\n", "{}", " {} ", r#"{"name":null,"url":null,"other":[1]}"#] {
            assert_eq!(fields_of(text).unwrap(), absent, "{text}");
        }
        assert_eq!(fields_of(r#"{"url":"","list": "" }"#).unwrap(), absent);
    }

    #[test]
    fn a_wrong_type_names_its_field_and_a_loose_one_waits_for_its_own_error() {
        let error = fields_of(r#"{"name":5}"#).unwrap_err();
        assert_eq!((error.code(), error.field.as_deref()), (Code::BadRequest, Some("name")));
        assert_eq!(error.message, "name: invalid type: integer `5`, expected a string");
        assert_eq!(fields_of(r#"{"url":5}"#).unwrap().url, Lenient::Wrong);
        let nested = fields_of(r#"{"list":[{"url":"a\/b"},{"url":{}}]}"#).unwrap().list;
        let Lenient::Given(nested) = nested else { unreachable!("{nested:?}") };
        assert_eq!(
            nested.into_iter().map(|one| one.url).collect::<Vec<_>>(),
            [Lenient::Given("a/b".into()), Lenient::Wrong]
        );
        assert_eq!(fields_of(r#"{"list":[{"name":5}]}"#).unwrap().list, Lenient::Wrong);
    }

    #[test]
    fn of_several_fields_with_one_name_the_last_counts() {
        let object = Object::parse(br#"{"name":5,"url":"a","name":"b","n\u0061me":"c"}"#.to_vec()).unwrap();
        let fields: Fields = object.fields().unwrap();
        assert_eq!((fields.name.as_deref(), fields.url), (Some("c"), Lenient::Given("a".to_owned())));
        assert!(object.has("url") && !object.has("list"));
    }

    #[test]
    fn what_is_no_object_or_too_deep_is_refused() {
        let broken = ["[]", "5", "{", "\"x\"", "{}x", "\u{feff}\u{feff}{}", "{}\u{feff}", r#"{"a":"\ud8"}"#];
        for text in broken.into_iter().chain([r#"{"a":"\x"}"#, r#"{"a":"#, "{\"a", "{\"a\":\"\\ud800"]) {
            assert_eq!(fields_of(text).unwrap_err().code(), Code::BadJson, "{text}");
        }
        assert_eq!(Object::parse(vec![b'{', b'"', 0xff, b'"']).unwrap_err().code(), Code::BadJson);
        assert_eq!(fields_of(r#"{"name":"\ud83d\ude00\\\""}"#).unwrap().name.as_deref(), Some("\u{1f600}\\\""));
        let nested = |depth: usize| format!("{{\"a\":{}{}}}", "[".repeat(depth), "]".repeat(depth));
        assert!(fields_of(&nested(63)).is_ok());
        assert_eq!(fields_of(&nested(64)).unwrap_err().code(), Code::BadJson);
        assert!(fields_of(&format!("{{\"a\":\"{}\\\"{}\"}}", "[".repeat(99), "{".repeat(99))).is_ok());
    }

    #[test]
    fn a_document_of_too_many_values_is_refused_wherever_they_stand() {
        let list = |count: usize| format!("{{\"a\":[{}0]}}", "0,".repeat(count));
        assert!(fields_of(&list(MAX_VALUES - 3)).is_ok());
        assert_eq!(fields_of(&list(MAX_VALUES - 2)).unwrap_err().code(), Code::BadJson);
        let objects = format!("{{\"a\":[{}{{}}]}}", "{\"\":0},".repeat(MAX_VALUES / 3));
        assert_eq!(fields_of(&objects).unwrap_err().code(), Code::BadJson);
        let text = format!("{{\"name\":\"{}\"}}", ",:[{".repeat(MAX_VALUES));
        assert!(fields_of(&text).is_ok(), "what stands in a string is text");
    }

    #[test]
    fn a_map_inside_is_read_whole() {
        #[derive(Deserialize)]
        struct Data {
            data: Lenient<Members>,
        }
        let read = |text: &str| -> Data { Object::parse(text.as_bytes().to_vec()).unwrap().fields().unwrap() };
        let Lenient::Given(Members(data)) = read(r#"{"data":{"a":1,"b":[true]}}"#).data else {
            unreachable!("it is a map")
        };
        assert_eq!(Value::Object(data).to_string(), r#"{"a":1,"b":[true]}"#);
        assert_eq!(read(r#"{"data":[ ]}"#).data, Lenient::Given(Members::default()), "PHP's empty array");
        for wrong in [r#"{"data":[0]}"#, r#"{"data":["a"]}"#, r#"{"data":[[]]}"#, r#"{"data":"x"}"#] {
            assert_eq!(read(wrong).data, Lenient::Wrong, "{wrong}");
        }
    }

    #[test]
    fn half_a_surrogate_pair_is_the_replacement_character_wherever_it_stands() {
        for (text, name) in [
            (r#"{"name":"\ud800"}"#, "\u{fffd}"),
            (r#"{"name":"a\uDC00\uD83D\uDE00b"}"#, "a\u{fffd}\u{1f600}b"),
            (r#"{"name":"\ud83d\ud83d\ude00"}"#, "\u{fffd}\u{1f600}"),
            (r#"{"name":"\ud800\u0041"}"#, "\u{fffd}A"),
            (r#"{"name":"\udc00\ud800"}"#, "\u{fffd}\u{fffd}"),
            (r#"{"name":"\\ud800"}"#, "\\ud800"),
            (r#"{"n\u0061me":"\ud83d\ud83d"}"#, "\u{fffd}\u{fffd}"),
        ] {
            assert_eq!(fields_of(text).unwrap().name.as_deref(), Some(name), "{text}");
        }
        assert!(fields_of(r#"{"\udfff":0}"#).is_ok());
    }

    #[test]
    fn a_byte_order_mark_is_no_part_of_the_document() {
        assert_eq!(fields_of("\u{feff}{\"name\":\"b\"}").unwrap().name.as_deref(), Some("b"));
        assert_eq!(fields_of("\u{feff}").unwrap().name, None);
    }
}
