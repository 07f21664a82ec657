//! JSON read into the types that an endpoint takes, never into a tree: what nobody asks for is stepped over, and a
//! document that would be large in memory is refused before anything is built of it (contract 1.6, 1.9).

use std::collections::HashSet;
use std::fmt;

use serde::Deserialize;
use serde::de::value::MapDeserializer;
use serde::de::{DeserializeOwned, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::error::{ApiError, Code};

/// How deep a document may be nested (contract 1.6).
const MAX_DEPTH: usize = 64;
/// How many values and names a document may have (contract 1.9).
const MAX_VALUES: usize = 100_000;
/// What one of them may take in memory, in octets, beside its text.
const VALUE_COST: usize = 200;

/// A field whose type is judged in its turn, after the fields before it (contract 1.7), perhaps with a code of its own:
/// its value, if it has the right type.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Loose<T> {
    /// Not given, or null.
    #[default]
    Absent,
    /// Of the right type.
    Given(T),
    /// Of another type.
    Wrong,
}

impl<'de, T: DeserializeOwned> Deserialize<'de> for Loose<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = <&RawValue>::deserialize(deserializer)?.get();
        if text == "null" {
            return Ok(Self::Absent);
        }
        Ok(serde_json::from_str(text).map_or(Self::Wrong, Self::Given))
    }
}

impl<T> Loose<T> {
    /// The value; neither absent nor wrong.
    ///
    /// # Errors
    /// `error`, when it is one of them.
    pub fn required(self, error: impl FnOnce() -> ApiError) -> Result<T, ApiError> {
        match self {
            Self::Given(value) => Ok(value),
            Self::Absent | Self::Wrong => Err(error()),
        }
    }

    /// The value, if there is one.
    ///
    /// # Errors
    /// `error`, when it has another type.
    pub fn optional(self, error: impl FnOnce() -> ApiError) -> Result<Option<T>, ApiError> {
        match self {
            Self::Given(value) => Ok(Some(value)),
            Self::Absent => Ok(None),
            Self::Wrong => Err(error()),
        }
    }
}

/// A JSON object as it was sent, whose form is right.
#[derive(Debug)]
pub struct Object {
    text: String,
    values: usize,
}

impl Object {
    /// The object of a body, which is `{}` when it is empty.
    ///
    /// # Errors
    /// 400 `bad_json`.
    pub fn parse(bytes: Vec<u8>) -> Result<Self, ApiError> {
        let no_json = |why: &dyn fmt::Display| ApiError::new(Code::BadJson, format!("the body is no JSON: {why}"));
        if bytes.iter().all(u8::is_ascii_whitespace) {
            return Ok(Self { text: "{}".to_owned(), values: 0 });
        }
        let text = String::from_utf8(bytes).map_err(|error| no_json(&error))?;
        let values = measure(&text)?;
        let value: &RawValue = serde_json::from_str(&text).map_err(|error| no_json(&error))?;
        if !value.get().starts_with('{') {
            return Err(Code::BadJson.into());
        }
        Ok(Self { text, values })
    }

    /// What its fields may take in memory, in octets.
    pub const fn cost(&self) -> usize {
        self.text.len().saturating_add(self.values.saturating_mul(VALUE_COST))
    }

    /// Its fields; unknown ones are ignored, null counts as absent, of several with one name the last counts.
    ///
    /// # Errors
    /// 400 `bad_request` that names the field of a wrong type.
    pub fn fields<T: DeserializeOwned>(&self) -> Result<T, ApiError> {
        let fields = self.shallow()?;
        let fields = MapDeserializer::new(fields.iter().map(|(name, value)| (name.as_str(), *value)));
        serde_path_to_error::deserialize::<_, T>(fields).map_err(|error| {
            let field = error.path().iter().next().map(ToString::to_string).unwrap_or_default();
            let error: serde_json::Error = error.into_inner();
            let why = error.to_string();
            // Where in the value it is says nothing to the client.
            let why = why.rsplit_once(" at line ").map_or(why.as_str(), |(why, _)| why);
            let message = format!("{field}: {why}");
            ApiError::field(Code::BadRequest, field, message)
        })
    }

