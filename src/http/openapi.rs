//! The OpenAPI 3.1 document (contract 2.1), made of the router's table and the handlers' types.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};
use utoipa::openapi::{RefOr, Schema};

use super::endpoint::{Class, Endpoint};
use super::error::Code;

const ABOUT: &str = "Mail in over SMTP, out as signed webhooks. Send the credential as `Authorization: Bearer …`: a \
    session token, the account's API key, or a key that is limited to one domain. Times are integers, milliseconds \
    since the Unix epoch. Errors are `{\"error\":\"<sentence>\",\"code\":\"<code>\"}`, with `field` when one field is at \
    fault. Lists are bare arrays, newest first where they are long; `before` is an exclusive cursor.";

/// The document of a table.
pub fn document(table: &[Endpoint], public_url: &str) -> Value {
    let mut paths: Map<String, Value> = Map::new();
    let mut schemas: BTreeMap<String, Value> = BTreeMap::new();
    for endpoint in table.iter().filter(|endpoint| !endpoint.tag.is_empty()) {
        let item = paths.entry(endpoint.path).or_insert_with(|| json!({}));
        if let Value::Object(item) = item {
            item.insert(endpoint.method.as_str().to_lowercase(), operation(endpoint));
        }
        schemas.extend(endpoint.components.iter().map(|(name, schema)| (name.clone(), to_value(schema))));
        let answers = endpoint.response_components.iter();
        schemas.extend(answers.map(|(name, schema)| (name.clone(), always_present(to_value(schema)))));
    }
    schemas.insert("Error".to_owned(), error_schema());
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "mailkite",
            "version": env!("CARGO_PKG_VERSION"),
            "description": ABOUT,
            "license": {"name": "MIT", "identifier": "MIT"},
        },
        "servers": [{"url": public_url}],
        "paths": paths,
        "components": {
            "schemas": schemas,
            "securitySchemes": {"bearer": {"type": "http", "scheme": "bearer"}},
        },
    })
}

fn to_value(schema: &RefOr<Schema>) -> Value {
    serde_json::to_value(schema).unwrap_or_default()
}

fn operation(endpoint: &Endpoint) -> Value {
    let mut parameters: Vec<Value> = path_parameters(endpoint.path);
    parameters.extend(endpoint.query.iter().cloned());
    let description = [endpoint.description, who(endpoint.class)].join(" ");
    let mut operation = json!({
        "operationId": operation_id(endpoint),
        "tags": [endpoint.tag],
        "summary": endpoint.summary,
        "description": description.trim(),
        "parameters": parameters,
        "responses": responses(endpoint),
        "security": if endpoint.class == Class::Public { json!([]) } else { json!([{"bearer": []}]) },
    });
    if let (Value::Object(operation), Some(content)) = (&mut operation, &endpoint.body) {
        operation.insert("requestBody".to_owned(), json!({"content": content}));
    }
    operation
}

const fn who(class: Class) -> &'static str {
    match class {
        Class::Public => "No credential is needed.",
        Class::Any => "Takes a session, the account key, or a scoped key within its domain.",
        Class::Account => "Takes a session or the account key; a scoped key gets 403 `key_scope`.",
        Class::Session => "Takes a session alone; a key gets 403 `session_required`.",
    }
}

fn operation_id(endpoint: &Endpoint) -> String {
    let words = endpoint.path.split(['/', '-', '{', '}']).filter(|word| !word.is_empty());
    words.fold(endpoint.method.as_str().to_lowercase(), |id, word| format!("{id}_{word}"))
}

fn path_parameters(path: &str) -> Vec<Value> {
    let names = path.split('/').filter_map(|segment| segment.strip_prefix('{')?.strip_suffix('}'));
    names.map(|name| json!({"name": name, "in": "path", "required": true, "schema": {"type": "string"}})).collect()
}

