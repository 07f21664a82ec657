//! Responses of an endpoint: its success, and its errors by status. Responses of many endpoints are components.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use crate::http::endpoint::{Class, Endpoint};
use crate::http::error::Code;

/// Every endpoint may refuse an ambiguous request.
const BAD_REQUEST: &[Code] = &[Code::BadRequest];
const BAD_QUERY: &[Code] = &[Code::BadQuery, Code::BadRequest];
const BAD_BODY: &[Code] = &[Code::BadJson, Code::BadRequest];
const UNAUTHORIZED: &[Code] = &[Code::Unauthorized, Code::BadKey, Code::SessionExpired];
const FORBIDDEN: &[Code] = &[Code::HttpsRequired, Code::ForeignHost, Code::ForeignOrigin];
const OUT_OF_SCOPE: &[Code] = &[Code::KeyScope, Code::HttpsRequired, Code::ForeignHost, Code::ForeignOrigin];
const NO_SESSION: &[Code] = &[Code::SessionRequired, Code::HttpsRequired, Code::ForeignHost, Code::ForeignOrigin];

/// Responses that many endpoints share, by their names in the document.
const SHARED: &[(&str, &[Code])] = &[
    ("BadRequest", BAD_REQUEST),
    ("BadQuery", BAD_QUERY),
    ("BadBody", BAD_BODY),
    ("Unauthorized", UNAUTHORIZED),
    ("Forbidden", FORBIDDEN),
    ("OutOfScope", OUT_OF_SCOPE),
    ("SessionRequired", NO_SESSION),
    ("NotFound", &[Code::NotFound]),
    ("LimitReached", &[Code::LimitReached]),
    ("BodyTooLarge", &[Code::BodyTooLarge]),
    ("RateLimited", &[Code::RateLimited]),
    ("Internal", &[Code::Internal]),
    ("Unavailable", &[Code::Unavailable]),
];

/// Returns every code that an endpoint may answer with.
fn codes(endpoint: &Endpoint) -> Vec<Code> {
    let mut codes = [BAD_REQUEST, FORBIDDEN, &[Code::Internal, Code::Unavailable]].concat();
    if endpoint.class != Class::Public {
        codes.extend(UNAUTHORIZED);
        codes.push(Code::RateLimited);
        codes.push(if endpoint.class == Class::Session { Code::SessionRequired } else { Code::KeyScope });
    }
    if endpoint.needs_verified_email {
        codes.push(Code::EmailNotVerified);
    }
    if endpoint.path.contains('{') {
        codes.push(Code::NotFound);
    }
    if !endpoint.query.is_empty() {
        codes.push(Code::BadQuery);
    }
    if endpoint.body.is_some() {
        codes.extend([Code::BadJson, Code::BodyTooLarge]);
    }
    codes.extend(&endpoint.errors);
    codes.sort_unstable();
    codes.dedup();
    codes
}

/// Returns the shared responses.
pub(crate) fn shared() -> BTreeMap<&'static str, Value> {
    SHARED.iter().map(|(name, codes)| (*name, refusal(codes, "Error"))).collect()
}

/// Returns the schema of errors, and that of a failed readiness check.
pub(crate) fn error_schemas() -> impl Iterator<Item = (&'static str, Value)> {
    let fields = json!({
        "error": {"type": "string", "description": "A sentence for people; it may change."},
        "code": {"type": "string", "description": "A word for programs."},
    });
    let mut error = json!({
        "type": "object",
        "description": "What went wrong.",
        "required": ["error", "code"],
        "properties": fields,
    });
    let mut not_ready = error.clone();
    if let Some(Value::Object(properties)) = error.pointer_mut("/properties") {
        let about = "On 400, the field at fault when there is one.";
        properties.insert("field".to_owned(), json!({"type": "string", "description": about}));
    }
    if let Some(Value::Object(properties)) = not_ready.pointer_mut("/properties") {
        properties.insert("ok".to_owned(), json!({"type": "boolean"}));
        properties.insert("checks".to_owned(), json!({"$ref": "#/components/schemas/ReadyChecks"}));
    }
    [("Error", error), ("NotReady", not_ready)].into_iter()
}

/// Returns all responses of an endpoint, by status.
pub(crate) fn of(endpoint: &Endpoint) -> Value {
    let mut all = Map::new();
    let success = success(endpoint);
    all.extend(endpoint.also.map(|status| (status.to_string(), success.clone())));
    all.insert(endpoint.status.to_string(), success);
    let mut by_status: BTreeMap<u16, Vec<Code>> = BTreeMap::new();
    for code in codes(endpoint) {
        by_status.entry(code.status()).or_default().push(code);
    }
    if let Some(page) = endpoint.response.get("text/html") {
        // An HTML page reports its own error.
        let mut refused = refusal(&by_status.remove(&400).unwrap_or_default(), "Error");
        if let Some(Value::Object(content)) = refused.get_mut("content") {
            content.insert("text/html".to_owned(), page.clone());
        }
        all.insert("400".to_owned(), refused);
    }
    all.extend(by_status.into_iter().map(|(status, codes)| (status.to_string(), refused(&codes))));
    Value::Object(all)
}

fn success(endpoint: &Endpoint) -> Value {
    let mut success = Map::from_iter([("description".to_owned(), json!(endpoint.summary))]);
    if !endpoint.response.is_null() {
        success.insert("content".to_owned(), endpoint.response.clone());
    }
    if !endpoint.response_headers.is_empty() {
        let named = endpoint.response_headers.iter().map(|(name, about)| ((*name).to_owned(), text_header(about)));
        success.insert("headers".to_owned(), Value::Object(named.collect()));
    }
    Value::Object(success)
}

/// Returns a reference to the component with exactly these codes, or an inline response.
fn refused(codes: &[Code]) -> Value {
    let alike = |(_, shared): &&(&str, &[Code])| {
        shared.len() == codes.len() && shared.iter().all(|code| codes.contains(code))
    };
    match SHARED.iter().find(alike) {
        Some((name, _)) => json!({"$ref": format!("#/components/responses/{name}")}),
        None if codes.contains(&Code::NotReady) => refusal(codes, "NotReady"),
        None => refusal(codes, "Error"),
    }
}

/// Returns a response with one of these codes, which share a status.
fn refusal(codes: &[Code], schema: &str) -> Value {
    let sentences: Vec<String> =
        codes.iter().map(|code| format!("`{}`: {}", code.as_str(), code.sentence())).collect();
    let examples: Map<String, Value> = codes
        .iter()
        .map(|code| {
            let value = json!({"error": code.sentence(), "code": code.as_str()});
            (code.as_str().to_owned(), json!({"value": value}))
        })
        .collect();
    let schema = json!({"$ref": format!("#/components/schemas/{schema}")});
    let content = json!({"application/json": {"schema": schema, "examples": examples}});
    let mut answer = json!({"description": sentences.join("; "), "content": content});
    let header = match codes.first().map(|code| code.status()) {
        Some(401) => json!({"WWW-Authenticate": text_header("`Bearer`.")}),
        Some(429 | 503) => {
            let about = "Whole seconds to wait.";
            json!({"Retry-After": {"description": about, "schema": {"type": "integer"}}})
        }
        _ => return answer,
    };
    if let Value::Object(answer) = &mut answer {
        answer.insert("headers".to_owned(), header);
    }
    answer
}

fn text_header(about: &str) -> Value {
    json!({"description": about, "schema": {"type": "string"}})
}