    /// Whether there is a field, null or not.
    pub fn has(&self, name: &str) -> bool {
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

/// The fields of an object, their values unread.
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

/// How many values and names a document has. It is looked at before anything is built of it.
fn measure(text: &str) -> Result<usize, ApiError> {
    let refused = |why: String| Err(ApiError::new(Code::BadJson, why));
    let (mut depth, mut values) = (0_usize, 0_usize);
    let mut rest = text.as_bytes();
    while let Some((byte, behind)) = rest.split_first() {
        rest = behind;
        match byte {
            b'"' => {
                let Some(behind) = after_string(rest) else {
                    return refused("the body is no JSON: it has half of a surrogate pair".to_owned());
                };
                rest = behind;
            }
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

/// What stands behind a string whose quotation mark was read; `None`: it names half of a character.
fn after_string(mut rest: &[u8]) -> Option<&[u8]> {
    /// The four digits behind `\u`, if that is what stands there.
    fn unit(text: &[u8]) -> Option<u16> {
        let digits = text.strip_prefix(b"\\u")?.get(..4)?;
        u16::from_str_radix(str::from_utf8(digits).ok()?, 16).ok()
    }
    while let Some(at) = memchr::memchr2(b'"', b'\\', rest) {
        let (_, found) = rest.split_at_checked(at)?;
        if found.first() == Some(&b'"') {
            return found.get(1..);
        }
        let length = match unit(found) {
            Some(0xD800..=0xDBFF) => {
                let low = unit(found.get(6..)?);
                low.filter(|low| (0xDC00..=0xDFFF).contains(low))?;
                12
            }
            Some(0xDC00..=0xDFFF) => return None,
            Some(_) => 6,
            // What is malformed is found by the parser.
            None => 2,
        };
        rest = found.get(length..).unwrap_or_default();
    }
    Some(&[])
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests may panic")]

    use serde_json::{Map, Value};

    use super::*;

    #[derive(Debug, Deserialize, PartialEq)]
    struct Fields {
        name: Option<String>,
        #[serde(default)]
        url: Loose<String>,
        #[serde(default)]
        list: Loose<Vec<Fields>>,
    }

    fn fields_of(text: &str) -> Result<Fields, ApiError> {
        Object::parse(text.as_bytes().to_vec())?.fields()
    }

    #[test]
    fn an_empty_body_and_null_are_absent_fields() {
        let absent = Fields { name: None, url: Loose::Absent, list: Loose::Absent };
        for text in ["", "  \r\n", "{}", " {} ", r#"{"name":null,"url":null,"other":[1]}"#] {
            assert_eq!(fields_of(text).unwrap(), absent, "{text}");
        }
    }

    #[test]
    fn a_wrong_type_names_its_field_and_a_loose_one_waits_for_its_own_error() {
        let error = fields_of(r#"{"name":5}"#).unwrap_err();
        assert_eq!((error.code(), error.field.as_deref()), (Code::BadRequest, Some("name")));
        assert_eq!(error.message, "name: invalid type: integer `5`, expected a string");
        assert_eq!(fields_of(r#"{"url":5}"#).unwrap().url, Loose::Wrong);
        let nested = fields_of(r#"{"list":[{"url":"a\/b"},{"url":{}}]}"#).unwrap().list;
        let Loose::Given(nested) = nested else { unreachable!("{nested:?}") };
        assert_eq!(
            nested.into_iter().map(|one| one.url).collect::<Vec<_>>(),
            [Loose::Given("a/b".into()), Loose::Wrong]
        );
        assert_eq!(fields_of(r#"{"list":[{"name":5}]}"#).unwrap().list, Loose::Wrong);
    }

    #[test]
    fn of_several_fields_with_one_name_the_last_counts() {
        let object = Object::parse(br#"{"name":5,"url":"a","name":"b","n\u0061me":"c"}"#.to_vec()).unwrap();
        let fields: Fields = object.fields().unwrap();
        assert_eq!((fields.name.as_deref(), fields.url), (Some("c"), Loose::Given("a".to_owned())));
        assert!(object.has("url") && !object.has("list"));
    }

    #[test]
    fn what_is_no_object_or_too_deep_is_refused() {
        let broken = ["[]", "5", "{", "\"x\"", "{}x", "\u{feff}{}", r#"{"a":"\ud800"}"#, r#"{"a":"\udc00\ud800"}"#];
        for text in broken.into_iter().chain([r#"{"a":"\ud800\u0041"}"#, r#"{"a":"\x"}"#, r#"{"a":"#, "{\"a"]) {
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
            data: Loose<Map<String, Value>>,
        }
        let data: Data = Object::parse(br#"{"data":{"a":1,"b":[true]}}"#.to_vec()).unwrap().fields().unwrap();
        let Loose::Given(data) = data.data else { unreachable!("it is a map") };
        assert_eq!(Value::Object(data).to_string(), r#"{"a":1,"b":[true]}"#);
    }
}