fn responses(endpoint: &Endpoint) -> Value {
    let mut all = Map::new();
    let mut success = json!({"description": endpoint.summary});
    if let (Value::Object(success), false) = (&mut success, endpoint.response.is_null()) {
        success.insert("content".to_owned(), endpoint.response.clone());
    }
    all.extend(endpoint.also.map(|status| (status.to_string(), success.clone())));
    all.insert(endpoint.status.to_string(), success);
    let is_page = endpoint.response.get("text/html").is_some();
    let mut by_status: BTreeMap<u16, Vec<Code>> = BTreeMap::new();
    for code in codes(endpoint) {
        by_status.entry(code.status()).or_default().push(code);
    }
    if is_page {
        // A page for people tells them itself what is wrong.
        by_status.remove(&400);
        all.insert("400".to_owned(), json!({"description": "Not valid", "content": endpoint.response}));
    }
    for (status, codes) in by_status {
        let words: Vec<&str> = codes.iter().map(|code| code.as_str()).collect();
        let sentences: Vec<String> =
            codes.iter().map(|code| format!("`{}`: {}", code.as_str(), code.sentence())).collect();
        let examples: Map<String, Value> = codes
            .iter()
            .map(|code| {
                let value = json!({"error": code.sentence(), "code": code.as_str()});
                (code.as_str().to_owned(), json!({"value": value}))
            })
            .collect();
        let schema = json!({
            "allOf": [{"$ref": "#/components/schemas/Error"}, {"properties": {"code": {"enum": words}}}],
        });
        let content = json!({"application/json": {"schema": schema, "examples": examples}});
        all.insert(status.to_string(), json!({"description": sentences.join("; "), "content": content}));
    }
    Value::Object(all)
}

/// Every code that an endpoint may answer with.
pub fn codes(endpoint: &Endpoint) -> Vec<Code> {
    let mut codes =
        vec![Code::HttpsRequired, Code::ForeignHost, Code::ForeignOrigin, Code::Internal, Code::Unavailable];
    if endpoint.class != Class::Public {
        codes.extend([Code::Unauthorized, Code::BadKey, Code::SessionExpired, Code::RateLimited]);
        codes.push(if endpoint.class == Class::Session { Code::SessionRequired } else { Code::KeyScope });
    }
    if endpoint.path.contains('{') {
        codes.push(Code::NotFound);
    }
    if !endpoint.query.is_empty() {
        codes.push(Code::BadQuery);
    }
    if endpoint.body.is_some() {
        codes.extend([Code::BadJson, Code::BadRequest, Code::BodyTooLarge]);
    }
    codes.extend(endpoint.errors);
    codes.sort_unstable();
    codes.dedup();
    codes
}

fn error_schema() -> Value {
    json!({
        "type": "object",
        "required": ["error", "code"],
        "properties": {
            "error": {"type": "string", "description": "A sentence for people; it may change."},
            "code": {"type": "string", "description": "A word for programs."},
            "field": {"type": "string", "description": "On 400, the field at fault when there is one."},
        },
    })
}

/// In answers a field that may be null is always there (contract: `T|null`); only a field that is neither required nor
/// nullable may be absent (`T?`).
fn always_present(mut schema: Value) -> Value {
    let Value::Object(object) = &mut schema else { return schema };
    if let Some(Value::Array(parts)) = object.get_mut("allOf") {
        for part in parts {
            *part = always_present(part.take());
        }
    }
    let Some(Value::Object(properties)) = object.get("properties") else { return schema };
    let mut required: Vec<Value> = object.get("required").and_then(Value::as_array).cloned().unwrap_or_default();
    for (name, property) in properties {
        if is_nullable(property) && !required.iter().any(|known| known == name) {
            required.push(Value::String(name.clone()));
        }
    }
    if !required.is_empty() {
        object.insert("required".to_owned(), Value::Array(required));
    }
    schema
}

fn is_nullable(property: &Value) -> bool {
    let is_null = |kind: &Value| kind == "null";
    let types = property.get("type").and_then(Value::as_array).is_some_and(|types| types.iter().any(is_null));
    let choices = property.get("oneOf").and_then(Value::as_array);
    types || choices.is_some_and(|choices| choices.iter().filter_map(|one| one.get("type")).any(is_null))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_types_share_a_name() {
        let mut seen: BTreeMap<String, Value> = BTreeMap::new();
        for endpoint in super::super::table() {
            for (name, schema) in endpoint.components.iter().chain(&endpoint.response_components) {
                let schema = to_value(schema);
                let known = seen.entry(name.clone()).or_insert_with(|| schema.clone());
                assert_eq!(*known, schema, "{name}");
            }
        }
    }
}
