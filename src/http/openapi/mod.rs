//! The OpenAPI 3.1 document (contract 2.1), built from the endpoint table and the handlers' types.
//!
//! Clients are generated from it: names are stable and independent of Rust's, repeated parts are components, and
//! required fields are listed.

mod names;
mod responses;

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value, json};
use utoipa::openapi::{RefOr, Schema};

use super::endpoint::{Class, Endpoint, Header};

const ABOUT: &str = "Mail in over SMTP, out as signed webhooks. Send the credential as `Authorization: Bearer …`: a \
    session token, the account's API key, or a key that is limited to one domain. Times are integers, milliseconds \
    since the Unix epoch. Errors are `{\"error\":\"<sentence>\",\"code\":\"<code>\"}`, with `field` if one field is \
    at fault. Lists are bare arrays, newest first where they are long; `before` is an exclusive cursor.";

const TAGS: &[(&str, &str)] = &[
    ("Service", "Health, readiness and facts of the server."),
    ("Signing in", "Sign-up, sessions and passwords."),
    ("Account", "The caller's account, its keys and secrets."),
    ("Domains", "Domains, their DNS records and their settings."),
    ("Routes", "Rules for mail to an address."),
    ("Messages", "Stored mail, received and sent."),
    ("Deliveries", "Webhook deliveries, done and pending."),
    ("Realtime", "Events as they happen."),
    ("Attachments", "Uploads, and downloads of attachments."),
    ("Sending", "Outbound mail, now or scheduled."),
    ("Suppressions and blocked senders", "Recipients that nothing is sent to, and senders whose mail is spam."),
    ("Templates", "Message templates with merge tags."),
    ("For compatibility", "Endpoints with a constant answer."),
];

/// Builds the document of a table.
pub(crate) fn document(table: &[Endpoint], public_url: &str) -> Value {
    let table: Vec<&Endpoint> = table.iter().filter(|endpoint| !endpoint.tag.is_empty()).collect();
    let mut paths: Map<String, Value> = Map::new();
    for endpoint in &table {
        let item = paths.entry(endpoint.path).or_insert_with(|| json!({}));
        if let Value::Object(item) = item {
            item.insert(endpoint.method.as_str().to_lowercase(), operation(endpoint));
        }
    }
    let mut document = json!({
        "openapi": "3.1.0",
        "info": {
            "title": "mailkite",
            "version": env!("CARGO_PKG_VERSION"),
            "description": ABOUT,
            "license": {"name": "MIT", "identifier": "MIT"},
        },
        "servers": [{"url": public_url}],
        "tags": TAGS.iter().map(|(name, about)| json!({"name": name, "description": about})).collect::<Vec<_>>(),
        "paths": paths,
        "components": {
            "schemas": schemas(&table),
            "responses": responses::shared(),
            "securitySchemes": {"bearer": {"type": "http", "scheme": "bearer"}},
        },
    });
    names::publish(&mut document);
    document
}

fn schemas(table: &[&Endpoint]) -> BTreeMap<String, Value> {
    let mut schemas: BTreeMap<String, Value> = BTreeMap::new();
    for endpoint in table {
        schemas.extend(endpoint.components.iter().map(|(name, schema)| (name.clone(), to_value(schema))));
        let answers = endpoint.response_components.iter();
        schemas.extend(answers.map(|(name, schema)| (name.clone(), always_present(to_value(schema)))));
    }
    for endpoint in table {
        let body = endpoint.body.as_ref().and_then(|body| body.pointer("/application~1json/schema/$ref"));
        let name = body.and_then(Value::as_str).and_then(|reference| reference.rsplit('/').next());
        if let Some(schema) = name.and_then(|name| schemas.get_mut(name)) {
            require(schema, endpoint.needs.unwrap_or_default());
        }
    }
    let document = json!({"type": "object", "description": "An OpenAPI document.", "additionalProperties": true});
    schemas.insert("OpenApiDocument".to_owned(), document);
    schemas.extend(responses::error_schemas().map(|(name, schema)| (name.to_owned(), schema)));
    schemas
}

fn to_value(schema: &RefOr<Schema>) -> Value {
    serde_json::to_value(schema).unwrap_or_default()
}

/// Marks fields as required; null counts as absent.
fn require(schema: &mut Value, fields: &[&str]) {
    let Value::Object(object) = schema else { return };
    let mut required: Vec<Value> = object.get("required").and_then(Value::as_array).cloned().unwrap_or_default();
    required.extend(fields.iter().map(|field| json!(field)));
    let mut seen = BTreeSet::new();
    required.retain(|field| field.as_str().is_some_and(|field| seen.insert(field.to_owned())));
    if !required.is_empty() {
        object.insert("required".to_owned(), Value::Array(required));
    }
}

fn operation(endpoint: &Endpoint) -> Value {
    let mut parameters: Vec<Value> = path_parameters(endpoint.path);
    parameters.extend(endpoint.query.iter().cloned());
    parameters.extend(endpoint.headers.iter().map(header));
    let description = [endpoint.description, accepted_credentials(endpoint.class)].join(" ");
    let mut operation = json!({
        "operationId": endpoint.id,
        "tags": [endpoint.tag],
        "summary": endpoint.summary,
        "description": description.trim(),
        "parameters": parameters,
        "responses": responses::of(endpoint),
        "security": if endpoint.class == Class::Public { json!([]) } else { json!([{"bearer": []}]) },
    });
    if let (Value::Object(operation), Some(content)) = (&mut operation, &endpoint.body) {
        operation.insert("requestBody".to_owned(), json!({"required": endpoint.needs.is_some(), "content": content}));
    }
    operation
}

const fn accepted_credentials(class: Class) -> &'static str {
    match class {
        Class::Public => "No credential is needed.",
        Class::Any | Class::Stream => "Takes a session, the account key, or a scoped key within its domain.",
        Class::Account => "Takes a session or the account key; a scoped key gets 403 `key_scope`.",
        Class::Session => "Takes a session alone; a key gets 403 `session_required`.",
    }
}

fn path_parameters(path: &str) -> Vec<Value> {
    let names = path.split('/').filter_map(|segment| segment.strip_prefix('{')?.strip_suffix('}'));
    names.map(|name| json!({"name": name, "in": "path", "required": true, "schema": {"type": "string"}})).collect()
}

fn header(header: &Header) -> Value {
    let Header { name, about, example } = header;
    json!({
        "name": name, "in": "header", "required": false, "description": about, "example": example,
        "schema": {"type": "string"},
    })
}

/// Marks nullable fields of responses as required: they are always present (contract: `T|null`); only a field that is
/// neither required nor nullable may be absent (`T?`).
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

    #[test]
    fn what_a_body_needs_is_one_of_its_fields() {
        for endpoint in super::super::table() {
            let fields: BTreeSet<String> = endpoint
                .components
                .iter()
                .filter_map(|(_, schema)| Some(to_value(schema).get("properties")?.as_object()?.clone()))
                .flat_map(|properties| properties.into_iter().map(|(name, _)| name))
                .collect();
            for field in endpoint.needs.unwrap_or_default() {
                assert!(fields.contains(*field), "{}: {field}", endpoint.path);
            }
        }
    }
}
